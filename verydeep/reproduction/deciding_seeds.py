"""How many seeds would tell what is open, if differences and their variances stay as they were found.

A rough guide to whoever plans a new experiment: both are themselves estimates, and other claims are taken to stay as
open as they are. Few seeds mostly say too many: the larger of two variances counts, and pools count as the few seeds
that they have (`contrasts`).
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from verydeep.reproduction.claims import FEWEST_SEEDS, ClaimKind, ClaimPart
from verydeep.reproduction.contrasts import Estimate
from verydeep.statistics import LEVEL_OF_HOLDS, LEVEL_OF_REVERSED, POWER, levels_left, t_power

_MOST_SEEDS = 100
"""Seeds up to which their number is looked for."""


@dataclass(frozen=True, kw_only=True)
class DecidingSeeds:
    """Seeds that would tell an open part."""

    seeds: int
    """Number of seeds in all, with which four of five reports would tell it; 101 if 100 are too few."""
    shows: Literal["holds", "reversed"]
    """Which of the two they would tell."""

    @property
    def written(self) -> str:
        """Their number: `62`, or `100+`."""
        return f"{_MOST_SEEDS}+" if self.seeds > _MOST_SEEDS else str(self.seeds)


def deciding_seeds(
    estimates: Mapping[str, Estimate],
    families: Sequence[Sequence[ClaimPart]],
    verdicts: Mapping[str, str],
    margin: float,
) -> dict[str, DecidingSeeds]:
    """Return for each open part how many seeds would tell it or its opposite.

    Nothing with two seeds, or 100 and more, nor of a difference that is exactly at the bound: it shows neither.

    Args:
        estimates: of networks trained again, by the part's id.
        families: parts of each claim that are fairly compared.
        verdicts: verdict on each part by its id.
        margin: percentage points up to which errors count as alike.
    """
    ids = [[part.id for part in its] for its in families]
    level, level_of_opposite = (
        levels_left(ids, [part for part, its in verdicts.items() if its == verdict], whole)
        for verdict, whole in (("holds", LEVEL_OF_HOLDS), ("reversed", LEVEL_OF_REVERSED))
    )
    return {
        part.id: told
        for its in families
        for part in its
        for found in [estimates[part.id]]
        if verdicts[part.id] == "cannot_be_told" and FEWEST_SEEDS <= len(found.of_seeds) < _MOST_SEEDS
        if (told := _seeds_to_tell(part.kind, found, margin, level[part.id], level_of_opposite[part.id]))
    }


def _seeds_to_tell(
    kind: ClaimKind, found: Estimate, margin: float, level: float, level_of_opposite: float
) -> DecidingSeeds | None:
    """Return how many seeds tell a part, or its opposite, with a probability of `POWER` by the tests of `findings`."""
    bound = 0.0 if kind == "less" else margin
    size = abs(found.points) if kind == "alike" else found.points
    if size == bound:
        return None
    shows: Literal["holds", "reversed"] = "holds" if size < bound else "reversed"

    def power(seeds: int) -> float:
        assert found.variances is not None
        more = found.variances.with_seeds(seeds)
        error, freedom = more.standard_error, more.degrees_of_freedom
        if kind == "alike" and shows == "holds":  # by two tests, at either margin
            return sum(t_power(end, error, freedom, level) for end in (margin - size, margin + size)) - 1
        tests = 2 if kind == "alike" else 1
        return t_power(abs(size - bound), error, freedom, level if shows == "holds" else level_of_opposite / tests)

    first = len(found.of_seeds) + 1
    return DecidingSeeds(seeds=first + bisect_left(range(first, _MOST_SEEDS + 1), POWER, key=power), shows=shows)
