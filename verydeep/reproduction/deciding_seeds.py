"""How many seeds would tell what is open, if differences and their variances stay as they were found.

A rough guide for whoever asks what would decide a claim: both are themselves estimates, and the other claims are taken
to stay as open as they are.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from verydeep.numbers import number, points
from verydeep.reproduction.claims import ClaimKind, ClaimPart
from verydeep.reproduction.contrasts import Contrasts, Variances, Weights
from verydeep.statistics import CONFIDENCE, POWER, t_power

LEVEL_OF_HOLDS, LEVEL_OF_REVERSED = 0.8 * (1 - CONFIDENCE), 0.2 * (1 - CONFIDENCE)
"""Probabilities of any false verdict of either kind; the paper's own direction has more of it, since it is the
question."""

_MOST_SEEDS = 100


def deciding_seeds(
    contrasts: Contrasts,
    families: Sequence[Sequence[tuple[ClaimPart, Weights]]],
    verdicts: Mapping[str, str],
    margin: float,
) -> dict[str, int | None]:
    """Return with how many seeds each open part, or its opposite, would be told in four of five reports.

    Args:
        contrasts: of two seeds or more.
        families: fair comparisons of each claim, with the weights of their differences.
        verdicts: verdict on each part by its id.
        margin: percentage points up to which errors count as alike.

    Returns:
        Numbers larger than that of the seeds there are, by the part's id; None if 100 would not do.
    """
    ids = [[part.id for part, _ in its] for its in families]
    holds = _levels(ids, {part for part, verdict in verdicts.items() if verdict == "holds"}, LEVEL_OF_HOLDS)
    falls = _levels(ids, {part for part, verdict in verdicts.items() if verdict == "reversed"}, LEVEL_OF_REVERSED)
    return {
        part.id: _seeds_to_tell(
            part.kind,
            contrasts.of_networks(weights).points,
            contrasts.variances(weights),
            margin,
            (holds[part.id], falls[part.id]),
        )
        for its in families
        for part, weights in its
        if verdicts[part.id] == "cannot_be_told"
    }


def seeds_in_words(difference: float, seeds: int | None) -> str:
    """Say how many seeds would tell a difference, in percentage points."""
    count = f"more than {number(_MOST_SEEDS)}" if seeds is None else f"about {number(seeds)}"
    return f"if it stays {points(difference)}, it takes {count} seeds to tell"


def _levels(families: Sequence[Sequence[str]], told: set[str], level: float) -> dict[str, float]:
    """Return the level that Holm's rule has left for each part that is not told."""
    left = [its for family in families if (its := [part for part in family if part not in told])]
    return {part: level / len(left) / len(its) for its in left for part in its}


def _seeds_to_tell(
    kind: ClaimKind, difference: float, variances: Variances, margin: float, levels: tuple[float, float]
) -> int | None:
    """Return how many seeds tell a difference with a probability of `POWER`, at the levels of a part and its opposite.

    They are those of `findings`: against 0 or the margin, and inside the margins by two tests.
    """
    holds, falls = levels

    def told(seeds: int) -> float:
        more = variances.with_seeds(seeds)
        error, freedom = 100 * more.whole**0.5, more.degrees_of_freedom
        match kind:
            case "less":
                return t_power(abs(difference), error, freedom, holds if difference < 0 else falls)
            case "no_more":
                return t_power(abs(difference - margin), error, freedom, holds if difference < margin else falls)
            case "alike" if abs(difference) < margin:
                return sum(t_power(margin - side * difference, error, freedom, holds) for side in (-1, 1)) - 1
            case "alike":
                return t_power(abs(difference) - margin, error, freedom, falls / 2)

    if told(_MOST_SEEDS) < POWER:
        return None
    first = variances.seeds + 1
    return first + bisect_left(range(first, _MOST_SEEDS), POWER, key=told)
