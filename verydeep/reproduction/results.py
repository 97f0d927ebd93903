"""Every number of the report: the paper's tables, findings, costs and learning curves."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verydeep.images.quarantine import read_quarantine
from verydeep.networks.arithmetic import describe_architecture
from verydeep.networks.grids import PoolingGrid
from verydeep.reproduction import paper
from verydeep.reproduction.claims import FEWEST_SEEDS, GAINS
from verydeep.reproduction.fair_tests import learned_tests, why_not_told, with_descendants
from verydeep.reproduction.findings import ComparedPart, Finding, findings
from verydeep.reproduction.grid import Grid, Steer
from verydeep.reproduction.plan_file import Command
from verydeep.reproduction.steering import steering_in_words
from verydeep.reproduction.stored_tests import StoredTest, StoredTests
from verydeep.reproduction.table_rows import (
    EntryErrors,
    TableRow,
    best_network,
    contrasts_of_tests,
    entry_errors,
    outcomes_by_images,
    table_rows,
)
from verydeep.reproduction.trainings import JITTER, TRAININGS_BY_NAME, GridTraining, last_stages
from verydeep.runs.files import QUARANTINE, RECORD
from verydeep.runs.record import EpochMetrics, Record, command, read_metrics, read_record
from verydeep.training.recipe import Recipe, recipe_from, schedule_ended

_CURVES = {"loss": 4, "validation_error": 2}
"""Figures that are drawn over the epochs, and the decimals kept of each."""

LearningCurves = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
"""By training, seed and figure: one number for each epoch."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One training with one seed."""

    record: Record
    epochs: Sequence[EpochMetrics]

    @property
    def seconds(self) -> float:
        """Duration of all epochs."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def schedule_ended(self) -> bool:
        """Whether it was trained to the end of its schedule, not cut off before."""
        return schedule_ended(recipe_from(self.record.recipe), [epoch.validation_error for epoch in self.epochs])

    @property
    def images(self) -> int:
        """Training images of all epochs."""
        return len(self.epochs) * self.record.images["train"]


@dataclass(frozen=True, kw_only=True)
class SeedCost:
    """Cost of one training with one seed; errors in percent."""

    seed: int
    epochs: int
    seconds: float
    images_per_second: float | None
    peak_memory_bytes: int | None
    """Memory of the device, or of the process on a CPU; None where it is not known."""
    last_training_error: float | None
    lowest_validation_error: float | None


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
    seeds: tuple[SeedCost, ...]

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most of all seeds, as far as it is known."""
        return max((one.peak_memory_bytes for one in self.seeds if one.peak_memory_bytes), default=None)


def finished_run(folder: Path) -> FinishedRun:
    """Read the record and the epochs of a run.

    Raises:
        ValueError: one of them is damaged, or the record does not count the training images.
    """
    record = read_record(folder)
    if "train" not in record.images:
        raise ValueError(f"{folder / RECORD} does not say how many images it was trained on: restore the file")
    return FinishedRun(record=record, epochs=read_metrics(folder))


def _trained_network(training: GridTraining, runs: Mapping[int, FinishedRun]) -> TrainedNetwork:
    """Describe a training, given its run with each seed."""
    record = next(iter(runs.values())).record
    network = describe_architecture(record.architecture)
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


def _learning_curve(runs: Mapping[int, FinishedRun]) -> dict[str, dict[str, list[float]]]:
    """Return the figures of every epoch, by seed."""
    return {
        str(seed): {key: [round(getattr(one, key), places) for one in run.epochs] for key, places in _CURVES.items()}
        for seed, run in runs.items()
    }


def _cost(seed: int, run: FinishedRun) -> SeedCost:
    memory = [epoch.peak_memory_bytes for epoch in run.epochs if epoch.peak_memory_bytes]
    return SeedCost(
        seed=seed,
        epochs=len(run.epochs),
        seconds=run.seconds,
        images_per_second=_per_second([run]),
        peak_memory_bytes=max(memory, default=None),
        last_training_error=run.epochs[-1].training_error if run.epochs else None,
        lowest_validation_error=min((epoch.validation_error for epoch in run.epochs), default=None),
    )


def _per_second(runs: Sequence[FinishedRun]) -> float | None:
    seconds = sum(run.seconds for run in runs)
    return sum(run.images for run in runs) / seconds if seconds else None


_OF_EACH = ("scale", "init_rest", "finetune", "seed")
"""Fields of the recipe that differ between trainings."""

_OF_GAINS = ("id", "first_error", "second_error", "difference", "difference_ci95", "learned", "unfinished")
"""Figures of a comparison that are listed with a gain."""


@dataclass(frozen=True, kw_only=True)
class SourceUsed:
    """The images."""

    name: str
    classes: tuple[str, ...]
    images: Mapping[str, int]
    """Number in each split."""
    fingerprints: Mapping[str, str]
    tested_on: str
    """Split."""
    steer: Steer
    """Whether the learning rate followed a part held out of the training images, or the validation images."""
    held_out: float | None
    """Share of each class's training images, if a part was held out."""
    steering: str
    """In words."""


@dataclass(frozen=True, kw_only=True)
class GridResults:
    """Every number of the report."""

    source: SourceUsed
    recipe: Recipe
    """That of the first training."""
    seeds: tuple[int, ...]
    trainings: tuple[TrainedNetwork, ...]
    networks: tuple[str, ...]
    curves: LearningCurves
    tables: Mapping[int, Sequence[TableRow]]
    """By the paper's numbers."""
    jittered: bool
    """Whether the networks of Tables 5 and 6 are jittered, as the paper's are."""
    findings: tuple[Finding, ...]
    verdicts: Mapping[str, int]
    """How many claims have each verdict."""
    verdicts_of_trained: Mapping[str, int]
    """Likewise, of these trained networks alone."""
    cut_off: tuple[str, ...]
    """Trainings that ended, with some seed, before their schedule had."""
    unfinished: tuple[str, ...]
    """These, and all that start from them."""
    learned: tuple[str, ...]
    """Tests whose networks did better than guessing, with every seed, by the entry's name."""
    guessing: float
    """Error in percent of always predicting the most frequent class."""
    margin: float
    """Percentage points up to which errors count as alike."""
    grid: PoolingGrid
    """Grid of dense evaluation."""
    not_told: str
    """Reason why no claim was tested, if none was."""
    best: EntryErrors
    best_network: str
    """Entry of the best single network."""
    results_compared: int
    unusable: Mapping[str, int]
    """Images of each split that were left out of any training or test."""
    training_seconds: float
    versions: Mapping[str, str]
    command: str
    """The last one, whose results these are."""
    commands: Sequence[Command]
    """All that worked on the folder, in order."""

    @property
    def memory_measured(self) -> bool:
        """Whether the memory of any training is known."""
        return any(one.peak_memory_bytes for one in self.trainings)

    @property
    def too_few_seeds(self) -> bool:
        """Whether nothing is decided about networks trained again."""
        return len(self.seeds) < FEWEST_SEEDS

    @property
    def gains(self) -> list[ComparedPart]:
        """Gains by depth, small filters, scale jitter, several scales, crops and fusion."""
        return [part for finding in self.findings for part in finding.parts if part.id in GAINS]

    @property
    def shared_recipe(self) -> dict[str, Any]:
        """Fields of the recipe that are the same in all trainings."""
        return {name: value for name, value in asdict(self.recipe).items() if name not in _OF_EACH}

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, ready for JSON."""
        return {
            **asdict(self),
            "recipe": self.shared_recipe,
            "tables": {str(number): [row.to_dict() for row in rows] for number, rows in self.tables.items()},
            "gains": [
                {"adds": GAINS[part.id], **{name: getattr(part, name) for name in _OF_GAINS}} for part in self.gains
            ],
            # Where the paper stood: no figure of a grid is comparable with its Table 7.
            "state_of_the_art": {
                "data": "ILSVRC",
                "rows": [asdict(row) for row in paper.TABLE_7],
                "clarifai_with_outside_data_top5_test": paper.CLARIFAI_WITH_OUTSIDE_DATA_TOP5_TEST,
            },
        }


def grid_results(
    grid: Grid, folders: Mapping[int, Path], tests: StoredTests, commands: Sequence[Command] = ()
) -> GridResults:
    """Collect every number of the report.

    Args:
        grid: what was done.
        folders: the folder with the runs of each seed.
        tests: results of the tests.
        commands: those that worked on the folder; if there are none, the one that is running counts as the last.
    """
    names = [one.name for one in grid.trainings]
    runs = {name: {seed: finished_run(folder / name) for seed, folder in folders.items()} for name in names}
    first = next(iter(runs[names[0]].values())).record
    recipe = recipe_from(first.recipe)
    tested = next(iter(next(iter(tests.values())).values()))
    trainings = tuple(_trained_network(TRAININGS_BY_NAME[name], its) for name, its in runs.items())
    same = outcomes_by_images(grid.entries, tests)
    cut_off = tuple(name for name, its in runs.items() if not all(run.schedule_ended for run in its.values()))
    unfinished = with_descendants(cut_off, {one.name: one.start for one in grid.trainings})
    contrasts = contrasts_of_tests(same, guessing=tested.guessing, unfinished=unfinished)
    errors = {entry.name: entry_errors(entry, tests, contrasts, crop=recipe.crop) for entry in grid.entries}
    wrong = {name: [of_seed[name].wrong for of_seed in tests.values()] for name in errors}
    learned = learned_tests(wrong, tested.guessing)
    not_told = why_not_told([of_seed[entry.name] for of_seed in tests.values() for entry in grid.entries])
    told = () if not_told else findings(same[0], guessing=tested.guessing, margin=grid.margin, unfinished=unfinished)
    return GridResults(
        source=_source_used(first, tested, grid),
        recipe=recipe,
        seeds=tuple(folders),
        trainings=trainings,
        networks=tuple(dict.fromkeys(one.network for one in grid.trainings)),
        curves={name: _learning_curve(its) for name, its in runs.items()},
        tables=table_rows(grid, errors),
        jittered=all(TRAININGS_BY_NAME[name].scale == JITTER for name in last_stages(names)),
        findings=told,
        verdicts=dict(Counter(one.verdict for one in told)),
        verdicts_of_trained=dict(Counter(one.verdict_of_trained for one in told)),
        cut_off=cut_off,
        unfinished=unfinished,
        learned=tuple(name for name in errors if name in learned),
        guessing=tested.guessing,
        margin=grid.margin,
        grid=grid.pooling_grid,
        not_told=not_told,
        best=min(errors.values(), key=lambda one: one.top1_error),
        best_network=best_network(grid, tests).name,
        results_compared=len(errors),
        unusable=_unusable((folder / name for folder in folders.values() for name in names), tests),
        training_seconds=sum(one.seconds for training in trainings for one in training.seeds),
        versions=first.versions,
        command=commands[-1].command if commands else command(),
        commands=commands,
    )


def _source_used(record: Record, tested: StoredTest, grid: Grid) -> SourceUsed:
    images = {**record.images, tested.split: tested.n}
    return SourceUsed(
        name=record.source,
        classes=record.classes,
        images=images,
        fingerprints={split: text for split, text in record.fingerprints.items() if split != "init"},
        tested_on=tested.split,
        steer=grid.steer or "validation",
        held_out=grid.held_out,
        steering=steering_in_words(images, tested_on=tested.split, held_out=grid.held_out),
    )


def _unusable(folders: Iterable[Path], tests: StoredTests) -> dict[str, int]:
    """Count the images of each split that were left out of a training or a test because they cannot be used."""
    left_out = {(e["split"], e["image"]) for folder in folders for e in read_quarantine(folder / QUARANTINE)}
    left_out |= {
        (test.split, image) for of_seed in tests.values() for test in of_seed.values() for image in test.unusable
    }
    return dict(sorted(Counter(split for split, _ in left_out).items()))
