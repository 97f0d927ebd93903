"""The claims as data: every part has tests in the whole grid, and names of its own."""

from verydeep.reproduction.claims import CLAIMS, GAINS
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.paper_tables import one_scale
from verydeep.reproduction.trainings import QUICK


def compared(grid):
    """Return the pairs of tests of every part that the grid can tell of."""
    trainings, tested = [one.name for one in grid.trainings], set(grid.entries)
    pairs = {part.id: part.pairs(trainings) for claim in CLAIMS for part in claim.parts}
    return {part: done for part, its in pairs.items() if (done := [pair for pair in its if set(pair) <= tested])}


def test_the_whole_grid_can_tell_of_every_part_of_every_claim():
    pairs = compared(Grid())
    assert set(pairs) == {part.id for claim in CLAIMS for part in claim.parts}
    assert all(first != second for its in pairs.values() for first, second in its)
    several = ("jitter_against_256", "jitter_against_384", "several_scales_against_one", "crops_against_dense")
    assert [len(pairs[part]) for part in several] == [3, 3, 15, 2]
    assert [(first.name, second.name) for first, second in pairs["jitter_against_256"]] == [
        (f"{network}-256-512 dense single", f"{network}-256 dense single") for network in "CDE"
    ]
    assert [(first.name, second.name) for first, second in pairs["fusion_against_e"]] == [
        ("D-256-512+E-256-512 dense paper", "E-256-512 dense paper")
    ]
    assert pairs["b_against_b_5x5"] == [(one_scale("B-256-glorot"), one_scale("B-5x5-256"))]
    assert [(first.name, second.name) for first, second in pairs["b_against_b_5x5_on_centre_crops"]] == [
        ("B-256-glorot centre single", "B-5x5-256 centre single")
    ]
    assert compared(Grid(only=QUICK))["b_against_b_5x5"] == [(one_scale("B-256"), one_scale("B-5x5-256"))]
    assert "b_against_b_5x5_on_centre_crops" not in compared(Grid(tables=(4,)))


def test_claims_and_their_parts_have_ids_of_their_own():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    parts = [part.id for claim in CLAIMS for part in claim.parts]
    assert len(set(parts)) == len(parts)
    assert set(GAINS) <= set(parts)
