"""Runs on a source by a protocol, to errors; several runs are fused by averaging their posteriors."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verydeep import runs
from verydeep.evaluation.metrics import TOP, error_interval, error_percent, misclassified
from verydeep.evaluation.protocols import DenseProtocol, paper_scales, posteriors, single_scale
from verydeep.images.open_source import open_for_testing
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources import Source, Splits
from verydeep.images.tolerance import Tolerance
from verydeep.progress import reporting
from verydeep.runtime import Runtime, torch_device


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Of one run, or of several fused; in percent."""

    name: str
    n: int
    top1_wrong: int
    top1_error: float
    top1_error_ci95: tuple[float, float]
    top5_error: float | None
    """None with five classes or fewer, where it would always be 0."""
    scales: tuple[int, ...]
    """Q, for a crop of 224."""
    mirror: bool


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found."""

    runs: tuple[str, ...]
    source: str
    split: str
    protocol: str
    scales: tuple[int, ...]
    n: int
    top1_error: float
    top5_error: float | None
    top1_error_ci95: tuple[float, float]
    per_run: tuple[Errors, ...]
    unusable: dict[str, str]
    """Images that were left out, and why."""
    seconds: float
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, ready for JSON."""
        return asdict(self)


def evaluate(
    run: str | Path | Sequence[str | Path],
    *,
    data: str | Splits,
    split: str | None = None,
    scales: Sequence[int] | str = "paper",
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
) -> Evaluation:
    """Tests runs densely on the images of a source, each by itself and, if several, fused.

    Args:
        run: a run folder, or several whose posteriors are averaged.
        data: SOURCE, as for training, or its splits.
        split: part of it. If not said, `test` where there is one, else `val`; of a folder without splits that no run
            was trained on, `all`.
        scales: Q for a crop of 224, or `paper` (the three that follow from each run's S), or `single` (Q = S).
        runtime: device, and processes that decode.
        tolerance: how many images may be unusable; those are left out, named, and not counted in `n`.

    Raises:
        ValueError: unusable run, source, split or scales; runs with different classes, or images of a class that
            the runs do not know.
        TooManyBadImagesError: more images are unusable than is tolerated.
    """
    folders = [run] if isinstance(run, str | Path) else list(run)
    if not folders:
        raise ValueError("name one or more runs to evaluate")
    loaded = [(folder, runs.load_model(folder)) for folder in folders]
    classes = _common_classes(loaded)
    splits = open_for_testing(data, classes) if isinstance(data, str) else data
    split = split or _testing_split(splits, folders)
    source = splits.part(split)
    runtime = runtime or Runtime()
    device = torch_device(runtime.device)
    models = [(str(folder), model, _protocol(model, scales)) for folder, model in loaded]
    labels = _labels(source, classes)
    views = len(source) * sum(len(protocol.scales) for _, _, protocol in models)
    started = time.perf_counter()
    found = []
    with reporting(f"evaluate {split}", total=views) as report:
        quarantine = Quarantine(len(source), tolerance or Tolerance(), split=split, say=report.say)
        options: dict[str, Any] = {"quarantine": quarantine, "workers": runtime.workers, "advance": report.advance}
        for name, model, protocol in models:
            net = model.net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            found.append(posteriors(net, source, protocol, **options))
            report.advance(0, tell=True, figures={"run": name})
    seconds = time.perf_counter() - started
    usable = ~np.isnan(found).any(axis=(0, 2))
    if not usable.any():
        raise ValueError(f"none of the {len(source):,} {split} images of {splits.name} can be used")
    found, labels = [posterior[usable] for posterior in found], labels[usable]
    per_run = tuple(
        _errors(name, posterior, labels, protocol) for (name, _, protocol), posterior in zip(models, found, strict=True)
    )
    fused = _errors(" + ".join(e.name for e in per_run), np.mean(found, axis=0), labels, models[0][2])
    return Evaluation(
        runs=tuple(name for name, _, _ in models),
        source=splits.name,
        split=split,
        protocol=models[0][2].name,
        scales=tuple(sorted({q for errors in per_run for q in errors.scales})),
        n=fused.n,
        top1_error=fused.top1_error,
        top5_error=fused.top5_error,
        top1_error_ci95=fused.top1_error_ci95,
        per_run=per_run,
        unusable=quarantine.reasons,
        seconds=seconds,
        images_per_second=len(models) * len(source) / seconds,
    )


def _testing_split(splits: Splits, folders: Sequence[str | Path]) -> str:
    """`test`, else `val`; `all` of a folder without splits, unless a run was trained on a part of it."""
    if "all" not in splits.parts:
        return splits.testing
    records = (runs.read_record(folder) for folder in folders if runs.has_record(folder))
    trained = {record.fingerprints.get("train") for record in records}
    known = "train" in splits.parts and splits.part("train").fingerprint in trained
    return "val" if known else "all"


def _protocol(model: runs.Model, scales: Sequence[int] | str) -> DenseProtocol:
    if isinstance(scales, str):
        if scales not in ("paper", "single"):
            raise ValueError(f"scales are paper, single or a list of numbers, not {scales!r}")
        scales = paper_scales(model.scale) if scales == "paper" else single_scale(model.scale)
    return DenseProtocol(scales=tuple(scales), mirror=model.flip)


def _common_classes(models: Sequence[tuple[str | Path, runs.Model]]) -> tuple[str, ...]:
    (first, model), *others = models
    for name, other in others:
        if other.classes != model.classes:
            differing = sorted(set(other.classes) ^ set(model.classes))
            what = f"{', '.join(differing)}" if differing else "their order"
            raise ValueError(f"{first} and {name} cannot be fused: their classes differ ({what})")
    return model.classes


def _labels(source: Source, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """The source's labels in the run's numbering: classes are matched by name."""
    unknown = sorted(set(source.classes) - set(classes))
    if unknown:
        raise ValueError(f"the run does not know the class {', '.join(unknown)}; it knows {', '.join(classes)}")
    numbers = np.array([classes.index(name) for name in source.classes])
    return numbers[np.asarray(source.labels)]


def _errors(name: str, posterior: NDArray[np.float64], labels: NDArray[np.int64], protocol: DenseProtocol) -> Errors:
    wrong = misclassified(posterior, labels)
    enough_classes = posterior.shape[1] > TOP
    return Errors(
        name=name,
        n=len(labels),
        top1_wrong=int(wrong.sum()),
        top1_error=error_percent(wrong),
        top1_error_ci95=error_interval(wrong),
        top5_error=error_percent(misclassified(posterior, labels, top=TOP)) if enough_classes else None,
        scales=protocol.scales,
        mirror=protocol.mirror,
    )
