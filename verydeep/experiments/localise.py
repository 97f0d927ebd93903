"""Localisation, appendix A of the paper: what is trained, tested and predicted of boxes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep import runs
from verydeep.evaluation.localisation import TOP, FullTest, centre_crop_boxes, full_test
from verydeep.evaluation.metrics import error_interval, error_percent
from verydeep.evaluation.paired import Comparison, paired_comparison
from verydeep.evaluation.protocols import Windows
from verydeep.experiments.paper import LEARNED_ALL, LEARNED_FC, reported_box_error
from verydeep.images.box_geometry import CORRECT_IOU, Boxes, intersection_over_union
from verydeep.images.boxed import Boxed
from verydeep.images.open_boxed import BoxCheck, BoxOptions, boxed_parts
from verydeep.images.open_source import open_for_testing, open_source
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources import Regression, Splits
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.networks.configurations import configuration, layers
from verydeep.networks.scales import middle_scale
from verydeep.progress import reporting
from verydeep.runtime import Runtime, torch_device
from verydeep.training.recipe import Recipe, check_for_boxes

LAST_CONVOLUTIONAL = "pool5"
"""Frozen up to here, fully connected layers alone learn."""


def localisation_splits(
    source: str, *, regression: Regression, options: BoxOptions, max_pixels: int = MAX_PIXELS
) -> tuple[Splits, BoxCheck]:
    """A source's training and validation images with their boxes, for `train`; and what became of the others.

    Raises:
        ValueError: unusable source or boxes.
    """
    splits = open_source(source)
    parts = ["train", "val"]
    with reporting("check boxes", total=sum(len(splits.part(part)) for part in parts)) as report:
        found, check = boxed_parts(splits, parts, options, max_pixels=max_pixels, advance=report.advance)
    return Splits(name=splits.name, parts={**found}, regression=regression), check


def localisation_recipe(recipe: Recipe, *, fc_only: bool) -> Recipe:
    """A recipe for boxes; with `fc_only` all layers before fc6 are frozen.

    Raises:
        ValueError: it does not go with boxes, or says already what is frozen.
    """
    check_for_boxes(recipe)
    if not fc_only:
        return recipe
    if recipe.freeze is not None:
        raise ValueError("--fc-only and --freeze both say what learns: choose one")
    return replace(recipe, freeze=LAST_CONVOLUTIONAL)


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
    classifiers: tuple[str, ...]
    scales: tuple[int, ...]
    """Q of the full test, for a crop of 224."""
    windows: Windows | None
    """Of the full test."""
    full: tuple[FullErrors, ...]
    """Of each run and, if several, of all together; nothing without classification runs."""
    per_class: tuple[dict[str, Any], ...]
    """Of the first run by the simplified test: name, n, wrong, error."""
    check: BoxCheck
    unusable: dict[str, str]
    images: LocalisedImages = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain dictionaries, ready for JSON."""
        figures = {name: value for name, value in vars(self).items() if name not in ("images", "check")}
        for name in ("simplified", "comparisons", "full"):
            figures[name] = [asdict(one) for one in figures[name]]
        return {**figures, **asdict(self.check)}


def evaluate_boxes(
    folders: Sequence[str | Path],
    *,
    data: str,
    options: BoxOptions,
    split: str | None = None,
    classifiers: Sequence[str | Path] = (),
    scales: Sequence[int] | None = None,
    windows: Windows | None = None,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
) -> Localisation:
    """Tests runs of boxes by the paper's two procedures; several are compared and, in the full test, put together.

    Args:
        folders: runs of boxes, with the same classes and crop.
        data: SOURCE of the images.
        options: where their boxes are.
        split: `test` if the source has one, else `val`; of a source without splits that none was trained on, `all`.
        classifiers: classification runs that rate boxes in the full test; without any there is none.
        scales: Q of the full test for a crop of 224; each run's S if not said.
        windows: of the full test, `FullTest.windows`.
        runtime: device, and processes that decode.
        tolerance: how many images may be unusable.

    Raises:
        ValueError: unusable runs, source, boxes or scales.
        TooManyBadImagesError: more images are unusable than is tolerated.
    """
    runtime, tolerance = runtime or Runtime(), tolerance or Tolerance()
    models = _models(folders, runtime)
    classes = models[0].classes
    judges = [on_device(runs.load_model(folder), runtime) for folder in classifiers]
    chosen = tuple(scales or dict.fromkeys(middle_scale(model.scale) for model in models))
    test = _full(models, judges, chosen, windows) if judges else None
    splits = open_for_testing(data, classes)
    split = split or _testing_split(splits, folders)
    with reporting("check boxes", total=len(splits.part(split))) as report:
        parts, check = boxed_parts(splits, [split], options, max_pixels=tolerance.max_pixels, advance=report.advance)
    source = parts[split]
    quarantine = Quarantine(len(source), tolerance, split=split)
    boxes = _simplified(models, source, quarantine, runtime)
    usable = np.flatnonzero(~np.isnan(boxes).any(axis=(0, 2)))
    if not len(usable):
        raise ValueError(f"none of the images of {split} can be used")
    images = _images(source, usable, boxes)
    names = tuple(map(str, folders))
    right = images.overlaps > CORRECT_IOU
    return Localisation(
        runs=names,
        source=splits.name,
        split=split,
        n=len(usable),
        simplified=tuple(_box_errors(*one) for one in zip(folders, models, images.overlaps, strict=True)),
        comparisons=tuple(
            paired_comparison(names[one], names[other], ~right[one], ~right[other])
            for one, other in combinations(range(len(names)), 2)
        ),
        classifiers=tuple(map(str, classifiers)),
        scales=chosen if test else (),
        windows=test.way if test else None,
        full=_full_errors(test, names, source, usable, quarantine, runtime) if test else (),
        per_class=_per_class(images),
        check=check,
        unusable=quarantine.reasons,
        images=images,
    )


def _models(folders: Sequence[str | Path], runtime: Runtime) -> list[runs.Model]:
    if not folders or len(set(map(str, folders))) < len(folders):
        raise ValueError("name one or more runs of boxes, each once")
    models = [on_device(runs.load_box_model(folder), runtime) for folder in folders]
    for folder, model in zip(folders, models, strict=True):
        if model.classes != models[0].classes:
            raise ValueError(f"{folders[0]} and {folder} have other classes: they cannot be tested together")
    return models


def on_device(model: runs.Model, runtime: Runtime) -> runs.Model:
    """The model with its network where it is to run."""
    import torch

    net = model.net.to(torch_device(runtime.device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return replace(model, net=net)


def _full(
    models: Sequence[runs.Model], judges: Sequence[runs.Model], scales: Sequence[int], windows: Windows | None
) -> FullTest:
    each = [[which] for which in range(len(models))]
    groups = [*each, list(range(len(models)))] if len(models) > 1 else each
    return FullTest(box_models=models, classifiers=judges, groups=groups, scales=scales, windows=windows)


def _testing_split(splits: Splits, folders: Sequence[str | Path]) -> str:
    """`test`, else `val`; `all` of a folder without splits, unless a run was trained on a part of it."""
    if "all" not in splits.parts:
        return splits.testing
    records = [runs.read_record(folder) for folder in folders if runs.has_record(folder)]
    trained = {record.fingerprints.get("train_whole") for record in records}
    known = "train" in splits.parts and splits.part("train").fingerprint in trained
    return "val" if known else "all"


def _simplified(models: Sequence[runs.Model], source: Boxed, quarantine: Quarantine, runtime: Runtime) -> Boxes:
    with reporting("centre crops", total=len(models) * len(source)) as report:
        quarantine.say = report.say
        return np.stack(
            [
                centre_crop_boxes(model, source, quarantine=quarantine, workers=runtime.workers, advance=report.advance)
                for model in models
            ]
        )


def _images(source: Boxed, usable: NDArray[np.int64], boxes: Boxes) -> LocalisedImages:
    true = np.stack([source.located[index].box for index in usable])
    found = boxes[:, usable]
    return LocalisedImages(
        ids=tuple(source.ids[index] for index in usable),
        labels=np.asarray(source.labels)[usable],
        classes=source.classes,
        true=true,
        found=found,
        overlaps=intersection_over_union(found, true[None]),
    )


def _box_errors(folder: str | Path, model: runs.Model, overlaps: NDArray[np.float64]) -> BoxErrors:
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
        error_ci95=error_interval(wrong),
        mean_iou=float(overlaps.mean()),
        paper_error=reported_box_error(model.regression, learned),
    )


def learned_layers(folder: str | Path) -> str | None:
    """Which layers a run was free to change: all, the fully connected ones, or from the one after the frozen ones."""
    if not runs.has_record(folder):
        return None
    record = runs.read_record(folder)
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


def _per_class(images: LocalisedImages) -> tuple[dict[str, Any], ...]:
    wrong = ~(images.overlaps[0] > CORRECT_IOU)
    found = []
    for label in np.unique(images.labels):
        its = wrong[images.labels == label]
        found.append(
            {
                "name": images.classes[label],
                "n": len(its),
                "wrong": int(its.sum()),
                "error": error_percent(its),
                "error_ci95": error_interval(its),
            }
        )
    return tuple(found)


def _full_errors(
    test: FullTest,
    names: tuple[str, ...],
    source: Boxed,
    usable: NDArray[np.int64],
    quarantine: Quarantine,
    runtime: Runtime,
) -> tuple[FullErrors, ...]:
    labels, wrong = source.labels, []
    with reporting("whole images", total=len(source)) as report:
        quarantine.say = report.say
        for index, seen in full_test(test, source, quarantine=quarantine, workers=runtime.workers, wanted=labels):
            report.advance()
            if seen is None or index not in usable:
                continue
            label, true = labels[index], source.located[index].box
            right = intersection_over_union(seen.boxes[:, label], true) > CORRECT_IOU  # [groups]
            # Of classes with equal probability the right one counts as the last.
            rank = int((seen.posterior >= seen.posterior[label]).sum())
            wrong.append(np.stack([~right, ~right | (rank > 1), ~right | (rank > TOP)]))
    told = [*names, *(["all together"] if len(names) > 1 else [])]
    by_group = np.stack(wrong, axis=2).transpose(1, 0, 2)  # [groups, 3, images]
    return tuple(_full_figures(name, its, classes=len(test.classes)) for name, its in zip(told, by_group, strict=True))


def _full_figures(name: str, wrong: NDArray[np.bool_], *, classes: int) -> FullErrors:
    true_class, top1, top5 = wrong
    ranked = classes > TOP
    return FullErrors(
        name=name,
        n=len(true_class),
        true_class_error=error_percent(true_class),
        true_class_error_ci95=error_interval(true_class),
        top1_error=error_percent(top1),
        top1_error_ci95=error_interval(top1),
        top5_error=error_percent(top5) if ranked else None,
        top5_error_ci95=error_interval(top5) if ranked else None,
    )
