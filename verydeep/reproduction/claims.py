"""The paper's claims against what was found: which hold on these images, which are reversed, which cannot be told.

Every claim is one or more comparisons of tests on the same images, over the same seeds. A comparison has to stand
against both kinds of chance in it: which images there are (a paired randomisation of signs over the images; with one
seed that is the exact McNemar test) and, where there are several seeds, how the trainings happened to turn out (a
paired t test over the seeds). The larger of both p values counts. A claim holds if all of its comparisons stand: its p
value is the largest of theirs. Those of all claims are corrected together by Holm's method. A network that does no
better than guessing is not compared.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from verydeep.reproduction.grid import FUSED, JITTER, Entry, Training, last_stages
from verydeep.statistics import (
    CONFIDENCE,
    bootstrap_p_value,
    holm,
    percentile_interval,
    resampled_differences,
    sign_test,
    t_test,
    wilson_interval,
)

MARGIN = 1.0
"""Percentage points: where the paper says that something does not help, that holds if no more help is left open."""

Kind = Literal["less", "no more"]
Verdict = Literal["holds", "reversed", "cannot be told"]

Outcomes = Mapping[str, NDArray[np.bool_]]
"""Of each test, by its name: [seeds, images], which images were misclassified."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """`first` errs less than `second`, or no more; several tests of a side count as their mean."""

    kind: Kind
    first: tuple[str, ...]
    second: tuple[str, ...]
    says: str
    """In words."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the paper says."""

    number: int
    says: str
    parts: tuple[Part, ...]
    """As far as there are tests for them."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What was found of a part."""

    says: str
    kind: Kind
    first_error: float
    second_error: float
    difference: float
    """Error of the first minus that of the second, percentage points, mean over the seeds."""
    difference_ci95: tuple[float, float]
    differences_of_seeds: tuple[float, ...]
    learned: bool
    """Whether all networks in it do better than guessing."""
    p_holds: float
    """Of what is found if it did not hold: both err as much or, of `no more`, the first errs more by `MARGIN`."""
    p_reversed: float
    """Of what is found if the first did not err more."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim and what became of it: it holds if all of its parts do, and is reversed if any is."""

    number: int
    says: str
    verdict: Verdict
    p_holds: float | None
    """Corrected for all claims; None where nothing was compared."""
    p_reversed: float | None
    """The same of the opposite."""
    why: str
    """Where it cannot be told: because of what."""
    parts: tuple[Compared, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, ready for JSON."""
        return asdict(self)


def claims(trainings: Sequence[Training], tested: Sequence[str]) -> tuple[Claim, ...]:
    """The paper's nine claims, with those parts for which the tests named `tested` are there."""
    names, single = [one.name for one in trainings], _single

    def part(kind: Kind, first: tuple[str, ...], second: tuple[str, ...], says: str) -> list[Part]:
        there = bool(first) and {*first, *second} <= set(tested)
        return [Part(kind=kind, first=first, second=second, says=says)] if there else []

    last = last_stages(names)

    def by(method: Any) -> tuple[str, ...]:
        return tuple(Entry(trainings=(name,), method=method, scales="paper").name for name in last)

    jittered = [one.network for one in trainings if one.scale == JITTER]
    several = [name for name in names if Entry(trainings=(name,), method="dense", scales="paper").name in tested]
    at_several = tuple(Entry(trainings=(name,), method="dense", scales="paper").name for name in several)
    own_b = "B-256-glorot" if "B-256-glorot" in names else "B-256"
    fused = (Entry(trainings=tuple(last), method="dense", scales="paper").name,)
    both = last if len(last) == len(FUSED) else ()
    each = [((by("dense")[i],), name.partition("-")[0]) for i, name in enumerate(both)]
    found = {
        "LRN does not help": part("no more", single("A-256"), single("A-LRN-256"), "A errs no more than A-LRN"),
        "depth helps, up to E": [
            *part("less", single("B-256"), single("A-256"), "B errs less than A"),
            *part("less", single("D-256"), single("B-256"), "D errs less than B"),
            *part("no more", single("D-256"), single("E-256"), "D errs no more than E"),
        ],
        "more non-linearity helps, more spatial context helps more": [
            *part("less", single("C-256"), single("B-256"), "C errs less than B"),
            *part("less", single("D-256"), single("C-256"), "D errs less than C"),
        ],
        "small filters beat large ones": part(
            "less", single(own_b), single("B-5x5-256"), "B errs less than B with 5 x 5 layers"
        ),
        "scale jitter in training helps": part(
            "less",
            single(*(f"{network}-256-512" for network in jittered)),
            single(*(f"{network}-384" for network in jittered)),
            "trained at S in [256;512] nets err less than at S = 384",
        ),
        "several test scales help": part("less", at_several, single(*several), "at several scales nets err less"),
        "multi-crop is better than dense, both together are best": [
            *part("less", by("crops"), by("dense"), "by crops nets err less than densely"),
            *part("less", by("both"), by("dense"), "by both nets err less than densely"),
            *part("less", by("both"), by("crops"), "by both nets err less than by crops"),
        ],
        "fusing D and E beats either": [
            *(
                one
                for test, network in each
                for one in part("less", fused, test, f"D and E fused err less than {network}")
            )
        ],
        "Glorot's initialisation needs no copying from A": part(
            "no more", single("D-256-glorot"), single("D-256"), "D from random weights errs no more than D from A"
        ),
    }
    return tuple(
        Claim(number=number, says=says, parts=tuple(parts)) for number, (says, parts) in enumerate(found.items(), 1)
    )


def _single(*names: str) -> tuple[str, ...]:
    """Trainings tested at one scale."""
    return tuple(Entry(trainings=(name,), method="dense", scales="single").name for name in names)


def findings(stated: Sequence[Claim], outcomes: Outcomes, *, guessing: float) -> tuple[Finding, ...]:
    """What became of claims.

    Args:
        stated: by `claims`.
        outcomes: of every test that is named in them.
        guessing: error in percent of who always says the most frequent class.
    """
    learned = {name for name, wrong in outcomes.items() if _better_than(guessing, wrong)}
    compared = {claim: [_compared(part, outcomes, learned) for part in claim.parts] for claim in stated}
    fair = [claim for claim, parts in compared.items() if parts and all(part.learned for part in parts)]
    holds = holm([max(part.p_holds for part in compared[claim]) for claim in fair])
    # Any part may be reversed, so there are as many chances for it.
    opposite = holm([len(claim.parts) * min(part.p_reversed for part in compared[claim]) for claim in fair])
    p_values = dict(zip(fair, zip(holds, opposite, strict=True), strict=True))
    return tuple(_finding(claim, compared[claim], p_values.get(claim)) for claim in stated)


def _compared(part: Part, outcomes: Outcomes, learned: Collection[str]) -> Compared:
    first, second = (np.mean([outcomes[name] for name in names], axis=0) for names in (part.first, part.second))
    gaps = first - second
    of_seeds = 100 * gaps.mean(axis=1)
    difference = float(of_seeds.mean())
    drawn = resampled_differences(gaps)
    equal = max(sign_test(gaps), t_test(of_seeds))
    by_margin = max(bootstrap_p_value(drawn, MARGIN), t_test(of_seeds - MARGIN))
    less = equal if difference < 0 else 1.0
    return Compared(
        says=part.says,
        kind=part.kind,
        first_error=100 * float(first.mean()),
        second_error=100 * float(second.mean()),
        difference=difference,
        difference_ci95=percentile_interval(drawn),
        differences_of_seeds=tuple(of_seeds.tolist()),
        learned={*part.first, *part.second} <= set(learned),
        p_holds=less if part.kind == "less" else by_margin if difference < MARGIN else 1.0,
        p_reversed=equal if difference > 0 else 1.0,
    )


def _finding(claim: Claim, parts: Sequence[Compared], p_values: tuple[float, float] | None) -> Finding:
    verdict, why, level = "cannot be told", "", 1 - CONFIDENCE
    if not parts:
        why = "nothing was trained or tested for it"
    elif p_values is None:
        why = "a network in it does no better than guessing"
    elif (p_values[0] < level) != (p_values[1] < level):
        verdict = "holds" if p_values[0] < level else "reversed"
    else:
        why = "; ".join(_open(part) for part in parts if part.p_holds >= level) or (
            "it would be told if it were the only claim"
        )
    return Finding(
        number=claim.number,
        says=claim.says,
        verdict=cast(Verdict, verdict),
        p_holds=p_values and p_values[0],
        p_reversed=p_values and p_values[1],
        why=why,
        parts=tuple(parts),
    )


def _open(part: Compared) -> str:
    """Why a part does not stand."""
    low, high = part.difference_ci95
    seeds = part.differences_of_seeds
    if len({difference > 0 for difference in seeds}) > 1:
        return f"{part.says}: the {len(seeds)} seeds differ in the sign of the difference"
    if low < 0 < high or part.kind == "no more":
        return f"{part.says}: the difference may be anything from {low:+.1f} to {high:+.1f} points"
    return f"{part.says}: {len(seeds)} seeds are too few to tell the difference from that between seeds"


def _better_than(guessing: float, wrong: NDArray[np.bool_]) -> bool:
    """Whether every seed's error is surely below that of guessing."""
    return all(wilson_interval(one)[1] < guessing for one in wrong)
