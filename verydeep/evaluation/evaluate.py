"""Runs on a source by a protocol, to errors; several runs are fused by averaging their posteriors."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verydeep.evaluation.metrics import TOP, calibration
from verydeep.evaluation.passes import Pass, PassContext
from verydeep.evaluation.posteriors import Averages, averages, protocol_passes
from verydeep.evaluation.protocols import Method, Protocol, Scales, chosen_scales
from verydeep.evaluation.results import (
    NO_TOP5,
    Evaluation,
    Images,
    class_errors,
    comparisons,
    confusions,
    errors_of,
)
from verydeep.ilsvrc_classes import places
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.open import open_for_testing
from verydeep.images.sources.source import Source, Splits, Unchanged, contents_digests, some
from verydeep.images.tolerance import Tolerance
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.processes import Processes, joined
from verydeep.machine.runtime import Runtime, torch_device
from verydeep.presentation.progress import reporting
from verydeep.runs.model import Model, load_model, warnings_of
from verydeep.runs.record import has_record, read_record
from verydeep.version import __version__

CACHE_FORMAT = 1
"""Of the posteriors that are kept; raised when the same inputs came to give others."""


KEPT = "what was computed is kept: the same command goes on"


@dataclass(frozen=True, kw_only=True)
class _Tested:
    """A run and how it is tested."""

    name: str
    model: Model
    protocol: Protocol


def evaluate(
    run: str | Path | Sequence[str | Path],
    *,
    data: str | Splits,
    split: str | None = None,
    protocol: Method = "dense",
    scales: Sequence[int] | Scales = "paper",
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
    cache: bool = True,
) -> Evaluation:
    """Tests runs on the images of a source, each by itself and, if several, fused.

    Under torchrun each process has its share of the images, and all return the same, but for `images`, which only the
    first has.

    Args:
        run: a run folder, or several whose posteriors are averaged.
        data: SOURCE, as for training, or its splits.
        split: part of it. If not said, `test` where there is one, else `val`; of a folder without splits that no run
            was trained on, `all`.
        protocol: `dense`, `crops` or `both` (`Protocol.method`).
        scales: Q for a crop of 224, or `paper` (the three that follow from each run's S), or `single` (Q = S).
        runtime: device, and processes that decode.
        tolerance: how many images may be unusable; those are left out, named, and not counted in `n`.
        cache: keep posteriors, and use those that were kept, of the same weights, files, views and scale.

    Raises:
        ValueError: unusable run, source, split, protocol or scales; runs with different classes, or images of a class
            that the runs do not know.
        TooManyBadImagesError: more images are unusable than is tolerated.
    """
    runtime, tolerance = runtime or Runtime(), tolerance or Tolerance()
    device = torch_device(runtime.device)
    tested = _all_tested([run] if isinstance(run, str | Path) else run, protocol, scales)
    classes = tested[0].model.classes
    splits = open_for_testing(data, classes) if isinstance(data, str) else data
    split = split or testing_split(splits, [one.name for one in tested])
    source = splits.part(split)
    labels = _labels(source, classes)
    started = time.perf_counter()
    with joined(device, advice=KEPT, known=(WorkerDiedError,)) as processes:
        processes.check_alike(
            "images, classes or runs under these names",
            lambda: (source.fingerprint, source.classes, [(t.model.weights_sha256, t.protocol) for t in tested]),
        )
        digests = processes.from_first(lambda: _digests(source)) if cache else None
        passes = [_passes(one, device, digests, tolerance) for one in tested]
        quarantine = Quarantine(len(source), tolerance, split=split)
        context = PassContext(
            source=Unchanged(source=source, digests=digests) if digests else source,
            quarantine=quarantine,
            workers=runtime.workers,
            processes=processes,
        )
        said = [line for one in tested for line in warnings_of(one.name, one.model)]
        found = _told_averages(f"evaluate {split}", passes, context, said)
        figures = {
            "source": splits.name,
            "split": split,
            "protocol": protocol,
            "unusable": quarantine.reasons,
            **_speed(time.perf_counter() - started, found.computed, passes, len(source)),
        }
        return _from_first(processes, lambda: _evaluation(tested, found.values, source, labels, figures))


def _told_averages(what: str, passes: Sequence[Sequence[Pass]], context: PassContext, said: Sequence[str]) -> Averages:
    """The averages over each run's passes, with their progress, after what is to be `said`."""
    rows = len(context.source) * sum(map(len, passes))
    with reporting(what, total=rows, quiet=not context.processes.first) as report:
        for line in said:
            report.say(line)
        context.quarantine.say = report.say
        try:
            return averages(passes, replace(context, advance=report.advance, say=report.say))
        except (KeyboardInterrupt, SystemExit):
            if passes[0][0].key:
                report.say(KEPT)
            raise


def _speed(seconds: float, computed: int, passes: Sequence[Sequence[Pass]], images: int) -> dict[str, float | None]:
    share = computed / (images * sum(map(len, passes)))
    speed = len(passes) * images * share / seconds if computed else None
    return {"from_cache": 1 - share, "seconds": seconds, "images_per_second": speed}


def _from_first(processes: Processes, compute: Callable[[], Evaluation]) -> Evaluation:
    """What the first process has, in all of them, but for the posteriors, which may be gigabytes."""
    whole: list[Evaluation] = []

    def figures() -> Evaluation:
        whole.append(compute())
        return replace(whole[0], shown=None)

    told = processes.from_first(figures)
    return whole[0] if processes.first else told


def _evaluation(
    tested: Sequence[_Tested],
    posteriors: Sequence[NDArray[np.float64]],
    source: Source,
    labels: NDArray[np.int64],
    figures: Mapping[str, Any],
) -> Evaluation:
    """The statistics of what was found of every image."""
    bad = np.any([np.isnan(found[:, 0]) for found in posteriors], axis=0)
    usable: list[int] = np.flatnonzero(~bad).tolist()
    if not usable:
        raise ValueError(f"none of the {len(source):,} {figures['split']} images of {figures['source']} can be used")
    of_runs = tuple(found[usable] if bad.any() else found for found in posteriors)
    images = Images(
        ids=tuple(source.ids[index] for index in usable),
        labels=labels[usable],
        classes=tested[0].model.classes,
        posteriors=of_runs[0] if len(of_runs) == 1 else sum(of_runs[1:], of_runs[0]) / len(of_runs),
        posteriors_of_runs=of_runs,
    )
    names = [one.name for one in tested]
    per_run = tuple(
        errors_of(one.name, found, images.labels, scales=one.protocol.scales, mirror=one.protocol.mirror)
        for one, found in zip(tested, of_runs, strict=True)
    )
    scales = tuple(sorted({q for one in tested for q in one.protocol.scales}))
    mirror = all(one.protocol.mirror for one in tested)
    return Evaluation(
        runs=tuple(names),
        scales=scales,
        fused=errors_of("fused", images.posteriors, images.labels, scales=scales, mirror=mirror),
        per_run=per_run,
        comparisons=comparisons(names, images),
        calibration=calibration(images.posteriors, images.labels),
        per_class=class_errors(images),
        confusions=confusions(images),
        notes=() if len(images.classes) > TOP else (NO_TOP5,),
        shown=images,
        **figures,
    )


def _all_tested(folders: Sequence[str | Path], method: Method, scales: Sequence[int] | Scales) -> list[_Tested]:
    if not folders or len(set(map(str, folders))) < len(folders):
        raise ValueError("name one or more runs to evaluate, each once")
    tested = [_tested(folder, method, scales) for folder in folders]
    _check_classes(tested)
    return tested


def _tested(folder: str | Path, method: Method, scales: Sequence[int] | Scales) -> _Tested:
    model = load_model(folder)
    protocol = Protocol(method=method, scales=chosen_scales(scales, trained=model.scale), mirror=model.flip)
    return _Tested(name=str(folder), model=model, protocol=protocol)


def _digests(source: Source) -> list[bytes]:
    """What every file holds: whatever is called the same is not always the same."""
    with reporting("read images", total=len(source)) as report:
        return contents_digests(source, report.advance)


def _passes(tested: _Tested, device: torch.device, digests: Sequence[bytes] | None, tolerance: Tolerance) -> list[Pass]:
    """The passes of a run, each with what its posteriors follow from."""
    model = tested.model
    net = model.net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = protocol_passes(net, tested.protocol, name=tested.name)
    if digests is None:
        return found
    contents = hashlib.sha256(b"".join(digests)).hexdigest()
    architecture = (net.configuration.name, net.crop, net.width, net.batch_norm)
    decoders = version("pillow"), version("simplejpeg")
    made_by = (CACHE_FORMAT, __version__, torch.__version__, *decoders, device.type)
    fixed = (*made_by, model.weights_sha256, *architecture, contents, tolerance.max_pixels)
    return [replace(one, key=(*fixed, one.view, one.side, one.mirror)) for one in found]


def testing_split(splits: Splits, folders: Sequence[str | Path]) -> str:
    """`test`, else `val`; `all` of a folder without splits, unless a run was trained on a part of it."""
    if "all" not in splits.parts:
        return splits.testing
    records = (read_record(folder) for folder in folders if has_record(folder))
    # Where boxes are learned, `train` is the fingerprint of the images that have one.
    trained = {record.fingerprints.get(part) for record in records for part in ("train", "train_whole")}
    known = "train" in splits.parts and splits.part("train").fingerprint in trained
    return "val" if known else "all"


def _check_classes(tested: Sequence[_Tested]) -> None:
    first, *others = tested
    classes = first.model.classes
    for other in others:
        if other.model.classes != classes:
            only = [
                f"{name} alone has {some(sorted(set(mine) - set(others)))}"
                for name, mine, others in (
                    (first.name, classes, other.model.classes),
                    (other.name, other.model.classes, classes),
                )
                if set(mine) - set(others)
            ]
            raise ValueError(
                f"{first.name} and {other.name} cannot be fused: their classes differ ("
                f"{'; '.join(only) or 'in their order'})"
            )


def _labels(source: Source, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """The source's labels in the run's numbering: classes are matched by name."""
    known = places(classes)
    unknown = sorted(set(source.classes) - set(known))
    if unknown:
        raise ValueError(f"the run does not know the class {some(unknown)}; it knows {some(classes)}")
    numbers = np.array([known[name] for name in source.classes])
    return numbers[np.asarray(source.labels)]
