"""Verdicts on made-up predictions: nothing is found in noise, and what was put in is found."""

import numpy as np
import pytest
from scipy import stats

from verydeep import statistics
from verydeep.reproduction.claims import (
    MARGIN,
    Claim,
    Part,
    claims,
    findings,
)
from verydeep.reproduction.grid import QUICK, Grid

CHANCE = 90.0
"""Of ten classes, as many images of each."""


@pytest.fixture
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)


def outcomes(grid, images, seeds, errors, rng):
    """Which images are wrong in each test, by chance and nothing else; errors in percent, by the test's name."""
    return {entry.name: rng.random((seeds, images)) < errors(entry.name) / 100 for entry in grid.entries}


def verdicts(grid, found, guessing=CHANCE):
    stated = claims(grid.trainings, list(found))
    return {finding.number: finding.verdict for finding in findings(stated, found, guessing=guessing)}


def test_there_are_nine_claims_and_all_can_be_tested():
    stated = claims(Grid().trainings, [entry.name for entry in Grid().entries])
    assert [claim.number for claim in stated] == list(range(1, 10))
    assert [len(claim.parts) for claim in stated] == [1, 3, 2, 1, 1, 1, 3, 2, 1]
    tested = {entry.name for entry in Grid().entries}
    assert all({*part.first, *part.second} <= tested for claim in stated for part in claim.parts)
    assert all(not {*part.first} & {*part.second} for claim in stated for part in claim.parts)


def test_of_the_quick_grid_seven_can_be_tested():
    grid = Grid(only=QUICK)
    stated = claims(grid.trainings, [entry.name for entry in grid.entries])
    assert {claim.number for claim in stated if not claim.parts} == {5, 9}
    found = outcomes(grid, 200, 1, lambda name: 20, np.random.default_rng(0))
    told = findings(stated, found, guessing=CHANCE)
    assert [told[which].verdict for which in (4, 8)] == ["cannot be told"] * 2
    assert told[4].why == "nothing was trained or tested for it"
    assert told[4].p_holds is None


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize("seeds", [1, 3])
def test_networks_that_guess_show_nothing(seeds):
    """As with shuffled labels: whatever images and seeds there are, no claim holds and none is reversed."""
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
        wrong += any(told[claim] != "cannot be told" for claim in (3, 4, 6, 7, 8)) or told[2] == "reversed"
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
    assert {told[claim] for claim in range(2, 9)} == {"reversed"}


def one_claim(kind="less"):
    return [Claim(number=1, says="one", parts=(Part(kind=kind, first=("x",), second=("y",), says="x less than y"),))]


def pair(only_first, only_second, both, images):
    """Wrong images of one seed: that many of the first alone, of the second alone, of both."""
    kinds = np.repeat([0, 1, 2, 3], [only_first, only_second, both, images - only_first - only_second - both])
    return {"x": np.isin(kinds, (0, 2))[None], "y": np.isin(kinds, (1, 2))[None]}


@pytest.mark.parametrize(
    ("only_first", "only_second", "verdict"),
    [(5, 30, "holds"), (30, 5, "reversed"), (5, 8, "cannot be told"), (0, 0, "cannot be told"), (0, 6, "holds")],
)
def test_a_constructed_pair_has_the_right_verdict(only_first, only_second, verdict):
    (found,) = findings(one_claim(), pair(only_first, only_second, 20, 1000), guessing=CHANCE)
    assert found.verdict == verdict
    (part,) = found.parts
    assert part.difference == pytest.approx((only_first - only_second) / 10)
    smaller = statistics.mcnemar(only_first, only_second)
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
    (found,) = findings(one_claim("no more"), pair(only_first, only_second, 50, images), guessing=CHANCE)
    assert found.verdict == verdict
    assert MARGIN == 1.0


def test_seeds_that_disagree_leave_it_open():
    rng = np.random.default_rng(0)
    second = rng.random((3, 2000)) < 0.3
    first = np.stack([rng.random(2000) < level for level in (0.2, 0.2, 0.4)])
    (found,) = findings(one_claim(), {"x": first, "y": second}, guessing=CHANCE)
    assert found.verdict == "cannot be told"
    assert "the 3 seeds differ in the sign of the difference" in found.why
    agreeing = np.stack([rng.random(2000) < level for level in (0.2, 0.21, 0.2)])
    (found,) = findings(one_claim(), {"x": agreeing, "y": second}, guessing=CHANCE)
    assert found.verdict == "holds"


def test_a_claim_holds_only_if_all_of_its_parts_do():
    parts = tuple(Part(kind="less", first=(name,), second=("y",), says=name) for name in ("x", "z"))
    wrong = pair(5, 30, 20, 1000)
    for z, verdict in ((wrong["x"], "holds"), (wrong["y"], "cannot be told")):
        (found,) = findings([Claim(number=1, says="", parts=parts)], {**wrong, "z": z}, guessing=CHANCE)
        assert found.verdict == verdict
