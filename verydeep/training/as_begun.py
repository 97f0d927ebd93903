"""How a run's steps are computed: noted when it is begun, kept to when it goes on, and told where it cannot be."""

from dataclasses import asdict, replace
from typing import Any

import torch

from verydeep.runs.record import read_record, versions, write_record
from verydeep.training.job import TrainingJob
from verydeep.training.learner import Learner

_COMPUTED = "computed"
"""Part of `runtime` in `run.json` for what was chosen; the rest is what was asked for."""

_SAME = {
    "code": "code",
    "torch": "PyTorch",
    "processor": "processor",
    "device": "device",
    "processes": "processes",
    "threads": "threads",
    "precision": "precision",
    "tf32": "TF32",
    "compile": "torch.compile",
    "fc_parallel": "divided layers",
    "micro_batch": "micro-batch",
}
"""What has to be as it was for the same weights to the bit, and how messages call it."""


def _computed(job: TrainingJob) -> dict[str, Any]:
    """Return what was chosen to compute the run that this job goes on with; nothing if there is none.

    Runs of versions that did not note it have nothing either.
    """
    begun = job.begun_record()
    chosen = None if begun is None else begun.runtime.get(_COMPUTED)
    return chosen if isinstance(chosen, dict) else {}


def micro_batch_as_begun(job: TrainingJob) -> int | None:
    """Return the micro-batch of the run that this job goes on with, if as many processes began it; else None."""
    noted = _computed(job)
    count = noted.get("micro_batch")
    alike = noted.get("processes") == job.processes.count
    return count if alike and isinstance(count, int) and count > 0 else None


def features_kept_as_begun(job: TrainingJob) -> bool | None:
    """Return whether the run that this job goes on with kept features of frozen layers; None if that is not known."""
    kept = _computed(job).get("features_kept")
    return kept if isinstance(kept, bool) else None


def note_computed(job: TrainingJob, learner: Learner) -> list[str]:
    """Note in `run.json` how steps are computed; return a line where a run does not go on as it was begun."""
    now = _now(job, learner)
    if _computed(job):
        return _about_differences(job, now)
    note(job, **now)
    return []


def note(job: TrainingJob, **chosen: object) -> None:
    """Add to `run.json` what was chosen; that of a run which an earlier version began stays as it was."""
    if job.begun_record() is not None and not _computed(job):
        return
    record = read_record(job.out)
    before = record.runtime.get(_COMPUTED) or {}
    write_record(job.out, replace(record, runtime={**record.runtime, _COMPUTED: {**before, **chosen}}))


def _now(job: TrainingJob, learner: Learner) -> dict[str, Any]:
    cuda = job.device.type == "cuda"
    return {
        "device": f"cuda {torch.cuda.get_device_name(job.device)}" if cuda else job.device.type,
        "processes": job.processes.count,
        "threads": torch.get_num_threads() if job.device.type == "cpu" else None,
        "tf32": learner.tf32,
        "micro_batch": learner.micro_batch,
    }


def _about_differences(job: TrainingJob, now: dict[str, Any]) -> list[str]:
    record = read_record(job.out)
    begun = {**record.versions, **record.runtime, **_computed(job)}
    here = {**versions(), **asdict(job.runtime), **asdict(job.execution), **now}
    pairs = {name: (begun.get(name), here[name]) for name in _SAME}
    other = [_difference(_SAME[name], *pair) for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]]
    if not other:
        return []
    return [
        f"it does not go on as before ({', '.join(other)}): to the bit its weights will not be those of a training "
        "that was not stopped"
    ]


def _difference(what: str, before: object, now: object) -> str:
    if isinstance(now, bool):
        return f"{'with' if now else 'without'} {what}"
    return f"{what} {now} instead of {before}"
