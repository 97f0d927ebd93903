"""Which images steer the schedule of the learning rate, and which test: not the same ones, unless that is asked for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from verydeep.images.open import open_for_training
from verydeep.images.sources.splits import STEERING_SHARE, Splits, with_steering_images
from verydeep.numbers import number, share
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.plan_file import read_plan


def open_for_experiment(source: str | Path | Splits, grid: Grid, out: Path) -> tuple[Splits, Grid]:
    """Open SOURCE with `val` to steer and `testing` to test; also return the grid, which says how that was settled.

    Where a source has test images, its validation images steer. Otherwise the grid decides, or what `out` was begun
    with; experiments of earlier versions were always steered by the test images.

    Raises:
        ValueError: the grid differs from what `out` was begun with, no such share can be held out, the source has test
            images already, or a class has a single training image.
    """
    splits, begun = open_for_training(source), read_plan(out)
    if "test" in splits.sources:
        if grid.steer or grid.held_out is not None:
            raise ValueError(f"{splits.name} has test images: its validation images steer, so leave out --steer")
        return splits, replace(grid, steer="validation")
    steer = grid.steer or ("held-out" if grid.held_out is not None or begun is None else begun.steer)
    shares = (grid.held_out, None if begun is None else begun.held_out, STEERING_SHARE)
    held_out = next(one for one in shares if one is not None) if steer == "held-out" else None
    if begun is not None and (steer, held_out) != (begun.steer, begun.held_out):
        was = f"--steer {begun.steer}" + (f" --held-out {begun.held_out:g}" if begun.held_out else "")
        raise ValueError(f"{out} was begun with {was}: leave out --steer and --held-out, or choose another folder")
    settled = replace(grid, steer=steer, held_out=held_out)
    return (splits if held_out is None else with_steering_images(splits, held_out)), settled


def said_outright(asked: Grid, settled: Grid, splits: Splits) -> Grid:
    """Return a grid for which the same is settled in a new folder, whatever the defaults and this folder are.

    Args:
        asked: the grid as it was asked for.
        settled: what `open_for_experiment` returned for it.
        splits: likewise.
    """
    if splits.testing == "val" and asked.steer is None:
        asked = replace(asked, steer="validation")
    if settled.held_out not in (None, asked.held_out, STEERING_SHARE):
        asked = replace(asked, held_out=settled.held_out)
    return asked


def about_steering(splits: Splits, grid: Grid) -> str:
    """Say which images of an experiment steer and which test."""
    images = {split: len(source) for split, source in splits.sources.items()}
    return steering_in_words(images, tested_on=splits.testing, held_out=grid.held_out)


def steering_in_words(images: Mapping[str, int], *, tested_on: str, held_out: float | None) -> str:
    """Say which images steer and which test, given how many of each split there are."""
    steering, testing = number(images["val"]), number(images[tested_on])
    if tested_on == "val":
        return (
            f"The {testing} validation images steer the learning rate and are, as in the paper, the test images too: "
            "errors on them may be a little too low."
        )
    if held_out is None:
        return f"The {steering} validation images steer the learning rate; the {testing} test images steer nothing."
    whole = number(images["train"] + images["val"])
    return (
        f"Of the source's {whole} training images {steering}, {share(held_out)} of each class, are held out to steer "
        f"the learning rate (val); its {testing} validation images only test (test)."
    )
