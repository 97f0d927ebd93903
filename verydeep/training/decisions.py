"""Decisions that all processes of a training take alike: go on, save, or save and end."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verydeep.images.quarantine import Quarantine
from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.machine.processes import LostProcessError, Processes
from verydeep.machine.runtime import Stopped


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do next; `loop` alone acts on it."""

    save: bool = False
    """Write a checkpoint."""
    ending: Exception | None = None
    """Raise this once the checkpoint is written."""


GO_ON, SAVE = Decision(), Decision(save=True)


def decide(
    out: Path,
    *,
    failure: Exception | None = None,
    failed: Sequence[int] = (),
    signal: int = 0,
    save_due: bool = False,
) -> Decision:
    """Return the decision that follows from what all processes told, `out` being the run folder.

    Args:
        out: the run folder, for messages.
        failure: this process's error, if it had one; it ends with an error of that type.
        failed: [processes], 1 for each that had an error; the others end with a LostProcessError.
        signal: the signal that asked for an end, if one did; it leads to `Stopped`.
        save_due: whether a checkpoint is due, if nothing ends the training.
    """
    saved = f"what was done is saved in {out} and can be resumed"
    ending: Exception
    if failure is not None:
        ending = type(failure)(f"{failure}; {saved}")
        ending.__cause__ = failure
    elif any(failed):
        ending = LostProcessError(f"process {failed.index(1)} failed; {saved}")
    elif signal:
        ending = Stopped(signal, f"stopped, and saved in {out}: the same command with --resume goes on")
    else:
        return SAVE if save_due else GO_ON
    return Decision(save=True, ending=ending)


def settle(quarantine: Quarantine, processes: Processes) -> TooManyBadImagesError | None:
    """Make the images that any process could not use known to all; return the error if they are too many."""
    try:
        quarantine.settle(itertools.chain(*processes.all_of(list(quarantine.waiting))))
    except TooManyBadImagesError as error:
        return error
    return None
