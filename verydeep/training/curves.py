"""Curves of a training: `metrics.jsonl` for machines and grep, event files for TensorBoard."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from verydeep.runs.files import TENSORBOARD
from verydeep.runs.record import append_metrics

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
    """The curves of one run, from some step on."""

    def __init__(self, run: Path, writer: "_Events | None") -> None:
        self._run, self._writer = run, writer

    def step(self, step: int, *, loss: float, learning_rate: float) -> None:
        """Add a point to the fine curves, for the step that came after `step` others."""
        if self._writer is None:
            return
        self._writer.add_scalar("step/loss", loss, step + 1)
        self._writer.add_scalar("step/learning_rate", learning_rate, step + 1)

    def epoch(self, figures: dict[str, Any]) -> None:
        """Add a line of metrics, and a point to every curve."""
        if self._writer is None:
            return
        append_metrics(self._run, figures)
        for name, tag in TAGS.items():
            self._writer.add_scalar(tag, figures[name], figures["step"])
        self._writer.flush()


class _Events:
    """TensorBoard's events; where the disk is full it says so once and goes on without them.

    tensorboardX's own writer hands them to a thread. When that dies of a full disk, the next ones wait forever.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file: EventsWriter | None = EventsWriter(str(folder / "events"), "")
        # Readers forget earlier events after it; the last point that counts is that of `first_step` steps.
        start = Event(step=first_step + 1, session_log=SessionLog(status=SessionLog.START))
        self._try(lambda file: file.write_event(start))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        event = Event(wall_time=time.time(), step=step, summary=scalar(tag, value))
        self._try(lambda file: file.write_event(event))

    def flush(self) -> None:
        self._try(lambda file: file.flush())

    def close(self) -> None:
        self._try(lambda file: file.close())

    def _try(self, act: Callable[[EventsWriter], object]) -> None:
        if self._file is None:
            return
        try:
            act(self._file)
        except OSError as error:
            self._file = None
            print(f"no more curves in {self._folder}: {error}", file=sys.stderr)


@contextmanager
def curves(run: Path, *, first_step: int, on: bool) -> Iterator[Curves]:
    """Give a run's curves to add to; points of steps after `first_step`, of a process that was killed, are forgotten.

    If not `on`, nothing is written: another process does it.
    """
    if not on:
        yield Curves(run, None)
        return
    writer = _Events(run / TENSORBOARD, first_step=first_step)
    try:
        yield Curves(run, writer)
    finally:
        writer.close()
