"""The end of a command: one line and an exit status."""

import sys

from cyclopts import CycloptsError

from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.machine.errors import one_line
from verydeep.machine.processes import rank_of_environment, under_torchrun
from verydeep.machine.runtime import Stopped

_FAILURE, WRONG_USE = 1, 2


def refuse_unusable(failed: int, images: int) -> None:
    """Raise if some images could not be used; the end of a verb that has presented all others.

    Raises:
        OSError: `failed` is not 0.
    """
    if failed:
        raise OSError(f"{failed} of {images} images could not be used")


def explain(error: Exception) -> int:
    """Print in one line what went wrong, and return the exit status for it."""
    message = one_line(error)
    match error:
        case Stopped():
            status = error.exit_code
        case CycloptsError():
            status, message = WRONG_USE, f"{message} (see verydeep --help)"
        case TooManyBadImagesError() | OSError() | RuntimeError():
            status = _FAILURE
        case ValueError():
            status = WRONG_USE
        case _:
            status, message = _FAILURE, f"{type(error).__name__}: {message} (--debug shows where)"
    process = f"process {rank_of_environment()}: " if under_torchrun() else ""
    print(f"verydeep: {process}{message}", file=sys.stderr)
    return status
