"""The smallest differences that a grid could tell, before it is trained.

Outcomes are taken to follow a latent variable: how difficult the image is, with what the network, the seed and the
protocol add, in the shares of `LATENT`; a test errs where that is below a threshold. Two tests are then wrong together
as often as a bivariate normal says (Owen, Tables for Computing Bivariate Normal Probabilities, 1956), which gives the
variance by images; seeds add that of the trainings' errors. From there on it is done as `contrasts` and `findings` do:
variances over seeds are sampled as those would estimate them, with their degrees of freedom and level.
`benchmarks/verdicts.py --plan` compares this with simulated reports.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from jaxtyping import Float

from verydeep.reproduction.claims import CLAIMS, FEWEST_SEEDS, Claim, ClaimKind, ClaimPart, compared_tests
from verydeep.reproduction.contrasts import (
    SignedProtocols,
    Weights,
    count_of_trainings,
    image_and_seed_variance,
    lines_tested_alike,
    sharing_trainings,
    signed_protocols,
    trainings_of,
    variance_and_freedom,
    weights_of_difference,
)
from verydeep.reproduction.stored_tests import StoredTest
from verydeep.statistics import LEVEL_OF_HOLDS, POWER

ERROR, SEED_SD = 25.0, 0.5
"""An error in percent, and its standard deviation between trainings of one network in points: assumed where nothing
was tested yet."""

FOUND_SEED_SD = 2.3
"""That standard deviation as it was found on Imagenette, at crop 64 (docs/RESULTS.md)."""

LATENT = {"image": 0.86, "network": 0.04, "seed": 0.08, "protocol": 0.02}
"""Shares of the latent variance: of the image, and of it together with network, with seed too, with protocol too."""

_LEAST = 1e-12
"""Distance that errors and correlations keep from 0 and 1, where formulas would divide by nothing."""

_DRAWS = 2000
"""Reports whose variances over seeds are sampled."""


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """Assumptions behind the smallest differences, beside the comparison."""

    images: int
    """In the test."""
    error: float = ERROR
    """Percent, of every test."""
    seed_sd: float = SEED_SD
    """Standard deviation of the errors of one network's trainings, percentage points."""
    error_tests: int = 0
    """Number of tests that the error was measured in; 0: assumed."""
    seed_freedom: int = 0
    """Degrees of freedom of the standard deviation; 0: assumed."""


@dataclass(frozen=True, kw_only=True)
class Detectable:
    """The differences that could be told for the parts of one kind in a claim."""

    number: int
    """Number of the claim."""
    id: str
    says: str
    kind: ClaimKind
    points: Mapping[int, float | None]
    """By the number of seeds: the smallest true difference, or the smallest margin within which networks that err alike
    are told to; None where nothing can be told. Of several parts the largest."""

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


def detectable(
    trainings: Sequence[str], tests: Collection[str], seeds: Iterable[int], assumed: Assumed, *, power: float = POWER
) -> list[Detectable]:
    """Return the smallest differences of the claims that can be compared by these tests, each as if it alone were true.

    Args:
        trainings: names of all that are done.
        tests: names of all that are done.
        seeds: numbers of seeds.
        assumed: images, error and spread.
        power: probability with which a difference is to be told.
    """
    seeds = sorted(set(seeds))
    compared = [
        (number, claim, [(part, weights) for part in claim.parts if (weights := _weights(part, trainings, tests))])
        for number, claim in enumerate(CLAIMS, 1)
    ]
    claims = sum(bool(parts) for _, _, parts in compared)
    return [
        _of_kind(number, claim, [one for one in parts if one[0].kind == kind], seeds, tests, assumed, level, power)
        for number, claim, parts in compared
        for level in [LEVEL_OF_HOLDS / max(1, claims) / max(1, len(parts))]
        for kind in dict.fromkeys(part.kind for part, _ in parts)
    ]


def assumed_from(tests: Sequence[Sequence[StoredTest]]) -> Assumed:
    """Return the mean error and the spread over seeds of tests that are done; other figures are assumed."""
    done = [one for its in tests for one in its]
    if not done:
        return Assumed(images=2)
    assumed = Assumed(images=done[0].n, error=float(np.mean([one.top1_error for one in done])), error_tests=len(done))
    paired = [its for its in tests if len({one.images for one in its}) == 1 < min(len(its), its[0].n)]
    spread = [(_spread(its), len(its) - 1) for its in paired]
    if not spread:
        return assumed
    freedom = sum(own for _, own in spread)
    variance = sum(own * variance for variance, own in spread) / freedom
    return replace(assumed, seed_sd=100 * max(0.0, variance) ** 0.5, seed_freedom=freedom)


def _smallest_difference(
    kind: ClaimKind,
    weights: Weights,
    tests: Collection[str],
    assumed: Assumed,
    *,
    seeds: int,
    level: float,
    power: float,
) -> float | None:
    """Return the smallest difference, in percentage points, that one comparison tells with this probability.

    For errors that are alike, or no larger, it is the smallest margin within which networks that truly err alike are
    told to. None where no difference could be told.
    """
    if seeds < FEWEST_SEEDS or assumed.images < 2:
        return None
    from scipy.optimize import brentq
    from scipy.special import ndtr

    def told(points: float) -> float:
        difference = points if kind == "less" else 0.0
        true, bounds = _true_and_needed(weights, tests, assumed, seeds, level, difference)
        sure = ndtr((points - bounds) / true)
        return float((np.maximum(0.0, 2 * sure - 1) if kind == "alike" else sure).mean())

    most = assumed.error if kind == "less" else 100.0
    return float(brentq(lambda points: told(points) - power, 0, most, xtol=0.01)) if told(most) > power else None


def _of_kind(
    number: int,
    claim: Claim,
    parts: Sequence[tuple[ClaimPart, Weights]],
    seeds: Sequence[int],
    tests: Collection[str],
    assumed: Assumed,
    level: float,
    power: float,
) -> Detectable:
    kind = parts[0][0].kind
    of = partial(_smallest_difference, kind, tests=tests, assumed=assumed, level=level, power=power)
    found = {count: [of(weights, seeds=count) for _, weights in parts] for count in seeds}
    return Detectable(
        number=number,
        id=claim.id,
        says=claim.says,
        kind=kind,
        points={
            count: None if None in these else max(one for one in these if one is not None)
            for count, these in found.items()
        },
    )


def _weights(part: ClaimPart, trainings: Sequence[str], tests: Collection[str]) -> Weights | None:
    compared = compared_tests(part, trainings, tests)
    return None if compared is None else weights_of_difference(*compared)


def _true_and_needed(
    weights: Weights, tests: Collection[str], assumed: Assumed, seeds: int, level: float, difference: float
) -> tuple[float, Float[np.ndarray, " draws"]]:
    """Return a contrast's true standard error, and the difference that it needs to be told, in percentage points.

    Its first tests err less by `difference` points than its second, which changes how often only one of them errs.

    The latter follows from the variances over seeds that `contrasts` would find, which are sampled: a network's own, as
    chi-squared, and those of all that are pooled with it.
    """
    from scipy.special import stdtrit

    groups = [{name: weights[name] for name in names} for names in sharing_trainings(list(weights))]
    images, errors = assumed.images, {name: assumed.error - difference * (weights[name] > 0) for name in weights}
    same, other = (_image_variance(weights, errors, same_seed=same_seed) for same_seed in (True, False))
    by_image = (same / seeds + (1 - 1 / seeds) * other) / images
    noise, of_seeds, pooled = 0.0, 0.0, np.full(_DRAWS, np.inf)
    deviations = defaultdict[SignedProtocols, Float[np.ndarray, " draws"]](lambda: np.zeros(_DRAWS))
    for place, group in enumerate(groups):
        single = (
            _image_variance(group, errors, same_seed=True) - _image_variance(group, errors, same_seed=False)
        ) / images
        own = _seed_variance(group, assumed.seed_sd / 100)
        larger, count = _larger_variances(len(lines_tested_alike(group, tests)), seeds, place)
        deviations[signed_protocols(group)] = deviations[signed_protocols(group)] + ((own + single) * larger) ** 0.5
        noise, of_seeds, pooled = noise + single / seeds, of_seeds + own / seeds, np.minimum(pooled, count)
    by_seed = np.sum([deviation**2 for deviation in deviations.values()], axis=0) / seeds
    variance, freedom = variance_and_freedom(by_image, by_seed, noise, pooled, seeds=seeds, images=images)
    return 100 * (by_image + of_seeds) ** 0.5, 100 * stdtrit(freedom, 1 - level) * variance**0.5


@cache
def _larger_variances(
    networks: int, seeds: int, place: int
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """Sample the larger of a network's own variance and that pooled over `networks`, where all are truly 1.

    Returned with it is how many networks the pool counts as, as in `contrasts`.
    """
    sampled = np.random.default_rng(0).chisquare(seeds - 1, (_DRAWS, networks)) / (seeds - 1)
    larger = np.maximum(sampled[:, place % networks], sampled.mean(axis=1))
    return larger, count_of_trainings(sampled, seeds)


def _image_variance(weights: Weights, errors: Mapping[str, float], *, same_seed: bool) -> float:
    """Return the variance over images of weighted outcomes, each with one seed; or their covariance with another's."""
    from scipy.special import ndtr, ndtri, owens_t

    names, weight = tuple(weights), np.array([*weights.values()])
    first = ndtri(np.clip([errors[name] / 100 for name in names], _LEAST, 1 - _LEAST))[:, None]
    first[first == 0] = _LEAST
    second, correlation = first.T, _correlations(names, same_seed)
    rest = (1 - correlation**2) ** 0.5
    both_wrong = (
        (ndtr(first) + ndtr(second)) / 2
        - owens_t(first, (second - correlation * first) / (first * rest))
        - owens_t(second, (first - correlation * second) / (second * rest))
        - (first * second < 0) / 2
    )
    return max(0.0, float(weight @ (both_wrong - ndtr(first) * ndtr(second)) @ weight))


@cache
def _correlations(tests: tuple[str, ...], same_seed: bool) -> Float[np.ndarray, "tests tests"]:
    """Return the correlations of tests' latent variables on one image, below 1 so that formulas can divide."""
    sds = np.array([_covariance(test, test, same_seed=True) ** 0.5 for test in tests])
    covariances = np.array([[_covariance(one, other, same_seed=same_seed) for other in tests] for one in tests])
    return np.minimum(covariances / np.outer(sds, sds), 1 - _LEAST)


def _covariance(one: str, other: str, *, same_seed: bool) -> float:
    """Return the covariance of two tests' latent variables on one image."""
    first, second = set(trainings_of(one)), set(trainings_of(other))
    shared, sizes = len(first & second), len(first) * len(second)
    networks = LATENT["image"] + LATENT["network"] * shared / sizes
    if not same_seed:
        return networks
    return networks + LATENT["seed"] * shared / sizes**0.5 + LATENT["protocol"] * (one == other)


def _seed_variance(weights: Weights, sd: float) -> float:
    """Return the variance over seeds of tests' weighted errors; all tests of a training rise and fall together."""
    shares: dict[str, float] = {}
    for test, weight in weights.items():
        for name in (names := trainings_of(test)):
            shares[name] = shares.get(name, 0.0) + weight / len(names)
    return float(sum(share**2 for share in shares.values())) * sd**2


def _spread(tests: Sequence[StoredTest]) -> float:
    """Return the variance over seeds of one training's error, without the share of single images."""
    wrong = np.stack([one.wrong for one in tests]).astype(float)
    return float(wrong.mean(axis=1).var(ddof=1)) - image_and_seed_variance(wrong) / wrong.shape[1]
