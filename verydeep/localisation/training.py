"""Preparation of a training of boxes: which images it uses, and its recipe."""

from dataclasses import replace

from verydeep.box_regression import Regression
from verydeep.images.boxes.open import BoxCheck, boxed_parts
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.sources.open import open_source
from verydeep.images.sources.source import Splits
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.presentation.progress import reporting
from verydeep.training.recipe import Recipe, check_for_boxes

_LAST_CONVOLUTIONAL = "pool5"
"""Frozen up to here, the fully connected layers alone learn."""


def localisation_splits(
    source: str, *, regression: Regression, options: BoxOptions, max_pixels: int = MAX_PIXELS
) -> tuple[Splits, BoxCheck]:
    """Return a source's training and validation images with their boxes, for `train`, and what became of the others.

    Raises:
        ValueError: unusable source or boxes.
    """
    splits = open_source(source)
    names = ["train", "val"]
    with reporting("check boxes", total=sum(len(splits.part(name)) for name in names)) as report:
        boxed, check = boxed_parts(
            splits, names, options, every_class_of="train", max_pixels=max_pixels, advance=report.advance
        )
    return Splits(name=splits.name, parts={**boxed}, regression=regression), check


def localisation_recipe(recipe: Recipe, *, fc_only: bool) -> Recipe:
    """Return a recipe for boxes; with `fc_only` all layers before fc6 are frozen.

    Raises:
        ValueError: the recipe does not go with boxes, or already says what is frozen.
    """
    check_for_boxes(recipe)
    if not fc_only:
        return recipe
    if recipe.freeze is not None:
        raise ValueError("--fc-only and --freeze both say what learns: choose one")
    return replace(recipe, freeze=_LAST_CONVOLUTIONAL)
