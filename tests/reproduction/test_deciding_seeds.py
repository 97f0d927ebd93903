"""Seeds that would tell what is open, against reports that are simulated with so many, and against Holm's rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from verydeep import findings
from verydeep.reproduction.claims import CLAIMS
from verydeep.reproduction.contrasts import Contrasts
from verydeep.reproduction.deciding_seeds import (
    LEVEL_OF_HOLDS,
    LEVEL_OF_REVERSED,
    _levels,
    deciding_seeds,
    seeds_in_words,
)
from verydeep.statistics import POWER, holm_by_family, t_power

IMAGES, MARGIN = 1500, 2.0
D_AGAINST_B = {"D-256 dense single": 1.0, "B-256 dense single": -1.0}
PARTS = {part.id: part for claim in CLAIMS for part in claim.parts}
OF_KIND = {kind: next(part for part in PARTS.values() if part.kind == kind) for kind in ("less", "no_more", "alike")}


def sampled(difference, seeds, rng, sd=1.0):
    """Return outcomes of B, which errs by 25%, and of D, which errs by so many points more."""
    difficulty, found = rng.standard_normal(IMAGES), {}
    for name, level in (("B-256 dense single", 25.0), ("D-256 dense single", 25.0 + difference)):
        of_seeds = (level + sd * rng.standard_normal((seeds, 1))) / 100
        found[name] = 0.93 * difficulty + 0.37 * rng.standard_normal((seeds, IMAGES)) < stats.norm.ppf(of_seeds)
    return Contrasts(found)


def told(kind, estimate):
    """Return whether a part of this kind, or its opposite, is told where it is the only one."""
    holds, opposite = {
        "less": (estimate.p_below(0), estimate.p_above(0)),
        "no_more": (estimate.p_below(MARGIN), estimate.p_above(MARGIN)),
        "alike": (
            max(estimate.p_below(MARGIN), estimate.p_above(-MARGIN)),
            2 * min(estimate.p_above(MARGIN), estimate.p_below(-MARGIN)),
        ),
    }[kind]
    return holds <= LEVEL_OF_HOLDS or opposite <= LEVEL_OF_REVERSED


@pytest.mark.parametrize(
    ("kind", "difference"), [("less", -0.75), ("less", 1.1), ("no_more", 1.25), ("no_more", 2.85), ("alike", 1.2)]
)
def test_reports_of_so_many_seeds_tell_it_as_often_as_is_said(kind, difference):
    rng, part = np.random.default_rng(0), OF_KIND[kind]
    pilot = sampled(difference, 20, rng)
    found = pilot.of_networks(D_AGAINST_B).points
    seeds = deciding_seeds(pilot, [[(part, D_AGAINST_B)]], {part.id: "cannot_be_told"}, MARGIN)[part.id]
    assert 20 < seeds < 100
    share = np.mean([told(kind, sampled(found, seeds, rng).of_networks(D_AGAINST_B)) for _ in range(150)])
    assert share == pytest.approx(POWER, abs=0.15)


def test_variances_of_more_seeds_are_those_that_more_seeds_have():
    rng = np.random.default_rng(1)
    few, many = ([sampled(0.0, seeds, rng).variances(D_AGAINST_B) for _ in range(80)] for seeds in (6, 24))
    said = [one.with_seeds(24) for one in few]
    for what in ("by_image", "by_seed", "noise", "whole"):
        means = [np.mean([getattr(one, what) for one in which]) for which in (said, many)]
        assert means[0] == pytest.approx(means[1], rel=0.15), what
    assert few[0].with_seeds(6).whole == pytest.approx(few[0].whole)


def test_images_can_vary_too_much_for_any_number_of_seeds():
    rng, part = np.random.default_rng(2), OF_KIND["less"]
    wrong = rng.random((5, IMAGES)) < 0.25
    close = Contrasts({"B-256 dense single": wrong, "D-256 dense single": wrong[:, ::-1]})
    assert deciding_seeds(close, [[(part, D_AGAINST_B)]], {part.id: "cannot_be_told"}, MARGIN)[part.id] is None
    assert seeds_in_words(-0.31, None) == "if it stays -0.3, it takes more than 100 seeds to tell"
    assert seeds_in_words(2.0, 12) == "if it stays +2.0, it takes about 12 seeds to tell"


@pytest.mark.parametrize(("freedom", "distance"), [(8, 2.0), (8, 4.0), (30, 1.0), (30, 3.0)])
def test_power_is_that_of_simulated_tests(freedom, distance):
    rng = np.random.default_rng(freedom)
    samples = distance + np.sqrt(freedom + 1) * rng.standard_normal((20_000, freedom + 1))
    shares = np.mean(stats.ttest_1samp(samples, 0, axis=1, alternative="greater").pvalue <= 0.02)
    assert t_power(distance, 1.0, freedom, 0.02) == pytest.approx(shares, abs=0.06)


@given(st.lists(st.lists(st.floats(1e-6, 1), min_size=1, max_size=4), min_size=1, max_size=5))
def test_a_part_at_its_level_is_told(p_values):
    families = [{f"{claim}.{part}": p for part, p in enumerate(its)} for claim, its in enumerate(p_values)]
    rejected = holm_by_family(families, LEVEL_OF_HOLDS)
    levels = _levels([[*family] for family in families], rejected, LEVEL_OF_HOLDS)
    assert set(levels) == {name for family in families for name in family} - rejected
    for name, level in levels.items():
        now = [family | {name: level} if name in family else family for family in families]
        assert name in holm_by_family(now, LEVEL_OF_HOLDS)
        alone = [dict.fromkeys(family, 1.0) | {name: level * 1.01} if name in family else family for family in families]
        assert len(families) == 1 or name not in holm_by_family(alone, LEVEL_OF_HOLDS)


def test_findings_say_it_of_open_parts_alone():
    rng = np.random.default_rng(3)
    outcomes = {
        f"{name}-256 dense single": wrong
        for name, level in {"A": 25, "B": 24, "C": 24, "D": 10, "E": 10.5}.items()
        for wrong in [rng.random((4, IMAGES)) < (level + rng.standard_normal((4, 1))) / 100]
    }
    parts = [(part, found.why) for found in findings(outcomes, guessing=90.0) for part in found.parts]
    for part, why in parts:
        if part.networks.verdict == "cannot_be_told":
            assert f"; {seeds_in_words(part.difference, part.deciding_seeds)})" in why
            assert part.deciding_seeds is None or part.deciding_seeds > 4
        else:
            assert part.deciding_seeds is None
    assert {part.networks.verdict for part, _ in parts} >= {"cannot_be_told", "holds"}
    one = {name: wrong[:1] for name, wrong in outcomes.items()}
    assert all("seeds to tell" not in found.why for found in findings(one, guessing=90.0))
