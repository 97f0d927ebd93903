"""Samples of a source's images, with the same share of each class; a larger sample holds every smaller one."""

from collections.abc import Sequence

import numpy as np

from verydeep.images.sources.source import Source, subset


def sampled(source: Source, *, one_in: int, seed: int) -> Source:
    """Return a source with one image in `one_in` of each class, at least one; for `one_in` 1 the source itself.

    With the same seed, a sample holds every smaller one.
    """
    return source if one_in == 1 else subset(source, _nested_sample(source.labels, one_in=one_in, seed=seed))


def _nested_sample(labels: Sequence[int], *, one_in: int, seed: int) -> list[int]:
    """Return the indices of a sample, ascending: of each class one image in `one_in`, rounded, and at least one."""
    chosen: list[int] = []
    for label in sorted(set(labels)):
        members = np.flatnonzero(np.asarray(labels) == label)
        order = np.random.Generator(np.random.PCG64([seed, label])).permutation(len(members))
        chosen += members[order[: max(1, round(len(members) / one_in))]].tolist()
    return sorted(chosen)
