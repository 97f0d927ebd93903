"""Verdicts on the paper's claims: which hold on these images, which are reversed, which cannot be told.

Every part of a claim compares tests on the same images, over the same seeds. A comparison has to stand against both
kinds of chance in it: the choice of images (a paired randomisation of signs over the images; with one seed that is the
exact McNemar test) and, with several seeds, how the trainings happened to turn out (a paired t test over the seeds).
The larger of both p values counts. A claim holds if all of its parts stand: its p value is the largest of theirs. The
p values of all claims are corrected together by Holm's method. A network that does no better than guessing is not
compared.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from verydeep.reproduction.claims import Claim, ClaimPart, Kind
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

_MARGIN = 1.0
"""Percentage points: 'no more' holds once a larger excess can be ruled out."""

Verdict = Literal["holds", "reversed", "cannot be told"]

Outcomes = Mapping[str, Bool[np.ndarray, "seeds N"]]
"""Which images each test misclassified, by the test's name."""


@dataclass(frozen=True, kw_only=True)
class ComparedPart:
    """What came of one part of a claim."""

    id: str
    says: str
    kind: Kind
    first_error: float
    """Percent, as the other error."""
    second_error: float
    difference: float
    """Error of the first minus that of the second, percentage points, mean over the seeds."""
    difference_ci95: tuple[float, float]
    differences_of_seeds: tuple[float, ...]
    learned: bool
    """Whether all networks in it do better than guessing."""
    p_holds: float
    """Probability of such a result if the part were false: both err as much or, for `no more`, the first errs more by
    `_MARGIN`."""
    p_reversed: float
    """Probability of such a result if the first did not err more."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim and what came of it: it holds if all of its parts do, and is reversed if any is."""

    number: int
    id: str
    says: str
    verdict: Verdict
    p_holds: float | None
    """Corrected for all claims; None where nothing was compared."""
    p_reversed: float | None
    """Likewise, of the opposite."""
    why: str
    """Reason why it cannot be told, if it cannot."""
    parts: tuple[ComparedPart, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, ready for JSON."""
        return asdict(self)


def findings(
    claims: Sequence[Claim], trainings: Sequence[str], outcomes: Outcomes, *, guessing: float
) -> tuple[Finding, ...]:
    """Decide which claims hold.

    Args:
        claims: what the paper says.
        trainings: names of the trainings that are done.
        outcomes: results of all tests.
        guessing: error in percent of always saying the most frequent class.
    """
    learned = {name for name, wrong in outcomes.items() if _better_than(guessing, wrong)}
    compared = {
        claim.id: [part for one in claim.parts if (part := _compared(one, trainings, outcomes, learned))]
        for claim in claims
    }
    fair = {name: parts for name, parts in compared.items() if parts and all(part.learned for part in parts)}
    holds = holm([max(part.p_holds for part in parts) for parts in fair.values()])
    # Any part may be reversed, so there are as many chances for it.
    opposite = holm([len(parts) * min(part.p_reversed for part in parts) for parts in fair.values()])
    p_values = dict(zip(fair, zip(holds, opposite, strict=True), strict=True))
    return tuple(
        _finding(number, claim, compared[claim.id], p_values.get(claim.id)) for number, claim in enumerate(claims, 1)
    )


def _compared(
    part: ClaimPart, trainings: Sequence[str], outcomes: Outcomes, learned: Collection[str]
) -> ComparedPart | None:
    """Compare the tests of a part that were done; None without any."""
    pairs = [(one.name, other.name) for one, other in part.pairs(trainings)]
    tested = [pair for pair in pairs if set(pair) <= set(outcomes)]
    if not tested:
        return None
    first, second = (np.mean([outcomes[name] for name in names], axis=0) for names in zip(*tested, strict=True))
    gaps = first - second
    of_seeds = 100 * gaps.mean(axis=1)
    difference = float(of_seeds.mean())
    resampled = resampled_differences(gaps)
    equal = max(sign_test(gaps), t_test(of_seeds))
    by_margin = max(bootstrap_p_value(resampled, _MARGIN), t_test(of_seeds - _MARGIN))
    less = equal if difference < 0 else 1.0
    return ComparedPart(
        id=part.id,
        says=part.says,
        kind=part.kind,
        first_error=100 * float(first.mean()),
        second_error=100 * float(second.mean()),
        difference=difference,
        difference_ci95=percentile_interval(resampled),
        differences_of_seeds=tuple(of_seeds.tolist()),
        learned={name for pair in tested for name in pair} <= set(learned),
        p_holds=less if part.kind == "less" else by_margin if difference < _MARGIN else 1.0,
        p_reversed=equal if difference > 0 else 1.0,
    )


def _finding(number: int, claim: Claim, parts: Sequence[ComparedPart], p_values: tuple[float, float] | None) -> Finding:
    verdict: Verdict = "cannot be told"
    why, level = "", 1 - CONFIDENCE
    if not parts:
        why = "nothing was trained or tested for it"
    elif p_values is None:
        why = "a network in it does no better than guessing"
    elif (p_values[0] < level) != (p_values[1] < level):
        verdict = "holds" if p_values[0] < level else "reversed"
    else:
        why = "; ".join(_left_open(part) for part in parts if part.p_holds >= level) or (
            "it would be told if it were the only claim"
        )
    return Finding(
        number=number,
        id=claim.id,
        says=claim.says,
        verdict=verdict,
        p_holds=p_values and p_values[0],
        p_reversed=p_values and p_values[1],
        why=why,
        parts=tuple(parts),
    )


def _left_open(part: ComparedPart) -> str:
    """Say why a part does not stand."""
    low, high = part.difference_ci95
    seeds = part.differences_of_seeds
    if len({difference > 0 for difference in seeds}) > 1:
        return f"{part.says}: the {len(seeds)} seeds differ in the sign of the difference"
    if low < 0 < high or part.kind == "no more":
        return f"{part.says}: the difference may be anything from {low:+.1f} to {high:+.1f} points"
    return f"{part.says}: {len(seeds)} seeds are too few to tell the difference from that between seeds"


def _better_than(guessing: float, wrong: Bool[np.ndarray, "seeds N"]) -> bool:
    """Return whether every seed's error is surely below that of guessing."""
    return all(wilson_interval(one)[1] < guessing for one in wrong)
