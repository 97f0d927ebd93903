"""Contrasts against an analysis of variance by its formulas, against exact tests, and against simulation."""

import numpy as np
import pytest
from scipy import stats

from verydeep.reproduction.contrasts import Contrasts, Estimate

D_AGAINST_B = {"D-256 dense single": 1.0, "B-256 dense single": -1.0}


def with_counts(counts, images, rng):
    """Return outcomes of several seeds, each with that many wrong images."""
    return np.stack([rng.permutation(images) < count for count in counts])


def quasi_f(first, second):
    """Return F and its degrees of freedom: two networks, seeds within them, images across all, both at random."""
    wrong = np.stack([first, second]).astype(float)  # networks, seeds, images
    networks, seeds, images = wrong.shape
    of_network, of_seed, of_image = wrong.mean(axis=(1, 2)), wrong.mean(axis=2), wrong.mean(axis=1)
    everything, each_image = wrong.mean(), wrong.mean(axis=(0, 1))
    ms_network = seeds * images * ((of_network - everything) ** 2).sum() / (networks - 1)
    ms_seed = images * ((of_seed - of_network[:, None]) ** 2).sum() / (networks * (seeds - 1))
    interaction = of_image - of_network[:, None] - each_image + everything
    ms_image = seeds * (interaction**2).sum() / ((networks - 1) * (images - 1))
    rest = wrong - of_image[:, None] - of_seed[:, :, None] + of_network[:, None, None]
    ms_rest = (rest**2).sum() / (networks * (seeds - 1) * (images - 1))
    of_seeds = networks * (seeds - 1)
    freedom = (ms_seed + ms_image - ms_rest) ** 2 / (ms_seed**2 / of_seeds + ms_image**2 / (images - 1))
    return ms_network / (ms_seed + ms_image - ms_rest), freedom


@pytest.mark.parametrize("spread", [(0, 0), (40, 25), (90, 10), (200, 60)])
@pytest.mark.parametrize("gap", [5, 60, 140])
def test_balanced_cases_agree_with_an_analysis_of_variance(spread, gap):
    images, rng = 4000, np.random.default_rng(sum(spread) + gap)
    counts = np.array([1000 + spread[0], 1000 - spread[1], 1000])
    first, second = with_counts(counts, images, rng), with_counts(counts[[1, 2, 0]] + gap, images, rng)
    estimate = Contrasts({"D-256 dense single": first, "B-256 dense single": second}).of_networks(D_AGAINST_B)
    f, freedom = quasi_f(first, second)
    if spread != (0, 0):  # without variance between seeds, noise alone would make it negative, and ours is not
        assert estimate.degrees_of_freedom == pytest.approx(freedom, rel=0.02)
        assert (estimate.points / estimate.standard_error) ** 2 == pytest.approx(f, rel=0.02)
        assert 2 * estimate.p_below(0) == pytest.approx(stats.f.sf(f, 1, freedom), rel=0.05)
    assert estimate.points == pytest.approx(-100 * gap / images)
    assert estimate.of_seeds == pytest.approx(100 * (first.mean(axis=1) - second.mean(axis=1)))


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 4), (0, 6), (2, 12), (5, 30), (40, 60)])
def test_of_one_pair_of_trainings_it_is_about_as_sure_as_the_exact_test(only_first, only_second):
    kinds = np.repeat([0, 1, 2], [only_first, only_second, 359 - only_first - only_second])
    estimate = Contrasts({"D-256 dense single": (kinds == 0)[None], "B-256 dense single": (kinds == 1)[None]})
    exact = stats.binomtest(only_first, only_first + only_second, alternative="less").pvalue
    assert estimate.of_trainings(D_AGAINST_B).p_below(0) == pytest.approx(exact, rel=0.75)
    assert estimate.of_trainings(D_AGAINST_B).p_below(0) > 0.6 * exact


def test_a_network_that_varies_more_than_the_others_counts_with_its_own_variance():
    rng, images = np.random.default_rng(0), 2000
    steady = {f"{name}-256 dense single": with_counts([500, 502, 498], images, rng) for name in "ACE"}
    b, d = with_counts([500, 500, 500], images, rng), with_counts([400, 500, 600], images, rng)
    outcomes = {**steady, "B-256 dense single": b, "D-256 dense single": d}
    estimate = Contrasts(outcomes).of_networks(D_AGAINST_B)
    pooled = np.mean([wrong.mean(axis=1).var(ddof=1) for wrong in outcomes.values()])
    of_images = (d.mean(axis=0) - b.mean(axis=0)).var(ddof=1) / images
    noise = 0.0
    for wrong in (b, d):
        rest = wrong - wrong.mean(axis=0) - wrong.mean(axis=1)[:, None] + wrong.mean()
        noise += (rest**2).sum() / (2 * (images - 1)) / (3 * images)
    expected = of_images + (d.mean(axis=1).var(ddof=1) + pooled) / 3 - noise
    assert estimate.standard_error == pytest.approx(100 * np.sqrt(expected), rel=1e-3)


def test_tests_that_share_a_training_share_its_seeds():
    """The fused error less D's own, when both rise and fall together with D's seeds."""
    rng, images = np.random.default_rng(1), 5000
    d = with_counts([1000, 1250, 1500], images, rng)
    fused = np.stack([wrong & (rng.random(images) < 0.9) for wrong in d])
    outcomes = {"D-256+E-256 dense paper": fused, "D-256 dense paper": d}
    estimate = Contrasts(outcomes).of_networks({"D-256+E-256 dense paper": 1.0, "D-256 dense paper": -1.0})
    assert estimate.p_below(0) < 0.05
    apart = Contrasts({"D-384 dense paper": fused, "D-256 dense paper": d})
    assert apart.of_networks({"D-384 dense paper": 1.0, "D-256 dense paper": -1.0}).p_below(0) > 0.1


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng, images, covered, times = np.random.default_rng(2), 500, 0, 400
    for _ in range(times):
        levels = 0.3 + 0.02 * rng.standard_normal((2, 3))
        shared = rng.random(images)
        first, second = (
            np.where(rng.random((3, images)) < 0.7, shared, rng.random((3, images))) < of_seeds[:, None]
            for of_seeds in levels
        )
        outcomes = {"D-256 dense single": first, "B-256 dense single": second}
        low, high = Contrasts(outcomes).of_networks(D_AGAINST_B).ci95
        covered += low <= 0 <= high
    assert stats.binomtest(covered, times, 0.95, alternative="less").pvalue > 0.01


def spread(wrong):
    """Return the variance over seeds, and the part of it that single images in single seeds explain."""
    rest = wrong - wrong.mean(axis=0) - wrong.mean(axis=1)[:, None] + wrong.mean()
    seeds, images = wrong.shape
    return wrong.mean(axis=1).var(ddof=1), (rest**2).sum() / ((seeds - 1) * (images - 1) * images)


def test_trainings_on_one_side_count_as_varying_together_and_stages_of_a_network_as_one():
    rng, images = np.random.default_rng(3), 2000
    counts = {"C-256": (400, 420, 440), "C-384": (400, 400, 470), "D-256": (390, 430, 410), "D-384": (300, 380, 450)}
    outcomes = {f"{name} dense single": with_counts(of_seeds, images, rng) for name, of_seeds in counts.items()}
    outcomes["A-256 dense single"] = with_counts((500, 505, 495), images, rng)
    weights = {f"{name} dense single": (1 if name.endswith("384") else -1) / 2 for name in counts}
    of = {name: spread(wrong) for name, wrong in outcomes.items()}
    by_line = [[of[f"{net}-{scale} dense single"][0] for scale in (256, 384)] for net in "CD"]
    pooled = np.mean([*map(np.mean, by_line), of["A-256 dense single"][0]])
    sides = (
        [max(of[name][0], pooled) ** 0.5 / 2 for name in weights if name[2:5] == scale] for scale in ("256", "384")
    )
    by_seed = sum(sum(side) ** 2 for side in sides) / 3
    noise = sum(of[name][1] / 4 for name in weights) / 3
    of_images = sum(weight * outcomes[name] for name, weight in weights.items()).mean(axis=0).var(ddof=1) / images
    estimate = Contrasts(outcomes).of_networks(weights)
    assert estimate.standard_error == pytest.approx(100 * np.sqrt(of_images + by_seed - noise), rel=1e-3)


def test_intervals_end_where_errors_do():
    """Errors differ by 100 points at most, whatever Student's t says of two seeds."""
    rng = np.random.default_rng(0)
    outcomes = {name: rng.random((2, 40)) < 0.5 for name in D_AGAINST_B}
    outcomes["D-256 dense single"][0] = True
    contrasts = Contrasts(outcomes)
    assert contrasts.of_networks(D_AGAINST_B).ci95 == (-100, 100)
    assert contrasts.of_networks({"D-256 dense single": 1.0}).ci95 == (0, 100)
    narrow = Estimate(points=30.0, of_seeds=(20.0, 40.0), standard_error=2.0, degrees_of_freedom=1.0)
    assert narrow.ci95 == pytest.approx((30 - 12.706 * 2, 30 + 12.706 * 2), abs=1e-2)
