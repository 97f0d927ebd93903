"""Results of a test of boxes: errors by both procedures, how runs compare, and the file of predicted boxes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from verydeep.box_regression import Regression
from verydeep.evaluation.metrics import TOP, error_percent
from verydeep.evaluation.predictions import ID, TRUE, as_text, check_kind, rows_file
from verydeep.evaluation.protocols import Windows
from verydeep.images.boxes.checking import BoxCheck
from verydeep.images.boxes.geometry import CORRECT_IOU
from verydeep.localisation.paper import LEARNED_ALL, LEARNED_FC, reported_box_error
from verydeep.runs.model import Model
from verydeep.runs.record import record_of
from verydeep.statistics import Comparison, paired_comparison, wilson_interval
from verydeep.training.recipe import recipe_from

_SIDES = ("x0", "y0", "x1", "y1")
_TEXTS = ("run", ID, TRUE)
_NUMBERS = (*(f"true_{side}" for side in _SIDES), *_SIDES, "iou")


@dataclass(frozen=True, kw_only=True)
class BoxErrors:
    """Errors of one run by the simplified test (the box of the true class from the centre crop at S), in percent."""

    name: str
    network: str
    regression: Regression
    learned: str | None
    """`all layers`, `fully connected layers`, from which layer on, or the one layer; None if the run does not say."""
    scale: str
    """S, for a crop of 224."""
    n: int
    wrong: int
    error: float
    error_ci95: tuple[float, float]
    mean_iou: float
    """Mean intersection over union with the true box, 0..1."""
    paper_error: float | None
    """Error of the corresponding network in the paper's Table 8; None if it has none."""


@dataclass(frozen=True, kw_only=True)
class FullErrors:
    """Errors of one run, or of several together, by the full test, in percent."""

    name: str
    scales: tuple[int, ...]
    """The Q at which boxes were sought, for a crop of 224."""
    n: int
    """Images of the simplified test that can be used here too."""
    true_class_error: float
    """Wrong box for the true class, whichever class was predicted."""
    true_class_error_ci95: tuple[float, float]
    top1_error: float
    """The most probable class must be right, and its box."""
    top1_error_ci95: tuple[float, float]
    top5_error: float | None
    """One of the five most probable classes must be right, and its box; None with five classes or fewer."""
    top5_error_ci95: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class BoxClassErrors:
    """Errors on the images of one class by the simplified test, in percent."""

    name: str
    n: int
    wrong: int
    error: float
    error_ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class LocalisedImages:
    """Every image that could be used, with its boxes (x0, y0, x1, y1) in pixels."""

    ids: tuple[str, ...]
    labels: Int[np.ndarray, " N"]
    classes: tuple[str, ...]
    true: Float[np.ndarray, "N 4"]
    predicted: Float[np.ndarray, "runs N 4"]
    """Boxes of the true class by the simplified test."""
    overlaps: Float[np.ndarray, "runs N"]
    """Intersection over union of the two, 0..1."""

    @property
    def wrong(self) -> Bool[np.ndarray, "runs N"]:
        """Whether the predicted box is wrong."""
        return ~(self.overlaps > CORRECT_IOU)


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """Result of `evaluate_boxes`."""

    runs: tuple[str, ...]
    source: str
    split: str
    n: int
    simplified: tuple[BoxErrors, ...]
    """Errors of each run."""
    comparisons: tuple[Comparison, ...]
    """Every pair of runs by the simplified test."""
    crop: int
    """Crop of all runs, in pixels."""
    classifiers: tuple[str, ...]
    classifier_scales: tuple[tuple[int, ...], ...]
    """The Q at which each of them ranked classes, for a crop of 224; boxes are rated at their own scale."""
    windows: Windows | None
    """How windows went through the networks in the full test."""
    full: tuple[FullErrors, ...]
    """Errors of each run and, if several, of all together; none without classification runs."""
    per_class: tuple[BoxClassErrors, ...]
    """Errors of the first run by the simplified test."""
    check: BoxCheck
    unusable: dict[str, str]
    """Images that were left out, and why."""
    images: LocalisedImages = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain dictionaries, ready for JSON."""
        figures = {name: value for name, value in vars(self).items() if name not in ("images", "check")}
        for name in ("simplified", "comparisons", "full", "per_class"):
            figures[name] = [asdict(one) for one in figures[name]]
        return {**figures, **asdict(self.check)}


def box_errors(folder: str | Path, model: Model, overlaps: Float[np.ndarray, " N"]) -> BoxErrors:
    """Count the errors of a run, given the overlap of every image's box with the true one."""
    architecture = model.net.architecture
    assert architecture.boxes is not None
    wrong, learned = ~(overlaps > CORRECT_IOU), _learned_layers(folder)
    return BoxErrors(
        name=str(folder),
        network=architecture.network,
        regression=architecture.boxes,
        learned=learned,
        scale=model.scale,
        n=len(wrong),
        wrong=int(wrong.sum()),
        error=error_percent(wrong),
        error_ci95=wilson_interval(wrong),
        mean_iou=float(overlaps.mean()),
        paper_error=reported_box_error(architecture.boxes, learned),
    )


def _learned_layers(folder: str | Path) -> str | None:
    """Say which layers a run was free to change: all, the fully connected ones, or those after the frozen ones.

    Raises:
        ValueError: the run's record is damaged.
    """
    record = record_of(folder)
    if record is None:
        return None
    names = [layer.name for layer in record.architecture.layers()]
    frozen = recipe_from(record.recipe).last_frozen(names)
    if frozen is None:
        return LEARNED_ALL
    later = [name for name in names[names.index(frozen) + 1 :] if name.startswith(("conv", "fc"))]
    if later[0] == "fc6":
        return LEARNED_FC
    return f"{later[0]} and later" if len(later) > 1 else later[0]


def box_class_errors(images: LocalisedImages) -> tuple[BoxClassErrors, ...]:
    """Count the errors of the first run on the images of each class."""
    by_class = {label: images.wrong[0][images.labels == label] for label in np.unique(images.labels)}
    return tuple(
        BoxClassErrors(
            name=images.classes[label],
            n=len(wrong),
            wrong=int(wrong.sum()),
            error=error_percent(wrong),
            error_ci95=wilson_interval(wrong),
        )
        for label, wrong in by_class.items()
    )


def box_comparisons(names: Sequence[str], images: LocalisedImages) -> tuple[Comparison, ...]:
    """Compare every pair of runs, image by image."""
    each = zip(names, images.wrong, strict=True)
    return tuple(
        paired_comparison(first, second, wrong, other) for (first, wrong), (second, other) in combinations(each, 2)
    )


def full_errors(name: str, wrong: Bool[np.ndarray, "3 N"], *, scales: tuple[int, ...], classes: int) -> FullErrors:
    """Count which images are wrong by the true class's box, by top 1 and by top 5."""
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


def write_box_predictions(localisation: Localisation, file: str | Path) -> None:
    """Write the predictions of the simplified test, a row for each run and image, in the source's order.

    Columns: run, id, true_class, true_x0 to true_y1, x0 to y1 (pixels of the image) and iou.

    Raises:
        ValueError: a file of another kind, or no library that writes Parquet.
        OSError: the file cannot be written.
    """
    file, images = Path(file), localisation.images
    check_kind(file)
    with rows_file(file, dict.fromkeys(_TEXTS, str) | dict.fromkeys(_NUMBERS, float)) as add:
        for name, boxes, overlaps in zip(localisation.runs, images.predicted, images.overlaps, strict=True):
            add(
                (
                    as_text(name),
                    as_text(images.ids[index]),
                    as_text(images.classes[images.labels[index]]),
                    *images.true[index].tolist(),
                    *boxes[index].tolist(),
                    float(overlaps[index]),
                )
                for index in range(localisation.n)
            )
