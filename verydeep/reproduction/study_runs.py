"""The runs that a study looks at, with their curves, norms and tests; and notes on trainings that diverged."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verydeep.machine import atomic
from verydeep.machine.documents import read_json
from verydeep.networks.architecture import Architecture
from verydeep.reproduction.fair_tests import has_learned
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.paper_tables import Entry, one_scale
from verydeep.reproduction.results import finished_run
from verydeep.reproduction.stored_tests import StoredTest, file_of_test, read_test
from verydeep.reproduction.studies import Study, looked_at, on_training_images, with_its_starts
from verydeep.reproduction.trainings import GridTraining
from verydeep.training.norms import StepNorms, read_norms
from verydeep.training.recipe import recipe_from

_DIVERGED = "diverged.json"

FROM_A = "from A"


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """One training with one seed, as a study needs it; errors in percent."""

    training: GridTraining
    seed: int
    first_weights: str
    """`from A`, or the scheme of its random weights."""
    architecture: Architecture
    images: int
    """Training images."""
    loss: Sequence[float]
    """Mean training loss of every epoch."""
    diverged: str | None
    """The message when its numbers ceased to be finite, if they did; then it is not tested."""
    schedule_ended: bool
    """Its own, and that of every training that it starts from."""
    norms: Sequence[StepNorms]
    """Norms of recorded steps; none where they were not recorded."""
    test: StoredTest | None
    on_training_images: StoredTest | None
    """None also where the study does not ask for it."""

    @property
    def learned(self) -> bool:
        """Whether its test error is surely below that of always predicting the most frequent class."""
        return self.test is not None and has_learned(self.test.wrong, self.test.guessing)

    def to_dict(self, *, norms: bool) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON, on request with the norms of every layer."""
        return {
            "training": self.training.name,
            "network": self.training.network,
            "seed": self.seed,
            "first_weights": self.first_weights,
            "width": self.architecture.width,
            "training_images": self.images,
            "loss": list(self.loss),
            "diverged": self.diverged,
            "schedule_ended": self.schedule_ended,
            "learned": self.learned,
            "test": _errors(self.test),
            "on_training_images": _errors(self.on_training_images),
            **({"norms": [asdict(one) for one in self.norms]} if norms else {}),
        }


def study_runs(study: Study, *, grid: Grid, folders: Mapping[int, Path], out: Path) -> list[StudyRun]:
    """Read everything that a study looks at: every training, with every seed.

    Args:
        study: which trainings.
        grid: which networks.
        folders: the folder with the runs of each seed.
        out: the folder of the grid, with its tests.
    """
    return [
        _study_run(study, training, seed=seed, folder=folder / training.name, out=out)
        for training in looked_at(study, grid.networks)
        for seed, folder in folders.items()
    ]


def _study_run(study: Study, training: GridTraining, *, seed: int, folder: Path, out: Path) -> StudyRun:
    run, diverged = finished_run(folder), why_diverged(folder)

    def test(entry: Entry) -> StoredTest | None:
        return None if diverged is not None else read_test(file_of_test(out, entry, seed))

    return StudyRun(
        training=training,
        seed=seed,
        first_weights=FROM_A if training.init else recipe_from(run.record.recipe).init,
        architecture=run.record.architecture,
        images=run.record.images["train"],
        loss=tuple(epoch.loss for epoch in run.epochs),
        diverged=diverged,
        schedule_ended=all(finished_run(folder.parent / one.name).schedule_ended for one in with_its_starts(training)),
        norms=tuple(read_norms(folder)),
        test=test(one_scale(training.name)),
        on_training_images=test(on_training_images(training.name)) if study.on_training_images else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Divergence:
    """A note that a training diverged."""

    diverged: str


def note_divergence(run: Path, what: str) -> None:
    """Note in a run folder that, and how, its training diverged, so that it is not repeated."""
    atomic.write_json(run / _DIVERGED, {"diverged": what})


def why_diverged(run: Path) -> str | None:
    """Return the message of a training that diverged; None if it did not.

    Raises:
        ValueError: the note is damaged.
    """
    file = run / _DIVERGED
    if not file.is_file():
        return None
    try:
        return read_json(file, _Divergence).diverged
    except ValueError as error:
        raise ValueError(f"{error}: remove it to train again") from error


def _errors(test: StoredTest | None) -> dict[str, Any] | None:
    if test is None:
        return None
    return {
        "images": test.n,
        "top1_error": test.top1_error,
        "top1_error_ci95": test.top1_error_ci95,
        "top5_error": test.top5_error,
        "guessing": test.guessing,
    }
