"""What a training leaves to look at: `metrics.jsonl` for machines and grep, event files for TensorBoard."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from verydeep import runs

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
    """Of one run, from some step on."""

    def __init__(self, run: Path, writer: SummaryWriter | None) -> None:
        self._run, self._writer = run, writer

    def step(self, step: int, *, loss: float, learning_rate: float) -> None:
        """One more point of the fine curves."""
        if self._writer is None:
            return
        self._writer.add_scalar("step/loss", loss, step)
        self._writer.add_scalar("step/learning_rate", learning_rate, step)

    def epoch(self, figures: dict[str, Any]) -> None:
        """One more line, and a point of every curve."""
        if self._writer is None:
            return
        runs.append_metrics(self._run, figures)
        for name, tag in TAGS.items():
            self._writer.add_scalar(tag, figures[name], figures["step"])
        self._writer.flush()


@contextmanager
def curves(run: Path, *, first_step: int, on: bool) -> Iterator[Curves]:
    """Goes on with a run's curves; points from `first_step` on, of a process that was killed, are forgotten.

    If not `on`, another process draws them.
    """
    if not on:
        yield Curves(run, None)
        return
    writer = SummaryWriter(str(run / runs.TENSORBOARD), purge_step=first_step or None)
    try:
        yield Curves(run, writer)
    finally:
        writer.close()
