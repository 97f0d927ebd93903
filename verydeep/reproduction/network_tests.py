"""Tests of an experiment's networks, with all that they need; they can be done in another process."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

from verydeep.evaluation.evaluate import evaluate
from verydeep.images.sources.samples import sampled
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Runtime, Stopped, ended_by_signals
from verydeep.machine.torchrun import rank_of_environment
from verydeep.networks.architecture import Architecture
from verydeep.networks.arithmetic import describe_architecture
from verydeep.networks.grids import PoolingGrid
from verydeep.reproduction.paper_tables import Entry
from verydeep.reproduction.stored_tests import Conditions, file_of_test, is_tested, write_test
from verydeep.reproduction.study_runs import why_diverged
from verydeep.reproduction.training_task import has_ended
from verydeep.runs.model import weights_fingerprint

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
    pooling_grid: PoolingGrid
    """Grid of dense evaluation."""
    sample_seed: int
    """Decides which training images are tested."""
    runtime: Runtime
    tolerance: Tolerance

    @property
    def trainings(self) -> Sequence[str]:
        """Names of the trainings whose networks are tested."""
        return [*dict.fromkeys(name for entry in self.entries for name in entry.trainings)]

    @cached_property
    def weights(self) -> Mapping[str, str]:
        """Fingerprint of each network's weights: each is in several tests, and a file to be hashed."""
        return {name: weights_fingerprint(self.runs / name) for name in self.trainings if not self.diverged(name)}

    def diverged(self, *trainings: str) -> bool:
        """Return whether one of these trainings ended without a network."""
        return any(why_diverged(self.runs / name) for name in trainings)

    @property
    def waits_for(self) -> str | None:
        """A training that has not ended."""
        return next((str(self.runs / name) for name in self.trainings if not has_ended(self.runs / name)), None)

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
        try:
            with ended_by_signals():
                test_networks(self)
        except SystemExit as end:
            number = cast(int, end.code) - 128
            raise Stopped(number, "stopped, and kept what was computed: repeat the command to continue") from None


def test_networks(tests: NetworkTests) -> None:
    """Do the tests that are not done, and write their results; leave out networks that diverged.

    Raises:
        Exception: as `evaluate`.
    """
    for entry in tests.entries:
        if tests.diverged(*entry.trainings):
            continue
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


def network_by_network(tests: NetworkTests, networks: Mapping[str, str]) -> list[NetworkTests]:
    """Return the tests of each single network that has tests missing, those first that take longest.

    Tests of fused networks are left out: they average posteriors that these tests keep.

    Args:
        tests: all of a seed.
        networks: the network, by its name in the paper, that each training trains.
    """
    own: dict[str, list[Entry]] = defaultdict(list)
    for entry in tests.entries:
        if len(entry.trainings) == 1:
            own[entry.trainings[0]].append(entry)
    prefix = tests.name and f"{tests.name}, "
    parts = [replace(tests, name=f"{prefix}{name}", entries=tuple(entries)) for name, entries in own.items()]
    missing = filter(_are_missing, parts)
    return sorted(missing, key=lambda part: _work(part, networks[part.trainings[0]]), reverse=True)


def _are_missing(tests: NetworkTests) -> bool:
    """Return whether the network is still to be trained, or some of its tests are not done."""
    if tests.waits_for:
        return True
    if tests.diverged(*tests.trainings):
        return False
    # Only where all results are there do the weights have to be hashed to tell whose they are.
    return tests.done < tests.size or not all(_is_done(tests, entry) for entry in tests.entries)


def _work(tests: NetworkTests, network: str) -> int:
    """Return roughly how much there is to compute, for comparison."""
    crops = any(entry.method in ("crops", "both") for entry in tests.entries)
    macs = describe_architecture(Architecture(network=network)).macs
    return macs * (len(tests.entries) + _CROPS_AGAINST_DENSE * crops)


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
