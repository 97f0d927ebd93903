"""The runs that are tested together: loaded, with their protocols, and matched with the split and its labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from verydeep.evaluation.bfloat16 import BFloat16Network
from verydeep.evaluation.protocols import Method, Protocol, Scales, protocol_of
from verydeep.exported_networks.exported import is_exported
from verydeep.exported_networks.run_or_file import check_grid, model_on
from verydeep.ilsvrc_classes import class_numbers
from verydeep.images.sources.source import Source
from verydeep.images.sources.splits import Splits
from verydeep.machine.runtime import Device, TestPrecision
from verydeep.networks.grids import PoolingGrid
from verydeep.networks.vgg import VGG, ScoringNetwork
from verydeep.numbers import first_few, plural
from verydeep.runs.model import Model
from verydeep.runs.record import record_of, training_images


@dataclass(frozen=True, kw_only=True)
class TestedRun:
    """A run and how it is tested."""

    __test__ = False  # pytest collects classes of such names

    name: str
    model: Model[ScoringNetwork]
    protocol: Protocol
    precision: TestPrecision

    @cached_property
    def net(self) -> ScoringNetwork:
        """The network in the precision that it is tested in."""
        net = self.model.net
        return BFloat16Network(net) if self.precision == "bf16" and isinstance(net, VGG) else net


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
        ValueError: there are none, or one twice; one is unusable, or cannot be tested in this precision; their classes
            differ.
    """
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
    if precision == "bf16" and not isinstance(model.net, VGG):
        raise ValueError(f"{folder} has a precision of its own: name the run, or a file that was exported for bf16")
    protocol = protocol_of(method, scales, usual="paper", trained=model.scale, mirror=model.flip, grid=grid)
    return TestedRun(name=str(folder), model=model, protocol=protocol, precision=precision)


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
