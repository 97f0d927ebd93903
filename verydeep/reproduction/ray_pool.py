"""Trainings and tests on the machines of a Ray cluster, which share the folders of the experiment and of the images."""

import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from verydeep.machine.libraries import library
from verydeep.machine.processes import LostProcessError
from verydeep.machine.runtime import Runtime
from verydeep.machine.threads import usable_cores, use_threads
from verydeep.reproduction.task import Task, run_task

_TRIES = 3
"""How often a training goes on elsewhere after its machine was lost."""


def ray_jobs(runtime: Runtime) -> int:
    """Return how many trainings a cluster does at once: one for each device, or for every `threads` cores of a machine.

    Raises:
        ValueError: there is no cluster, it has no such device or too few cores, or Ray is not installed.
    """
    ray = _connected()
    on_gpu = _on_gpu(ray.cluster_resources(), runtime)
    kind, each = ("GPU", 1) if on_gpu else ("CPU", runtime.threads or 1)
    jobs = sum(int(machine["Resources"].get(kind, 0) // each) for machine in ray.nodes() if machine["Alive"])
    if not jobs:
        raise ValueError(f"the Ray cluster has no {'CUDA device' if on_gpu else 'machine with so many cores'}")
    return jobs


def _on_gpu(resources: dict[str, float], runtime: Runtime) -> bool:
    return runtime.device == "cuda" or (runtime.device == "auto" and bool(resources.get("GPU")))


@contextmanager
def ray_pool(runtime: Runtime) -> Iterator["RayPool"]:
    """Use the cluster within the block; it goes on running afterwards."""
    ray = _connected()
    yield RayPool(ray=ray, on_gpu=_on_gpu(ray.cluster_resources(), runtime))


def _connected() -> Any:
    """Return the module, connected to the cluster that runs here."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # all lines of all trainings; read when Ray is loaded
    ray = library("ray", needed_by="--jobs ray")
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=True, configure_logging=False)
        except ConnectionError as error:
            raise ValueError(
                "there is no Ray cluster: run 'ray start --head' on this machine and, on others that see the same "
                "folders, the 'ray start --address' that it prints"
            ) from error
    return ray


@dataclass(frozen=True, kw_only=True)
class RayPool:
    """A cluster that trains and tests: a `TaskPool`. Ray prints the lines of its tasks."""

    ray: Any
    on_gpu: bool
    references: dict[Future[None], Any] = field(default_factory=dict)

    def submit(self, task: Task) -> Future[None]:
        """Begin a task where there is room; if its machine is lost it goes on elsewhere, from its kept work."""
        room = {"num_gpus": 1} if self.on_gpu else {"num_cpus": task.runtime.threads or 1}
        reference = self.ray.remote(_run).options(name=task.name, max_retries=_TRIES, **room).remote(task)
        future: Future[None] = reference.future()
        self.references[future] = reference
        return future

    def result(self, future: Future[None]) -> None:
        """Wait for a task.

        Raises:
            LostProcessError: its machines were lost again and again.
            Exception: what ended the task.
        """
        try:
            future.result()
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            raise LostProcessError(
                f"the cluster lost a training or test ({type(error).__name__}): what was done is saved; repeat "
                "the command to continue"
            ) from None

    def said(self) -> Iterator[str]:
        """Yield nothing."""
        yield from ()

    def ask_to_stop(self) -> bool:
        """Ask all tasks to save and end; return whether any of them has not."""
        there = [reference for future, reference in self.references.items() if not future.done()]
        for reference in there:
            self.ray.cancel(reference)  # Ctrl-C for those that run
        return bool(there)


def _run(task: Task) -> None:
    threads = task.runtime.threads or 1
    os.environ["LOCAL_WORLD_SIZE"] = str(max(1, (os.cpu_count() or 1) // threads))  # by which each divides the memory
    use_threads(min(threads, usable_cores()))
    run_task(task)
