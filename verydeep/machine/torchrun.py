"""Variables by which torchrun tells a process its place among those that it started; an empty one counts as unset.

One process alone is the first and only one, whatever a job of several has left in its environment. All functions raise
a ValueError that names the variable if it holds something other than a whole number.
"""

import os


def check_variables() -> None:
    """Check all variables at once.

    Raises:
        ValueError: one that is used is not a whole number, or does not fit the others.
    """
    restarted()
    count, rank = processes_of_environment(), rank_of_environment()
    if count > 1:
        processes_here()
        rank_here()
        if rank >= count or not _value("RANK"):
            said = f"RANK is {rank}" if _value("RANK") else "RANK is not set"
            raise ValueError(
                f"the variable WORLD_SIZE is {count}, but {said}: torchrun sets both; without torchrun, unset "
                "WORLD_SIZE"
            )


def under_torchrun() -> bool:
    """Return whether several processes were started together."""
    return processes_of_environment() > 1


def processes_of_environment() -> int:
    """Return how many processes were started together."""
    return _whole_number("WORLD_SIZE", unset=1, least=1)


def processes_here() -> int:
    """Return how many of the processes that were started together are on this machine."""
    return _whole_number("LOCAL_WORLD_SIZE", unset=1, least=1) if under_torchrun() else 1


def restarted() -> bool:
    """Return whether torchrun has restarted this process (`--max-restarts`); other machines may not have noticed."""
    return _whole_number("TORCHELASTIC_RESTART_COUNT", unset=0, least=0) > 0


def rank_of_environment() -> int:
    """Return this process's number, before it has joined the others."""
    return _whole_number("RANK", unset=0, least=0) if under_torchrun() else 0


def rank_here() -> int | None:
    """Return this process's number on this machine; None where nothing says it."""
    if not (under_torchrun() and _value("LOCAL_RANK")):
        return None
    return _whole_number("LOCAL_RANK", unset=0, least=0)


def _value(variable: str) -> str:
    return os.environ.get(variable, "").strip()


def _whole_number(variable: str, *, unset: int, least: int) -> int:
    """Return the number that a variable holds.

    Raises:
        ValueError: it holds something else, or a number below `least`.
    """
    text = _value(variable) or str(unset)
    number = int(text) if text.isdecimal() else -1
    if number < least:
        raise ValueError(
            f"the variable {variable} is {text!r}, not a whole number from {least} up: torchrun sets it; without "
            "torchrun, unset it and WORLD_SIZE"
        )
    return number
