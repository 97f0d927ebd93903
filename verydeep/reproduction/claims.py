"""The paper's claims: the sentence and section of each, and the comparisons of tests that it stands or falls with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from verydeep.evaluation.protocols import Method
from verydeep.reproduction.paper_tables import Entry, one_scale, several_scales
from verydeep.reproduction.trainings import JITTER, TRAININGS, TWO_BEST, GridTraining, last_stages

Kind = Literal["less", "no more"]

Pairs = Callable[[Sequence[str]], list[tuple[Entry, Entry]]]
"""Tests to compare, first and second, given the names of the trainings that are done."""


@dataclass(frozen=True, kw_only=True)
class ClaimPart:
    """One comparison: the first tests err less than the second ones, or no more; several pairs count as their mean."""

    id: str
    says: str
    """In words."""
    kind: Kind = "less"
    pairs: Pairs
    """Those of which both tests are done are compared; without any, the part is left out."""
    gain: str | None = None
    """Name of the step that makes the difference, where the report lists it as one."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of the paper; it holds if all of its parts do."""

    id: str
    says: str
    section: str
    """Of the paper."""
    parts: tuple[ClaimPart, ...]


def _at_one_scale(first: str, second: str) -> Pairs:
    """Return the pair of two trainings, each tested at one scale."""
    return lambda names: [(one_scale(first), one_scale(second))]


def _b_with_small_and_large_filters(names: Sequence[str]) -> list[tuple[Entry, Entry]]:
    """Return B and B-5x5, both from random weights if possible, since B-5x5 cannot start from A."""
    unseeded = GridTraining(network="B", scale="256", unseeded=True).name
    return [(one_scale(unseeded if unseeded in names else "B-256"), one_scale("B-5x5-256"))]


def _jittered(names: Sequence[str]) -> list[tuple[Entry, Entry]]:
    """Return every jittered training and the fixed S that it continues."""
    jittered = (one for one in TRAININGS if one.scale == JITTER and one.finetune)
    return [(one_scale(one.name), one_scale(str(one.finetune))) for one in jittered]


def _scales(names: Sequence[str]) -> list[tuple[Entry, Entry]]:
    """Return every training at several scales and at one."""
    return [(several_scales(name), one_scale(name)) for name in names]


def _methods(first: Method, second: Method) -> Pairs:
    """Return the last trainings of D and E, tested by two methods."""
    return lambda names: [
        (several_scales(name, method=first), several_scales(name, method=second)) for name in last_stages(names)
    ]


def _fusion(network: str) -> Pairs:
    """Return the fusion of D and E, and one of them alone."""
    place = TWO_BEST.index(network)
    return lambda names: [
        (several_scales(*last), several_scales(last[place]))
        for last in [last_stages(names)]
        if len(last) == len(TWO_BEST)
    ]


CLAIMS = (
    Claim(
        id="lrn_does_not_help",
        says="LRN does not help",
        section="4.1",
        parts=(
            ClaimPart(
                id="a_against_a_lrn",
                says="A errs no more than A-LRN",
                kind="no more",
                pairs=_at_one_scale("A-256", "A-LRN-256"),
            ),
        ),
    ),
    Claim(
        id="depth_helps",
        says="depth helps, up to E",
        section="4.1",
        parts=(
            ClaimPart(id="b_against_a", says="B errs less than A", pairs=_at_one_scale("B-256", "A-256")),
            ClaimPart(id="d_against_b", says="D errs less than B", pairs=_at_one_scale("D-256", "B-256")),
            ClaimPart(
                id="d_against_e",
                says="D errs no more than E",
                kind="no more",
                pairs=_at_one_scale("D-256", "E-256"),
            ),
        ),
    ),
    Claim(
        id="context_helps_more_than_non_linearity",
        says="more non-linearity helps, more spatial context helps more",
        section="4.1",
        parts=(
            ClaimPart(id="c_against_b", says="C errs less than B", pairs=_at_one_scale("C-256", "B-256")),
            ClaimPart(id="d_against_c", says="D errs less than C", pairs=_at_one_scale("D-256", "C-256")),
        ),
    ),
    Claim(
        id="small_filters_help",
        says="small filters beat large ones",
        section="4.1",
        parts=(
            ClaimPart(
                id="b_against_b_5x5",
                says="B errs less than B with 5 x 5 layers",
                pairs=_b_with_small_and_large_filters,
            ),
        ),
    ),
    Claim(
        id="scale_jitter_helps",
        says="scale jitter in training helps",
        section="4.1",
        parts=(
            ClaimPart(
                id="jitter_against_fixed_scale",
                says="trained at S in [256;512] nets err less than at S = 384",
                pairs=_jittered,
                gain="scale jitter in training, against S = 384",
            ),
        ),
    ),
    Claim(
        id="several_scales_help",
        says="several test scales help",
        section="4.2",
        parts=(
            ClaimPart(
                id="several_scales_against_one",
                says="at several scales nets err less",
                pairs=_scales,
                gain="several test scales, against one",
            ),
        ),
    ),
    Claim(
        id="crops_complement_dense",
        says="multi-crop is better than dense, both together are best",
        section="4.3",
        parts=(
            ClaimPart(
                id="crops_against_dense",
                says="by crops nets err less than densely",
                pairs=_methods("crops", "dense"),
                gain="multi-crop, against dense",
            ),
            ClaimPart(
                id="both_against_dense",
                says="by both nets err less than densely",
                pairs=_methods("both", "dense"),
                gain="multi-crop & dense, against dense",
            ),
            ClaimPart(
                id="both_against_crops",
                says="by both nets err less than by crops",
                pairs=_methods("both", "crops"),
                gain="multi-crop & dense, against multi-crop",
            ),
        ),
    ),
    Claim(
        id="fusion_helps",
        says="fusing D and E beats either",
        section="4.4",
        parts=tuple(
            ClaimPart(
                id=f"fusion_against_{network.lower()}",
                says=f"D and E fused err less than {network}",
                pairs=_fusion(network),
                gain=f"D and E fused, against {network}",
            )
            for network in TWO_BEST
        ),
    ),
    Claim(
        id="glorot_needs_no_copying",
        says="Glorot's initialisation needs no copying from A",
        section="3.1",
        parts=(
            ClaimPart(
                id="d_glorot_against_d",
                says="D from random weights errs no more than D from A",
                kind="no more",
                pairs=_at_one_scale("D-256-glorot", "D-256"),
            ),
        ),
    ),
)

GAINS = {part.id: part.gain for claim in CLAIMS for part in claim.parts if part.gain}
"""Steps that the report lists, by the id of the part that measures each."""
