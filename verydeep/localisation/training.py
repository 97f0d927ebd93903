"""Preparation of a training of boxes: which images it uses, and its recipe."""

from dataclasses import replace
from pathlib import Path

from verydeep.box_regression import Regression
from verydeep.images.boxes.checking import BoxCheck
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.open import open_boxed, open_for_training
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.training.recipe import Recipe, check_for_boxes

_LAST_FROZEN = "pool5"
"""Layer up to which all are frozen where the fully connected layers alone learn."""


def localisation_splits(
    source: str | Path, *, regression: Regression, options: BoxOptions, max_pixels: int = MAX_PIXELS
) -> tuple[Splits, BoxCheck]:
    """Return a source's training and validation images with their boxes, and why others are left out.

    Raises:
        ValueError: unusable source or boxes.
    """
    splits = open_for_training(source)
    boxed, check = open_boxed(splits, ["train", "val"], options, every_class_of="train", max_pixels=max_pixels)
    whole = splits.source("train").fingerprint
    return replace(splits, sources={**boxed}, regression=regression, whole_train=whole), check


def localisation_recipe(recipe: Recipe, *, fc_only: bool) -> Recipe:
    """Return a recipe for boxes; with `fc_only` all layers before fc6 are frozen.

    Raises:
        ValueError: the recipe does not go with boxes, or already says which layers are frozen.
    """
    check_for_boxes(recipe)
    if not fc_only:
        return recipe
    for name in ("freeze", "trainable"):
        if getattr(recipe, name) is not None:
            raise ValueError(f"--fc-only and --{name} both say which layers learn: choose one")
    return replace(recipe, freeze=_LAST_FROZEN)
