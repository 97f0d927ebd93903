"""Verdicts on made-up predictions: nothing is found in noise, and what was put in is found."""

import numpy as np
import pytest
from scipy import stats

from verydeep import statistics
from verydeep.reproduction.claims import CLAIMS, GAINS, Claim, ClaimPart
from verydeep.reproduction.findings import _MARGIN, findings
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.paper_tables import one_scale
from verydeep.reproduction.trainings import QUICK

CHANCE = 90.0
"""Error in percent of guessing one of ten classes, with as many images of each."""

FALSE = ("context_helps_more_than_non_linearity", "small_filters_help", "several_scales_help", "crops_complement_dense")
FALSE += ("fusion_helps",)
"""Claims of the quick grid that networks that err alike make false."""


@pytest.fixture
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)


def outcomes(grid, images, seeds, errors, rng):
    """Return which images are wrong in each test, by chance and nothing else, given its error in percent."""
    return {entry.name: rng.random((seeds, images)) < errors(entry.name) / 100 for entry in grid.entries}


def verdicts(grid, found, guessing=CHANCE):
    told = findings(CLAIMS, [training.name for training in grid.trainings], found, guessing=guessing)
    return {finding.id: finding.verdict for finding in told}


def compared(grid):
    """Return the pairs of tests of every part that the grid can tell of."""
    trainings, tested = [one.name for one in grid.trainings], set(grid.entries)
    pairs = {part.id: part.pairs(trainings) for claim in CLAIMS for part in claim.parts}
    return {part: done for part, its in pairs.items() if (done := [pair for pair in its if set(pair) <= tested])}


def test_the_whole_grid_can_tell_of_every_part_of_every_claim():
    pairs = compared(Grid())
    assert set(pairs) == {part.id for claim in CLAIMS for part in claim.parts}
    assert all(first != second for its in pairs.values() for first, second in its)
    several = ("jitter_against_fixed_scale", "several_scales_against_one", "crops_against_dense", "both_against_crops")
    assert [len(pairs[part]) for part in several] == [3, 15, 2, 2]
    assert [(first.name, second.name) for first, second in pairs["fusion_against_e"]] == [
        ("D-256-512+E-256-512 dense paper", "E-256-512 dense paper")
    ]
    assert pairs["b_against_b_5x5"] == [(one_scale("B-256-glorot"), one_scale("B-5x5-256"))]
    assert compared(Grid(only=QUICK))["b_against_b_5x5"] == [(one_scale("B-256"), one_scale("B-5x5-256"))]


def test_claims_and_their_parts_have_ids_of_their_own():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    parts = [part.id for claim in CLAIMS for part in claim.parts]
    assert len(set(parts)) == len(parts)
    assert set(GAINS) <= set(parts)


def test_the_quick_grid_cannot_tell_of_jitter_and_glorot():
    grid = Grid(only=QUICK)
    found = outcomes(grid, 200, 1, lambda name: 20, np.random.default_rng(0))
    untold = [finding for finding in findings(CLAIMS, QUICK, found, guessing=CHANCE) if not finding.parts]
    assert {finding.id for finding in untold} == {"scale_jitter_helps", "glorot_needs_no_copying"}
    for finding in untold:
        assert (finding.verdict, finding.p_holds) == ("cannot be told", None)
        assert finding.why == "nothing was trained or tested for it"


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize("seeds", [1, 3])
def test_networks_that_guess_show_nothing(seeds):
    """Whatever images and seeds there are, no claim holds and none is reversed, as with shuffled labels."""
    grid = Grid()
    for number in range(10):
        rng = np.random.default_rng([seeds, number])
        found = outcomes(grid, 300, seeds, lambda name: CHANCE, rng)
        assert set(verdicts(grid, found).values()) == {"cannot be told"}


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize("seeds", [1, 3])
def test_networks_that_learned_alike_rarely_show_anything(seeds):
    """At most 5% of experiments may have any false finding; claims of 'no more' truly hold here, or are left open."""
    grid, wrong = Grid(only=QUICK), 0
    experiments = 25
    for number in range(experiments):
        found = outcomes(grid, 300, seeds, lambda name: 30, np.random.default_rng([7, seeds, number]))
        told = verdicts(grid, found)
        wrong += any(told[claim] != "cannot be told" for claim in FALSE) or told["depth_helps"] == "reversed"
    assert stats.binomtest(wrong, experiments, 0.05, alternative="greater").pvalue > 0.01


@pytest.mark.usefixtures("fewer_resamples")
def test_what_the_paper_found_is_found_when_it_is_there():
    """Independent predictions of 8,000 images by five seeds, with the differences of the paper made larger."""
    levels = {"A-256": 40, "A-LRN-256": 42, "B-256": 36, "B-256-glorot": 36, "B-5x5-256": 43, "C-256": 32}
    levels |= {"D-256": 28, "E-256": 32, "D-256-glorot": 24}

    def errors(name):
        training, method, scales = name.rsplit(" ", 2)
        level = levels.get(training.split("+")[0], 26 if "384" in training and "512" not in training else 22)
        level -= 3 * (scales == "paper") + {"dense": 0, "crops": 3, "both": 6}[method] + 5 * ("+" in training)
        return level

    grid = Grid()
    told = verdicts(grid, outcomes(grid, 8000, 5, errors, np.random.default_rng(1)))
    assert set(told.values()) == {"holds"}

    def opposite(name):
        return 60 - errors(name)

    told = verdicts(grid, outcomes(grid, 8000, 5, opposite, np.random.default_rng(2)))
    assert {told[claim] for claim in (*FALSE, "depth_helps", "scale_jitter_helps")} == {"reversed"}


X, Y, Z = (one_scale(name) for name in "xyz")


def one_claim(kind="less", firsts=(X,)):
    parts = tuple(
        ClaimPart(id=first.name, kind=kind, pairs=lambda names, first=first: [(first, Y)], says=f"{first.name} less")
        for first in firsts
    )
    return [Claim(id="one", says="one", section="1", parts=parts)]


def decided(claims, found):
    (finding,) = findings(claims, [], found, guessing=CHANCE)
    return finding


def pair(only_first, only_second, both, images):
    """Return wrong images of one seed: that many of the first alone, of the second alone, of both."""
    kinds = np.repeat([0, 1, 2, 3], [only_first, only_second, both, images - only_first - only_second - both])
    return {X.name: np.isin(kinds, (0, 2))[None], Y.name: np.isin(kinds, (1, 2))[None]}


@pytest.mark.parametrize(
    ("only_first", "only_second", "verdict"),
    [(5, 30, "holds"), (30, 5, "reversed"), (5, 8, "cannot be told"), (0, 0, "cannot be told"), (0, 6, "holds")],
)
def test_a_constructed_pair_has_the_right_verdict(only_first, only_second, verdict):
    found = decided(one_claim(), pair(only_first, only_second, 20, 1000))
    assert found.verdict == verdict
    (part,) = found.parts
    assert part.difference == pytest.approx((only_first - only_second) / 10)
    smaller = statistics._mcnemar(only_first, only_second)
    assert (part.p_holds if only_first < only_second else part.p_reversed) == pytest.approx(smaller)


@pytest.mark.parametrize(
    ("only_first", "only_second", "images", "verdict"),
    [
        (10, 10, 10_000, "holds"),  # within 0.1 points of each other, surely within one
        (10, 10, 500, "cannot be told"),  # an interval of almost two points to each side
        (90, 10, 2000, "reversed"),
        (10, 90, 2000, "holds"),
        (250, 150, 20_000, "cannot be told"),  # surely more, and surely by less than a point: neither
    ],
)
def test_no_more_holds_if_little_is_left_open(only_first, only_second, images, verdict):
    found = decided(one_claim("no more"), pair(only_first, only_second, 50, images))
    assert found.verdict == verdict
    assert _MARGIN == 1.0


def test_seeds_that_disagree_leave_it_open():
    rng = np.random.default_rng(0)
    second = rng.random((3, 2000)) < 0.3
    first = np.stack([rng.random(2000) < level for level in (0.2, 0.2, 0.4)])
    found = decided(one_claim(), {X.name: first, Y.name: second})
    assert found.verdict == "cannot be told"
    assert "the 3 seeds differ in the sign of the difference" in found.why
    agreeing = np.stack([rng.random(2000) < level for level in (0.2, 0.21, 0.2)])
    found = decided(one_claim(), {X.name: agreeing, Y.name: second})
    assert found.verdict == "holds"


def test_a_claim_holds_only_if_all_of_its_parts_do():
    wrong = pair(5, 30, 20, 1000)
    for z, verdict in ((wrong[X.name], "holds"), (wrong[Y.name], "cannot be told")):
        assert decided(one_claim(firsts=(X, Z)), {**wrong, Z.name: z}).verdict == verdict
