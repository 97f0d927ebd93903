"""Tests of runs on a source by a protocol; several runs are fused by averaging their posteriors."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from verydeep.evaluation.known_images import known_images
from verydeep.evaluation.passes import Pass, PassContext
from verydeep.evaluation.posteriors import Averages, averages, protocol_passes
from verydeep.evaluation.precision import PrecisionErrors, precision_errors
from verydeep.evaluation.protocols import Method, Protocol, Scales
from verydeep.evaluation.results import Evaluation, TestedImages, summarised
from verydeep.evaluation.tested_runs import TestedRun, labels_as_trained, tested_runs, testing_split
from verydeep.images.image_kinds import missing_for_heif
from verydeep.images.open import open_for_testing
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source, contents_digests, evenly_spread, unchanged
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.processes import Processes, joined
from verydeep.machine.runtime import (
    FULL_PRECISION,
    Runtime,
    TestPrecision,
    has_bfloat16,
    reduced_precision,
    torch_device,
)
from verydeep.machine.threads import threads_kept, use_threads
from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid
from verydeep.numbers import number
from verydeep.presentation.terminal import reporting
from verydeep.runs.model import warnings_of
from verydeep.version import __version__

_CACHE_FORMAT = 2
"""Format of the posteriors in the cache; raised when the same inputs come to give others."""

_IN_FLOAT32_TOO = 100
"""Images that are tested in float32 too where bfloat16 is asked for: enough to see that it is the same network."""

_KEPT = "what was computed is kept: repeat the command to continue"


@threads_kept()
def evaluate(
    run: str | Path | Sequence[str | Path],
    *,
    data: str | Path | Splits,
    split: str | None = None,
    protocol: Method = Protocol.method,
    scales: Sequence[int] | Scales | None = None,
    grid: PoolingGrid = DEFAULT_GRID,
    precision: TestPrecision = FULL_PRECISION,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
    cache: bool = True,
) -> Evaluation:
    """Test runs on the images of a source, each by itself and, if several, fused.

    Under torchrun each process has its share of the images, and all return the same, but for `images`, which only the
    first has.

    Args:
        run: a run folder or a file that `verydeep export` wrote, or several whose posteriors are averaged.
        data: SOURCE, as for training, or its splits.
        split: part of it. If not given, `test` where there is one, else `val`; of a folder without splits that no run
            was trained on, `all`.
        protocol: `dense`, `crops`, `both` or `centre` (`Protocol.method`).
        scales: Q for a crop of 224, or `paper` (the three that follow from each run's S), or `single` (Q = S). If not
            given, `paper`; 256 for `centre`.
        grid: of dense evaluation, where an image's sides are not multiples of 32: `centred`, `floor` as PyTorch pools,
            or `ceil` as Caffe does (docs/DEVIATIONS.md). Exported files have the centred one, but for those of
            torch.export.
        precision: of products. For `bf16` some of the images are tested in float32 too, and a note says what differs.
            An exported file has a precision of its own.
        runtime: device, and processes that decode.
        tolerance: how many images may be unusable; those are left out, named, and not counted in `n`.
        cache: keep posteriors, and use those that were kept, of the same weights, files, views and scale.

    Raises:
        ValueError: unusable run, source, split, protocol or scales; runs with different classes, or images of a class
            that the runs do not know; bfloat16 for an exported file of another precision.
        TooManyBadImagesError: more images are unusable than is tolerated.
    """
    runtime, tolerance = runtime or Runtime(), tolerance or Tolerance()
    device = torch_device(runtime.device)
    use_threads(runtime.threads)
    runs = tested_runs([run] if isinstance(run, str | Path) else run, protocol, scales, grid, runtime.device, precision)
    classes = runs[0].model.classes
    splits = open_for_testing(data, classes)
    split = split or testing_split(splits, [one.name for one in runs])
    source = splits.source(split)
    labels = labels_as_trained(source, classes)
    started = time.perf_counter()
    with joined(device, advice=_KEPT, known=(WorkerDiedError,)) as processes:
        processes.check_alike(
            "images, classes or runs under these names",
            lambda: (source.fingerprint, source.classes, [(one.model.digests, one.protocol) for one in runs]),
        )
        digests = processes.from_first(lambda: contents_digests(source)) if cache else None
        names = [one.name for one in runs]
        known = processes.from_first(lambda: known_images(names, splits, split, digests=digests))
        passes = [_passes(one, digests, tolerance) for one in runs]
        quarantine = Quarantine(len(source), tolerance, split=split)
        context = PassContext(
            source=unchanged(source, digests) if digests else source,
            quarantine=quarantine,
            workers=runtime.workers,
            processes=processes,
        )
        warnings = [line for one in runs for line in warnings_of(one.name, one.model)]
        warnings += [*splits.inventory.lines(), *known]
        if precision == "bf16" and not has_bfloat16(device):
            warnings.append(f"this {device.type} does not multiply in bfloat16: float32 is faster on it")
        posteriors, computed = _averages(f"evaluate {split}", passes, context, warnings)
        seconds, share = time.perf_counter() - started, computed / (len(source) * sum(map(len, passes)))
        costs = _costs(runs, posteriors, labels, context, digests)

        def summary() -> Evaluation:
            return summarised(
                _tested_images(posteriors, source, labels, classes, name=f"{split} images of {splits.name}"),
                {one.name: one.protocol for one in runs},
                source=splits.name,
                split=split,
                protocol=protocol,
                known=known,
                precisions={one.name: one.precision for one in runs},
                costs=costs,
                unusable=quarantine.reasons,
                from_cache=1 - share,
                seconds=seconds,
                images_per_second=len(passes) * len(source) * share / seconds if computed else None,
            )

        return _from_first(processes, summary)


def _costs(
    runs: Sequence[TestedRun],
    posteriors: Sequence[Float[np.ndarray, "N K"]],
    labels: Int[np.ndarray, " N"],
    context: PassContext,
    digests: Sequence[bytes] | None,
) -> dict[str, PrecisionErrors]:
    """Test some of the images in float32 too; return what bfloat16 costs each run that is computed in it."""
    processes, tolerance = context.processes, context.quarantine.tolerance
    usable = processes.from_first(lambda: np.flatnonzero(~np.isnan(np.sum(posteriors, axis=0)[:, 0])).tolist())
    chosen = [usable[place] for place in evenly_spread(len(usable), _IN_FLOAT32_TOO)]
    whole = {which: one for which, run in enumerate(runs) if (one := run.in_float32())}
    if not (chosen and whole):
        return {}
    quarantine = Quarantine(len(labels), tolerance, split=context.quarantine.split)
    passes = [_passes(run, digests, tolerance) for run in whole.values()]
    float32, _ = _averages("compare with float32", passes, replace(context, only=chosen, quarantine=quarantine), ())

    def costs() -> dict[str, PrecisionErrors]:
        return {
            run.name: precision_errors(before[chosen], posteriors[which][chosen], labels[chosen])
            for (which, run), before in zip(whole.items(), float32, strict=True)
        }

    return processes.from_first(costs)


def _passes(run: TestedRun, digests: Sequence[bytes] | None, tolerance: Tolerance) -> list[Pass]:
    """Return the passes of a run, each with a key of all that its posteriors depend on."""
    model, net = run.model, run.model.net
    passes = protocol_passes(net, run.protocol, name=run.name)
    if digests is None:
        return passes
    contents = hashlib.sha256(b"".join(digests)).hexdigest()
    decoders = version("pillow"), version("simplejpeg"), missing_for_heif() is None
    made_by = (_CACHE_FORMAT, __version__, torch.__version__, *decoders, net.mean_rgb.device.type)
    reduced = reduced_precision(run.precision, net.mean_rgb.device)
    fixed = (*made_by, *model.digests, *astuple(net.architecture), contents, tolerance.max_pixels, *reduced)
    return [replace(one, key=(*fixed, one.view, one.side, one.mirror)) for one in passes]


def _averages(what: str, passes: Sequence[Sequence[Pass]], context: PassContext, warnings: Sequence[str]) -> Averages:
    """Print warnings and notes, then compute the averages over each run's passes and show their progress."""
    images = len(context.source) if context.only is None else len(context.only)
    rows = images * sum(map(len, passes))
    with reporting(what, total=rows, quiet=not context.processes.first) as report:
        for line in warnings:
            report.say(line)
        context.quarantine.say = report.say
        try:
            return averages(passes, replace(context, advance=report.advance, say=report.say))
        except (KeyboardInterrupt, SystemExit):
            if passes[0][0].key:
                report.say(_KEPT)
            raise


def _tested_images(
    posteriors: Sequence[Float[np.ndarray, "N K"]],
    source: Source,
    labels: Int[np.ndarray, " N"],
    classes: tuple[str, ...],
    *,
    name: str,
) -> TestedImages:
    """Return the images that could be used, with the posteriors of each run and of all fused."""
    bad = np.any([np.isnan(of_run[:, 0]) for of_run in posteriors], axis=0)
    if bad.all():
        raise ValueError(f"none of the {number(len(source))} {name} can be used")
    usable: list[int] = np.flatnonzero(~bad).tolist()
    of_runs = tuple(of_run[usable] if bad.any() else of_run for of_run in posteriors)
    return TestedImages(
        ids=tuple(source.ids[index] for index in usable),
        labels=labels[usable],
        classes=classes,
        posteriors=of_runs[0] if len(of_runs) == 1 else sum(of_runs[1:], of_runs[0]) / len(of_runs),
        posteriors_of_runs=of_runs,
    )


def _from_first(processes: Processes, compute: Callable[[], Evaluation]) -> Evaluation:
    """Return in all processes the evaluation of the first, without the posteriors, which may be gigabytes."""
    own: list[Evaluation] = []

    def without_posteriors() -> Evaluation:
        own.append(compute())
        return replace(own[0], tested=None)

    sent = processes.from_first(without_posteriors)
    return own[0] if processes.first else sent
