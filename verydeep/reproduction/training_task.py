"""One training of an experiment, with all that it needs; it can be sent to another process."""

from dataclasses import dataclass
from pathlib import Path

from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Execution, Runtime, Stopped
from verydeep.reproduction.study_runs import note_divergence, why_diverged
from verydeep.runs.record import is_finished, read_metrics
from verydeep.training.loop import train
from verydeep.training.recipe import Recipe
from verydeep.training.step import DivergedError


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """A training to do."""

    name: str
    """For people: `D-256`, `seed 1, D-256`."""
    splits: Splits
    network: str
    out: Path
    """Its run folder."""
    recipe: Recipe
    runtime: Runtime
    execution: Execution
    tolerance: Tolerance
    may_diverge: bool
    """Whether it counts as a result, not as a failure, if its numbers cease to be finite."""

    @property
    def waits_for(self) -> str | None:
        """The run that it starts from, until that is there."""
        start = self.recipe.start
        return None if start is None or is_finished(start) else start

    @property
    def size(self) -> int:
        """Number of epochs."""
        return self.recipe.epochs

    @property
    def done(self) -> int:
        """Epochs that are done."""
        return len(read_metrics(self.out))

    def run(self) -> None:
        """Do it, as `train_task`."""
        train_task(self)


def train_task(task: TrainingTask) -> None:
    """Train, from the last checkpoint if there is one; note it if the training diverges and may.

    Raises:
        Stopped: SIGINT or SIGTERM; a checkpoint was saved first.
        Exception: as `train`.
    """
    try:
        train(
            task.splits,
            network=task.network,
            out=task.out,
            recipe=task.recipe,
            runtime=task.runtime,
            execution=task.execution,
            tolerance=task.tolerance,
            resume=True,
        )
    except DivergedError as error:
        if not task.may_diverge:
            raise
        note_divergence(task.out, error.what)  # by every process: none of them waits for another after an error
    except Stopped as stopped:
        raise Stopped(stopped.signal, f"stopped, and saved in {task.out}: repeat the command to continue") from None


def has_ended(run: Path) -> bool:
    """Return whether a training ended: with a network, or because it diverged and was noted to."""
    return is_finished(run) or why_diverged(run) is not None
