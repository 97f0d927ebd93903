"""Localisation from files to figures, page and pictures, by the command line and from Python."""

import csv
import io
import json
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import boxed_pictures as pictures
import numpy as np
import pyarrow.parquet
import pytest
import several_commands as commands
import torch
from PIL import Image
from safetensors.numpy import load_file

import verydeep.localisation.predict
from verydeep import Recipe, Runtime, load_model, train
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.sources.given import given_images
from verydeep.images.sources.source import Source
from verydeep.localisation import full_test
from verydeep.localisation.evaluate import evaluate_boxes
from verydeep.localisation.options import FullProcedure
from verydeep.localisation.paper import LEARNED_ALL, LEARNED_FC, reported_box_error
from verydeep.localisation.predict import predict_boxes
from verydeep.localisation.results import _learned_layers
from verydeep.localisation.training import localisation_recipe, localisation_splits
from verydeep.machine.runtime import kernels_kept
from verydeep.networks.vgg import VGG
from verydeep.runs.model import load_box_model
from verydeep.statistics import paired_comparison, wilson_interval

RECIPE = Recipe(crop=32, width=0.05, batch=4, epochs=1, learning_rate=1e-3)
QUICKEST = ["--crop", "32", "--width", "0.05", "--batch", "4", "--epochs", "1"]

run, refusal = commands.status_of, commands.refusal


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make pictures, their boxes, a classification run and two runs of boxes."""
    place = tmp_path_factory.mktemp("localise")
    images = pictures.folder(place / "images")
    options = BoxOptions(boxes=(images / "boxes.csv",))
    classifier = train(str(images), network="A", out=place / "classifier", recipe=RECIPE)
    recipe = replace(RECIPE, finetune=str(classifier))
    runs = []
    for name, regression, fc_only in (("one", "per-class", False), ("two", "shared", True)):
        splits, _ = localisation_splits(str(images), regression=regression, options=options)
        runs.append(train(splits, out=place / name, recipe=localisation_recipe(recipe, fc_only=fc_only)))
    return SimpleNamespace(images=images, options=options, classifier=classifier, runs=runs)


def test_figures_follow_from_the_images(made):
    found = evaluate_boxes(
        made.runs, data=str(made.images), options=made.options, full=FullProcedure(classifiers=(made.classifier,))
    )
    assert (found.split, found.n, found.crop, found.classifier_scales) == ("val", 6, 32, ((256,),))
    wrong = ~(found.images.overlaps > 0.5)
    for errors, its, learned, paper in zip(
        found.simplified, wrong, (LEARNED_ALL, LEARNED_FC), (33.1, 36.4), strict=True
    ):
        assert (errors.wrong, errors.error) == (its.sum(), pytest.approx(100 * its.mean()))
        assert errors.error_ci95 == wilson_interval(its)
        assert (errors.learned, errors.paper_error) == (learned, paper)
    names = [str(folder) for folder in made.runs]
    assert found.comparisons == (paired_comparison(*names, *wrong),)
    assert [one.name for one in found.full] == [*names, "all together"]
    assert all(one.top5_error is None and one.top1_error >= one.true_class_error for one in found.full)
    assert [one.n for one in found.per_class] == [3, 3]
    json.dumps(found.to_dict())


def test_the_papers_table_8():
    found = {key: reported_box_error(*key) for key in (("shared", LEARNED_FC), ("per-class", LEARNED_FC))}
    assert found == {("shared", LEARNED_FC): 36.4, ("per-class", LEARNED_FC): 34.3}
    assert reported_box_error("per-class", LEARNED_ALL) == 33.1
    assert reported_box_error("shared", LEARNED_ALL) is None
    assert reported_box_error("shared", None) is None


def test_which_layers_learned_is_read_from_the_run(made, tmp_path):
    splits, _ = localisation_splits(str(made.images), regression="shared", options=made.options)
    recipe = replace(RECIPE, finetune=str(made.classifier), freeze="conv3_1")
    assert _learned_layers(train(splits, out=tmp_path / "run", recipe=recipe)) == "conv3_2 and later"
    for part in ("best", "model"):
        assert _learned_layers(tmp_path / "run" / part) == "conv3_2 and later"
    shutil.copytree(tmp_path / "run" / "best", tmp_path / "elsewhere")
    assert _learned_layers(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("trainable", "learned", "paper"),
    [("fc8", "fc8", None), ("fc", LEARNED_FC, 34.3), ("conv5", "conv5_1 and later", None), ("all", LEARNED_ALL, 33.1)],
)
def test_the_papers_figure_is_that_of_the_layers_that_learned(made, tmp_path, trainable, learned, paper):
    splits, _ = localisation_splits(str(made.images), regression="per-class", options=made.options)
    run = train(
        splits, out=tmp_path / "run", recipe=replace(RECIPE, finetune=str(made.classifier), trainable=trainable)
    )
    (found,) = evaluate_boxes([run], data=str(made.images), options=made.options).simplified
    assert (found.learned, found.paper_error) == (learned, paper)
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (made.classifier, run))
    changed = {name.partition(".")[0] for name in after if not np.array_equal(before.get(name), after[name])}
    of_stage = {"fc8": "fc8", "fc": ("fc6", "fc7", "fc8"), "conv5": ("conv5", "fc"), "all": ("conv", "fc")}[trainable]
    layers = {name.partition(".")[0] for name in after} - {"mean_rgb"}
    assert changed == {name for name in layers if name.startswith(of_stage)}


def test_a_foreign_folder_is_tested_whole_and_a_known_one_on_what_was_held_out(made, tmp_path):
    whole = pictures.folder(tmp_path / "both", training=10, validation=10)
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in pictures.CLASSES:  # without splits
        (whole / "train" / name).rename(flat / name)
    options = BoxOptions(boxes=(whole / "boxes.csv",))
    found = evaluate_boxes([made.runs[0]], data=str(flat), options=options)
    assert (found.split, found.n, found.full, found.comparisons) == ("all", 10, (), ())
    splits, _ = localisation_splits(str(flat), regression="shared", options=options)
    recipe = replace(RECIPE, finetune=str(made.classifier))
    run = train(splits, out=tmp_path / "run", recipe=recipe)
    found = evaluate_boxes([run], data=str(flat), options=options)
    assert (found.split, found.n) == ("val", 2)
    classifier = train(str(flat), network="A", out=tmp_path / "classifier", recipe=RECIPE)
    full = FullProcedure(classifiers=(classifier,))
    found = evaluate_boxes([made.runs[0]], data=str(flat), options=options, full=full)
    assert (found.split, found.n) == ("val", 2)


def test_predictions_are_drawn_where_they_are_told(made, tmp_path):
    image = next((made.images / "val" / "flat").glob("*.png"))
    twin = tmp_path / image.name
    twin.write_bytes(b"no image")
    full = FullProcedure(classifiers=(made.classifier,))
    given = [image, twin, image]
    first, bad, last = predict_boxes(made.runs[0], given, full=full, draw=tmp_path / "drawn", top=2)
    assert [len(one.boxes) for one in (first, bad, last)] == [2, 0, 2]
    assert sum(first.probabilities) == pytest.approx(1)
    assert bad.error.startswith("undecodable")
    drawn = [tmp_path / "drawn" / f"{number}-{image.stem}.jpg" for number in (0, 2)]
    assert [first.drawn, bad.drawn, last.drawn] == [str(drawn[0]), None, str(drawn[1])]
    assert sorted((tmp_path / "drawn").iterdir()) == drawn
    picture = np.asarray(Image.open(first.drawn)).astype(int)
    assert picture.shape == (48, 60, 3)
    assert (np.ptp(picture, axis=2) > 60).any(), "no colour, so no box"


def test_images_are_given_as_they_are_to_predict(made, tmp_path):
    file = next((made.images / "val" / "flat").glob("*.png"))
    opened = Image.open(file)
    given = [str(file.parent / f"{file.stem}*"), file.read_bytes(), np.asarray(opened.convert("RGB")), opened, b""]
    full = FullProcedure(classifiers=(made.classifier,))
    found = list(predict_boxes(made.runs[0], given, full=full, runtime=Runtime(workers=1)))
    assert [one.image for one in found] == [str(file), "image 1", "image 2", "image 3", "image 4"]
    assert {one.boxes for one in found[:4]} == {found[0].boxes} != {()}
    assert found[4].error == "undecodable (an empty file)"
    (single,) = predict_boxes(load_box_model(made.runs[0]), file, full=full)
    assert single == found[0]
    with pytest.raises(ValueError, match="the model predicts classes, not boxes"):
        predict_boxes(load_model(made.classifier), file, full=full)


class Vanishing(Source):
    """Images that are gone once they were read as often as `left` says."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        self.left[index] -= 1
        if not self.left[index]:
            Path(self.ids[index]).unlink()
        return sample


def test_an_image_that_is_gone_when_it_is_read_again_is_told_and_the_others_go_on(made, tmp_path):
    file = next((made.images / "val" / "flat").glob("*.png"))
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for copy in files:
        copy.write_bytes(file.read_bytes())
    source = Vanishing(**vars(given_images(files)))
    object.__setattr__(source, "left", [9, 2, 1, 9])  # read to be tested, for its size, and to be drawn
    full = FullProcedure(classifiers=(made.classifier,))
    found = list(predict_boxes(made.runs[0], source, full=full, draw=tmp_path / "drawn"))
    assert [one.error for one in found] == [None, *2 * ["unreadable (No such file or directory)"], None]
    assert [(len(one.boxes), one.drawn is None) for one in found] == [(1, False), (1, True), (0, True), (1, False)]


def test_an_image_too_long_for_a_jpeg_file_is_not_drawn(made, tmp_path, monkeypatch):
    monkeypatch.setattr(verydeep.localisation.predict, "LONGEST_SIDE", 59)
    file = next((made.images / "val" / "flat").glob("*.png"))
    full = FullProcedure(classifiers=(made.classifier,))
    (found,) = predict_boxes(made.runs[0], file, full=full, draw=tmp_path)
    assert (found.error, found.drawn) == ("too large (JPEG files have 59 pixels a side at most)", None)


def test_every_kind_of_file_says_the_same(made, capsys, tmp_path, monkeypatch):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    file = next((made.images / "val" / "flat").glob("*.png"))
    on = ["localise", "predict", made.runs[0], file, bad, "--classifier", made.classifier, "--top", 5]
    files = {kind: tmp_path / f"p.{kind}" for kind in ("jsonl", "csv", "parquet", "json")}
    for kind in ("jsonl", "csv", "parquet"):
        assert run(*on, "--out", files[kind], "--json", files["json"]) == 1
        text = capsys.readouterr()
        assert (text.out, "bad.png: undecodable (an empty file)" in text.err) == ("", True)
    assert run(*on, "--out", "-") == 1
    assert capsys.readouterr().out == files["jsonl"].read_text()
    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    assert json.loads(files["json"].read_text())["predictions"] == lines
    with files["csv"].open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    table = pyarrow.parquet.read_table(files["parquet"]).to_pylist()
    assert [row["id"] for row in rows] == [str(file), str(bad)]
    for place in (1, 2):  # there are two classes
        sides = [f"{side}_{place}" for side in ("x0", "y0", "x1", "y1")]
        names = [f"class_{place}", f"probability_{place}", *sides]
        box = lines[0]["boxes"][place - 1]
        values = [lines[0]["classes"][place - 1], lines[0]["probabilities"][place - 1], *box]
        assert [table[0][name] for name in names] == values
        assert [rows[0][name] for name in names] == [values[0], *map(repr, values[1:])]
        assert {table[1][name] for name in names} == {None}
    assert list(rows[0]) == list(table[0]) == ["id", *list(rows[0])[1:13], "error", "drawn"]
    assert [row["error"] for row in rows] == ["", "undecodable (an empty file)"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(file.read_bytes())))
    assert run("localise", "predict", made.runs[0], "-", "--classifier", made.classifier, "--out", "-") == 0
    assert json.loads(capsys.readouterr().out)["boxes"] == lines[0]["boxes"][:1]


def test_random_layers_of_a_classification_run_are_told(made, capsys, tmp_path):
    shutil.copytree(made.classifier, tmp_path / "imported")
    config = tmp_path / "imported" / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "drawn": ["fc8"]}))
    on, classifier = ["--data", made.images, "--boxes", made.images / "boxes.csv"], tmp_path / "imported"
    assert run("localise", "evaluate", made.runs[0], *on, "--classifier", classifier) == 0
    assert "imported was imported without fc8, which are random" in capsys.readouterr().err
    image = next((made.images / "val" / "flat").glob("*.png"))
    assert run("localise", "predict", made.runs[0], image, "--classifier", classifier) == 0
    assert "imported was imported without fc8, which are random" in capsys.readouterr().err


def test_the_verbs_from_training_to_prediction(made, capsys, tmp_path):
    out, boxes = tmp_path / "run", ["--boxes", made.images / "boxes.csv"]
    assert run("localise", "train", made.images, *boxes, "--finetune", made.classifier, "--out", out, *QUICKEST) == 0
    assert "validation error" in capsys.readouterr().out
    tested = ["localise", "evaluate", out, made.runs[1], "--data", made.images, *boxes]
    options = ["--classifier", made.classifier, "--scales", "256,320", "--report", tmp_path / "page"]
    files = ["--json", tmp_path / "found.json", "--predictions", tmp_path / "boxes.csv"]
    assert run(*tested, *options, *files) == 0
    text = capsys.readouterr().out
    assert "Table 8" in text
    assert "all together" in text
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == json.loads((tmp_path / "page" / "localisation.json").read_text())
    assert [one["scales"] for one in found["full"]] == 3 * [[256, 320]]
    assert found["classifier_scales"] == [[256, 320]]
    assert len((tmp_path / "boxes.csv").read_text().splitlines()) == 1 + 2 * 6
    page = (tmp_path / "page" / "localisation.html").read_text()
    for wanted in ("OverFeat", "per-class", "fully connected layers", "data:image/jpeg", "IoU"):
        assert wanted in page
    drawn = tmp_path / "drawn"
    predicted = ["localise", "predict", out, made.images / "val", "--classifier", made.classifier, "--draw", drawn]
    assert run(*predicted, "--json", "-") == 0
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    assert len(predictions) == len(list(drawn.iterdir())) == 6
    assert all(len(one["boxes"]) == 1 and len(one["boxes"][0]) == 4 for one in predictions)


def test_bad_boxes_are_refused_or_left_out_and_listed(made, capsys, tmp_path):
    lines = (made.images / "boxes.csv").read_text().splitlines()
    name = lines[3].split(",")[0]
    lines[3] = f"{name},104,38,126,38,{pictures.CLASSES[1]}"
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    train_on = ["localise", "train", made.images, "--boxes", tmp_path / "bad.csv", "--finetune", made.classifier]
    text = refusal(capsys, *train_on, *QUICKEST, "--out", tmp_path / "run")
    assert f"bad.csv line 4: the box 104,38,126,38 of train/{name} has no area" in text
    assert not (tmp_path / "run").exists()
    more = ["--skip-bad-boxes", "--json", tmp_path / "found.json", "--out", tmp_path / "run"]
    assert run(*train_on, *QUICKEST, *more) == 0
    assert "1 image left out for its box" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "found.json").read_text())["left_out"]) == [f"train/{name}"]
    (tmp_path / "bad.csv").write_text("\n".join(lines).replace(",tall", ",Tall"))
    text = refusal(capsys, *train_on, *QUICKEST, "--skip-bad-boxes", "--out", tmp_path / "again")
    assert "no training image of class tall has a box that can be used: train/tall/" in text


def next_command(capsys):
    """Return the words of the command that a verb has just named as the next one, without the program."""
    (_, following) = capsys.readouterr().err.rsplit("next: verydeep ", 1)
    return shlex.split(following)


def test_the_next_command_that_is_named_works_as_it_stands(made, capsys, tmp_path):
    """One validation image is broken, and another has a box without an area."""
    shutil.copytree(made.images, tmp_path / "images")
    broken, *_, other = sorted((tmp_path / "images" / "val" / "flat").glob("*.png"))
    broken.write_bytes(b"no image")
    text = (made.images / "boxes.csv").read_text()
    (line,) = [line for line in text.splitlines() if other.name in line]
    (tmp_path / "bad boxes.csv").write_text(text.replace(line, f"flat/{other.name},9,9,9,9,flat"))
    on = [
        "localise",
        "train",
        tmp_path / "images",
        "--finetune",
        made.classifier,
        "--out",
        tmp_path / "run",
        "--fc-only",
    ]
    limits = ["--skip-bad-boxes", "--max-bad", 60, "--max-pixels", 10**6]
    assert run(*on, *QUICKEST, "--boxes", tmp_path / "bad boxes.csv", *limits) == 0
    evaluate = next_command(capsys)
    assert run(*evaluate) == 0
    larger = ["--max-pixels", "1000000"]
    assert next_command(capsys)[4:] == ["--classifier", "RUN", *larger]
    full = ["--classifier", made.classifier, "--scales", "256,320", "--windows", "dense"]
    assert run(*evaluate, *full) == 0
    predict = next_command(capsys)
    assert predict[4:] == [*map(str, full), *larger]
    assert run(*predict[:3], other, *predict[4:]) == 0


def test_wrong_use_is_told_in_a_line(made, capsys, tmp_path):
    boxes, out = ["--boxes", made.images / "boxes.csv"], ["--out", tmp_path / "run"]
    on = ["localise", "train", made.images, *boxes, *out, *QUICKEST]
    assert "name its RUN with --finetune" in refusal(capsys, *on, "--network", "A")
    started = [*on, "--finetune", made.classifier]
    assert "label_smoothing does nothing for boxes" in refusal(capsys, *started, "--label-smoothing", "0.1")
    for option, value in (("--freeze", "conv1_1"), ("--trainable", "fc8"), ("--trainable", "all")):
        both = f"--fc-only and {option} both say which layers learn: choose one"
        assert both in refusal(capsys, *started, "--fc-only", option, value)
    assert "predicts boxes, not classes" in refusal(capsys, *on, "--finetune", made.runs[0])
    tested = ["localise", "evaluate", made.runs[0], "--data", made.images, *boxes]
    assert "--classifier" in refusal(capsys, *tested, "--scales", "256")
    assert "ends in .parquet or .csv" in refusal(capsys, *tested, "--predictions", "boxes.txt")
    both = ["--predictions", tmp_path / "a.csv", "--json", tmp_path / "a.csv"]
    assert "cannot hold both --" in refusal(capsys, *tested, *both)
    assert "predicts boxes, not classes" in refusal(capsys, *tested, "--classifier", made.runs[1])
    assert "name one or more run folders" in refusal(capsys, "localise", "evaluate", "--data", made.images, *boxes)
    whole = ["localise", "evaluate", made.classifier, "--data", made.images, *boxes]
    assert "predicts classes, not boxes" in refusal(capsys, *whole)
    images = ["localise", "predict", made.runs[0], made.images, "--classifier", made.classifier]
    assert "top is a number from 1 to 5" in refusal(capsys, *images, "--top", "6")
    assert "unknown option --max-bad" in refusal(capsys, *images, "--max-bad", "6")
    assert "cannot hold the predictions twice" in refusal(capsys, *images, "--out", "-", "--json", "-")
    assert "are written to .jsonl" in refusal(capsys, *images, "--out", tmp_path / "p.txt")
    assert "name one or more images" in refusal(capsys, *images[:3], *images[4:])
    assert "predicts boxes, not classes" in refusal(capsys, "evaluate", made.runs[0], "--data", made.images)
    assert "predicts boxes, not classes" in refusal(capsys, "predict", made.runs[0], made.images)


@pytest.mark.parametrize("windows", ["dense", "crops"])
def test_networks_compute_in_all_digits_of_float32(made, monkeypatch, windows):
    """CUDA devices would drop some by themselves; also after a training in this process, which lets them."""
    flags = []

    def noted(name, real):
        def call(*arguments, **options):
            flags.append((name, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(VGG, "forward", noted("forward", VGG.forward))
    monkeypatch.setattr(full_test, "score_map", noted("score_map", full_test.score_map))
    full = FullProcedure(classifiers=(made.classifier,), windows=windows)
    with kernels_kept():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        evaluate_boxes([made.runs[0]], data=str(made.images), options=made.options, full=full)
    assert set(flags) == {("forward", False, False), *([("score_map", False, False)] if windows == "dense" else [])}
