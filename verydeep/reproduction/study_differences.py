"""Differences between the trainings of a study, with how far images and seeds let them vary."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from verydeep.numbers import FINE, interval, points
from verydeep.reproduction.claims import FEWEST_SEEDS
from verydeep.reproduction.contrasts import Contrasts, Estimate
from verydeep.reproduction.paper_tables import one_scale
from verydeep.reproduction.stored_tests import StoredTest
from verydeep.reproduction.study_runs import StudyRun


def difference_of_tests(
    runs: Sequence[StudyRun], weights: Mapping[str, float], *, on_training_images: bool = False
) -> Estimate | None:
    """Estimate a weighted sum of the errors of trainings, given their weights by name, in percentage points.

    It is of networks trained again where `FEWEST_SEEDS` or more have all of these trainings, else of just the trained
    ones. None where no seed has, or where tests had different images, or a single one.
    """
    tests: dict[int, dict[str, StoredTest]] = {}
    for run in runs:
        test = run.on_training_images if on_training_images else run.test
        if test is not None:
            tests.setdefault(run.seed, {})[run.training.name] = test
    whole = [of_seed for of_seed in tests.values() if weights.keys() <= of_seed.keys()]
    images = {of_seed[name].images for of_seed in whole for name in weights}
    if len(images) != 1 or whole[0][next(iter(weights))].n < 2:
        return None
    named = {name: replace(one_scale(name), training_images=on_training_images).name for name in weights}
    contrasts = Contrasts({named[name]: np.stack([of_seed[name].wrong for of_seed in whole]) for name in weights})
    weighted = {named[name]: weight for name, weight in weights.items()}
    return contrasts.of_networks(weighted) if len(whole) >= FEWEST_SEEDS else contrasts.of_trainings(weighted)


def difference_of_gaps(runs: Sequence[StudyRun], weights: Mapping[str, float]) -> Estimate | None:
    """Estimate a weighted sum of test errors minus errors on training images; arguments are as for tests.

    The images of both are independent, so variances add up. So do those by seeds, which is too much rather than too
    little: what a seed does to a network it mostly does to both errors.
    """
    test, training = (difference_of_tests(runs, weights, on_training_images=which) for which in (False, True))
    if test is None or training is None:
        return None
    variance = test.standard_error**2 + training.standard_error**2
    terms = sum(one.standard_error**4 / one.degrees_of_freedom for one in (test, training))
    return Estimate(
        points=test.points - training.points,
        of_seeds=tuple(first - second for first, second in zip(test.of_seeds, training.of_seeds, strict=True)),
        standard_error=variance**0.5,
        degrees_of_freedom=variance**2 / terms,
    )


def with_interval(estimate: Estimate) -> str:
    """Write `+2.50 points (95% interval -0.50 to +5.50)`."""
    return f"{points(estimate.points, FINE)} points (95% interval {interval(estimate.ci95, FINE, '+')})"


def of_what(estimate: Estimate) -> str:
    """Say which networks and images the interval is about."""
    whose = "networks trained again" if len(estimate.of_seeds) >= FEWEST_SEEDS else "these trained networks alone"
    return f"intervals are of {whose} on other images, each by itself"
