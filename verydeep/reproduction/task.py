"""Tasks: trainings and tests that are done side by side."""

import gc
from typing import Protocol

import torch

from verydeep.machine.runtime import Runtime


class Task(Protocol):
    """Work that can be sent to another process."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def runtime(self) -> Runtime:
        """Where and with how many threads it is computed."""

    @property
    def waits_for(self) -> str | None:
        """What has to be there before it can begin and is not; None: it can begin."""

    @property
    def size(self) -> int:
        """Number of steps that are shown as progress."""

    @property
    def done(self) -> int:
        """Steps that are done."""

    def run(self) -> None:
        """Do what is left of it; when asked to stop, keep what is done and raise."""


def run_task(task: Task) -> None:
    """Do a task, and give back the memory that PyTorch keeps of a device: the next one measures what is free.

    Raises:
        Exception: what ends the task.
    """
    try:
        task.run()
    finally:
        if torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()
