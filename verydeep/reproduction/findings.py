"""Verdicts on the paper's claims: which hold on these images, in whole or in part, and which are reversed.

A claim is about networks trained again, on other images. Each of its parts is a contrast (`contrasts`) that is tested
one-sided against 0 or against the margin. Fewer than `FEWEST_SEEDS` decide nothing about networks, only about the ones
that were trained, whose verdicts stand apart.

All verdicts of a kind share 5% of error: four fifths for parts that hold, one for parts that are reversed. The level is
divided equally among the claims. A claim all of whose parts stand at its share is told as a whole and passes that on to
the others (Holm over the claims, Hochberg's first step within one). In the claims that remain, a part is told by itself
if it stands at the share divided among the parts still open (Holm). `statistics.holm_by_family` says what that assumes.
A network that does no better than guessing, or whose training was cut off before its schedule had ended, is not
compared.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from verydeep.numbers import interval, plural, trimmed
from verydeep.reproduction.claims import (
    CLAIMS,
    FEWEST_SEEDS,
    MARGIN,
    Claim,
    ClaimKind,
    ClaimPart,
    check_margin,
    compared_tests,
)
from verydeep.reproduction.contrasts import Contrasts, Estimate, Outcomes, Weights, trainings_of, weights_of_difference
from verydeep.reproduction.deciding_seeds import DecidingSeeds, deciding_seeds
from verydeep.reproduction.fair_tests import finished_tests, learned_tests
from verydeep.reproduction.paper_tables import is_test
from verydeep.statistics import CONFIDENCE, LEVEL_OF_HOLDS, LEVEL_OF_REVERSED, holm_by_family

Verdict = Literal["holds", "holds_in_part", "reversed", "cannot_be_told"]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A part of a claim, judged."""

    verdict: Verdict
    """With all claims in view; never `holds_in_part`."""
    p_holds: float
    """Probability of such a result at the edge of where the part is false; not corrected for other parts."""
    p_reversed: float
    """Likewise, of the opposite."""
    ci95: tuple[float, float]
    """Interval of the difference; not corrected."""


@dataclass(frozen=True, kw_only=True)
class ComparedPart:
    """A part of a claim whose tests were done, and its result."""

    id: str
    says: str
    kind: ClaimKind
    first_error: float
    """Percent, as the other error."""
    second_error: float
    difference: float
    """Error of the first minus that of the second, percentage points, mean over the seeds."""
    difference_ci95: tuple[float, float]
    """For networks where there are several seeds, else for the trained ones; not corrected."""
    differences_of_seeds: tuple[float, ...]
    learned: bool
    """Whether all networks in it do better than guessing."""
    unfinished: tuple[str, ...]
    """Trainings in it that were cut off before their schedule had ended."""
    trained: Judgement
    """Judgement on these trained networks alone, on other images."""
    networks: Judgement | None
    """Judgement on networks trained again; None with one seed, and never decided with fewer than `FEWEST_SEEDS`."""
    deciding_seeds: DecidingSeeds | None
    """Seeds that would tell an open part, if its difference stays; None for others, and with one or two seeds."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim and its verdict."""

    number: int
    id: str
    says: str
    verdict: Verdict
    """Verdict on networks trained again, on other images."""
    verdict_of_trained: Verdict
    """Verdict on these trained networks alone, on other images."""
    why: str
    """Which of its parts hold, are reversed or are open, where it does not hold as a whole."""
    margin: float | None
    """Percentage points up to which errors count as alike, if a part that was compared asks for that."""
    parts: tuple[ComparedPart, ...]

    @property
    def unfinished(self) -> list[str]:
        """Trainings in it that were cut off before their schedule had ended."""
        return sorted({name for part in self.parts for name in part.unfinished})

    @property
    def beside(self) -> str:
        """Notes beside its verdict: the margin that it uses, and trainings that were too brief."""
        margin = [] if self.margin is None else [f"margin {trimmed(self.margin)} {plural('point', self.margin)}"]
        return "; ".join(margin + [f"trained too briefly: {', '.join(self.unfinished)}"] * bool(self.unfinished))

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """The tests of a part that were done."""

    part: ClaimPart
    first: Weights
    second: Weights
    learned: bool
    unfinished: tuple[str, ...]

    @property
    def weights(self) -> Weights:
        """Weights of the difference."""
        return weights_of_difference(self.first, self.second)

    @property
    def fair(self) -> bool:
        return self.learned and not self.unfinished


def findings(
    outcomes: Outcomes,
    *,
    guessing: float,
    margin: float = MARGIN,
    unfinished: Collection[str] = (),
    claims: Sequence[Claim] = CLAIMS,
) -> tuple[Finding, ...]:
    """Decide which of the paper's claims hold.

    Args:
        outcomes: which images each test misclassified, with every seed: `{"D-256 dense single": [seeds, N]}`. A name is
            a training, or several that are fused (`D-256+E-256`), the protocol, and the scales, as in results.json.
        guessing: error in percent of always predicting the most frequent class.
        margin: percentage points up to which errors count as alike.
        unfinished: trainings that were cut off, with any seed, before their schedule had ended.
        claims: the claims that are decided together.

    Raises:
        ValueError: no tests, one whose name is not of this form, tests of different images or seeds, no seed, a single
            image, or as `check_margin`.
    """
    _check(outcomes, margin)
    trainings = sorted({name for test in outcomes for name in trainings_of(test)})
    learned = learned_tests(outcomes, guessing)
    contrasts = Contrasts(outcomes, pooled=finished_tests(learned, unfinished))
    compared = [
        [one for part in claim.parts if (one := _comparison(part, trainings, outcomes, learned, unfinished))]
        for claim in claims
    ]
    every = [one for its in compared for one in its]
    trained = {one.part.id: contrasts.of_trainings(one.weights) for one in every}
    networks = {one.part.id: contrasts.of_networks(one.weights) for one in every} if contrasts.seeds > 1 else {}
    families = [[one.part for one in its if one.fair] for its in compared]
    enough = contrasts.seeds >= FEWEST_SEEDS
    of_trained = _judgements(every, families, trained, margin)
    of_networks = _judgements(every, families if enough else [], networks, margin) if networks else {}
    verdicts = {part: judged.verdict for part, judged in of_networks.items()}
    deciding = deciding_seeds(networks, families, verdicts, margin) if networks else {}
    parts = [
        [_compared_part(one, outcomes, trained, of_trained, of_networks, deciding) for one in its] for its in compared
    ]
    return tuple(
        _finding(number, claim, its, margin, contrasts.seeds)
        for number, (claim, its) in enumerate(zip(claims, parts, strict=True), 1)
    )


def _finding(number: int, claim: Claim, parts: Sequence[ComparedPart], margin: float, seeds: int) -> Finding:
    """Return the verdict on a claim, given those of its parts that were compared."""
    verdict_of_trained, why_of_trained = _told(claim, parts, {one.id: one.trained for one in parts})
    verdict, why = _told(claim, parts, {one.id: one.networks for one in parts if one.networks})
    if parts and seeds < FEWEST_SEEDS:
        do = "one seed does" if seeds == 1 else f"{seeds} seeds do"
        too_few = f"{do} not tell how networks trained again would err"
        why = "; of those trained, ".join(filter(None, (too_few, why_of_trained)))
    return Finding(
        number=number,
        id=claim.id,
        says=claim.says,
        verdict=verdict,
        verdict_of_trained=verdict_of_trained,
        why=why,
        margin=margin if any(one.kind != "less" for one in parts) else None,
        parts=tuple(parts),
    )


def _check(outcomes: Outcomes, margin: float) -> None:
    """Refuse tests that nothing can be decided by."""
    if unknown := [name for name in outcomes if not is_test(name)]:
        raise ValueError(
            f"{unknown[0]!r} is not a test of these findings; they are named by a training (such as D-256, or "
            "D-256+E-256), the protocol and the scales: 'D-256 dense single'"
        )
    if not outcomes or len({np.shape(wrong) for wrong in outcomes.values()}) > 1:
        raise ValueError("findings need tests, all of them on the same images and with the same seeds")
    if len(shape := np.shape(next(iter(outcomes.values())))) != 2 or shape[0] < 1 or shape[1] < 2:
        raise ValueError(
            f"findings need tests as [seeds, images], of a seed and two images or more, not of shape {list(shape)}"
        )
    check_margin(margin)


def _comparison(
    part: ClaimPart,
    trainings: Sequence[str],
    outcomes: Outcomes,
    learned: Collection[str],
    unfinished: Collection[str],
) -> _Comparison | None:
    """Return the tests of a part that were done; None without any."""
    compared = compared_tests(part, trainings, outcomes)
    if compared is None:
        return None
    first, second = compared
    names = sorted({training for name in (*first, *second) for training in trainings_of(name)})
    return _Comparison(
        part=part,
        first=first,
        second=second,
        learned={*first, *second} <= set(learned),
        unfinished=tuple(name for name in names if name in unfinished),
    )


def _compared_part(
    one: _Comparison,
    outcomes: Outcomes,
    estimates: Mapping[str, Estimate],
    judged_of_trained: Mapping[str, Judgement],
    judged_of_networks: Mapping[str, Judgement],
    deciding: Mapping[str, DecidingSeeds],
) -> ComparedPart:
    """Return the result of a part; the mappings are by its id, the last two without some parts."""
    part = one.part.id
    trained, of_trained, of_networks = estimates[part], judged_of_trained[part], judged_of_networks.get(part)
    first, second = (
        100 * sum(weight * float(outcomes[name].mean()) for name, weight in side.items())
        for side in (one.first, one.second)
    )
    return ComparedPart(
        id=part,
        says=one.part.says,
        kind=one.part.kind,
        first_error=first,
        second_error=second,
        difference=trained.points,
        difference_ci95=(of_networks or of_trained).ci95,
        differences_of_seeds=trained.of_seeds,
        learned=one.learned,
        unfinished=one.unfinished,
        trained=of_trained,
        networks=of_networks,
        deciding_seeds=deciding.get(part),
    )


def _judgements(
    every: Sequence[_Comparison],
    families: Sequence[Sequence[ClaimPart]],
    estimates: Mapping[str, Estimate],
    margin: float,
) -> dict[str, Judgement]:
    """Judge all parts; those of `families`, the claims' fair comparisons, share the level."""
    p_values = {one.part.id: _p_values(one.part.kind, estimates[one.part.id], margin) for one in every}
    stand, fall = (
        holm_by_family([{part.id: p_values[part.id][way] for part in its} for its in families], level)
        for way, level in enumerate((LEVEL_OF_HOLDS, LEVEL_OF_REVERSED))
    )
    return {
        part: Judgement(
            verdict="holds" if part in stand else "reversed" if part in fall else "cannot_be_told",
            p_holds=p_values[part][0],
            p_reversed=p_values[part][1],
            ci95=estimate.ci95,
        )
        for part, estimate in estimates.items()
    }


def _p_values(kind: ClaimKind, estimate: Estimate, margin: float) -> tuple[float, float]:
    """Return the p values by which a part holds, and by which it is reversed."""
    match kind:
        case "less":
            return estimate.p_below(0), estimate.p_above(0)
        case "no_more":
            return estimate.p_below(margin), estimate.p_above(margin)
        case "alike":  # two one-sided tests (Schuirmann, 1987)
            inside = max(estimate.p_below(margin), estimate.p_above(-margin))
            return inside, min(1.0, 2 * min(estimate.p_above(margin), estimate.p_below(-margin)))


def _told(claim: Claim, compared: Sequence[ComparedPart], judged: Mapping[str, Judgement]) -> tuple[Verdict, str]:
    """Return the verdict on a claim, and the results of its parts where it does not hold as a whole."""
    done = {one.id: one for one in compared}
    of_parts = {part.id: judged[part.id].verdict if part.id in judged else "cannot_be_told" for part in claim.parts}
    if set(of_parts.values()) == {"holds"}:
        return "holds", ""
    verdict: Verdict = "holds_in_part" if "holds" in of_parts.values() else "cannot_be_told"
    if verdict == "cannot_be_told" and any(
        _against(part, judged[part.id]) for part in claim.parts if part.id in judged
    ):
        verdict = "reversed"
    if not compared:
        return verdict, "nothing was trained or tested for it"
    words = (_of_part(part, done.get(part.id), judged.get(part.id)) for part in claim.parts)
    return verdict, "; ".join(words)


def _against(part: ClaimPart, judgement: Judgement) -> bool:
    """Return whether a part that is reversed speaks against its claim: of errors alike only where the second is worse.

    If E errs much less than D, that is not a reason to say that depth harms.
    """
    return judgement.verdict == "reversed" and (part.kind != "alike" or sum(judgement.ci95) < 0)


def _of_part(part: ClaimPart, one: ComparedPart | None, judgement: Judgement | None) -> str:
    """Say how a part turned out."""
    if one is None or judgement is None:
        return f"not trained or not tested: {part.says}"
    if one.unfinished:
        return f"trained too briefly to compare ({', '.join(one.unfinished)}): {part.says}"
    if not one.learned:
        return f"no better than guessing in a network: {part.says}"
    if judgement.verdict == "cannot_be_told":
        between = interval(judgement.ci95, sign="+")
        if min(judgement.p_holds, judgement.p_reversed) <= (1 - CONFIDENCE) / 2:
            return f"open: {part.says} (by itself {between} points, which is not enough with all claims counted)"
        return f"open: {part.says} (the difference may be anything from {between} points)"
    if judgement.verdict == "reversed" and part.kind == "alike":
        return f"reversed: {part.says} (they differ by {interval(judgement.ci95, sign='+')} points)"
    return f"{judgement.verdict}: {part.says}"
