"""A test of boxes counted by hand: what networks answer is made up, so it is known how much of it is wrong."""

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace

import accessibility
import naive_boxes as merging
import numpy as np
import pyarrow.parquet
import pytest
import torch
import translated_pages
from PIL import Image
from rich.console import Console

import verydeep.localisation.evaluate
import verydeep.localisation.report
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.tolerance import Tolerance
from verydeep.localisation.evaluate import _centre_crop_boxes, evaluate_boxes
from verydeep.localisation.options import FullProcedure
from verydeep.localisation.predict import predict_boxes
from verydeep.localisation.report import write_localisation_report
from verydeep.localisation.results import full_errors, write_box_predictions
from verydeep.localisation.tables import localisation_tables
from verydeep.networks.architecture import Architecture
from verydeep.networks.vgg import VGG
from verydeep.presentation.pages import shared_folder
from verydeep.runs.model import Model, save_model

CLASSES = tuple("abcdefg")
CROP, IMAGES, GONE = 32, 42, 10
SCORES = [5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 0.0]
RANKS = dict(zip(CLASSES, (1, 2, 3, 4, 6, 6, 7), strict=True))  # of equals the right one is the last
OF_CLASS = [(0.5, 0.5, 0.5 + 0.04 * label, 0.8 - 0.04 * label) for label in range(7)]
OF_ALL = (0.85, 0.85, 0.9, 1.1)  # of the middle, more or less, as the first of four windows sees it
SIDES = {"one": 37, "two": 64}  # of S = 256 and 448


def saved(folder, answers, *, scale, regression=None, classes=CLASSES, crop=CROP):
    """Save a run that gives the same answer for every image."""
    net = VGG(Architecture(network="A", classes=len(classes), crop=crop, width=0.05, boxes=regression))
    with torch.no_grad():
        net.fc8.weight.zero_()
        net.fc8.bias[:] = torch.tensor(answers).flatten()
    save_model(Model(net=net, classes=classes, scale=scale, flip=True), folder)
    return folder


def pictures(folder):
    """Make files in folders of classes, and boxes.csv; return the size and the box of each file."""
    rng, found = np.random.default_rng(5), {}
    for index in range(IMAGES):
        height, width = (48, 60) if index % 2 else (60, 48)
        half, middle = rng.uniform(8, 16, 2), np.array([width, height]) / 2 + rng.uniform(-6, 6, 2)
        box = np.concatenate([middle - half, middle + half]).round(2)
        name = f"{CLASSES[index % 7]}/{index:02}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (90, 90, 90)).save(folder / name)
        found[name] = ((height, width), box)
    lines = [",".join([name, *map(str, box.tolist()), name[0]]) for name, (_, box) in found.items()]
    (folder / "boxes.csv").write_text("\n".join(lines))
    return found


def in_image(answer, size, side, top, left):
    """Return edges in an image of `size`, given a box in units of a crop of the rescaled image."""
    x, y, w, h = answer
    edges = CROP * np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) + [left, top, left, top]
    whole = [round(edge * side / min(size)) for edge in size]
    return edges * ([size[1] / whole[1], size[0] / whole[0]] * 2)


def centre_box(run, label, size):
    tall, broad = (round(edge * SIDES[run] / min(size)) for edge in size)
    answer = OF_CLASS[label] if run == "one" else OF_ALL
    box = in_image(answer, size, SIDES[run], (tall - CROP) // 2, (broad - CROP) // 2)
    return np.clip(box, 0, [size[1], size[0]] * 2)


def best_box(runs, label, size):
    """Return the merged box of all windows of some runs, all of them rated alike."""
    boxes = []
    for run in runs:
        tall, broad = (round(edge * SIDES[run] / min(size)) for edge in size)
        answer = OF_CLASS[label] if run == "one" else OF_ALL
        for top in range(tall % 32 // 2, tall - CROP + 1, 32):
            for left in range(broad % 32 // 2, broad - CROP + 1, 32):
                boxes.append(in_image(answer, size, SIDES[run], top, left))
    return np.clip(merging.naive(boxes, np.ones(len(boxes)))[0][0], 0, [size[1], size[0]] * 2)


def share(wrong):
    return pytest.approx(100 * sum(wrong) / len(wrong))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make runs and images, and test them; one image cannot be used at first."""
    place = tmp_path_factory.mktemp("a-folder-with-a-long-name")
    images = pictures(place / "images")
    one = saved(place / "one", OF_CLASS, scale="256", regression="per-class")
    two = saved(place / "two", OF_ALL, scale="448", regression="shared")
    classifier = saved(place / "classifier", SCORES, scale="320")
    gone = sorted(images)[GONE]
    file = place / "images" / gone

    def without_one(*arguments, **options):
        held = file.read_bytes()
        file.write_bytes(b"")
        try:
            return _centre_crop_boxes(*arguments, **options)
        finally:
            file.write_bytes(held)

    parts = {
        "data": str(place / "images"),
        "options": BoxOptions(boxes=(place / "images" / "boxes.csv",)),
        "tolerance": Tolerance(max_bad=50),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verydeep.localisation.evaluate, "_centre_crop_boxes", without_one)
        found = evaluate_boxes([one, two], **parts, full=FullProcedure(classifiers=(classifier,)))
    usable = {name: images[name] for name in sorted(images) if name != gone}
    return SimpleNamespace(
        found=found, images=usable, gone=gone, one=one, two=two, classifier=classifier, parts=parts, place=place
    )


def test_the_simplified_test_counts_what_is_wrong(made):
    found, labels = made.found, [CLASSES.index(name[0]) for name in made.images]
    assert (found.split, found.n, list(found.unusable)) == ("all", IMAGES - 1, [made.gone])
    assert found.images.ids == tuple(made.images)
    for place, (run, errors) in enumerate(zip(SIDES, found.simplified, strict=True)):
        boxes = [centre_box(run, label, size) for label, (size, _) in zip(labels, made.images.values(), strict=True)]
        np.testing.assert_allclose(found.images.predicted[place], boxes, atol=1e-4)
        ious = [merging.overlap(box, true) for box, (_, true) in zip(boxes, made.images.values(), strict=True)]
        wrong = [iou <= 0.5 for iou in ious]
        assert 0 < sum(wrong) < len(wrong)
        assert (errors.wrong, errors.error, errors.n) == (sum(wrong), share(wrong), IMAGES - 1)
        assert errors.mean_iou == pytest.approx(sum(ious) / len(ious), abs=1e-5)
        if run == "one":
            by_class = [[bad for bad, its in zip(wrong, labels, strict=True) if its == label] for label in range(7)]
            assert [(one.name, one.n, one.wrong) for one in found.per_class] == [
                (name, len(its), sum(its)) for name, its in zip(CLASSES, by_class, strict=True)
            ]


def test_the_full_test_counts_what_is_wrong(made):
    found = made.found
    assert (found.classifiers, found.classifier_scales) == ((str(made.classifier),), ((320,),))
    groups = {str(made.one): ["one"], str(made.two): ["two"], "all together": ["one", "two"]}
    assert [(row.name, row.scales) for row in found.full] == list(
        zip(groups, [(256,), (448,), (256, 448)], strict=True)
    )
    several = set()
    for row, runs in zip(found.full, groups.values(), strict=True):
        boxes = {name: best_box(runs, CLASSES.index(name[0]), size) for name, (size, _) in made.images.items()}
        wrong = {name: merging.overlap(boxes[name], true) <= 0.5 for name, (_, true) in made.images.items()}
        first = [bad or RANKS[name[0]] > 1 for name, bad in wrong.items()]
        five = [bad or RANKS[name[0]] > 5 for name, bad in wrong.items()]
        assert 0 < sum(wrong.values()) < sum(five) < sum(first) < row.n == IMAGES - 1
        assert (row.true_class_error, row.top1_error, row.top5_error) == (
            share(wrong.values()),
            share(first),
            share(five),
        )
        several.add((sum(wrong.values()), sum(first), sum(five)))
    assert len(several) == 3, "the rows are to differ, or it could not be seen which is which"


def test_images_that_the_full_test_alone_cannot_use_are_told(made, tmp_path, monkeypatch):
    file, shown = made.place / "images" / made.gone, verydeep.localisation.evaluate.full_test

    def without_one(*arguments, **options):
        held = file.read_bytes()
        file.write_bytes(b"")
        try:
            yield from shown(*arguments, **options)
        finally:
            file.write_bytes(held)

    monkeypatch.setattr(verydeep.localisation.evaluate, "full_test", without_one)
    found = evaluate_boxes([made.one], **made.parts, full=FullProcedure(classifiers=(made.classifier,)))
    assert (found.n, found.full[0].n, list(found.unusable)) == (IMAGES, IMAGES - 1, [made.gone])
    told = f"1 of {IMAGES} images cannot be used at"
    assert told in " ".join(text_of(localisation_tables(found)).split())
    english, japanese = (
        write_localisation_report(found, tmp_path / one, data=made.parts["data"], language=one).read_text()
        for one in ("en", "ja")
    )
    assert told in english
    assert f"画像{IMAGES}枚のうち1枚は" in japanese
    translated_pages.check(english, japanese)
    assert "cannot be used at" not in text_of(localisation_tables(made.found))


@pytest.mark.parametrize("other", ["one/", "images/../one", "link"])
def test_a_run_is_tested_once_however_it_is_written(made, tmp_path, other):
    (tmp_path / "link").symlink_to(made.one)
    second = tmp_path / other if other == "link" else f"{made.place}/{other}"
    with pytest.raises(ValueError, match="name one or more runs of boxes, each once"):
        evaluate_boxes([made.one, second], **made.parts)


def test_a_runs_figures_do_not_depend_on_the_runs_beside_it(made):
    full = FullProcedure(classifiers=(made.classifier,))
    whole = evaluate_boxes([made.one, made.two], **made.parts, full=full)
    for run, row in zip((made.one, made.two), whole.full, strict=False):
        assert evaluate_boxes([run], **made.parts, full=full).full == (row,)


def test_scales_that_are_said_are_for_all_networks(made):
    full = FullProcedure(classifiers=(made.classifier,), scales=(256, 448))
    found = evaluate_boxes([made.one, made.two], **made.parts, full=full)
    assert {row.scales for row in found.full} | set(found.classifier_scales) == {(256, 448)}


def test_predictions_are_the_most_probable_classes_each_with_its_own_box(made):
    full = FullProcedure(classifiers=(made.classifier,))
    files = [Path(made.parts["data"]) / name for name in list(made.images)[:9:4]]
    for file, found in zip(files, predict_boxes(made.one, files, full=full, top=4), strict=True):
        size, _ = made.images[f"{file.parent.name}/{file.name}"]
        assert found.classes == CLASSES[:4]
        assert found.probabilities == pytest.approx((np.exp(SCORES) / np.exp(SCORES).sum())[:4], abs=1e-6)
        np.testing.assert_allclose(found.boxes, [best_box(["one"], label, size) for label in range(4)], atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_has_diverged_is_told_and_no_image_counts(made, tmp_path, value):
    """NaN compares as false with everything, so its images would be left out, or count as right."""
    boxes = saved(tmp_path / "boxes", 7 * [4 * [value]], scale="256", regression="per-class")
    scores = saved(tmp_path / "scores", [0.0, *6 * [value]], scale="256")
    good, bad = FullProcedure(classifiers=(made.classifier,)), FullProcedure(classifiers=(made.classifier, scores))
    file = Path(made.parts["data"]) / next(iter(made.images))
    for call, told in (
        (lambda: evaluate_boxes([made.one, boxes], **made.parts), f"the boxes of {boxes}"),
        (lambda: evaluate_boxes([made.one], **made.parts, full=bad), f"the scores of {scores}"),
        (lambda: list(predict_boxes(made.one, file, full=bad)), f"the scores of {scores}"),
        (lambda: list(predict_boxes(boxes, file, full=good)), f"the boxes of {boxes}"),
    ):
        with pytest.raises(ValueError, match="are not finite: its training has diverged") as refused:
            call()
        assert str(refused.value).startswith(told)


@pytest.mark.parametrize("classes", [CLASSES[::-1], tuple("hijklmn")])
def test_runs_with_other_classes_are_refused(made, tmp_path, classes):
    other = saved(tmp_path / "other", OF_CLASS, scale="256", regression="per-class", classes=classes)
    with pytest.raises(ValueError, match="have different classes: test them one by one"):
        evaluate_boxes([made.one, other], **made.parts)


def test_runs_with_other_crops_are_refused(made, tmp_path):
    """The page says one crop of all of them."""
    other = saved(tmp_path / "other", OF_CLASS, scale="256", regression="per-class", crop=2 * CROP)
    with pytest.raises(ValueError, match="have different crops: test them one by one"):
        evaluate_boxes([made.one, other], **made.parts)


@pytest.mark.parametrize(("classes", "told"), [(5, False), (6, True)])
def test_top_5_errors_are_of_more_than_five_classes(classes, told):
    wrong = np.array([[False, True], [True, True], [False, True]])
    found = full_errors("run", wrong, scales=(256,), classes=classes)
    assert (found.true_class_error, found.top1_error) == (50.0, 100.0)
    assert (found.top5_error, found.top5_error_ci95 is None) == ((50.0, False) if told else (None, True))


def test_predictions_are_the_same_in_every_kind_of_file(made, tmp_path):
    for kind in ("csv", "parquet"):
        write_box_predictions(made.found, tmp_path / f"boxes.{kind}")
    table = pyarrow.parquet.read_table(tmp_path / "boxes.parquet").to_pylist()
    with (tmp_path / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{name: str(value) for name, value in row.items()} for row in table] == rows
    shown = made.found.images
    places = [(place, index) for place in (0, 1) for index in range(made.found.n)]
    assert len(table) == len(places)
    for row, (place, index) in zip(table, places, strict=True):
        name = shown.ids[index]
        assert (row["run"], row["id"], row["true_class"]) == (made.found.runs[place], name, name[0])
        assert [row[f"true_{side}"] for side in ("x0", "y0", "x1", "y1")] == made.images[name][1].tolist()
        assert [row[side] for side in ("x0", "y0", "x1", "y1")] == shown.predicted[place, index].tolist()
        assert row["iou"] == shown.overlaps[place, index]


def text_of(tables, width=200):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def test_tables_tell_the_figures_and_name_the_shared_folder_once(made):
    tables = localisation_tables(made.found)
    text = text_of(tables)
    lines = [line.split() for line in text.splitlines()]
    for row in made.found.simplified:
        name = row.name.rsplit("/", 1)[-1]
        (line,) = [line for line in lines if line[:2] == [name, row.regression]]
        low, high = row.error_ci95
        figures = [f"{row.error:.2f}", f"{low:.2f}", "to", f"{high:.2f}", f"{row.mean_iou:.3f}", "–"]
        assert line[-6:] == figures
    lines = [line.split() for line in text_of(tables[-1:]).splitlines()]
    for row in made.found.full:
        (line,) = [line for line in lines if f"{row.top5_error:.2f}" in line]
        scales = ", ".join(map(str, row.scales))
        assert " ".join(line).startswith(f"{row.name.rsplit('/', 1)[-1]} {scales} {row.true_class_error:.2f} ")
        assert f"{row.top1_error:.2f}" in line
    assert text.count(made.place.name) == 2, "of the images, and of the runs"
    assert f"The runs are in {made.place}/" in " ".join(text.split())


@pytest.mark.parametrize(
    ("folders", "shared"),
    [
        (["runs/a"], ""),
        (["runs/a", "runs/b"], "runs/"),
        (["/x/runs/a", "/x/runs/a/model"], "/x/runs/"),
        (["a", "b"], ""),
        (["runs/a", "run/a"], ""),
        (["/x/a", "x/a"], ""),
        (["runs", "runs/a"], ""),
    ],
)
def test_folders_that_runs_share(folders, shared):
    assert shared_folder(folders) == shared


@pytest.fixture(scope="module")
def page(made):
    """Write the page, and note what was drawn for it."""
    drawn, draw = [], verydeep.localisation.report.with_boxes_drawn

    def noting(image, **boxes):
        drawn.append((image.shape, boxes))
        return draw(image, **boxes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verydeep.localisation.report, "with_boxes_drawn", noting)
        file = write_localisation_report(made.found, made.place / "page", data=made.parts["data"])
    return SimpleNamespace(text=file.read_text(), drawn=drawn, folder=file.parent)


def test_pictures_have_the_boxes_of_their_images(made, page):
    shown = made.found.images
    worst = np.argsort(shown.overlaps[0], kind="stable")[: min(12, made.found.simplified[0].wrong)]
    for place, (shape, boxes) in zip(worst, page.drawn, strict=False):
        size, true = made.images[shown.ids[place]]
        factor = shape[0] / size[0]
        assert shape[:2] == tuple(round(edge * factor) for edge in size)
        np.testing.assert_allclose(boxes["true"], true * factor)
        np.testing.assert_allclose(boxes["predicted"], shown.predicted[0, [place]] * factor)


def test_the_page_says_what_is_so(made, page):
    text = " ".join(page.text.split())
    together = made.found.full[-1]
    assert f"With no class given, the class or the box is wrong for {together.top1_error:.1f}% of the images" in text
    assert "<td>256, 448</td>" in text
    assert f"{made.classifier} (classes ranked at Q = 320)" in text
    assert "Windows 32 pixels apart are cut out" in text
    assert f'<p class="faint">The runs are in {made.place}/</p>' in text
    assert "The figures above are of 7 classes, network A, crop 32" in text
    for row in made.found.simplified:
        assert f"<td>{row.error:.1f}</td>" in text
    assert json.loads((page.folder / "localisation.json").read_text())["full"][2]["scales"] == [256, 448]


def test_the_page_needs_no_other_file_and_can_be_read_by_everybody(page):
    assert accessibility.problems(page.text) == []


def test_the_same_in_japanese(made, page, tmp_path):
    file = write_localisation_report(made.found, tmp_path, data=made.parts["data"], language="ja")
    translated_pages.check(page.text, file.read_text())


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_page_without_complaint_and_readably(page, dark, tmp_path):
    (said,) = accessibility.shown_by_a_browser(page.text, tmp_path, dark=dark)
    found = json.loads(said)
    assert found.pop("texts") > 100
    assert found == {"dark": dark, "faint": [], "wide": False}
