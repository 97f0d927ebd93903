"""Tests of an experiment's networks, with all that they need; they can be done in another process."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from verydeep.evaluation.evaluate import evaluate
from verydeep.images.sources.samples import sampled
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import rank_of_environment
from verydeep.machine.runtime import Runtime, ended_by_signals
from verydeep.networks.arithmetic import describe_architecture
from verydeep.networks.grids import PoolingGrid
from verydeep.reproduction.paper_tables import Entry
from verydeep.reproduction.stored_tests import Conditions, file_of_test, is_tested, write_test
from verydeep.runs.record import read_record

_MOST_TRAINING_IMAGES_TESTED = 10_000
"""More would hardly make their error more certain, and would cost more than the tests themselves."""

_CROPS_AGAINST_DENSE = 10
"""How many times as long 150 crops of an image take as its dense evaluation at three scales, roughly."""


@dataclass(frozen=True, kw_only=True)
class NetworkTests:
    """Tests of networks of one seed; a `Task`."""

    name: str
    """For people: `D-256`, `seed 1, D-256`."""
    entries: tuple[Entry, ...]
    splits: Splits
    out: Path
    """Folder of the experiment."""
    seed: int
    runs: Path
    """Folder of the seed's runs."""
    weights: Mapping[str, str]
    """Fingerprint of each training's weights."""
    pooling_grid: PoolingGrid
    """Grid of dense evaluation."""
    sample_seed: int
    """Decides which training images are tested."""
    runtime: Runtime
    tolerance: Tolerance

    @property
    def waits_for(self) -> None:
        """Nothing: all networks are trained before the first is tested."""

    @property
    def size(self) -> int:
        """Number of tests."""
        return len(self.entries)

    @property
    def done(self) -> int:
        """Tests whose results are there."""
        return sum(file_of_test(self.out, entry, self.seed).exists() for entry in self.entries)

    def run(self) -> None:
        """Test; SIGTERM ends it, with what was computed kept."""
        with ended_by_signals():
            test_networks(self)


def test_networks(tests: NetworkTests) -> None:
    """Do the tests that are not done, and write their results.

    Raises:
        Exception: as `evaluate`.
    """
    for entry in tests.entries:
        (splits, split), conditions = _conditions(tests, entry)
        file = file_of_test(tests.out, entry, tests.seed)
        if is_tested(file, conditions):
            continue
        evaluation = evaluate(
            [tests.runs / name for name in entry.trainings],
            data=splits,
            split=split,
            protocol=entry.method,
            scales=entry.scales,
            grid=conditions.grid,
            runtime=tests.runtime,
            tolerance=tests.tolerance,
        )
        if not rank_of_environment():
            write_test(file, evaluation, conditions)


def network_by_network(tests: NetworkTests) -> list[NetworkTests]:
    """Return the missing tests of single networks, each network's by themselves, those first that take longest.

    Tests of fused networks are left out: they average posteriors that these tests keep.
    """
    own: dict[str, list[Entry]] = defaultdict(list)
    for entry in tests.entries:
        if len(entry.trainings) == 1 and not _is_done(tests, entry):
            own[entry.trainings[0]].append(entry)
    prefix = tests.name and f"{tests.name}, "
    parts = [replace(tests, name=f"{prefix}{name}", entries=tuple(entries)) for name, entries in own.items()]
    return sorted(parts, key=_work, reverse=True)


def _work(tests: NetworkTests) -> int:
    """Return roughly how much there is to compute."""
    crops = sum(entry.method in ("crops", "both") for entry in tests.entries)
    record = read_record(tests.runs / tests.entries[0].trainings[0])
    return describe_architecture(record.architecture).macs * (len(tests.entries) + _CROPS_AGAINST_DENSE * bool(crops))


def _is_done(tests: NetworkTests, entry: Entry) -> bool:
    _, conditions = _conditions(tests, entry)
    return is_tested(file_of_test(tests.out, entry, tests.seed), conditions)


def _conditions(tests: NetworkTests, entry: Entry) -> tuple[tuple[Splits, str], Conditions]:
    """Return the images of a test, and the conditions that its results must have."""
    splits, split = tests.splits, tests.splits.testing
    if entry.training_images:
        splits, split = _some_training_images(splits, tests.sample_seed), "train"
    conditions = Conditions(
        weights=tuple(tests.weights[name] for name in entry.trainings),
        images=splits.source(split).fingerprint,
        grid=entry.pooling_grid(tests.pooling_grid),
        max_pixels=tests.tolerance.max_pixels,
    )
    return (splits, split), conditions


def _some_training_images(splits: Splits, seed: int) -> Splits:
    """Return the splits with as many training images as are tested: a sample of the same share of each class."""
    train = splits.source("train")
    few = sampled(train, one_in=math.ceil(len(train) / _MOST_TRAINING_IMAGES_TESTED), seed=seed)
    return replace(splits, sources={**splits.sources, "train": few})
