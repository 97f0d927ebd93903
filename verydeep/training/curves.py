"""Figures of a training: beside the bar, and as curves: `metrics.jsonl` for machines, event files for TensorBoard."""

import time
from collections.abc import Callable
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from verydeep.machine.errors import say
from verydeep.machine.peak_memory import peak_memory
from verydeep.numbers import billions, decimal, number, percent, significant
from verydeep.runs.files import TENSORBOARD
from verydeep.runs.record import EpochMetrics, append_metrics
from verydeep.training.guessing import guessing_loss
from verydeep.training.norms import StepNorms, append_norms
from verydeep.training.state import TrainingState

TAGS = {
    "loss": "loss/training",
    "training_error": "error/training",
    "validation_error": "error/validation",
    "learning_rate": "learning_rate",
    "images_per_second": "speed/images_per_second",
    "waiting": "speed/waiting_for_data",
    "peak_memory_bytes": "memory/peak_bytes",
}
"""Figures of an epoch as TensorBoard groups them."""


class Curves:
    """The curves of one run, from some step on; if not `on`, nothing is written: another process does it.

    tensorboardX's own writer hands events to a thread. When that dies of a full disk, the next ones wait forever. Here
    a full disk ends the events for TensorBoard, and a line says so.
    """

    def __init__(self, run: Path, *, first_step: int, on: bool) -> None:
        self._run, self._on, self._folder = run, on, run / TENSORBOARD
        self._file: EventsWriter | None = None
        if on:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = EventsWriter(str(self._folder / "events"), "")
        # Readers forget earlier events after this one; the last point that counts is that of `first_step` steps.
        start = SessionLog(status=SessionLog.START)
        self._try(lambda file: file.write_event(Event(step=first_step + 1, session_log=start)))

    def step(self, step: int, *, loss: float, learning_rate: float) -> None:
        """Add a point to the fine curves, for the step that came after `step` others."""
        self._add_scalar("step/loss", loss, step + 1)
        self._add_scalar("step/learning_rate", learning_rate, step + 1)

    def norms(self, norms: StepNorms) -> None:
        """Add a line of norms."""
        if self._on:
            append_norms(self._run, norms)

    def epoch(self, metrics: EpochMetrics) -> None:
        """Add a line of metrics, and a point to every curve."""
        if not self._on:
            return
        append_metrics(self._run, metrics)
        for name, tag in TAGS.items():
            if (value := getattr(metrics, name)) is not None:
                self._add_scalar(tag, value, metrics.step)
        self._try(lambda file: file.flush())

    def close(self) -> None:
        """Close the file of events."""
        self._try(lambda file: file.close())

    def _add_scalar(self, tag: str, value: float, step: int) -> None:
        self._try(lambda file: file.write_event(Event(wall_time=time.time(), step=step, summary=scalar(tag, value))))

    def _try(self, act: Callable[[EventsWriter], object]) -> None:
        try:
            if self._file is not None:
                act(self._file)
        except OSError as error:
            self._file = None
            say(f"no more curves in {self._folder}: {error}")


def bar_figures(state: TrainingState, validation_error: float | None = None) -> dict[str, str]:
    """Return the figures beside the bar, the most important first, since the last are left out where room is short.

    At the end of an epoch the validation error, in percent, is one of them.
    """
    progress = state.progress
    seen, seconds = max(1, progress.seen), max(progress.seconds, 1e-9)
    validation = {} if validation_error is None else {"validation": f"{percent(validation_error)}%"}
    best = {} if progress.plateau.best is None else {"best": f"{percent(progress.plateau.best)}%"}
    memory = peak_memory(state.job.device)
    return {
        "epoch": f"{state.epoch}/{state.job.recipe.epochs}",
        "loss": decimal(progress.loss_sum / seen, 3),
        "error": f"{percent(100 * progress.wrong / seen)}%",
        **validation,
        "images/s": number(round(seen / seconds)),
        "waiting": f"{percent(100 * progress.waited / seconds, 0)}%",
        **best,
        "rate": significant(state.rate(progress.step - 1)),
        **({} if memory is None else {"memory": f"{billions(memory)} GB"}),
    }


def epoch_metrics(state: TrainingState, validation_error: float, class_balanced_error: float) -> EpochMetrics:
    """Return the metrics of an epoch that has just ended; the errors are in percent."""
    progress, job = state.progress, state.job
    return EpochMetrics(
        epoch=state.epoch,
        step=progress.step,
        learning_rate=state.rate(progress.step - 1),
        loss=progress.loss_sum / progress.seen,
        training_error=100 * progress.wrong / progress.seen,
        validation_error=validation_error,
        class_balanced_error=class_balanced_error,
        images=progress.seen,
        images_per_second=progress.seen / progress.seconds,
        seconds=progress.seconds,
        waiting=100 * progress.waited / progress.seconds,
        peak_memory_bytes=peak_memory(job.device),
        guessing_loss=None if job.splits.regression else guessing_loss(job.images_per_class.values(), job.recipe),
    )


def about_missing_images(state: TrainingState) -> str:
    """Say how many usable images an epoch went without: those whose object none of their crops showed; "" if none."""
    if state.job.recipe.balanced:
        return ""  # it samples some of them only
    usable = state.bad_images.images - len(state.bad_images.reasons)
    missing = usable - state.progress.seen
    without = f"epoch {state.epoch} went without {number(missing)} of {number(usable)} images"
    return f"{without}: none of their crops showed enough of their object" if missing > 0 else ""
