"""Trainings of boxes: what they start from, what they leave, and stops that cost nothing."""

import signal
from dataclasses import replace

import boxed_pictures as pictures
import numpy as np
import pytest
import torch

from verydeep import Recipe, evaluate, load, train
from verydeep.images.boxes.geometry import ObjectNotShownError, intersection_over_union
from verydeep.images.crops import TrainingView, training_crop
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import RescaledImages
from verydeep.images.sources.source import ObjectBox, Sample, boxed_source, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.localisation.evaluate import _centre_crop_boxes
from verydeep.machine.runtime import Stopped
from verydeep.networks.scales import scale_in_pixels
from verydeep.runs.model import load_box_model, load_config, load_model
from verydeep.runs.record import read_metrics, read_record
from verydeep.training import loop

RECIPE = Recipe(crop=32, width=0.05, batch=4, epochs=2, learning_rate=1e-3)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Train on the same pictures, without their boxes."""
    parts = {split: replace(boxed, boxes=()) for split, boxed in pictures.splits().sources.items()}
    return train(Splits(name="pictures", sources=parts), network="A", out=tmp_path_factory.mktemp("a"), recipe=RECIPE)


def trained(classifier, out, regression="per-class", resume=False, **changes):
    recipe = replace(RECIPE, finetune=str(classifier), **changes)
    return train(pictures.splits(regression), out=out, recipe=recipe, resume=resume)


@pytest.mark.parametrize(("regression", "outputs"), [("shared", 4), ("per-class", 8)])
def test_a_run_says_that_it_predicts_boxes(classifier, tmp_path, regression, outputs):
    run = trained(classifier, tmp_path / "run", regression)
    for folder in (run, run / "best"):
        model = load_box_model(folder)
        assert (model.net.architecture.boxes, model.classes) == (regression, pictures.CLASSES)
        assert model.net.fc8.out_features == outputs
        assert load_config(folder).boxes == regression
    record = read_record(run)
    assert (record.regression, record.network) == (regression, "A")
    assert record.initialisation.endswith("glorot initialisation: fc8")
    assert load_config(classifier).boxes is None
    assert "regression" not in (classifier / "run.json").read_text()


def test_all_layers_but_the_last_are_those_of_the_classification_run(classifier, tmp_path):
    run = trained(classifier, tmp_path / "run", learning_rate=1e-30)
    one, other = load(run).state_dict(), load(classifier).state_dict()
    assert {name for name in one if one[name].shape != other[name].shape} == {"fc8.weight", "fc8.bias"}
    assert all(torch.allclose(one[name], other[name], atol=1e-20) for name in one if not name.startswith("fc8"))


def test_with_frozen_convolutions_fully_connected_layers_alone_change(classifier, tmp_path):
    run = trained(classifier, tmp_path / "run", freeze="pool5")
    one, other = load(run).state_dict(), load(classifier).state_dict()
    copied = [name for name in one if not name.startswith("fc8")]
    assert {name.split(".")[0] for name in copied if not torch.equal(one[name], other[name])} == {"fc6", "fc7"}


def test_classification_and_localisation_refuse_each_others_runs(classifier, tmp_path):
    run = trained(classifier, tmp_path / "run")
    with pytest.raises(ValueError, match=r"run predicts boxes, not classes: it is for verydeep localise$"):
        load_model(run)
    with pytest.raises(ValueError, match="predicts boxes, not classes"):
        evaluate(run, data="digits")
    with pytest.raises(ValueError, match="predicts boxes, not classes"):
        trained(run, tmp_path / "further")
    with pytest.raises(ValueError, match="predicts classes, not boxes: verydeep localise train makes a run that does"):
        load_box_model(classifier)


def test_the_validation_error_is_that_of_the_simplified_test(classifier, tmp_path):
    """Both see the same where no box is cut off by the image's border."""
    run = trained(classifier, tmp_path / "run", epochs=12, learning_rate=0.02, dropout=0.0)
    val = pictures.splits().source("val")
    boxes = _centre_crop_boxes(load_box_model(run), val, name="it", quarantine=Quarantine(6))
    overlaps = intersection_over_union(boxes, np.stack([found.box for found in val.boxes]))
    error = 100 * (~(overlaps > 0.5)).mean()
    assert read_metrics(run)[-1].validation_error == pytest.approx(error)
    assert read_metrics(run)[-1].loss < 0.5 * read_metrics(run)[0].loss


@pytest.mark.parametrize("stop", [1, 4])
def test_stopped_after_a_step_it_goes_on_and_ends_the_same(classifier, tmp_path, monkeypatch, stop):
    trained(classifier, tmp_path / "whole")
    descend = loop.descend

    def noted(*arguments, step, **options):
        if step == stop:
            signal.raise_signal(signal.SIGTERM)
        return descend(*arguments, step=step, **options)

    monkeypatch.setattr(loop, "descend", noted)
    with pytest.raises(Stopped):
        trained(classifier, tmp_path / "run")
    monkeypatch.undo()
    trained(classifier, tmp_path / "run", resume=True)
    one, other = (load(tmp_path / name).state_dict() for name in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [e.loss for e in read_metrics(tmp_path / "run")] == [e.loss for e in read_metrics(tmp_path / "whole")]


def test_it_is_resumed_with_its_own_boxes_alone(classifier, tmp_path):
    trained(classifier, tmp_path / "run")
    with pytest.raises(ValueError, match=r"was made with other settings \(regression\)"):
        trained(classifier, tmp_path / "run", "shared", resume=True)
    moved = pictures.splits()
    place = moved.sources["train"].boxes[0]
    place.box[0] += 1
    with pytest.raises(ValueError, match=r"was made with other settings \(training images or their boxes\)"):
        train(moved, out=tmp_path / "run", recipe=replace(RECIPE, finetune=str(classifier)), resume=True)


def test_an_epoch_tells_how_many_images_it_went_without(classifier, tmp_path, capsys):
    """Long pictures with a small object at one end, which few crops show."""
    parts = {part: long_pictures(4, seed) for seed, part in enumerate(("train", "val"))}
    recipe = replace(RECIPE, finetune=str(classifier), epochs=3, flip=False)
    run = train(Splits(name="long", sources=parts, regression="shared"), out=tmp_path / "run", recipe=recipe)
    lines, missing = capsys.readouterr().err.splitlines(), []
    for epoch, metrics in enumerate(read_metrics(run)):
        missing.append(sum(not shown(parts["train"], index, recipe, epoch) for index in range(4)))
        told = [line for line in lines if f"epoch {epoch + 1} went without {missing[-1]} of 4 images" in line]
        assert (metrics.images, len(told)) == (4 - missing[-1], missing[-1] > 0)
    assert 0 < sum(missing) < 12


def long_pictures(count, seed):
    made = [pictures.picture(np.random.default_rng(seed + number), 1, (40, 1200)) for number in range(count)]
    samples = tuple(Sample(data, number % 2, f"{number}.png") for number, (data, _) in enumerate(made))
    source = memory_source(classes=pictures.CLASSES, samples=samples)
    place = ObjectBox(np.array([1194.0, 16.0, 1200.0, 22.0]), (40, 1200))
    return boxed_source(source, (place,) * count)


def shown(source, index, recipe, epoch):
    scale = scale_in_pixels(int(recipe.scale), recipe.crop)
    view = TrainingView(crop=recipe.crop, scale=(scale, scale), flip=False, colour_sd=0, colour_components=np.eye(3))
    try:
        training_crop(RescaledImages(source), index, view, seed=recipe.seed, epoch=epoch)
    except ObjectNotShownError:
        return False
    return True


def test_pieces_of_a_batch_change_nothing_but_rounding(classifier, tmp_path):
    from verydeep import Execution

    recipe = replace(RECIPE, finetune=str(classifier))
    for name, size in (("whole", None), ("pieces", 1)):
        train(pictures.splits(), out=tmp_path / name, recipe=recipe, execution=Execution(micro_batch=size))
    one, other = (
        torch.cat([value.flatten() for value in load(tmp_path / name).state_dict().values()])
        for name in ("pieces", "whole")
    )
    assert (one - other).norm() < 1e-6 * other.norm()
