"""Which tests can be compared: of networks that learned, and whose training went to the end of its schedule."""

from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Bool

from verydeep.reproduction.contrasts import Outcomes, trainings_of
from verydeep.statistics import wilson_interval


def has_learned(wrong: Bool[np.ndarray, " N"], guessing: float) -> bool:
    """Return whether a test's error is surely below that of always predicting the most frequent class (percent)."""
    return bool(wilson_interval(wrong)[1] < guessing)


def learned_tests(wrong: Outcomes, guessing: float) -> set[str]:
    """Return the tests whose networks learned, with every seed."""
    return {name for name, of_seeds in wrong.items() if all(has_learned(one, guessing) for one in of_seeds)}


def finished_tests(tests: Collection[str], unfinished: Collection[str]) -> set[str]:
    """Return the tests none of whose trainings is in `unfinished`."""
    return {name for name in tests if not set(trainings_of(name)) & set(unfinished)}


def fair_tests(wrong: Outcomes, *, guessing: float, unfinished: Collection[str]) -> set[str]:
    """Return the tests whose networks all learned, with every seed, and were all trained to the end."""
    return finished_tests(learned_tests(wrong, guessing), unfinished)


def with_descendants(cut_off: Collection[str], starts: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return the trainings that were cut off, and all that start from one of those, directly or not.

    Args:
        cut_off: trainings whose schedule had not ended.
        starts: what each training starts from, None for random weights; each after the one that it starts from.
    """
    unfinished: list[str] = []
    for name, start in starts.items():
        if name in cut_off or start in unfinished:
            unfinished.append(name)
    return tuple(unfinished)
