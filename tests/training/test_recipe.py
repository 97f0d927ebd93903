"""The recipe's numbers against the paper's, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep import Recipe
from verydeep.networks.scales import middle_scale, scale_in_pixels, scale_range
from verydeep.training.recipe import recipe_from


def test_defaults_are_the_papers_numbers():
    recipe = Recipe()
    assert (recipe.batch, recipe.momentum, recipe.weight_decay, recipe.dropout) == (256, 0.9, 5e-4, 0.5)
    assert (recipe.first_rate, recipe.drops, recipe.epochs) == (1e-2, 3, 74)
    assert (recipe.crop, recipe.scale, recipe.flip, recipe.colour_sd) == (224, "256", True, 0.1)
    assert (recipe.width, recipe.batch_norm) == (1.0, False)
    assert (recipe.schedule, recipe.label_smoothing, recipe.init) == ("plateau", 0.0, "glorot")


def test_the_rate_is_a_tenth_from_the_weights_of_the_same_network():
    assert Recipe(finetune="runs/256").first_rate == 1e-3
    assert Recipe(init="runs/a").first_rate == 1e-2
    assert Recipe(finetune="runs/256", learning_rate=0.3).first_rate == 0.3


@pytest.mark.parametrize(
    ("scale", "limits", "middle"), [("256", (256, 256), 256), ("384", (384, 384), 384), ("256:512", (256, 512), 384)]
)
def test_scales_of_the_paper(scale, limits, middle):
    assert scale_range(Recipe(scale=scale).scale) == limits
    assert middle_scale(scale) == middle


@pytest.mark.parametrize(("scale", "crop", "pixels"), [(256, 224, 256), (256, 32, 37), (384, 128, 219), (512, 96, 219)])
def test_scales_are_tied_to_the_crop(scale, crop, pixels):
    assert scale_in_pixels(scale, crop) == pixels


@given(scale=st.integers(224, 2000), crop=st.integers(1, 20).map(lambda n: 32 * n))
def test_a_scale_is_never_smaller_than_the_crop_and_keeps_its_ratio(scale, crop):
    pixels = scale_in_pixels(scale, crop)
    assert pixels >= crop
    assert abs(pixels / crop - scale / 224) <= 0.5 / crop


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 100}, "crop 100 is not a multiple of 32"),
        ({"scale": "big"}, "scale is a number such as 256"),
        ({"scale": "512:256"}, "the smaller one first"),
        ({"scale": "200"}, "S goes from 224 to 10,000"),
        ({"batch": 0}, "batch must be 1 or more, not 0"),
        ({"batch": 10**18}, "batch must be 1,000,000 or less, not"),
        ({"epochs": 0}, "epochs must be 1 or more"),
        ({"patience": 0}, "patience must be 1 or more"),
        ({"drops": -1}, "drops must be 0 or more"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"learning_rate": 0.0}, "learning_rate must be a number above 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number above 0"),
        ({"width": float("inf")}, "width must be a number above 0"),
        ({"seed": 2**63}, "seed must be below"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1"),
        ({"weight_decay": -1e-4}, "weight_decay must be a number from 0 up"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"width": -1.0}, "width must be a number above 0"),
        ({"init_rest": "paper"}, "init_rest goes with a RUN"),
        ({"init": "runs/a", "finetune": "runs/b"}, "init and finetune both say"),
        ({"freeze": "conv1_1"}, "freeze keeps layers as they are, so it needs"),
        ({"schedule": "linear"}, "schedule is one of plateau, step, cosine, not linear"),
        ({"step_epochs": 3}, "step_epochs is a number from 1 up, for the schedule step alone"),
        ({"step_epochs": 0, "schedule": "step"}, "step_epochs is a number from 1 up"),
        ({"warm_up": 1}, "for the schedules step and cosine alone"),
        ({"warm_up": 74, "schedule": "cosine"}, r"warm_up is below epochs \(74\)"),
        ({"warm_up": -1, "schedule": "cosine"}, "warm_up must be 0 or more"),
        ({"batch": 2.5}, "batch is a whole number, not 2.5"),
        ({"schedule": "cosine", "drops": 7}, "drops does nothing with the schedule cosine"),
        ({"schedule": "step", "patience": 2}, "patience does nothing with the schedule step"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1"),
    ],
)
def test_values_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**options)


def test_a_recorded_recipe_comes_back_and_fields_of_another_version_are_named():
    assert recipe_from(vars(Recipe(batch=3))) == Recipe(batch=3)
    assert recipe_from({"batch": 3}) == Recipe(batch=3)
    with pytest.raises(
        ValueError,
        match=r"the recipe in run.json cannot be used: it has ema, which this version of verydeep does not know",
    ):
        recipe_from({"batch": 3, "ema": 0.99})
