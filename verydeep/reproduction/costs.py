"""Costs and learning curves of the trainings, from their run folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verydeep.networks.arithmetic import describe
from verydeep.reproduction.trainings import GridTraining
from verydeep.runs.record import Record, read_metrics, read_record

_CURVES = {"loss": 4, "validation_error": 2}
"""Figures that are drawn over the epochs, and the decimals kept of each."""

Curves = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
"""By training, seed and figure: one number for each epoch."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One training with one seed."""

    record: Record
    epochs: Sequence[Mapping[str, Any]]
    """Figures of each, as in `metrics.jsonl`."""

    @property
    def seconds(self) -> float:
        """Duration of all epochs."""
        return sum(epoch["seconds"] for epoch in self.epochs)

    @property
    def images(self) -> int:
        """Training images of all epochs."""
        return len(self.epochs) * self.record.images["train"]


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """Cost of one training with one seed."""

    seed: int
    epochs: int
    seconds: float
    images_per_second: float | None
    peak_memory_bytes: int | None
    """Of the device; None where that was not measured."""
    lowest_validation_error: float | None
    """Percent."""


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """One training, its network, and its cost with every seed."""

    name: str
    network: str
    label: str
    scale: str
    start: str | None
    unseeded: bool
    initialisation: str
    weight_layers: int
    parameters: int
    macs: int
    """Multiply-adds for one crop."""
    images_per_second: float | None
    """Over all seeds."""
    seeds: tuple[TrainingCost, ...]


def finished_run(folder: Path) -> FinishedRun:
    """Read what made a run, and its epochs."""
    return FinishedRun(record=read_record(folder), epochs=read_metrics(folder))


def trained_network(training: GridTraining, runs: Mapping[int, FinishedRun]) -> TrainedNetwork:
    """Describe a training, given its run with each seed."""
    record = next(iter(runs.values())).record
    network = describe(record.architecture)
    return TrainedNetwork(
        name=training.name,
        network=training.network,
        label=training.label,
        scale=training.scale,
        start=training.start,
        unseeded=training.unseeded,
        initialisation=record.initialisation,
        weight_layers=network.weight_layers,
        parameters=network.parameters,
        macs=network.macs,
        images_per_second=_per_second(list(runs.values())),
        seeds=tuple(_cost(seed, run) for seed, run in runs.items()),
    )


def learning_curve(runs: Mapping[int, FinishedRun]) -> dict[str, dict[str, list[float]]]:
    """Return the figures of every epoch, by seed."""
    return {
        str(seed): {key: [round(epoch[key], decimals) for epoch in run.epochs] for key, decimals in _CURVES.items()}
        for seed, run in runs.items()
    }


def _cost(seed: int, run: FinishedRun) -> TrainingCost:
    memory = [epoch["peak_memory_bytes"] for epoch in run.epochs if epoch.get("peak_memory_bytes")]
    return TrainingCost(
        seed=seed,
        epochs=len(run.epochs),
        seconds=run.seconds,
        images_per_second=_per_second([run]),
        peak_memory_bytes=max(memory, default=None),
        lowest_validation_error=min((epoch["validation_error"] for epoch in run.epochs), default=None),
    )


def _per_second(runs: Sequence[FinishedRun]) -> float | None:
    seconds = sum(run.seconds for run in runs)
    return sum(run.images for run in runs) / seconds if seconds else None
