"""The paper's claims: the sentence and section of each, and the comparisons of tests that it stands or falls with."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from verydeep.evaluation.protocols import Method
from verydeep.reproduction.paper_tables import Entry, one_scale, several_scales
from verydeep.reproduction.trainings import JITTER, SCALES, TRAININGS, TWO_BEST, GridTraining, last_stages

MARGIN = 2.0
"""Percentage points up to which errors count as alike; 5 seeds and 3,925 images mostly tell it (docs/VERDICTS.md)."""

FEWEST_SEEDS = 3
"""Seeds from which claims about networks trained again are decided. Two may come out close to each other by luck, and
nothing then shows how trainings vary: a tenth of simulated reports were wrong where networks vary as unequally as on
Imagenette (docs/VERDICTS.md)."""

SMALL_FILTERS_HELP = "small_filters_help"
"""The claim whose verdict depends on what its two networks start from."""

UNSEEDED_B = GridTraining(network="B", scale="256", scheme="glorot").name
"""The training that B-5x5 is compared with, if it was done."""

ClaimKind = Literal["less", "no_more", "alike"]

_Pairs = Callable[[Sequence[str]], list[tuple[Entry, Entry]]]
"""Tests to compare, first and second, given the names of the trainings that are done."""


@dataclass(frozen=True, kw_only=True)
class ClaimPart:
    """One comparison: the first tests err less than the second, no more, or alike; pairs count as their mean."""

    id: str
    says: str
    """In words."""
    kind: ClaimKind
    pairs: _Pairs
    """Pairs whose two tests are both done are compared; if there are none, the part is left out."""
    gain: str | None = None
    """Name of the step that makes the difference, where the report lists it as one."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of the paper; it holds if all of its parts do."""

    id: str
    says: str
    section: str
    """Section of the paper."""
    parts: tuple[ClaimPart, ...]


def _at_one_scale(first: str, second: str) -> _Pairs:
    """Return the pair of two trainings, each tested at one scale."""
    return lambda names: [(one_scale(first), one_scale(second))]


def _small_and_large_filters(method: Method) -> _Pairs:
    """Return B and B-5x5, both from random weights if possible, since B-5x5 cannot start from A."""
    return lambda names: [
        (
            one_scale(UNSEEDED_B if UNSEEDED_B in names else "B-256", method=method),
            one_scale("B-5x5-256", method=method),
        )
    ]


def _jittered(scale: str) -> _Pairs:
    """Return every jittered training and that of the same network at a fixed S."""
    return lambda names: [
        (one_scale(one.name), one_scale(replace(one, scale=scale, finetune=None).name))
        for one in TRAININGS
        if one.scale == JITTER
    ]


def _scales(names: Sequence[str]) -> list[tuple[Entry, Entry]]:
    """Return every training at several scales and at one."""
    return [(several_scales(name), one_scale(name)) for name in names]


def _methods(first: Method, second: Method) -> _Pairs:
    """Return the last trainings of D and E, tested by two methods."""
    return lambda names: [
        (several_scales(name, method=first), several_scales(name, method=second)) for name in last_stages(names)
    ]


def _fusion(network: str) -> _Pairs:
    """Return the fusion of D and E, and one of them alone."""
    place = TWO_BEST.index(network)
    return lambda names: [
        (several_scales(*last), several_scales(last[place]))
        for last in [last_stages(names)]
        if len(last) == len(TWO_BEST)
    ]


def _less(name: str, says: str, pairs: _Pairs, *, gain: str | None = None) -> ClaimPart:
    return ClaimPart(id=name, says=says, kind="less", pairs=pairs, gain=gain)


def _no_more(name: str, says: str, pairs: _Pairs) -> ClaimPart:
    return ClaimPart(id=name, says=says, kind="no_more", pairs=pairs)


def _alike(name: str, says: str, pairs: _Pairs) -> ClaimPart:
    return ClaimPart(id=name, says=says, kind="alike", pairs=pairs)


def _claim(name: str, says: str, section: str, *parts: ClaimPart) -> Claim:
    return Claim(id=name, says=says, section=section, parts=parts)


CLAIMS = (
    _claim(
        "lrn_does_not_help",
        "LRN does not help",
        "4.1",
        _no_more("a_against_a_lrn", "A errs no more than A-LRN", _at_one_scale("A-256", "A-LRN-256")),
    ),
    _claim(
        "depth_helps",
        "depth helps, and saturates at D and E",
        "4.1",
        _less("b_against_a", "B errs less than A", _at_one_scale("B-256", "A-256")),
        _less("d_against_b", "D errs less than B", _at_one_scale("D-256", "B-256")),
        _less("d_against_a", "D errs less than A", _at_one_scale("D-256", "A-256"), gain="depth: D, against A"),
        _alike("d_against_e", "D and E err alike", _at_one_scale("D-256", "E-256")),
    ),
    _claim(
        "context_helps_more_than_non_linearity",
        "more non-linearity helps, more spatial context helps more",
        "4.1",
        _less(
            "c_against_b",
            "C errs less than B",
            _at_one_scale("C-256", "B-256"),
            gain="more non-linearity: C's 1 x 1 layers, against B",
        ),
        _less(
            "d_against_c",
            "D errs less than C",
            _at_one_scale("D-256", "C-256"),
            gain="more context: D's 3 x 3 layers, against C's 1 x 1",
        ),
    ),
    _claim(
        SMALL_FILTERS_HELP,
        "small filters beat large ones",
        "4.1",
        _less(
            "b_against_b_5x5_on_centre_crops",
            "on centre crops, B errs less than B with 5 x 5 layers",
            _small_and_large_filters("centre"),
        ),
        _less(
            "b_against_b_5x5",
            "in dense evaluation, B errs less than B with 5 x 5 layers",
            _small_and_large_filters("dense"),
            gain="small filters: B, against B with 5 x 5 layers",
        ),
    ),
    _claim(
        "scale_jitter_helps",
        "scale jitter in training helps",
        "4.1",
        *(
            _less(
                f"jitter_against_{scale}",
                f"nets trained at S in [256;512] err less than those at S = {scale}",
                _jittered(scale),
                gain=f"scale jitter in training, against S = {scale}",
            )
            for scale in SCALES
            if scale != JITTER
        ),
    ),
    _claim(
        "several_scales_help",
        "several test scales help",
        "4.2",
        _less(
            "several_scales_against_one",
            "nets err less at several scales",
            _scales,
            gain="several test scales, against one",
        ),
    ),
    _claim(
        "crops_complement_dense",
        "multi-crop is better than dense, both together are best",
        "4.3",
        _less(
            "crops_against_dense",
            "nets err less with crops than with dense evaluation",
            _methods("crops", "dense"),
            gain="multi-crop, against dense",
        ),
        _less(
            "both_against_dense",
            "nets err less with both than with dense evaluation",
            _methods("both", "dense"),
            gain="multi-crop & dense, against dense",
        ),
        _less(
            "both_against_crops",
            "nets err less with both than with crops",
            _methods("both", "crops"),
            gain="multi-crop & dense, against multi-crop",
        ),
    ),
    _claim(
        "fusion_helps",
        "fusing D and E beats either",
        "4.4",
        _less("fusion_against_d", "D and E fused err less than D", _fusion("D"), gain="D and E fused, against D"),
        _less("fusion_against_e", "D and E fused err less than E", _fusion("E"), gain="D and E fused, against E"),
    ),
    _claim(
        "glorot_needs_no_copying",
        "Glorot's initialisation needs no copying from A",
        "3.1",
        _no_more(
            "d_glorot_against_d",
            "D from random weights errs no more than D from A",
            _at_one_scale("D-256-glorot", "D-256"),
        ),
    ),
)

GAINS = {part.id: part.gain for claim in CLAIMS for part in claim.parts if part.gain}
"""Steps whose gains the report lists, by the id of the part that measures each."""


def check_margin(margin: float) -> None:
    """Refuse a margin that decides nothing.

    Raises:
        ValueError: it is not a number of percentage points above 0.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"the margin must be above 0 percentage points, not {margin}")


def compared_tests(
    part: ClaimPart, trainings: Sequence[str], tests: Collection[str]
) -> tuple[Mapping[str, float], Mapping[str, float]] | None:
    """Return the finished tests of either side with their weights, equal for all pairs; None if there are none."""
    pairs = [(one.name, other.name) for one, other in part.pairs(trainings)]
    tested = [pair for pair in pairs if set(pair) <= set(tests)]
    if not tested:
        return None
    first, second = (
        {name: count / len(tested) for name, count in Counter(names).items()} for names in zip(*tested, strict=True)
    )
    return first, second
