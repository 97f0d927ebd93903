"""Which tests can be compared: of the same images, of networks that learned and were trained to the end."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from verydeep.numbers import counted, plural
from verydeep.reproduction.contrasts import Outcomes, trainings_of
from verydeep.statistics import wilson_interval

if TYPE_CHECKING:
    from verydeep.reproduction.stored_tests import StoredTest

_ONE_IMAGE = "A single test image tells nothing: no claim was tested."


def why_not_told(tests: Sequence["StoredTest"]) -> str:
    """Return the reason why no claim can be told by these tests, and what to do; empty if there is none."""
    if tests[0].n < 2:
        return _ONE_IMAGE
    if len({one.images for one in tests}) == 1:
        return ""
    left_out = [one.images[1] for one in tests]
    differing = len(frozenset.union(*left_out) - frozenset.intersection(*left_out))
    was, they, them = (
        plural(one, differing, several) for one, several in (("was", "were"), ("it", "they"), ("it", "them"))
    )
    return (
        f"Not every test could use the same images: {counted(differing, 'image')} {was} left out of some and not of "
        "others, so results cannot be paired and no claim was tested. Files in evaluations/ say why, under 'unusable': "
        f"once {they} can be read, remove those that name {them} and repeat the command; or reproduce in another "
        f"folder, from images without {them}."
    )


def has_learned(wrong: Bool[np.ndarray, " N"], guessing: float) -> bool:
    """Return whether a test's error is surely below that of always predicting the most frequent class (percent)."""
    return bool(wilson_interval(wrong)[1] < guessing)


def learned_tests(wrong: Mapping[str, Iterable[Bool[np.ndarray, " N"]]], guessing: float) -> set[str]:
    """Return the tests whose networks learned, with every seed; the seeds' images may differ."""
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
