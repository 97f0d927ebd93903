"""Plans against simulated reports, and against what plain formulas say."""

import importlib.util
import json
import re
import statistics
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from made_up_grids import stored
from scipy import stats

from verydeep import Execution, Runtime, Tolerance, findings
from verydeep.cli import main
from verydeep.reproduction.claims import CLAIMS
from verydeep.reproduction.detectable import LATENT, Assumed, _image_variance, assumed_from, detectable
from verydeep.reproduction.dry_run import _done_tests, _of_what, forecast
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.stored_tests import Conditions, file_of_test, is_tested, read_outcomes, read_test
from verydeep.reproduction.trainings import QUICK, QUICK_RECIPE

SEVEN = Grid(only=QUICK, tables=(3,))
REPORTS, UNLIKELY = 40, 1e-3


def benchmark(name):
    file = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def simulator():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        yield benchmark("verdicts")


def plan_of(grid, seeds, **assumed):
    trainings, tests = [one.name for one in grid.trainings], [one.name for one in grid.entries]
    return detectable(trainings, tests, seeds, Assumed(**assumed))


@pytest.mark.parametrize(
    ("claim", "kind", "part", "seeds", "sd", "images"),
    [
        ("small_filters_help", "less", "b_against_b_5x5", 3, 0.5, 1000),
        ("small_filters_help", "less", "b_against_b_5x5", 3, 1.0, 2000),
        ("small_filters_help", "less", "b_against_b_5x5", 5, 0.0, 1000),
        ("lrn_does_not_help", "no_more", "a_against_a_lrn", 3, 0.5, 2000),
        ("depth_helps", "alike", "d_against_e", 5, 0.5, 1000),
    ],
)
def test_the_smallest_difference_is_told_as_often_as_planned(simulator, claim, kind, part, seeds, sd, images):
    """80% of the simulated reports tell it, to within what chance does to 40 of them."""
    [points] = [
        one.points[seeds]
        for one in plan_of(SEVEN, [seeds], images=images, seed_sd=sd)
        if (one.id, one.kind) == (claim, kind)
    ]
    truth = simulator.Truth(name="planned", sd=sd, shift={"B-5x5-256": points} if kind == "less" else {})
    margin, told = points if kind != "less" else 2.0, 0
    for number in range(REPORTS):
        sampled, _ = simulator.outcomes(
            truth,
            [entry.name for entry in SEVEN.entries],
            seeds=seeds,
            images=images,
            rng=np.random.default_rng(number),
        )
        found = findings(sampled, guessing=90.0, margin=margin)
        told += {p.id: p for one in found for p in one.parts}[part].networks.verdict == "holds"
    assert stats.binomtest(told, REPORTS, 0.8).pvalue > UNLIKELY, told


def test_two_tests_err_together_as_a_bivariate_normal_says():
    weights = {"D-256 dense single": 1.0, "B-256 dense single": -1.0}
    error, threshold = 0.3, stats.norm.ppf(0.3)
    errors = dict.fromkeys(weights, 100 * error)
    both = stats.multivariate_normal([0, 0], [[1, 0.86], [0.86, 1]]).cdf([threshold, threshold])
    assert _image_variance(weights, errors, same_seed=True) == pytest.approx(2 * (error - both), abs=1e-5)
    own = stats.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]]).cdf([threshold, threshold])
    assert _image_variance(weights, errors, same_seed=False) == pytest.approx(2 * (own - both), abs=1e-5)
    unequal = {"D-256 dense single": 20.0, "B-256 dense single": 60.0}
    ends = stats.norm.ppf([0.2, 0.6])
    both = stats.multivariate_normal([0, 0], [[1, 0.86], [0.86, 1]]).cdf(ends)
    expected = 0.2 + 0.6 - 2 * both - 0.4**2
    assert _image_variance(weights, unequal, same_seed=True) == pytest.approx(expected, abs=1e-5)


def test_half_of_the_images_may_be_wrong():
    weights = {"D-256 dense single": 1.0, "B-256 dense single": -1.0}
    around = [_image_variance(weights, dict.fromkeys(weights, error), same_seed=True) for error in (49.99, 50.0)]
    assert around[0] == pytest.approx(around[1], rel=1e-3)


def test_more_of_everything_tells_smaller_differences_and_two_seeds_none():
    seeds = [2, 3, 5]
    every = plan_of(Grid(), seeds, images=3925)
    assert [(one.number, one.kind) for one in every if one.number in (1, 2)] == [
        (1, "no_more"),
        (2, "less"),
        (2, "alike"),
    ]
    assert {one.id for one in every} == {claim.id for claim in CLAIMS}
    for one, fewer_images, steady in zip(
        every, plan_of(Grid(), seeds, images=359), plan_of(Grid(), seeds, images=3925, seed_sd=0.0), strict=True
    ):
        points = [one.points[count] for count in seeds]
        assert points[0] is None
        assert points[1:] == sorted(points[1:], reverse=True)
        assert all(fewer_images.points[count] > one.points[count] >= steady.points[count] for count in seeds[1:])
    alone = {one.id: one.points[3] for one in plan_of(SEVEN, [3], images=3925)}
    assert alone["small_filters_help"] < {one.id: one.points[3] for one in every}["small_filters_help"]


def test_a_single_image_tells_nothing():
    """Nor does it divide by nothing, of which NumPy warns."""
    assert {one.points[3] for one in plan_of(SEVEN, [3], images=1)} == {None}


def keep(test, file):
    """Write a test's results."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = {**asdict(test), "per_class": [{"n": 20}] * 10, "unusable": {}}
    kept["top1_wrong_by_image"] = "".join("01"[wrong] for wrong in kept.pop("wrong").tolist())
    file.write_text(json.dumps(kept))


def test_what_was_tested_already_is_measured(tmp_path):
    grid = Grid(only=("A", "B-256"), tables=(3,), seeds=3)
    errors = {"A-256 dense single": (20, 22, 24), "B-256 dense single": (20, 20, 20)}
    for entry in grid.entries:
        for seed, error in enumerate(errors[entry.name]):
            keep(stored(entry, error), file_of_test(tmp_path, entry, seed))
    assert assumed_from(_done_tests(tmp_path / "elsewhere", grid.entries, seeds=range(3))) == Assumed(images=2)
    one = assumed_from(_done_tests(tmp_path, grid.entries, seeds=range(1)))
    assert (one.error, one.error_tests, one.seed_sd, one.seed_freedom) == (20.0, 2, Assumed(images=2).seed_sd, 0)
    all_three = assumed_from(_done_tests(tmp_path, grid.entries, seeds=range(3)))
    wrong = np.arange(200) < 2 * np.array([[20], [22], [24]])
    rest = wrong - wrong.mean(axis=0) - wrong.mean(axis=1, keepdims=True) + wrong.mean()
    noise = (rest**2).sum() / (2 * 199) / 200
    assert (all_three.error_tests, all_three.seed_freedom) == (6, 4)
    assert all_three.error == pytest.approx(21)
    assert all_three.seed_sd == pytest.approx(100 * ((0.02**2 - noise) / 2) ** 0.5)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"top1_wrong_by_image": "2" * 200}, "has characters other than 0 and 1"),
        ({"top1_wrong_by_image": "01"}, "top1_wrong_by_image has 2 images, n is 200"),
        ({"per_class": []}, "the images of all classes are not 200"),
        ({"n": None}, "n"),
    ],
)
def test_a_damaged_test_is_refused_with_what_to_do(tmp_path, changes, problem):
    figures = asdict(stored(SEVEN.entries[0], 20)) | {"per_class": [{"n": 200}], "unusable": {}}
    figures |= {"top1_wrong_by_image": "01" * 100, "wrong": None}
    file = tmp_path / "test.json"
    file.write_text(json.dumps(figures))
    assert read_test(file).n == 200
    file.write_text(json.dumps(figures | changes))
    with pytest.raises(ValueError, match=f"test.json cannot be read: .*{problem}.*: remove it to test again$"):
        read_test(file)
    with pytest.raises(ValueError, match=r"remove it to test again$"):
        is_tested(file, Conditions(weights=("a",), images="b"))


def test_results_of_before_hold_for_the_default_grid_and_limit(tmp_path):
    """Files did not name what was the default."""
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"tested": {"weights": ["a", "b"], "images": "c"}}))
    conditions = Conditions(weights=("a", "b"), images="c")
    assert is_tested(file, conditions)
    assert not is_tested(file, replace(conditions, grid="floor"))
    assert not is_tested(file, replace(conditions, max_pixels=7))
    assert not is_tested(file, replace(conditions, weights=("b", "a")))


def test_a_plan_is_refused_where_the_experiment_would_be(tmp_path):
    how = {"runtime": Runtime(), "execution": Execution(), "tolerance": Tolerance()}
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        ValueError, match="exists and contains something other than an experiment: choose another folder"
    ):
        forecast("digits", out=tmp_path, recipe=QUICK_RECIPE, grid=SEVEN, **how)


def test_a_plan_counts_what_is_done_with_each_seed(tmp_path, monkeypatch):
    """A with all three seeds, D with the second; one test of A."""
    grid, done = Grid(only=("A", "D-256"), tables=(3,), seeds=3), {"A-256": (4, 5, 6), "D-256": (5,)}
    ended = {tmp_path / "runs" / f"seed-{seed}" / name for name, seeds in done.items() for seed in seeds}
    for where in ("estimate", "dry_run"):
        monkeypatch.setattr(f"verydeep.reproduction.{where}.has_ended", ended.__contains__)
    monkeypatch.setattr("verydeep.reproduction.estimate.measured_step", lambda _: (0.01, 10**9))
    monkeypatch.setattr("verydeep.reproduction.estimate.measured_loading", lambda *_: 0.0)
    monkeypatch.setattr("verydeep.reproduction.dry_run.plan_to_follow", lambda *_, **__: None)
    keep(stored(grid.entries[0], 20), file_of_test(tmp_path, grid.entries[0], 5))
    how = {"runtime": Runtime(device="cpu"), "execution": Execution(), "tolerance": Tolerance()}
    plan = forecast("digits", out=tmp_path, recipe=replace(QUICK_RECIPE, seed=4), grid=grid, **how)
    figures = plan.to_dict()
    assert [(one["training"], one["seeds_trained"], one["seeds"]) for one in figures["trainings"]] == [
        ("A-256", 3, 3),
        ("D-256", 1, 3),
    ]
    assert (figures["tests"], figures["tests_done"]) == (6, 1)
    costs = plan.tables()[0]
    a, d, _ = costs.columns[3].cells
    assert a == "already trained"
    assert re.fullmatch(r"at most [\d:]+, 1 of 3 seeds trained", d)
    assert "5 tests on top, beside 1 done already." in str(costs.caption)


def test_a_spread_is_not_taken_from_other_images(tmp_path):
    entry = Grid(only=("A",), tables=(3,)).entries[0]
    for left_out, freedom in (("xx", 1), ("xy", 0)):
        tests = [stored(entry, 20 + seed, unusable=(name,)) for seed, name in enumerate(left_out)]
        assert assumed_from([tests]).seed_freedom == freedom
    single = [stored(entry, 20, n=1, classes=("a",)) for _ in range(2)]
    assert assumed_from([single]).seed_freedom == 0
    assert "Imagenette" in _of_what(assumed_from([single]))
    assert "Imagenette" not in _of_what(Assumed(images=100, seed_sd=0.7, seed_freedom=4))


def test_a_plan_says_what_one_seed_cannot_tell(tmp_path, capsys):
    small = ["--crop", "32", "--width", "0.05", "--epochs", "3", "--only", "A,D-256", "--tables", "3"]
    out, file = tmp_path / "out", tmp_path / "plan.json"
    main(["reproduce", "digits", "--out", str(out), *small, "--dry-run", "--json", str(file)])
    shown, plan = " ".join(capsys.readouterr().out.split()), json.loads(file.read_text())
    assert not out.exists()
    assert "nothing is said about networks trained again, however large a difference" in shown
    assert "Not compared by these trainings and tables: claims 1, 3, 4, 5, 6, 7, 8 and 9." in shown
    assert "For 359 test images, an error of 25.0% (assumed)" in shown
    assert "a standard deviation of 0.50 points (assumed). On Imagenette, at crop 64, it was 2.3 points" in shown
    assert [one["id"] for one in plan["claims"]] == ["depth_helps"]
    points = plan["claims"][0]["points"]
    assert (list(points), points["1"]) == (["1", "3", "5", "10"], None)
    assert f"from – {points['3']:.1f} {points['5']:.1f} {points['10']:.1f}" in shown
    small += ["--seeds", "3"]
    main(["reproduce", "digits", "--out", str(out), *small, "--dry-run", "--json", str(file)])
    assert json.loads(file.read_text())["tests"] == 3 * plan["tests"]
    assert f"{3 * plan['tests']} tests on top" in " ".join(capsys.readouterr().out.split())
    assert plan["seconds"]["10"] == pytest.approx(10 * plan["seconds"]["1"])
    assert plan["seconds"]["1"] == pytest.approx(sum(one["seconds"] for one in plan["trainings"]))


@pytest.mark.parametrize("shares", [LATENT, {"image": 0.7, "network": 0.1, "seed": 0.12, "protocol": 0.08}])
def test_shares_of_the_latent_variance_are_found_again(simulator, shares):
    tests = [entry.name for entry in Grid().entries if entry.name[0] in "AD" and "+" not in entry.name]
    truth = simulator.Truth(name="equal", shares=shares)
    sampled, _ = simulator.outcomes(truth, tests, seeds=3, images=20_000, rng=np.random.default_rng(0))
    found = benchmark("latent_shares").shares(sampled, draws=1)
    assert {name: share for name, (share, _, _) in found.items()} == pytest.approx(shares, abs=0.015)


def test_what_was_found_on_photographs_varies_as_their_outcomes_do(simulator):
    equal, at_the_margin = simulator.nulls_as_found()
    assert equal.in_protocol["dense single"] == 1
    assert at_the_margin.own_sd == equal.own_sd
    assert sum(equal.shares.values()) == pytest.approx(1)
    name = "D-384"
    errors = np.array([100 * one.mean() for one in read_outcomes(simulator.PHOTOGRAPHS)[f"{name} dense single"]])
    assert equal.own_sd[name] == pytest.approx(statistics.stdev(errors))
    sampled, _ = simulator.outcomes(
        equal, [f"{name} dense single", f"{name} crops paper"], seeds=400, images=2000, rng=np.random.default_rng(0)
    )
    dense, crops = (100 * sampled[f"{name} {protocol}"].mean(axis=1) for protocol in ("dense single", "crops paper"))
    assert dense.std(ddof=1) == pytest.approx(equal.own_sd[name], rel=0.1)
    assert crops.std(ddof=1) < 0.4 * dense.std(ddof=1)


def test_a_block_that_two_processes_wrote_counts_once_and_a_torn_line_not_at_all(simulator, tmp_path):
    setting = {"rules": simulator.rules(), "truth": {"name": "equal"}, "seeds": 3, "images": 359, "tests": 7}
    first, second = (
        json.dumps({"setting": setting, "block": block, "reports": 50, "false": false, "claims": {}}) + "\n"
        for block, false in ((0, 3), (1, 0))
    )
    file = tmp_path / "verdicts.jsonl"
    file.write_text(first + second + first + second[:-9])
    assert simulator.table(file).splitlines()[-1] == "| 7 | equal | 359 | 3.0 (100) |"
    assert list(simulator.counted(file, setting)) == [0, 1]
