"""How a command ends: one line and an exit status."""

import sys

from cyclopts import CycloptsError

from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.machine.processes import rank_of_environment, under_torchrun
from verydeep.machine.runtime import Stopped

FAILURE, WRONG_USE = 1, 2


def refuse_unusable(failed: int, images: int) -> None:
    """The end of a verb that has told of all images, of which some could not be used.

    Raises:
        OSError: some could not.
    """
    if failed:
        raise OSError(f"{failed} of {images} images could not be used")


def explained(error: Exception) -> int:
    """Says in one line what went wrong, and returns the exit status for it."""
    message = " ".join(str(error).split()) or type(error).__name__
    match error:
        case Stopped():
            status = error.exit_code
        case CycloptsError():
            status, message = WRONG_USE, f"{message} (see verydeep --help)"
        case TooManyBadImagesError() | OSError() | RuntimeError():
            status = FAILURE
        case ValueError():
            status = WRONG_USE
        case _:
            status, message = FAILURE, f"{type(error).__name__}: {message} (--debug shows where)"
    who = f"process {rank_of_environment()}: " if under_torchrun() else ""
    print(f"verydeep: {who}{message}", file=sys.stderr)
    return status
