"""Features on images with several labels, and with given test images, against naive computations."""

import csv
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import accessibility
import numpy as np
import pytest
import several_commands as commands
from PIL import Image, ImageDraw
from random_networks import save_network
from sklearn.metrics import precision_recall_curve
from sklearn.svm import LinearSVC

from verydeep import Descriptor, features
from verydeep.descriptors import files
from verydeep.images.annotations.label_files import several_labels
from verydeep.images.sources.given import given_images
from verydeep.images.tolerance import Tolerance
from verydeep.transfer_learning.classifier_folder import load_classifier
from verydeep.transfer_learning.classify import classify
from verydeep.transfer_learning.labels import Labelled, transfer_splits
from verydeep.transfer_learning.linear_svm import CHOICES_OF_C, fit_choosing_c, multilabel_split
from verydeep.transfer_learning.measures import _resampled_average_precisions, measured
from verydeep.transfer_learning.options import TransferOptions
from verydeep.transfer_learning.transfer import transfer

run = commands.status_of

CLASSES = ("ball", "bar", "box", "tile")
COLOURS = ((230, 40, 40), (40, 200, 60), (50, 70, 240), (235, 220, 40))
IMAGES = 60
FEW = TransferOptions(train=8, test=8, splits=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two networks with random weights, and pictures of one to three coloured shapes, with files of their labels."""
    place = tmp_path_factory.mktemp("labels")
    for seed, name in enumerate("AB"):
        save_network(place / name, name=name, seed=seed)
    rng, lines = np.random.default_rng(0), ["file,class"]
    for number in range(IMAGES):
        name = f"{'old' if number % 2 else 'new'}/{number}.png"
        picture = Image.fromarray(rng.integers(0, 60, (40, 52, 3)).astype(np.uint8))
        for label in rng.permutation(4)[: rng.integers(1, 4)]:
            x, y = (int(value) for value in rng.integers(0, 22, 2))
            height, width = ((18, 18), (6, 30), (18, 18), (14, 26))[label]
            shape = ImageDraw.Draw(picture).ellipse if label == 0 else ImageDraw.Draw(picture).rectangle
            shape((x, y, x + width, y + height), fill=COLOURS[label])
            lines.append(f"{name},{CLASSES[label]}")
        (place / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(place / "photos" / name)
    (place / "labels.csv").write_text("\n".join(lines) + "\n")
    (place / "test.txt").write_text("\n".join(str(number) for number in range(40, IMAGES)))
    return SimpleNamespace(
        place=place,
        photos=place / "photos",
        runs=[place / "A", place / "B"],
        labels=place / "labels.csv",
        test=place / "test.txt",
    )


def several(images, seed=0, *, difficult=0.05, shares=(0.1, 0.2, 0.5)):
    rng = np.random.default_rng(seed)
    shown = np.where(rng.random((images, len(shares))) < shares, 1, -1).astype(np.int8)
    shown[rng.random(shown.shape) < difficult] = 0
    return shown


def area(shown, scores):
    """Return the average precision from scikit-learn's curve, interpolated here."""
    counted = shown != 0
    precisions, recalls, _ = precision_recall_curve(shown[counted] > 0, scores[counted])
    return -np.sum(np.diff(recalls) * np.maximum.accumulate(precisions)[:-1])


def naive_svm(vectors, shown, c):
    """Return weights and biases of each class in turn."""
    solvers = [
        LinearSVC(C=c, dual=False, tol=1e-8, max_iter=10_000).fit(vectors[its != 0].astype(float), its[its != 0] > 0)
        for its in shown.T
    ]
    return lambda rows: np.stack([solver.decision_function(rows.astype(float)) for solver in solvers], axis=1)


def naive_choice(vectors, shown):
    """Return the C with the highest mAP on the held-out fifth, the middle one of several."""
    fitting, choosing = multilabel_split(shown)
    found = []
    for c in CHOICES_OF_C:
        scores = naive_svm(vectors[fitting], shown[fitting], c)(vectors[choosing])
        found.append(np.mean([area(shown[choosing, k], scores[:, k]) for k in range(shown.shape[1])]))
    best = [c for c, value in zip(CHOICES_OF_C, found, strict=True) if value > max(found) - 1e-6]
    return best[len(best) // 2]


def vectors_of(shown, *, noise, seed=0, numbers=15):
    rng = np.random.default_rng(seed)
    found = (shown > 0) @ rng.normal(size=(shown.shape[1], numbers)) + noise * rng.normal(size=(len(shown), numbers))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_images_are_sampled_from_the_rarest_class_to_the_most_common():
    shown = several(250, shares=(0.4, 0.15, 0.5))
    draw = TransferOptions(train=9, test=7, splits=3, seed=5)
    found = transfer_splits(Labelled(classes=("a", "b", "c"), labels=shown), draw)
    for number, (train, test) in enumerate(found):
        order = np.random.Generator(np.random.PCG64([5, number])).permutation(250).tolist()
        left, parts = set(range(250)), []
        for wanted in (9, 7):
            taken = set()
            for shows in (*(lambda i, k=k: shown[i, k] > 0 for k in (1, 0, 2)), lambda i: max(shown[i]) < 1):
                for image in order:
                    if sum(shows(other) for other in taken) < wanted and shows(image) and image in left - taken:
                        taken.add(image)
            left -= taken
            parts.append(sorted(taken))
        assert [train.tolist(), test.tolist()] == parts
        assert not set(train) & set(test)
        assert (shown[train] > 0).sum(axis=0).min() == 9
        assert (shown[test] > 0).sum(axis=0).min() == 7
        assert sum(max(shown[image]) < 1 for image in train) == 9
    again = transfer_splits(Labelled(classes=("a", "b", "c"), labels=shown), draw)
    assert all(np.array_equal(one, other) for one, other in zip(np.hstack(found[0]), np.hstack(again[0]), strict=True))
    assert len({tuple(train) for train, _ in found}) == 3


def refused(shown, message, *, for_testing=None, train=4):
    names = tuple("abcdefgh"[: shown.shape[1]])
    labelled = Labelled(classes=names, labels=shown.astype(np.int8), for_testing=for_testing)
    with pytest.raises(ValueError, match=message):
        transfer_splits(labelled, TransferOptions(train=train, test=3, splits=1))


def test_splits_without_the_images_that_an_svm_needs_are_refused():
    shown = np.full((40, 3), -1)
    shown[:20, 0] = shown[20:, 1] = shown[:4, 2] = 1
    refused(shown, r"--train 4 needs 5 images of each class or more.* only 4 of c can be used: lower --train")
    everywhere = np.column_stack([shown[:, :2], np.ones(40)])
    refused(everywhere, r"each of the 8 training images shows c: some that do not are needed; change --train, or leave")
    last = np.arange(40) >= 36
    refused(
        shown,
        r"each class needs 1 or more of the 4 test images, but there are 0 of a, 0 of c: take other",
        for_testing=last,
    )
    ring = np.array([[1, -1, 1], [1, 1, -1], [-1, 1, 1]] + [[-1] * 3] * 3 + [[1, 1, 1]])
    for_testing = np.arange(7) == 6
    refused(ring, r"each of the 1 test image shows a, b, c", for_testing=for_testing)
    ring[[5, 6]] = [[1, 1, 1], [-1, -1, -1]]
    refused(ring[[0, 1, 2, 3, 5, 6]], r"too few training images show [abc]", for_testing=np.arange(6) >= 4)


def test_a_common_class_that_rarer_ones_use_up_is_refused():
    """All images of the common class show a rare one too, and all but one of a rare one's are for training."""
    shown = np.full((30, 4), -1)
    for label in range(3):
        shown[label * 5 : label * 5 + 4, label] = 1
    shown[[0, 1, 5, 6, 10, 11], 3] = shown[[4, 9, 14], [0, 1, 2]] = 1
    message = r"each class needs 1 or more of the [0-9]+ test images, but there are 0 of d: change --train"
    labelled = Labelled(classes=tuple("abcd"), labels=shown.astype(np.int8))
    draws = [TransferOptions(train=4, test=1, splits=1, seed=seed) for seed in range(40)]
    refusals = [str(told) for told in map(partial(_refusal, labelled), draws) if told]
    assert len(refusals) < 40
    assert any(re.fullmatch(message, told) for told in refusals)


def _refusal(labelled, draw):
    try:
        transfer_splits(labelled, draw)
    except ValueError as error:
        return error
    return None


def test_a_fifth_of_each_class_is_held_out_and_the_rest_shows_all():
    for seed in range(10):
        shown = several(60, seed, shares=(0.06, 0.3, 0.5, 0.9))
        fitting, choosing = multilabel_split(shown)
        assert sorted(fitting + choosing) == list(range(60))
        assert (fitting, choosing) == multilabel_split(shown)
        positive = shown > 0
        for label in range(4):
            if positive[:, label].sum() < 2:
                continue
            assert positive[choosing, label].sum() >= max(1, round(0.2 * positive[:, label].sum()))
            assert positive[fitting, label].any()
            assert (shown[fitting, label] < 0).any()


def test_svms_are_those_of_each_class_against_the_images_known_not_to_show_it():
    chosen = set()
    for seed, noise in enumerate((0.3, 1.0, 2.0, 3.0)):
        shown = several(120, seed)
        vectors = vectors_of(shown, noise=noise, seed=seed)
        svm = fit_choosing_c(vectors, shown)
        assert svm.c == naive_choice(vectors, shown)
        np.testing.assert_allclose(svm.scores(vectors), naive_svm(vectors, shown, svm.c)(vectors), atol=1e-4)
        chosen.add(svm.c)
    assert len(chosen) > 1, "a constant would have passed"


def test_intervals_resample_images_with_all_their_answers():
    shown, rng = several(80), np.random.default_rng(1)
    tested = rng.random((2, 80)) < 0.6
    scores = [rng.normal(size=(2, 80, 3)).astype(np.float32) + pull * (shown > 0) for pull in (2, 1)]
    naive = []
    for _ in range(400):
        drawn = rng.choice(np.flatnonzero(tested.any(axis=0)), int(tested.any(axis=0).sum()))
        values = np.full((2, 3, 2), np.nan)
        for split in range(2):
            rows = drawn[tested[split, drawn]]
            for label in range(3):
                if (shown[rows, label] > 0).any():
                    values[split, label] = [area(shown[rows, label], its[split, rows, label]) for its in scores]
        naive.append(100 * np.nanmean(np.nanmean(values, axis=0), axis=0))
    found = _resampled_average_precisions(np.stack(scores), tested, shown)
    for ours, theirs in zip(found, np.transpose(naive), strict=True):
        np.testing.assert_allclose(np.percentile(ours, [2.5, 50, 97.5]), np.percentile(theirs, [2.5, 50, 97.5]), atol=4)
    ours, theirs = found[0] - found[1], np.subtract(*np.transpose(naive))
    np.testing.assert_allclose(np.percentile(ours, [2.5, 97.5]), np.percentile(theirs, [2.5, 97.5]), atol=4)
    figures = measured(scores, tested, shown)
    np.testing.assert_allclose(figures.resampled.mean(axis=1), 100 * figures.per_class.mean(axis=(1, 2)), rtol=1e-9)
    shares = [(shown[its] > 0).sum(axis=0) / (shown[its] != 0).sum(axis=0) for its in tested]
    assert figures.chance == pytest.approx(100 * np.mean(shares))


def test_shapes_are_found_and_figures_are_a_naive_computations(made):
    options = replace(FEW, labels=made.labels, baseline=True)
    found = transfer(made.runs, data=made.photos, options=options)
    assert (found.measure, found.classes, found.n, found.splits) == ("mAP", CLASSES, IMAGES, 2)
    kinds = [one.kind for one in found.descriptors]
    assert kinds == ["network", "network", "stacked", "baseline", "baseline", "baseline"]
    for one in found.descriptors[:3]:
        assert one.mean > found.chance + 20
        assert one.mean_ci95[0] < one.mean < one.mean_ci95[1]
    source = given_images(made.photos)
    shown = several_labels(made.labels, source).labels
    splits = transfer_splits(Labelled(classes=CLASSES, labels=shown), options)
    assert found.train == tuple((shown[splits[0][0]] > 0).sum(axis=0))
    assert found.test == tuple((shown[splits[0][1]] > 0).sum(axis=0))
    for network, its_run in zip(found.descriptors, made.runs, strict=False):
        rows = features(its_run, source, descriptor=Descriptor(normalise=True))
        vectors = np.stack([one.values["relu7"] for one in rows]).astype(float)
        precisions, points = [], []
        for number, (train, test) in enumerate(splits):
            c = naive_choice(vectors[train], shown[train])
            assert c == network.c[number]
            scores = naive_svm(vectors[train], shown[train], c)(vectors[test])
            precisions.append([area(shown[test, k], scores[:, k]) for k in range(4)])
            for k in range(4):
                precision, recall, _ = precision_recall_curve(shown[test, k] > 0, scores[:, k])
                its = precision[:-1], recall[:-1]  # the last one is scikit-learn's own: before the first image
                points.append(np.mean([its[0][its[1] >= tenths / 10 - 1e-9].max() for tenths in range(11)]))
        assert network.means == pytest.approx(100 * np.mean(precisions, axis=1), abs=1e-3)
        assert list(network.per_class.values()) == pytest.approx(100 * np.mean(precisions, axis=0), abs=1e-3)
        assert network.eleven_point_map == pytest.approx(100 * np.mean(points), abs=1e-3)
    again = transfer(made.runs, data=made.photos, options=options)
    assert replace(found, seconds=0) == replace(again, seconds=0)


def test_images_are_hashed_once(made, monkeypatch, tmp_path):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path))
    monkeypatch.setattr(files, "contents_digests", None)  # would be called to read them again
    assert transfer(made.runs, data=made.photos, options=replace(FEW, labels=made.labels)).n == IMAGES


def test_given_test_images_are_used(made, tmp_path):
    options = TransferOptions(labels=made.labels, test_images=made.test)
    found = transfer(made.runs[:1], data=made.photos, options=options)
    assert (found.splits, found.n_train, found.n_test) == (1, 40, 20)
    assert found.descriptors[0].mean_sd is None
    source = given_images(made.photos)
    shown = several_labels(made.labels, source).labels
    testing = np.array([int(Path(name).stem) >= 40 for name in source.ids])
    assert found.test == tuple((shown[testing] > 0).sum(axis=0))
    rows = features(made.runs[0], source, descriptor=Descriptor(normalise=True))
    vectors = np.stack([one.values["relu7"] for one in rows])
    scores = naive_svm(vectors[~testing], shown[~testing], found.descriptors[0].c[0])(vectors[testing])
    wanted = np.mean([area(shown[testing, k], scores[:, k]) for k in range(4)])
    assert found.descriptors[0].mean == pytest.approx(100 * wanted, abs=1e-3)


def test_an_unusable_image_is_in_neither_part(made, tmp_path):
    photos = tmp_path / "photos"
    for file in made.photos.rglob("*.png"):
        (photos / file.relative_to(made.photos)).parent.mkdir(parents=True, exist_ok=True)
        (photos / file.relative_to(made.photos)).write_bytes(b"" if file.stem in ("3", "41") else file.read_bytes())
    options = TransferOptions(labels=made.labels, test_images=made.test)
    found = transfer(made.runs[:1], data=photos, options=options, tolerance=Tolerance(max_bad=10))
    assert (found.n, found.n_train, found.n_test, len(found.unusable)) == (58, 39, 19, 2)


def test_a_saved_classifier_gives_all_classes_above_zero(made, tmp_path):
    folder = tmp_path / "classifier"
    transfer(made.runs, data=made.photos, options=replace(FEW, labels=made.labels), out=folder)
    assert json.loads((folder / "classifier.json").read_text())["several_labels"] is True
    loaded = load_classifier(folder)
    assert loaded.several_labels
    told = list(classify(loaded, made.photos, top=1))
    above = [sum(score > 0 for score in one.scores) for one in told]
    assert [len(one.classes) for one in told] == [max(1, count) for count in above]
    assert len(set(above)) > 1
    assert run("predict", folder, made.photos, "--top", 1, "--out", tmp_path / "told.csv") == 0
    with (tmp_path / "told.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [f"class_{place}" for place in range(1, len(CLASSES) + 1)]
    assert [tuple(row[name] for name in names if row[name]) for row in rows] == [one.classes for one in told]
    rows = [
        np.stack([f.values["relu7"] for f in features(r, made.photos, descriptor=Descriptor(normalise=True))])
        for r in made.runs
    ]
    vectors = (np.hstack(rows) / 2**0.5).astype(np.float32)
    shown = several_labels(made.labels, given_images(made.photos)).labels
    wanted = naive_svm(vectors, shown, loaded.svm.c)(vectors)
    for one, its in zip(classify(loaded, made.photos, top=4), wanted, strict=True):
        assert dict(zip(one.classes, one.scores, strict=True)) == pytest.approx(
            dict(zip(CLASSES, its.tolist(), strict=True)), abs=1e-3
        )


def test_the_verb_names_its_measure(made, capsys, tmp_path):
    on = ["transfer", made.runs[0], "--data", made.photos, "--labels", made.labels, "--baseline"]
    few = ["--train", 8, "--test", 8, "--splits", 2]
    saved = ["--json", tmp_path / "found.json", "--report", tmp_path / "page"]
    assert run(*on, *few, *saved) == 0
    text = capsys.readouterr().out
    assert "recall, %" not in text
    for wanted in ("mAP, %", "by 11 points"):
        assert wanted in text
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == json.loads((tmp_path / "page" / "transfer.json").read_text())
    assert (found["measure"], found["labels"]) == ("mAP", str(made.labels))
    assert set(found["descriptors"][0]["per_class"]) == set(CLASSES)
    assert not any("recall" in name for name in (*found, *found["descriptors"][0], *found["differences"][0]))
    page = (tmp_path / "page" / "transfer.html").read_text()
    assert accessibility.problems(page) == []
    for one in found["descriptors"]:
        for value in (one["mean"], one["eleven_point_map"], *one["per_class"].values()):
            assert f"<td>{value:.1f}</td>" in page
    for wanted in (
        "mean average precision (mAP) of",
        "Scores that are equal for all images have an mAP of",
        "VOC-2012",
    ):
        assert wanted in page
    assert run(*on, "--test-images", made.test, *saved) == 0
    assert "40 training images (" in capsys.readouterr().out.replace("\n", " ")
    page = (tmp_path / "page" / "transfer.html").read_text()
    assert accessibility.problems(page) == []
    assert f"those that {made.test} names" in page


def test_test_images_of_class_folders(made, capsys, tmp_path):
    rng = np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(7):
            pixels = rng.integers(0, 40, (40, 44, 3))
            pixels[..., label] += 210
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "test.txt").write_text("ant/0\nant/5.png\nbee/6\n")
    given = ["--data", tmp_path / "photos", "--test-images", tmp_path / "test.txt", "--json", "-"]
    assert run("transfer", made.runs[0], *given) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["train"], found["test"], found["splits"], found["measure"]) == (
        [5, 6],
        [2, 1],
        1,
        "mean class recall",
    )
    assert found["descriptors"][0]["mean"] == 100


def test_wrong_use_is_refused_in_a_line(made, capsys, tmp_path):
    def refusal(*arguments):
        return commands.refusal(capsys, "transfer", made.runs[0], "--data", *arguments)

    labels = [made.photos, "--labels", made.labels]
    assert "says which images are for training" in refusal(*labels, "--test-images", made.test, "--train", 5)
    assert "leave out --test, --splits" in refusal(*labels, "--test-images", made.test, "--test", 5, "--splits", 2)
    assert "needs 31 images of each class" in refusal(*labels)
    assert "train must be 2 or more, not 1" in refusal(*labels, "--train", 1)
    assert "is not a folder: with --labels" in refusal("digits", "--labels", made.labels)
    assert "these images have no splits" in refusal(*labels, "--split", "val")
    assert "say with --labels" in refusal(made.photos / "old")
    (tmp_path / "labels.csv").write_text("0.png,cat\nx.png,dog\n")
    assert "line 2 (x.png)" in refusal(made.photos, "--labels", tmp_path / "labels.csv")
    (tmp_path / "test.txt").write_text("0\nx\n")
    assert "line 2 (x)" in refusal(*labels, "--test-images", tmp_path / "test.txt")


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_a_separator_that_nothing_has_a_use_for_is_refused(made, capsys, tmp_path, kind):
    """Without it the same files are taken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (40, 40), COLOURS[number % 2]).save(folder / f"{number}.png")
    names = ["bar", "box"]
    if kind == "coco":
        labels = tmp_path / "labels.json"
        images = [{"id": number, "file_name": f"{number}.png", "width": 40, "height": 40} for number in range(12)]
        boxes = [{"id": n, "image_id": n, "category_id": n % 2, "bbox": [1, 1, 9, 9]} for n in range(12)]
        categories = [{"id": place, "name": name} for place, name in enumerate(names)]
        labels.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    else:
        labels = tmp_path / "labels"
        labels.mkdir()
        if kind == "yolo":
            (labels / "classes.txt").write_text("\n".join(names))
        for number in range(12):
            if kind == "yolo":
                (labels / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.2 0.2\n")
            else:
                box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
                thing = f"<object><name>{names[number % 2]}</name>{box}</object>"
                size = "<size><width>40</width><height>40</height><depth>3</depth></size>"
                named = f"<annotation><filename>{number}.png</filename>{size}{thing}</annotation>"
                (labels / f"{number}.xml").write_text(named)
    on = ["transfer", made.runs[0], "--data", folder, "--train", 3, "--test", 2, "--splits", 1, "--labels", labels]
    assert run(*on) == 0
    capsys.readouterr()
    for separator in ("|", "none"):
        told = commands.refusal(capsys, *on, "--label-separator", separator)
        assert f"--label-separator is for the cells of tables (.csv and .tsv): leave it out with {labels}" in told
    assert "--label-separator goes with --labels" in commands.refusal(capsys, *on[:-2], "--label-separator", "|")


def test_help_names_the_default_numbers(capsys):
    assert run("transfer", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for number in (TransferOptions().train, TransferOptions().test, TransferOptions().splits):
        assert f"[default: {number}]" in text.replace("│ │ ", "")
