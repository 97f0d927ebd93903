"""Seeds that would tell what is open: against formulas written out, simulated reports, and Holm's rule."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from verydeep import findings
from verydeep.reproduction.claims import CLAIMS
from verydeep.reproduction.contrasts import Contrasts, Estimate, Variances
from verydeep.reproduction.deciding_seeds import DecidingSeeds, deciding_seeds
from verydeep.statistics import LEVEL_OF_HOLDS, LEVEL_OF_REVERSED, POWER, holm_by_family, levels_left, t_power

IMAGES, MARGIN = 1500, 2.0
D_AGAINST_B = {"D-256 dense single": 1.0, "B-256 dense single": -1.0}
PARTS = [part for claim in CLAIMS for part in claim.parts]
OF_KIND = {kind: next(part for part in PARTS if part.kind == kind) for kind in ("less", "no_more", "alike")}


def found(points, seeds=5):
    """Return an estimate with the variances that `power` has."""
    variances = Variances(by_image=2e-5, by_seed=6e-5, noise=1e-5, pooled=4.0, seeds=seeds, images=3925)
    return Estimate(
        points=points, of_seeds=(points,) * seeds, standard_error=0.0, degrees_of_freedom=1.0, variances=variances
    )


def power(distance, level, seeds, before=5, images=3925):
    """Return how often a t test at this level rejects a bound so far away, with `found`'s variances."""
    by_image = 1e-5 + 1e-5 * before / seeds
    by_seed, noise = 6e-5 * before / seeds, 1e-5 * before / seeds
    variance = by_image + by_seed - noise
    freedom = variance**2 / (by_image**2 / (images - 1) + by_seed**2 / (4 * (seeds - 1)))
    needed = stats.t.isf(level, freedom)
    return stats.nct.sf(needed, freedom, distance / (100 * variance**0.5))


@pytest.mark.parametrize(
    ("kind", "points", "shows", "distances", "level"),
    [
        ("less", -1.4, "holds", [1.4], 0.04 / 2 / 2),
        ("less", 1.4, "reversed", [1.4], 0.01 / 3 / 2),
        ("no_more", 0.7, "holds", [1.3], 0.04 / 2 / 2),
        ("no_more", 3.6, "reversed", [1.6], 0.01 / 3 / 2),
        ("alike", 0.5, "holds", [1.5, 2.5], 0.04 / 2 / 2),
        ("alike", -0.5, "holds", [1.5, 2.5], 0.04 / 2 / 2),
        ("alike", 3.6, "reversed", [1.6], 0.01 / 3 / 2 / 2),
        ("alike", -3.6, "reversed", [1.6], 0.01 / 3 / 2 / 2),
    ],
)
def test_it_is_the_fewest_seeds_with_which_the_tests_of_verdicts_have_that_power(kind, points, shows, distances, level):
    """It stands in a claim with another open part, beside one that holds and one more that is open."""
    its, second, third, fourth = (replace(OF_KIND[kind], id=name) for name in ("its", "second", "third", "fourth"))
    verdicts = dict.fromkeys(("its", "second", "fourth"), "cannot_be_told") | {"third": "holds"}
    estimates = {"its": found(points), **{name: found(0.1) for name in ("second", "third", "fourth")}}
    told = deciding_seeds(estimates, [[its, second], [third], [fourth]], verdicts, MARGIN)
    assert set(told) == {"its", "second", "fourth"}
    seeds = told["its"].seeds
    assert (told["its"].shows, 6 < seeds < 100) == (shows, True)
    powers = [sum(power(one, level, count) for one in distances) - len(distances) + 1 for count in (seeds - 1, seeds)]
    assert powers[0] < POWER <= powers[1]


@pytest.mark.parametrize(("seeds", "says"), [(2, False), (3, True), (99, True), (100, False), (150, False)])
def test_nothing_is_said_of_two_seeds_and_of_very_many(seeds, says):
    part = OF_KIND["less"]
    told = deciding_seeds({part.id: found(-0.2, seeds)}, [[part]], {part.id: "cannot_be_told"}, MARGIN)
    assert told == ({part.id: DecidingSeeds(seeds=101, shows="holds")} if says else {})


@pytest.mark.parametrize(
    ("kind", "points"), [("less", 0.0), ("no_more", MARGIN), ("alike", MARGIN), ("alike", -MARGIN)]
)
def test_a_difference_at_its_bound_shows_neither_the_part_nor_its_opposite(kind, points):
    part = OF_KIND[kind]
    assert deciding_seeds({part.id: found(points)}, [[part]], {part.id: "cannot_be_told"}, MARGIN) == {}


def test_the_number_is_written_up_to_100():
    written = [DecidingSeeds(seeds=seeds, shows="holds").written for seeds in (12, 100, 101)]
    assert written == ["12", "100", "100+"]


def sampled(difference, seeds, rng, sd=1.0):
    """Return outcomes of B, which errs by 25%, and of D, which errs by so many points more."""
    difficulty, outcomes = rng.standard_normal(IMAGES), {}
    for name, level in (("B-256 dense single", 25.0), ("D-256 dense single", 25.0 + difference)):
        of_seeds = (level + sd * rng.standard_normal((seeds, 1))) / 100
        outcomes[name] = 0.93 * difficulty + 0.37 * rng.standard_normal((seeds, IMAGES)) < stats.norm.ppf(of_seeds)
    return Contrasts(outcomes).of_networks(D_AGAINST_B)


@pytest.mark.parametrize("difference", [-0.9, 1.1])
def test_simulated_reports_of_so_many_seeds_tell_it_as_often(difference):
    rng, part = np.random.default_rng(0), OF_KIND["less"]
    pilot = sampled(difference, 20, rng)
    seeds = deciding_seeds({part.id: pilot}, [[part]], {part.id: "cannot_be_told"}, MARGIN)[part.id].seeds
    assert 20 < seeds < 100
    reports = [sampled(pilot.points, seeds, rng) for _ in range(200)]
    told = [one.p_below(0) <= LEVEL_OF_HOLDS or one.p_above(0) <= LEVEL_OF_REVERSED for one in reports]
    assert np.mean(told) == pytest.approx(POWER, abs=0.1)


@pytest.mark.parametrize(("before", "after"), [(3, 12), (6, 24)])
def test_variances_of_more_seeds_are_those_that_more_seeds_have(before, after):
    rng = np.random.default_rng(1)
    few, many = ([sampled(0.0, seeds, rng).variances for _ in range(80)] for seeds in (before, after))
    said = [one.with_seeds(after) for one in few]
    for what in ("by_image", "noise"):
        means = [np.mean([getattr(one, what) for one in which]) for which in (said, many)]
        assert means[0] == pytest.approx(means[1], rel=0.1), what
    by_seed = [np.mean([one.by_seed for one in which]) for which in (said, many)]
    assert 0.9 < by_seed[0] / by_seed[1] < 1.4  # the larger of two variances counts, which fewer seeds make larger
    assert few[0].with_seeds(before).standard_error == pytest.approx(few[0].standard_error)


@pytest.mark.parametrize(("freedom", "distance"), [(2, 4.0), (4, 3.0), (8, 4.0), (30, 3.0)])
def test_power_is_that_of_simulated_tests(freedom, distance):
    rng = np.random.default_rng(freedom)
    samples = distance + np.sqrt(freedom + 1) * rng.standard_normal((20_000, freedom + 1))
    shares = np.mean(stats.ttest_1samp(samples, 0, axis=1, alternative="greater").pvalue <= 0.005)
    assert t_power(distance, 1.0, freedom, 0.005) == pytest.approx(shares, abs=0.015)


@given(st.lists(st.lists(st.floats(1e-6, 1), min_size=1, max_size=4), min_size=1, max_size=5))
def test_a_part_at_its_level_is_told(p_values):
    families = [{f"{claim}.{part}": p for part, p in enumerate(its)} for claim, its in enumerate(p_values)]
    rejected = holm_by_family(families, 0.04)
    levels = levels_left(families, rejected, 0.04)
    assert set(levels) == {name for family in families for name in family} - rejected

    def told_at(name, p):
        """Whether it is told at this p value, while all others that are open stand at 1."""
        others = [{one: 1.0 if one in levels else p for one, p in family.items()} for family in families]
        return name in holm_by_family([one | {name: p} if name in one else one for one in others], 0.04)

    assert [name for name, level in levels.items() if not told_at(name, level * 0.999)] == []
    assert [name for name, level in levels.items() if told_at(name, level * 1.001)] == []


def test_findings_say_it_of_open_parts_that_are_fairly_compared():
    rng = np.random.default_rng(3)
    outcomes = {
        f"{name}-256 dense single": rng.random((4, IMAGES)) < (level + rng.standard_normal((4, 1))) / 100
        for name, level in {"A": 25, "B": 23, "C": 23, "D": 10, "E": 10.5}.items()
    }
    parts = [part for one in findings(outcomes, guessing=90.0) for part in one.parts]
    assert {part.networks.verdict for part in parts} >= {"cannot_be_told", "holds"}
    for part in parts:
        told = part.deciding_seeds
        assert (told is None) == (part.networks.verdict != "cannot_be_told")
        if told:
            assert (told.seeds > 4, told.shows) == (True, "holds" if part.difference < 0 else "reversed")
    cut_off = [part for one in findings(outcomes, guessing=90.0, unfinished=["B-256"]) for part in one.parts]
    assert [one.id for one in cut_off if one.unfinished and one.deciding_seeds] == []
    alone = findings({name: wrong[:1] for name, wrong in outcomes.items()}, guessing=90.0)
    assert [part.id for one in alone for part in one.parts if part.deciding_seeds] == []
