"""The runs that are tested together: loaded, with their protocols, and matched with the split and its labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Int

from verydeep.evaluation.bfloat16 import in_bfloat16
from verydeep.evaluation.protocols import Method, Protocol, Scales, protocol_of
from verydeep.exported_networks.exported import is_exported
from verydeep.exported_networks.run_or_file import check_grid, model_on, precision_of
from verydeep.ilsvrc_classes import class_numbers
from verydeep.images.open import open_for_training
from verydeep.images.sources.source import Source
from verydeep.images.sources.splits import Splits, with_steering_images
from verydeep.machine.runtime import FULL_PRECISION, Device, TestPrecision
from verydeep.networks.grids import PoolingGrid
from verydeep.networks.vgg import ScoringNetwork
from verydeep.numbers import first_few, plural, trimmed
from verydeep.runs.model import Model
from verydeep.runs.record import record_of, training_images


@dataclass(frozen=True, kw_only=True)
class TestedRun:
    """A run and how it is tested."""

    __test__ = False  # pytest collects classes of such names

    name: str
    model: Model[ScoringNetwork]
    protocol: Protocol
    float32: Model[ScoringNetwork] | None = None
    """The run itself, where `model` is its network in bfloat16."""

    @property
    def precision(self) -> str:
        """How products are computed: fp32, bf16 or, by an exported file, int8."""
        return "bf16" if self.float32 else precision_of(self.model)

    def in_float32(self) -> "TestedRun | None":
        """Return the run itself, where `model` is its network in bfloat16."""
        if self.float32 is None:
            return None
        return TestedRun(name=self.name, model=self.float32, protocol=self.protocol)


def tested_runs(
    folders: Sequence[str | Path],
    method: Method,
    scales: Sequence[int] | Scales | None,
    grid: PoolingGrid,
    device: Device,
    precision: TestPrecision,
) -> list[TestedRun]:
    """Load runs and exported files that are tested together; if no scales are named, at the paper's several.

    Raises:
        ValueError: there are none, or one twice; one is unusable, or has another precision; their classes differ; no
            such precision.
    """
    if precision not in get_args(TestPrecision):
        raise ValueError(f"precision is one of {', '.join(get_args(TestPrecision))}, not {precision}")
    if not folders or len(set(map(os.path.realpath, folders))) < len(folders):
        raise ValueError("name one or more runs to evaluate, each once")
    runs = [_tested_run(folder, method, scales, grid, device, precision) for folder in folders]
    for other in runs[1:]:
        _check_same_classes(runs[0], other)
    return runs


def _tested_run(
    folder: str | Path,
    method: Method,
    scales: Sequence[int] | Scales | None,
    grid: PoolingGrid,
    device: Device,
    precision: TestPrecision,
) -> TestedRun:
    model = model_on(device, folder)
    check_grid(model, grid)
    protocol = protocol_of(method, scales, usual="paper", trained=model.scale, mirror=model.flip, grid=grid)
    run = TestedRun(name=str(folder), model=model, protocol=protocol)
    if precision in (FULL_PRECISION, run.precision):
        return run
    try:
        return replace(run, model=in_bfloat16(model), float32=model)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}, {run.precision}: leave out --precision, or name its run") from None


def _check_same_classes(one: TestedRun, other: TestedRun) -> None:
    if one.model.classes == other.model.classes:
        return
    only = [
        f"{run.name} alone has {first_few(sorted(missing))}"
        for run, others in ((one, other), (other, one))
        if (missing := set(run.model.classes) - set(others.model.classes))
    ]
    differing = "; ".join(only) or "in their order"
    raise ValueError(f"{one.name} and {other.name} cannot be fused: their classes differ ({differing})")


def testing_split(splits: Splits, folders: Sequence[str | Path]) -> str:
    """Return `test`, else `val`; `all` for a folder without splits, unless a run was trained on a part of it.

    An exported file does not say what it was trained on, so it is taken to know the images of `train`.
    """
    if "all" not in splits.sources:
        return splits.testing
    trained = training_images(record for folder in folders if (record := record_of(folder)) is not None)
    exported = any(map(is_exported, folders))
    known = "train" in splits.sources and (exported or splits.source("train").fingerprint in trained)
    return "val" if known else "all"


def divided_as_in_training(source: str, held_out: float, folders: Sequence[str | Path]) -> Splits:
    """Open SOURCE as `train --held-out` divides it: what steered is `val`, the source's validation images are `test`.

    The share is in the name of the splits, since their `val` is not what the source calls so.

    Raises:
        ValueError: as `open_for_training` and `with_steering_images`; or a run was trained on other images than such a
            training is, so that its training images might test it. An exported file does not say.
    """
    splits, percent = with_steering_images(open_for_training(source), held_out), f"{trimmed(100 * held_out)}%"
    for folder in folders:
        record = record_of(folder)
        if record is not None and record.fingerprints.get("train") not in (None, splits.source("train").fingerprint):
            raise ValueError(
                f"{folder} was not trained on the images of {source} that remain when {percent} are held out, so its "
                "own training images could test it: give --held-out the share that train had, or leave it out"
            )
    return replace(splits, name=f"{source}, {percent} held out")


def labels_as_trained(source: Source, classes: tuple[str, ...]) -> Int[np.ndarray, " N"]:
    """Return the source's labels as positions in a run's classes, which are matched by name.

    Raises:
        ValueError: the source has a class that the run does not know.
    """
    known = class_numbers(classes)
    unknown = sorted(set(source.classes) - set(known))
    if unknown:
        noun = plural("class", len(unknown), "classes")
        raise ValueError(f"the run does not know the {noun} {first_few(unknown)}; it knows {first_few(classes)}")
    numbers = np.array([known[name] for name in source.classes])
    return numbers[np.asarray(source.labels)]
