"""Trainings that do no better than guessing: when it is said, and what is said to help with each recipe."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from verydeep import Recipe, train
from verydeep.images.loader import DeviceBatch
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.runs.record import EpochMetrics, read_metrics
from verydeep.training.guessing import about_guessing, guessing_loss
from verydeep.training.learner import classification
from verydeep.training.tables import TrainingEnd, training_end, training_table

SMOOTH = Recipe(label_smoothing=0.6)

STUCK = Recipe(crop=32, width=0.05, batch=4, epochs=5, learning_rate=1e-9, init="paper")
"""Weights so small that all scores are alike, and steps that leave them so."""


def epoch(number, **figures):
    names = ("learning_rate", "loss", "training_error", "validation_error", "images_per_second", "seconds", "waiting")
    return EpochMetrics(**dict.fromkeys(names, 0.5) | {"epoch": number, "step": 3, "images": 12} | figures)


def end(recipe, network="A", *, loss=1.05, classes=3, **more):
    last = epoch(1, loss=loss, guessing_loss=more.pop("guessing_loss", None))
    return TrainingEnd(
        run="runs/a", network=network, classes=classes, last=last, best=last, unusable=[], recipe=recipe, **more
    )


@pytest.mark.parametrize(
    ("loss", "told", "recipe", "more"),
    [
        (1.05, True, Recipe(), {}),
        (0.9, False, Recipe(), {}),
        (1.05, False, Recipe(), {"regression": "shared"}),
        (1.095, True, SMOOTH, {}),
        (1.05, False, SMOOTH, {}),
    ],
)
def test_a_loss_that_is_nearly_that_of_guessing_is_told(loss, told, recipe, more):
    """Among three classes guessing has a loss of ln 3 = 1.099; of targets 0.6, 0.2 and 0.2 the least is 0.950."""
    caption = str(training_table(end(recipe, loss=loss, **more)).caption)
    assert ("that of guessing among 3 classes, 1.099" in caption) is told


@pytest.mark.parametrize(
    ("network", "recipe", "advice"),
    [
        ("D", {"batch": 32}, "a lower learning rate may help: --learning-rate 0.00125 is the paper's in proportion"),
        ("D", {"batch": 32, "batch_norm": True}, "a lower learning rate may help: --learning-rate 0.00125"),
        ("D", {"batch": 32, "weights": "w.pth", "learning_rate": 0.01}, "a lower learning rate may help"),
        ("D", {"batch": 32, "init": "paper"}, "--init glorot may help: with --init paper deep networks"),
        ("D", {"init": "runs/a", "init_rest": "paper"}, "--init-rest glorot may help"),
        ("D", {"batch": 32, "learning_rate": 2.5e-3}, "--batch-norm may help, or --init with the RUN of a trained A."),
        ("A", {}, "--batch-norm may help."),
        ("B-5x5", {}, "--batch-norm may help."),
        ("D", {"batch_norm": True}, "learned little; more epochs or a larger learning rate may help"),
        ("D", {"init": "runs/a"}, "learned little; more epochs or a larger learning rate may help"),
        ("D", {"weights": "w.pth", "batch": 32}, "w.pth may never have been trained; else more epochs or a larger"),
    ],
)
def test_what_may_help_follows_from_the_recipe(network, recipe, advice):
    assert advice in str(training_table(end(Recipe(**recipe), network)).caption)


@pytest.mark.parametrize("recipe", [Recipe(), SMOOTH, Recipe(class_weights=True), Recipe(balanced=True)])
def test_the_loss_of_guessing_is_the_least_of_any_scores_that_are_alike_for_all_images(recipe):
    """9 images of one class and 3 of the other, each as often as it is drawn; scores (t, 0) for every t."""
    drawn = (6, 6) if recipe.balanced else (9, 3)
    labels = torch.tensor([0] * drawn[0] + [1] * drawn[1])
    batch = DeviceBatch(images=torch.empty(12, 0), positions=torch.arange(12), labels=labels)
    weights = torch.tensor([12 / 18, 12 / 6]) if recipe.class_weights else None
    objective = classification(label_smoothing=recipe.label_smoothing, class_weights=weights)
    scores = torch.stack([torch.linspace(-4, 4, 801), torch.zeros(801)], dim=1)
    least = min(objective.loss(one.expand(12, 2), batch).item() / 12 for one in scores)
    assert guessing_loss((9, 3), recipe) == pytest.approx(least, abs=1e-4)


@pytest.mark.parametrize(
    ("images", "loss", "error", "told"),
    [
        ((5, 5), 0.69, 50.0, True),
        ((5, 5), 0.69, 40.0, False),  # it names classes better than by chance
        ((5, 5), 0.60, 50.0, False),
        ((9, 1), 0.325, 10.0, True),  # of always naming the larger class
        ((9, 1), 0.325, 8.0, False),
        ((5, 5), 0.325, 10.0, False),
    ],
)
def test_an_early_epoch_is_guessing_if_loss_and_error_are_those_of_the_largest_class(images, loss, error, told):
    recipe = Recipe(batch=32)
    metrics = epoch(3, loss=loss, training_error=error, guessing_loss=guessing_loss(images, recipe))
    said = about_guessing(metrics, images, recipe, "A")
    assert ("epoch 3 is no better than guessing" in said) is told
    assert not told or "a lower learning rate" in said


def test_it_is_said_of_the_third_epoch_after_the_warm_up_if_more_follow_and_not_of_boxes():
    recipe = Recipe(schedule="cosine", warm_up=2, epochs=8)

    def said(number, recipe, guessing=0.693):
        return about_guessing(epoch(number, loss=0.69, training_error=50, guessing_loss=guessing), (5, 5), recipe, "A")

    assert [number for number in range(1, 9) if said(number, recipe)] == [5]
    assert not said(5, replace(recipe, epochs=5))
    assert not said(5, recipe, None)


def images(sizes):
    """Make grey squares; each class has as many as `sizes` says."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 44, 3), 90, np.uint8)).save(buffer, "PNG")
    samples = [
        Sample(buffer.getvalue(), label, f"{label}{at}") for label, size in enumerate(sizes) for at in range(size)
    ]
    return memory_source(classes=("dark", "light"), samples=tuple(samples))


def test_a_network_at_chance_is_told_once_while_it_trains_and_in_the_end(tmp_path, capsys):
    """Of every four images three are of one class: guessing errs on a quarter, with a loss of 0.562."""
    source = images((6, 2))
    splits = Splits(name="grey", sources={"train": source, "val": source})
    # Scores that are alike have a loss of ln 2, and name the first class.
    run = train(splits, network="A", out=tmp_path / "run", recipe=STUCK)
    said = [line for line in capsys.readouterr().err.splitlines() if "guessing" in line]
    assert len(said) == 1
    assert "epoch 3 is no better than guessing (its training error is 25.0%, that of always naming" in said[0]
    assert said[0].endswith("--init glorot may help: with --init paper deep networks often stay there")
    assert read_metrics(run)[-1].guessing_loss == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    assert "guessing among 2 classes, 0.562" in str(training_table(training_end(run)).caption)
