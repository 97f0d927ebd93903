"""Localisation from files to figures, page and pictures, by the command line and from Python."""

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from verydeep import Recipe, train
from verydeep.evaluation.metrics import error_interval
from verydeep.evaluation.paired import paired_comparison
from verydeep.experiments.localisation_results import learned_layers
from verydeep.experiments.localise import FullProcedure, evaluate_boxes, localisation_recipe, localisation_splits
from verydeep.experiments.localise_images import predict_boxes
from verydeep.experiments.paper import LEARNED_ALL, LEARNED_FC, reported_box_error
from verydeep.images.open_boxed import BoxOptions

pictures = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "boxed_pictures.py")))

RECIPE = Recipe(crop=32, width=0.05, batch=4, epochs=1, learning_rate=1e-3)
QUICKEST = ["--crop", "32", "--width", "0.05", "--batch", "4", "--epochs", "1"]


run = runpy.run_path(str(Path(__file__).parents[1] / "several_commands.py"))["status_of"]


def refusal(capsys, *arguments):
    assert run(*arguments) == 2
    text = capsys.readouterr().err.splitlines()[-1]
    assert text.startswith("verydeep: ")
    return text


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures, their boxes, a classification run and two runs of boxes."""
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
    assert (found.split, found.n, found.scales) == ("val", 6, (256,))
    wrong = ~(found.images.overlaps > 0.5)
    for errors, its, learned, paper in zip(
        found.simplified, wrong, (LEARNED_ALL, LEARNED_FC), (33.1, 36.4), strict=True
    ):
        assert (errors.wrong, errors.error) == (its.sum(), pytest.approx(100 * its.mean()))
        assert errors.error_ci95 == error_interval(its)
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
    assert learned_layers(train(splits, out=tmp_path / "run", recipe=recipe)) == "conv3_2 and later"
    assert learned_layers(tmp_path / "run" / "model") is None


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


def test_predictions_are_drawn_where_they_are_told(made, tmp_path):
    image = next((made.images / "val" / "flat").glob("*.png"))
    twin = tmp_path / image.name
    twin.write_bytes(b"no image")
    full = FullProcedure(classifiers=(made.classifier,))
    found = list(predict_boxes(made.runs[0], [image, twin], full=full, out=tmp_path / "drawn", top=2))
    assert [len(one.objects) for one in found] == [2, 0]
    assert sum(one.probability for one in found[0].objects) == pytest.approx(1)
    assert found[1].error.startswith("undecodable")
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == [f"{image.stem}.jpg"]
    drawn = np.asarray(Image.open(found[0].drawn)).astype(int)
    assert drawn.shape == (48, 60, 3)
    assert (np.ptp(drawn, axis=2) > 60).any(), "no colour, so no box"


def test_the_verbs_from_training_to_prediction(made, capsys, tmp_path):
    out, boxes = tmp_path / "run", ["--boxes", made.images / "boxes.csv"]
    assert run("localise", "train", made.images, *boxes, "--finetune", made.classifier, "--out", out, *QUICKEST) == 0
    assert "validation error" in capsys.readouterr().out
    tested = ["localise", "evaluate", out, made.runs[1], "--data", made.images, *boxes]
    options = ["--classifier", made.classifier, "--scales", "256,320", "--report", tmp_path / "page"]
    assert run(*tested, *options, "--json", tmp_path / "found.json") == 0
    text = capsys.readouterr().out
    assert "Table 8" in text
    assert "all together" in text
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == json.loads((tmp_path / "page" / "localisation.json").read_text())
    assert found["scales"] == [256, 320]
    page = (tmp_path / "page" / "localisation.html").read_text()
    for wanted in ("OverFeat", "per-class", "fully connected layers", "data:image/jpeg", "IoU"):
        assert wanted in page
    drawn = tmp_path / "drawn"
    predicted = ["localise", "predict", out, made.images / "val", "--classifier", made.classifier, "--out", drawn]
    assert run(*predicted, "--json", "-") == 0
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    assert len(predictions) == len(list(drawn.iterdir())) == 6
    assert all(len(one["objects"]) == 1 and len(one["objects"][0]["box"]) == 4 for one in predictions)


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
    assert "1 image left out for their boxes" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "found.json").read_text())["left_out"]) == [f"train/{name}"]
    (tmp_path / "bad.csv").write_text("\n".join(lines).replace(",tall", ",Tall"))
    text = refusal(capsys, *train_on, *QUICKEST, "--skip-bad-boxes", "--out", tmp_path / "again")
    assert "no training image of class tall has a box that can be used: train/tall/" in text


def test_wrong_use_is_told_in_a_line(made, capsys, tmp_path):
    boxes, out = ["--boxes", made.images / "boxes.csv"], ["--out", tmp_path / "run"]
    on = ["localise", "train", made.images, *boxes, *out, *QUICKEST]
    assert "name its RUN with --finetune" in refusal(capsys, *on, "--network", "A")
    started = [*on, "--finetune", made.classifier]
    assert "label_smoothing does nothing for boxes" in refusal(capsys, *started, "--label-smoothing", "0.1")
    assert "choose one" in refusal(capsys, *started, "--fc-only", "--freeze", "conv1_1")
    assert "predicts boxes, not classes" in refusal(capsys, *on, "--finetune", made.runs[0])
    tested = ["localise", "evaluate", made.runs[0], "--data", made.images, *boxes]
    assert "--classifier" in refusal(capsys, *tested, "--scales", "256")
    assert "predicts boxes, not classes" in refusal(capsys, *tested, "--classifier", made.runs[1])
    assert "name one or more run folders" in refusal(capsys, "localise", "evaluate", "--data", made.images, *boxes)
    whole = ["localise", "evaluate", made.classifier, "--data", made.images, *boxes]
    assert "predicts classes, not boxes" in refusal(capsys, *whole)
    images = ["localise", "predict", made.runs[0], made.images, "--classifier", made.classifier]
    assert "top is a number from 1 to 5" in refusal(capsys, *images, "--top", "6")
    assert "predicts boxes, not classes" in refusal(capsys, "evaluate", made.runs[0], "--data", made.images)
    assert "predicts boxes, not classes" in refusal(capsys, "predict", made.runs[0], made.images)
