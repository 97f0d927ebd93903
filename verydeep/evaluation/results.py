"""Results of an evaluation: errors of each run and of all fused, where they are made, and how runs compare."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from verydeep.evaluation.metrics import (
    TOP,
    Calibration,
    calibration,
    class_balanced_error,
    confusion_matrix,
    error_percent,
    misclassified,
    predicted,
)
from verydeep.evaluation.precision import PrecisionErrors, precision_cost
from verydeep.evaluation.protocols import Method, Protocol
from verydeep.machine.runtime import FULL_PRECISION, PRECISION_NAMES
from verydeep.networks.grids import PoolingGrid
from verydeep.numbers import FINE, counted, interval, percent
from verydeep.presentation.pages import html_table
from verydeep.statistics import Comparison, paired_comparison, wilson_interval

NO_TOP5 = (
    f"No top-{TOP} error: with {TOP} classes or fewer the right one is always among the {TOP} most probable, so it "
    "would be 0 whatever the network does."
)


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Errors of one run, or of several fused, in percent."""

    name: str
    n: int
    top1_wrong: int
    top1_error: float
    top1_error_ci95: tuple[float, float]
    top5_wrong: int | None
    """None with five classes or fewer, as are the next two."""
    top5_error: float | None
    top5_error_ci95: tuple[float, float] | None
    class_balanced_error: float
    """Mean of the top-1 errors of the classes that there are images of: each counts the same, however small."""
    expected_calibration_error: float
    scales: tuple[int, ...]
    """Q, for a crop of 224."""
    mirror: bool
    precision: str
    """How products were computed: fp32, bf16 or int8; of several runs fused all that there are."""
    precision_cost: PrecisionErrors | None
    """Errors on some of the images beside those in float32; None where that was not measured."""


@dataclass(frozen=True, kw_only=True)
class ClassErrors:
    """Errors on the images of one class."""

    name: str
    n: int
    top1_wrong: int
    top1_error: float
    top1_error_ci95: tuple[float, float]
    top5_wrong: int | None


@dataclass(frozen=True, kw_only=True)
class TestedImages:
    """The images that could be used, in the source's order, and their posteriors."""

    __test__ = False  # pytest collects classes of such names

    ids: tuple[str, ...]
    labels: Int[np.ndarray, " N"]
    """Positions in `classes`."""
    classes: tuple[str, ...]
    posteriors: Float[np.ndarray, "N K"]
    """Posteriors of all runs fused."""
    posteriors_of_runs: tuple[Float[np.ndarray, "N K"], ...]

    @cached_property
    def predicted(self) -> Int[np.ndarray, " N"]:
        """Classes that the images were taken for by the fused runs, positions in `classes`."""
        return predicted(self.posteriors, self.labels)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of `evaluate`. Whatever does not belong to a single run belongs to all runs fused."""

    runs: tuple[str, ...]
    source: str
    split: str
    protocol: Method
    grid: PoolingGrid | None
    """Grid of dense evaluation; None where nothing is dense."""
    scales: tuple[int, ...]
    fused: Errors
    """Errors of all runs; of a single run they are its own."""
    per_run: tuple[Errors, ...]
    comparisons: tuple[Comparison, ...]
    """Every two of the runs, and each with their fusion."""
    calibration: Calibration
    per_class: tuple[ClassErrors, ...]
    """Errors of the classes that there are images of."""
    confusions: tuple[tuple[str, str, int], ...]
    """(true class, predicted class, images), the right ones too, the most frequent first."""
    notes: tuple[str, ...]
    """Sentences on what the figures leave out, or why they may be too good."""
    unusable: dict[str, str]
    """Images that were left out, and why."""
    from_cache: float
    """Share of the posteriors that was not computed now, 0..1."""
    seconds: float
    images_per_second: float | None
    """Images times runs; None if nothing was computed now."""
    tested: TestedImages | None = field(repr=False, compare=False)
    """None in other processes than the first."""

    @property
    def n(self) -> int:
        """Number of images that could be used."""
        return self.fused.n

    @property
    def top1_error(self) -> float:
        """Percent of the images."""
        return self.fused.top1_error

    @property
    def top5_error(self) -> float | None:
        """Percent of the images; None with five classes or fewer."""
        return self.fused.top5_error

    @property
    def class_balanced_error(self) -> float:
        """Mean over the classes of their top-1 errors, in percent."""
        return self.fused.class_balanced_error

    @property
    def top1_error_ci95(self) -> tuple[float, float]:
        """95% interval in percent."""
        return self.fused.top1_error_ci95

    @property
    def top5_error_ci95(self) -> tuple[float, float] | None:
        """95% interval in percent; None with five classes or fewer."""
        return self.fused.top5_error_ci95

    @property
    def images(self) -> TestedImages:
        """Every image and its posteriors; not part of `to_dict`.

        Raises:
            ValueError: several processes evaluated, and this is not the first of them, which alone has them.
        """
        if self.tested is None:
            raise ValueError("only the first process has the posteriors of every image")
        return self.tested

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain dictionaries, ready for JSON."""
        first = ("runs", "source", "split", "protocol", "grid", "scales", "n")
        errors = ("top1_error", "top5_error", "top1_error_ci95", "top5_error_ci95", "class_balanced_error")
        rest = (name for name in vars(self) if name not in (*first, "fused", "tested"))
        figures = {name: getattr(self, name) for name in (*first, *errors, *rest)}
        figures |= {name: [asdict(one) for one in figures[name]] for name in ("per_run", "comparisons", "per_class")}
        figures["calibration"] = asdict(self.calibration)
        figures["confusions"] = [
            {"true": true, "predicted": taken_for, "images": images} for true, taken_for, images in self.confusions
        ]
        return figures

    def _repr_html_(self) -> str:
        """Return the errors of each run and of all fused as a table, as notebooks show it."""
        columns = ("run", "top-1 error, %", "95% interval", "class-balanced", "top-5 error, %")
        rows = [
            (
                one.name,
                percent(one.top1_error, FINE),
                interval(one.top1_error_ci95, FINE),
                percent(one.class_balanced_error, FINE),
                percent(one.top5_error, FINE),
            )
            for one in (*self.per_run, *([self.fused] if len(self.per_run) > 1 else []))
        ]
        caption = f"{self.source}, {self.split}: {counted(self.n, 'image')}, {self.protocol}"
        return html_table(caption, columns, rows)


def summarised(
    images: TestedImages,
    protocols: Mapping[str, Protocol],
    *,
    known: Sequence[str] = (),
    precisions: Mapping[str, str] = MappingProxyType({}),
    costs: Mapping[str, PrecisionErrors] = MappingProxyType({}),
    **figures: Any,
) -> Evaluation:
    """Sum up the posteriors of images as an evaluation.

    Args:
        images: the images that were tested.
        protocols: how each run was tested, by its name and in the order of `posteriors_of_runs`.
        known: sentences about images that the runs may know from their training (`known_images`).
        precisions: how products were computed, of runs by their names; in float32 where nothing is said.
        costs: what that cost in error, where it was measured.
        figures: the fields of `Evaluation` that do not follow from these two.
    """
    scales = tuple(sorted({q for protocol in protocols.values() for q in protocol.scales}))
    mirror = all(protocol.mirror for protocol in protocols.values())
    per_run = tuple(
        _errors_of(
            name,
            posteriors,
            images.labels,
            scales=protocol.scales,
            mirror=protocol.mirror,
            precision=precisions.get(name, FULL_PRECISION),
            precision_cost=costs.get(name),
        )
        for (name, protocol), posteriors in zip(protocols.items(), images.posteriors_of_runs, strict=True)
    )
    mixed = ", ".join(sorted({errors.precision for errors in per_run}))
    return Evaluation(
        runs=tuple(protocols),
        scales=scales,
        grid=next(iter(protocols.values())).grid_used,
        fused=_errors_of(
            "fused",
            images.posteriors,
            images.labels,
            scales=scales,
            mirror=mirror,
            precision=mixed,
            precision_cost=None,
        ),
        per_run=per_run,
        comparisons=comparisons(tuple(protocols), images),
        calibration=calibration(images.posteriors, images.labels),
        per_class=_class_errors(images),
        confusions=confusions(images),
        notes=(*known, *_precision_notes(per_run), *(() if len(images.classes) > TOP else (NO_TOP5,))),
        tested=images,
        **figures,
    )


def _errors_of(name: str, posteriors: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], **how: Any) -> Errors:
    """Return the errors that posteriors make; `how` has the fields that say how these came about."""
    wrong, wrong5 = misclassified(posteriors, labels), _top5(posteriors, labels)
    return Errors(
        name=name,
        n=len(labels),
        top1_wrong=int(wrong.sum()),
        top1_error=error_percent(wrong),
        top1_error_ci95=wilson_interval(wrong),
        top5_wrong=None if wrong5 is None else int(wrong5.sum()),
        top5_error=None if wrong5 is None else error_percent(wrong5),
        top5_error_ci95=None if wrong5 is None else wilson_interval(wrong5),
        class_balanced_error=class_balanced_error(wrong, labels),
        expected_calibration_error=calibration(posteriors, labels).expected_calibration_error,
        **how,
    )


def _precision_notes(runs: Sequence[Errors]) -> Iterator[str]:
    """Say of each run that was not computed in float32 what it was computed in, and what that cost."""
    for run in runs:
        name = f"{run.name}: " if len(runs) > 1 else ""
        if run.precision_cost is not None:
            yield name + precision_cost(run.precision_cost)
        elif run.precision != FULL_PRECISION:
            yield f"{name}Computed in {PRECISION_NAMES[run.precision]}."


def _class_errors(images: TestedImages) -> tuple[ClassErrors, ...]:
    """Return the errors of the fused runs on the images of each class."""
    wrong, wrong5 = misclassified(images.posteriors, images.labels), _top5(images.posteriors, images.labels)
    errors = []
    for label in np.unique(images.labels):
        its = images.labels == label
        errors.append(
            ClassErrors(
                name=images.classes[label],
                n=int(its.sum()),
                top1_wrong=int(wrong[its].sum()),
                top1_error=error_percent(wrong[its]),
                top1_error_ci95=wilson_interval(wrong[its]),
                top5_wrong=None if wrong5 is None else int(wrong5[its].sum()),
            )
        )
    return tuple(errors)


def confusions(images: TestedImages) -> tuple[tuple[str, str, int], ...]:
    """Count (true class, predicted class, images) of the fused runs, the most frequent first."""
    classes = images.classes
    counts = confusion_matrix(images.predicted, images.labels, classes=len(classes))
    pairs = sorted(zip(*np.nonzero(counts), strict=True), key=lambda pair: -counts[pair])
    return tuple((classes[true], classes[taken_for], int(counts[true, taken_for])) for true, taken_for in pairs)


def comparisons(names: Sequence[str], images: TestedImages) -> tuple[Comparison, ...]:
    """Compare every two of several runs, then each with the fusion of all; nothing for a single run."""
    if len(names) < 2:
        return ()
    wrong = [misclassified(posteriors, images.labels) for posteriors in images.posteriors_of_runs]
    each = list(zip(names, wrong, strict=True))
    fused = ("fused", misclassified(images.posteriors, images.labels))
    pairs = [*combinations(each, 2), *((one, fused) for one in each)]
    return tuple(paired_comparison(first, second, errs, others) for (first, errs), (second, others) in pairs)


def _top5(posteriors: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"] | None:
    return misclassified(posteriors, labels, top=TOP) if posteriors.shape[1] > TOP else None
