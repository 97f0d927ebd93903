"""What a test of boxes found: errors of each run by both procedures, beside the paper's, and how runs compare."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.evaluation.metrics import error_percent
from verydeep.evaluation.paired import Comparison, paired_comparison
from verydeep.evaluation.predictions import ID, TRUE, as_text, check_kind, rows_file
from verydeep.evaluation.protocols import Windows
from verydeep.images.boxes.geometry import CORRECT_IOU, Boxes
from verydeep.images.boxes.open import BoxCheck
from verydeep.images.boxes.regression import Regression
from verydeep.localisation.paper import LEARNED_ALL, LEARNED_FC, reported_box_error
from verydeep.localisation.procedures import TOP
from verydeep.networks.configurations import configuration, layers
from verydeep.runs.model import Model
from verydeep.runs.record import has_record, read_record
from verydeep.statistics import wilson_interval

SIDES = ("x0", "y0", "x1", "y1")

BOX_TEXTS = ("run", ID, TRUE)
BOX_NUMBERS = (*(f"true_{side}" for side in SIDES), *SIDES, "iou")
"""Columns of a file of predictions."""


@dataclass(frozen=True, kw_only=True)
class BoxErrors:
    """Of one run by the simplified test: the box of the true class from the centre crop at S; in percent."""

    name: str
    network: str
    regression: Regression
    learned: str | None
    """`all layers`, `fully connected layers`, or from which layer on; None if the run does not say."""
    scale: str
    """S, for a crop of 224."""
    n: int
    wrong: int
    error: float
    error_ci95: tuple[float, float]
    mean_iou: float
    paper_error: float | None
    """Of the like network in the paper's Table 8."""


@dataclass(frozen=True, kw_only=True)
class FullErrors:
    """Of one run or of several together by the full test; in percent."""

    name: str
    scales: tuple[int, ...]
    """Q that the boxes were sought at, for a crop of 224."""
    n: int
    true_class_error: float
    """Of the box for the true class, whatever the image was taken for."""
    true_class_error_ci95: tuple[float, float]
    top1_error: float
    """The most probable class must be right, and its box."""
    top1_error_ci95: tuple[float, float]
    top5_error: float | None
    """One of the five most probable classes must be right, and its box; None with five classes or fewer."""
    top5_error_ci95: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class BoxClassErrors:
    """Of the images of one class by the simplified test; in percent."""

    name: str
    n: int
    wrong: int
    error: float
    error_ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class LocalisedImages:
    """Every image that could be used, for a page."""

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    true: Boxes
    """[N, 4] in pixels of the image."""
    found: Boxes
    """[runs, N, 4], of the true class by the simplified test."""
    overlaps: NDArray[np.float64]
    """[runs, N], intersection over union of the two."""


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """What `evaluate_boxes` found."""

    runs: tuple[str, ...]
    source: str
    split: str
    n: int
    simplified: tuple[BoxErrors, ...]
    comparisons: tuple[Comparison, ...]
    """Every two runs by the simplified test."""
    crop: int
    """Of all runs."""
    classifiers: tuple[str, ...]
    classifier_scales: tuple[tuple[int, ...], ...]
    """Q that each of them ranked classes at, for a crop of 224; boxes are rated at the scale that they are from."""
    windows: Windows | None
    """Of the full test."""
    full: tuple[FullErrors, ...]
    """Of each run and, if several, of all together; nothing without classification runs."""
    per_class: tuple[BoxClassErrors, ...]
    """Of the first run by the simplified test."""
    check: BoxCheck
    unusable: dict[str, str]
    images: LocalisedImages = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain dictionaries, ready for JSON."""
        figures = {name: value for name, value in vars(self).items() if name not in ("images", "check")}
        for name in ("simplified", "comparisons", "full", "per_class"):
            figures[name] = [asdict(one) for one in figures[name]]
        return {**figures, **asdict(self.check)}


def write_box_predictions(found: Localisation, file: str | Path) -> None:
    """A CSV or Parquet file, a row for each run and image by the simplified test, in the source's order.

    Columns: run, id, true_class, true_x0 to true_y1, x0 to y1 (pixels of the image) and iou.

    Raises:
        ValueError: a file of another kind, or nothing here that writes Parquet.
        OSError: the file cannot be written.
    """
    file, images = Path(file), found.images
    check_kind(file)
    with rows_file(file, dict.fromkeys(BOX_TEXTS, str) | dict.fromkeys(BOX_NUMBERS, float)) as add:
        for name, boxes, overlaps in zip(found.runs, images.found, images.overlaps, strict=True):
            add(
                (
                    as_text(name),
                    as_text(images.ids[index]),
                    as_text(images.classes[images.labels[index]]),
                    *images.true[index].tolist(),
                    *boxes[index].tolist(),
                    float(overlaps[index]),
                )
                for index in range(found.n)
            )


def box_errors(folder: str | Path, model: Model, overlaps: NDArray[np.float64]) -> BoxErrors:
    """Of a run, given the overlap of every image's box with the true one, [N]."""
    assert model.regression is not None
    wrong, learned = ~(overlaps > CORRECT_IOU), learned_layers(folder)
    return BoxErrors(
        name=str(folder),
        network=model.net.configuration.name,
        regression=model.regression,
        learned=learned,
        scale=model.scale,
        n=len(wrong),
        wrong=int(wrong.sum()),
        error=error_percent(wrong),
        error_ci95=wilson_interval(wrong),
        mean_iou=float(overlaps.mean()),
        paper_error=reported_box_error(model.regression, learned),
    )


def learned_layers(folder: str | Path) -> str | None:
    """Which layers a run was free to change: all, the fully connected ones, or from the one after the frozen ones."""
    if not has_record(folder):
        return None
    record = read_record(folder)
    frozen = record.recipe.get("freeze")
    if frozen is None:
        return LEARNED_ALL
    plan = layers(
        configuration(record.network),
        classes=2,
        crop=record.recipe["crop"],
        batch_norm=record.recipe["batch_norm"],
    )
    names = [layer.name for layer in plan]
    later = [name for name in names[names.index(frozen) + 1 :] if name.startswith(("conv", "fc"))]
    return LEARNED_FC if later[0] == "fc6" else f"{later[0]} and later"


def box_class_errors(images: LocalisedImages) -> tuple[BoxClassErrors, ...]:
    """Of the first run, on the images of each class."""
    wrong = ~(images.overlaps[0] > CORRECT_IOU)
    found = []
    for label in np.unique(images.labels):
        its = wrong[images.labels == label]
        found.append(
            BoxClassErrors(
                name=images.classes[label],
                n=len(its),
                wrong=int(its.sum()),
                error=error_percent(its),
                error_ci95=wilson_interval(its),
            )
        )
    return tuple(found)


def box_comparisons(names: Sequence[str], images: LocalisedImages) -> tuple[Comparison, ...]:
    """Every two runs, image by image."""
    wrong = ~(images.overlaps > CORRECT_IOU)
    return tuple(
        paired_comparison(names[one], names[other], wrong[one], wrong[other])
        for one, other in combinations(range(len(names)), 2)
    )


def full_errors(name: str, wrong: NDArray[np.bool_], *, scales: tuple[int, ...], classes: int) -> FullErrors:
    """Of [3, N]: which images are wrong by the true class's box, by top 1 and by top 5."""
    true_class, top1, top5 = wrong
    ranked = classes > TOP
    return FullErrors(
        name=name,
        scales=scales,
        n=len(true_class),
        true_class_error=error_percent(true_class),
        true_class_error_ci95=wilson_interval(true_class),
        top1_error=error_percent(top1),
        top1_error_ci95=wilson_interval(top1),
        top5_error=error_percent(top5) if ranked else None,
        top5_error_ci95=wilson_interval(top5) if ranked else None,
    )
