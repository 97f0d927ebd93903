"""Differences of errors, and how far images and seeds let them vary.

A contrast is a weighted sum of the errors of tests on the same images, each with the same number of seeds: D's error
minus B's, say. It varies with the choice of images and with how the trainings turn out:

    V = A + max(0, B - C)

    A   variance by images: of the images' weighted outcomes, averaged over the seeds, divided by their number
    B   variance by seeds: for every group of trainings that a test joins (mostly one training) the larger of its own
        variance over the seeds and that pooled over all lines of trainings tested alike; of groups tested alike on the
        same side the standard deviations are added up, of others the variances; divided by the number of seeds
    C   the noise of single images in single seeds, which counts in A and in B

Its degrees of freedom follow Satterthwaite (An Approximate Distribution of Estimates of Variance Components, 1946). A
line is a series of trainings from the same weights, D-256, D-384, D-256-512, and counts as one in the pool. Trainings
of a seed may share more, the A that they start from or what helps all of them at several scales. On one side of a
contrast they therefore count as varying together, whose mean varies as much as one of them: with independent ones a
third of simulated reports were false where a seed moved all tests at several scales by half a point. Those on different
sides count as independent, since what they share cancels. `benchmarks/verdicts.py` shows how often this errs.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from verydeep.reproduction.paper_tables import entry_named
from verydeep.reproduction.trainings import TRAININGS_BY_NAME
from verydeep.statistics import t_interval, t_p_below, variance_of_mean

Outcomes = Mapping[str, Bool[np.ndarray, "seeds N"]]
"""Which images each test misclassified, by the test's name (`D-256 dense single`), with every seed."""

Weights = Mapping[str, float]
"""Weights of a contrast by the tests' names."""

Values = float | Float[np.ndarray, "*any"]
"""A number, or many at once, as where variances are sampled."""

SignedProtocols = tuple[tuple[str, bool], ...]
"""Protocols, and whether they stand on the first side of the contrast."""


@dataclass(frozen=True, kw_only=True)
class Variances:
    """Variances of a contrast of networks, of errors from 0 to 1: A, B and C of this module's formula."""

    by_image: float
    by_seed: float
    noise: float
    pooled: float
    """Trainings that the smallest of its pools counts as."""
    seeds: int
    images: int

    @property
    def standard_error(self) -> float:
        """Root of V, in percentage points."""
        return float(100 * self._whole[0] ** 0.5)

    @property
    def degrees_of_freedom(self) -> float:
        """Degrees of freedom of V."""
        return float(self._whole[1])

    @property
    def _whole(self) -> tuple[Float[np.ndarray, ""], Float[np.ndarray, ""]]:
        return variance_and_freedom(
            self.by_image, self.by_seed, self.noise, self.pooled, seeds=self.seeds, images=self.images
        )

    def with_seeds(self, seeds: int) -> "Variances":
        """Return those of more seeds, if images and trainings vary as these do: all but images' own becomes smaller."""
        share = self.seeds / seeds
        own = max(0.0, self.by_image - self.noise)
        return replace(
            self,
            by_image=own + share * (self.by_image - own),
            by_seed=share * self.by_seed,
            noise=share * self.noise,
            seeds=seeds,
        )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A contrast, in percentage points."""

    points: float
    """Mean over the seeds."""
    of_seeds: tuple[float, ...]
    standard_error: float
    degrees_of_freedom: float
    variances: Variances | None = None
    """Variances that the standard error is of, for networks on the same images."""
    ends: tuple[float, float] = (-math.inf, math.inf)
    """Least and greatest value that such a contrast can have: -100 and 100 for a difference of two errors."""

    def p_below(self, bound: float) -> float:
        """Return the one-sided p value of a contrast so far below `bound`, if it truly were `bound`."""
        return t_p_below(self.points - bound, self.standard_error, self.degrees_of_freedom)

    def p_above(self, bound: float) -> float:
        """Return the one-sided p value of a contrast so far above `bound`, if it truly were `bound`."""
        return 1 - self.p_below(bound)

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95% interval, not corrected for other comparisons, as far as the contrast can go."""
        low, high = t_interval(self.points, self.standard_error, self.degrees_of_freedom)
        return max(self.ends[0], low), min(self.ends[1], high)


class Contrasts:
    """Contrasts of tests on the same images, with the seeds' variances pooled over all of them."""

    def __init__(self, outcomes: Outcomes, *, pooled: Collection[str] | None = None) -> None:
        """Take tests, of which those in `pooled` (by default all) show how errors vary over seeds."""
        self.outcomes = outcomes
        self._pooled = set(outcomes if pooled is None else pooled)
        self.seeds, self.images = next(iter(outcomes.values())).shape

    def of_networks(self, weights: Weights) -> Estimate:
        """Estimate a contrast of networks, trained again, on other images; it takes two seeds or more."""
        groups = self._groups(weights)
        noise, pooled, deviations = 0.0, list[float](), defaultdict[SignedProtocols, float](float)
        for names, weighted in groups.items():
            own = weighted.mean(axis=1).var(ddof=1)
            alike, count = self._pooled_variance({name: weights[name] for name in names})
            deviations[signed_protocols({name: weights[name] for name in names})] += max(own, alike) ** 0.5
            noise += image_and_seed_variance(weighted) / (self.seeds * self.images)
            pooled.append(count)
        variances = Variances(
            by_image=_by_image_variance(groups),
            by_seed=sum(deviation**2 for deviation in deviations.values()) / self.seeds,
            noise=noise,
            pooled=min(pooled),
            seeds=self.seeds,
            images=self.images,
        )
        whole = self._estimate(weights, groups, variances.standard_error, variances.degrees_of_freedom)
        return replace(whole, variances=variances)

    def of_trainings(self, weights: Weights) -> Estimate:
        """Estimate a contrast of these trained networks alone on other images."""
        groups = self._groups(weights)
        return self._estimate(weights, groups, 100 * _by_image_variance(groups) ** 0.5, self.images - 1)

    def _estimate(
        self,
        weights: Weights,
        groups: Mapping[tuple[str, ...], Float[np.ndarray, "seeds N"]],
        standard_error: float,
        freedom: float,
    ) -> Estimate:
        of_seeds = 100 * np.sum([weighted.mean(axis=1) for weighted in groups.values()], axis=0)
        return Estimate(
            points=float(of_seeds.mean()),
            of_seeds=tuple(of_seeds.tolist()),
            standard_error=float(standard_error),
            degrees_of_freedom=float(freedom),
            ends=(
                100 * sum(min(0.0, weight) for weight in weights.values()),
                100 * sum(max(0.0, weight) for weight in weights.values()),
            ),
        )

    def _groups(self, weights: Weights) -> dict[tuple[str, ...], Float[np.ndarray, "seeds N"]]:
        """Return weighted outcomes, added up over tests that share a training and so its seeds."""
        return {
            names: np.sum([weights[name] * self.outcomes[name] for name in names], axis=0)
            for names in sharing_trainings(list(weights))
        }

    @cached_property
    def _deviations(self) -> Mapping[str, Float[np.ndarray, " seeds"]]:
        """Error of every test with each seed, minus its mean."""
        errors = {name: wrong.mean(axis=1) for name, wrong in self.outcomes.items()}
        return {name: of_seeds - of_seeds.mean() for name, of_seeds in errors.items()}

    def _pooled_variance(self, weights: Weights) -> tuple[float, float]:
        """Return the variance over seeds of these tests' contrast, pooled over lines tested alike; their number."""
        variances = np.array(
            [np.mean([self._variance(alike) for alike in line]) for line in lines_tested_alike(weights, self._pooled)]
        )
        return float(variances.mean()), float(count_of_trainings(variances, self.seeds))

    def _variance(self, weights: Weights) -> float:
        """Return the variance of a contrast over the seeds."""
        deviations = np.sum([weight * self._deviations[name] for name, weight in weights.items()], axis=0)
        return float(np.square(deviations).sum()) / (self.seeds - 1)


def variance_and_freedom(
    by_image: Values, by_seed: Values, noise: Values, pooled: Values, *, seeds: int, images: int
) -> tuple[Float[np.ndarray, "*any"], Float[np.ndarray, "*any"]]:
    """Return V and its degrees of freedom, of A, B and C of this module's formula; B and its pool may be arrays.

    Args:
        by_image: A.
        by_seed: B.
        noise: C.
        pooled: trainings that the smallest pool of B counts as.
        seeds: seeds of each training.
        images: test images.
    """
    variance = by_image + np.maximum(0.0, np.subtract(by_seed, noise))
    terms = np.square(by_image) / (images - 1) + np.square(by_seed) / np.multiply(pooled, seeds - 1)
    nothing_varies = np.full(np.shape(terms), images - 1.0)
    return variance, np.divide(np.square(variance), terms, out=nothing_varies, where=terms > 0)


def count_of_trainings(variances: Float[np.ndarray, "*any trainings"], seeds: int) -> Float[np.ndarray, "*any"]:
    """Return how many trainings a pool of their variances over seeds counts as, at least 1.

    Trainings that vary differently count as fewer, again by Satterthwaite: squared sum by sum of squares, the latter
    without what chance adds to squares of estimates from few seeds. Two seeds do not show which training varies more,
    so squares are left as they are: otherwise 7% of simulated reports were false where D alone varied, when two
    decided.
    """
    trainings = variances.shape[-1]
    by_chance = (seeds + 1) / (seeds - 1) if seeds > 2 else 1.0
    squares = np.square(variances).sum(axis=-1) / by_chance
    count = np.divide(variances.sum(axis=-1) ** 2, squares, out=np.full_like(squares, trainings), where=squares > 0)
    return np.asarray(np.clip(count, 1, trainings))


def weights_of_difference(first: Weights, second: Weights) -> Weights:
    """Return the weights of a difference; tests on both sides cancel."""
    return {name: first.get(name, 0.0) - second.get(name, 0.0) for name in {**first, **second}}


def trainings_of(test: str) -> tuple[str, ...]:
    """Return the trainings in a test's name, several if they are fused: `D-256+E-256 dense single`."""
    return entry_named(test).trainings


def lines_tested_alike(weights: Weights, tests: Collection[str]) -> Sequence[Sequence[Weights]]:
    """Return the contrast for every training with tests by the same protocols, grouped by line."""
    lines = defaultdict[str, list[Weights]](list)
    for alike in _tested_alike(weights, tests):
        lines["+".join(map(_line_of, trainings_of(next(iter(alike)))))].append(alike)
    return [*lines.values()]


def _line_of(training: str) -> str:
    """Return the network and its first weights, which trainings share that continue each other at other S."""
    known = TRAININGS_BY_NAME.get(training)
    return training if known is None else known.label


def signed_protocols(weights: Weights) -> SignedProtocols:
    """Return the protocols of a contrast's tests with the signs of their weights, equal for groups tested alike."""
    return tuple(sorted((entry_named(name).protocol, weight > 0) for name, weight in weights.items()))


def _tested_alike(weights: Weights, tests: Collection[str]) -> Sequence[Weights]:
    """Return the contrast for every training with tests by the same protocols; for fused ones, itself."""
    entries, known = {entry_named(name): weight for name, weight in weights.items()}, set(tests)
    trainings = {entry.trainings for entry in entries}
    if len(trainings) > 1 or len(next(iter(trainings))) > 1:
        return [weights]
    alone = {names for name in tests if len(names := trainings_of(name)) == 1}
    contrasts = [
        {replace(entry, trainings=names).name: weight for entry, weight in entries.items()} for names in sorted(alone)
    ]
    return [one for one in contrasts if set(one) <= known] or [weights]


def sharing_trainings(tests: Sequence[str]) -> list[tuple[str, ...]]:
    """Divide tests into groups such that no training is in two of them."""
    groups: list[tuple[str, ...]] = []
    for test in tests:
        trainings = set(trainings_of(test))
        shared = [group for group in groups if any(trainings & set(trainings_of(other)) for other in group)]
        groups = [group for group in groups if group not in shared] + [(*sum(shared, ()), test)]
    return groups


def _by_image_variance(groups: Mapping[tuple[str, ...], Float[np.ndarray, "seeds N"]]) -> float:
    """Return the variance of the mean over images, all groups together."""
    of_images = np.sum([*groups.values()], axis=0).mean(axis=0)
    squares, sizes = float((of_images**2).sum()), float(abs(of_images).sum())
    step = squares / sizes if sizes else 1.0
    return variance_of_mean(squares, float(of_images.mean()), len(of_images), step=step)


def image_and_seed_variance(weighted: Float[np.ndarray, "seeds N"]) -> float:
    """Return the variance of outcomes around the means of their image and of their seed."""
    seeds, images = weighted.shape
    residual = weighted - weighted.mean(axis=0) - weighted.mean(axis=1, keepdims=True) + weighted.mean()
    return float((residual**2).sum()) / ((seeds - 1) * (images - 1))
