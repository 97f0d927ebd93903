"""What studies say of made-up runs: each sentence follows from its numbers."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from markdown_it import MarkdownIt

from verydeep.networks.architecture import Architecture
from verydeep.presentation.pages import render
from verydeep.reproduction.stored_tests import StoredTest
from verydeep.reproduction.studies import STUDIES_BY_NAME
from verydeep.reproduction.study_charts import errors_on_both, norms_of_layers
from verydeep.reproduction.study_differences import difference_of_gaps, difference_of_tests
from verydeep.reproduction.study_runs import FROM_A, StudyRun
from verydeep.reproduction.study_tables import gradients_table, initialisation_table, regularisation_table
from verydeep.reproduction.study_texts import (
    gradients_seen,
    images_seen,
    initialisation_seen,
    limits_of,
    regularisation_seen,
)
from verydeep.statistics import wilson_interval
from verydeep.training.norms import LayerNorms, StepNorms

TRAININGS = {one.name: one for study in STUDIES_BY_NAME.values() for one in study.trainings}


def outcomes(error):
    n = 200
    wrong = np.arange(n) < round(n * error / 100)
    return StoredTest(
        split="test",
        scales=(256,),
        n=n,
        top1_error=100 * float(wrong.mean()),
        top1_error_ci95=wilson_interval(wrong),
        top5_error=None,
        images_of_classes=(n // 10,) * 10,
        unusable=(),
        wrong=wrong,
    )


def norms(step, bottom, top, outputs):
    layers = {
        "conv1_1": LayerNorms(activation=40.0, gradient=2 * bottom, weight=2.0),
        "bn1_1": LayerNorms(activation=1.0, gradient=1.0, weight=1.0),
        "fc8": LayerNorms(activation=outputs, gradient=3 * top, weight=3.0),
    }
    return StepNorms(step=step, loss=2.3, layers=layers)


def run(
    name, error=None, *, seed=0, training_error=None, images=1000, diverged=None, width=1.0, recorded=(), ended=True
):
    training = TRAININGS[name]
    return StudyRun(
        training=training,
        seed=seed,
        first_weights=FROM_A if training.init else training.scheme or "glorot",
        architecture=Architecture(network=training.network, classes=10, crop=32, width=width),
        images=images,
        loss=() if diverged else (2.25, 1.5),
        diverged=diverged,
        schedule_ended=ended,
        norms=tuple(recorded),
        test=None if error is None else outcomes(error),
        on_training_images=None if training_error is None else outcomes(training_error),
    )


NAN = "training diverged at step 3 (loss nan, gradient norm nan)"
FIRST_WEIGHTS = [
    run("D-256-paper-variance", diverged=NAN),
    run("D-256-paper", 90),
    run("D-256", 5),
    run("D-256-glorot", 7.5),
]


def test_which_first_weights_let_a_network_learn():
    sentence, chance, arithmetic = initialisation_seen(FIRST_WEIGHTS, 10)
    assert sentence == (
        "D: from A it learns (test error 5.0%); with Glorot's initialisation it learns (test error 7.5%); with sd 0.01 "
        f"it does not learn (test error 90.0%); with variance 0.01 its {NAN}."
    )
    assert chance == f"Without learning, the loss stays near {math.log(10):.3f}."
    # 3 x 3 x 512 inputs: sqrt(4608 / 2) = 48
    assert "4,608 inputs and its ReLU multiply the size of a signal by about 0.48 and 4.80 at sd 0.01" in arithmetic
    assert "at the paper's width" not in arithmetic
    narrow = initialisation_seen([run("D-256", 5, width=0.25)], 10)[-1]
    assert "1,152 inputs" in narrow
    assert "by about 0.24 and 2.40 at sd 0.01" in narrow
    assert "(at the paper's width, 4,608 inputs, 0.48 and 4.80)" in narrow


def test_seeds_that_differ_are_counted():
    of_seeds = [run("D-256", 5), run("D-256", 90, seed=1), run("D-256", 6, seed=2)]
    assert "from A it learns with 2 of 3 seeds (test error 33.7%)" in initialisation_seen(of_seeds, 10)[0]
    (row,) = initialisation_table(of_seeds).rows
    assert row == ("D-256", "from A, from A, from A", "yes, no, yes", "2, 2, 2", *["2.250, 2.250, 2.250"], *row[5:])
    assert row[5:] == ("1.500, 1.500, 1.500", "5.00, 90.00, 6.00")
    assert limits_of(of_seeds)[0].startswith("3 seeds, each a point")
    assert not any("these trained networks alone" in sentence for sentence in limits_of(of_seeds))
    assert "2 seeds do not show how others would turn out" in limits_of(of_seeds[:2])[1]
    lost = [run("D-256-paper", 90), run("D-256-paper", diverged=NAN, seed=1)]
    assert f"with sd 0.01 its {NAN} with 1 of 2 seeds" in initialisation_seen(lost, 10)[0]


def test_one_seed_and_trainings_that_were_cut_off_are_said():
    assert limits_of([run("A-256", 5)]) == [
        "One seed: this illustrates what can happen and does not show what mostly does."
    ]
    more = limits_of([run("A-256", 5, ended=False), run("D-256-paper-variance", diverged=NAN, ended=False)])
    assert "from a training that was: A-256. With more epochs" in more[1]
    assert more[2].endswith("ceased to be finite numbers: D-256-paper-variance.")


def test_gradients_are_said_at_both_ends():
    runs = [
        run("D-256", 5, recorded=[norms(0, 0.08, 0.03, 0.5), norms(40, 0.04, 0.03, 0.5)]),
        run("D-256-glorot", 7, recorded=[norms(0, 0.5, 0.03, 1.5)]),
        run("D-256-paper", 90, recorded=[norms(0, 3e-10, 1e-10, 8e-12)]),
        run("D-256-paper-variance", diverged=NAN),
    ]
    sentence, missing, compared, _ = gradients_seen(runs, 10)
    assert sentence == (
        "D: in the first step conv1_1's gradient is, as a share of its weights, 0.08 from A, 0.5 with Glorot's "
        "initialisation, 3e-10 with sd 0.01; the outputs of fc8 are 0.5, 1.5, 8e-12."
    )
    assert missing.startswith("Not recorded: D-256-paper-variance.")
    assert compared.startswith(
        "That share is 0.08 to 0.5 in the 2 trainings that learned, and 3e-10 to 3e-10 in the 1 training that did not."
    )
    first = gradients_table(runs).rows[0]
    assert first == ("D-256", "from A", "40", "0.5", "0.08", "0.03", "0.04", "5.00")
    assert gradients_table(runs).rows[-1][2:] == ("–",) * 6
    for some in (runs, runs[-1:]):  # also where nothing was recorded
        assert norms_of_layers(some).startswith("<svg")
    assert ">−0." not in norms_of_layers(runs[1:])  # ticks of one recorded step


@pytest.mark.parametrize(
    ("large", "apart", "higher", "told"),
    [
        (24, 13.5, 12, "Both are what a regularisation by small filters would do."),
        (13, 2.5, 1, "That leaves open whether small filters regularise."),
        (2, -8.5, -10, "That does not look like a regularisation by small filters."),
    ],
)
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_small_filters_are_compared_with_large_ones(large, apart, higher, told, seeds):
    runs = [
        run(name, error, seed=seed, training_error=on_training)
        for seed in range(seeds)
        for name, error, on_training in (("B-256-glorot", 12, 3.5), ("B-256", 11, 3.5), ("B-5x5-256", large, 2))
    ]
    both, compared = regularisation_seen(runs, 10)
    assert "+8.50 (B (Glorot)), +7.50 (B) and " in both
    assert "in place of those of B (Glorot), both from random weights, that difference changes by " in compared
    assert f"by {apart:+.2f} points (95% interval " in compared
    assert f"the test error by {higher:+.2f} points (95% interval " in compared
    assert compared.endswith(told)
    assert ("of networks trained again" if seeds > 2 else "of these trained networks alone") in compared
    assert regularisation_table(runs[:3]).rows[1][1:5] == ("200", "3.50", "12.00", "+8.50")
    assert (
        "which starts from A" in regularisation_seen([one for one in runs if "glorot" not in one.training.name], 10)[1]
    )
    assert "nothing to compare" in regularisation_seen(runs[:1], 10)[1]
    assert errors_on_both(runs).startswith("<svg")


def test_learning_less_is_not_taken_for_a_regularisation():
    runs = [run("B-256", 40, training_error=38), run("B-5x5-256", 20, training_error=2)]
    assert regularisation_seen(runs, 10)[1].endswith("come from learning less, not from a regularisation.")


def test_intervals_of_gaps_are_those_of_independent_proportions():
    """Other images wrong in each, so that the paired variance is that of two independent proportions."""
    rng = np.random.default_rng(0)

    def independent(error):
        wrong = rng.random(4000) < error / 100
        return replace(outcomes(10), n=4000, wrong=wrong, top1_error=100 * float(wrong.mean()))

    runs = [
        replace(run(name, 10), test=independent(test), on_training_images=independent(training))
        for name, test, training in (("B-256", 20, 10), ("B-5x5-256", 30, 5))
    ]
    found = difference_of_gaps(runs, {"B-5x5-256": 1.0, "B-256": -1.0})
    shares = [one.wrong.mean() for its in runs for one in (its.test, its.on_training_images)]
    assert found.points == pytest.approx(100 * (shares[2] - shares[3] - shares[0] + shares[1]))
    expected = 100 * sum(share * (1 - share) / 4000 for share in shares) ** 0.5
    assert found.standard_error == pytest.approx(expected, rel=0.03)
    alike = [replace(one, on_training_images=one.test) for one in runs]  # as if of other images
    both = difference_of_gaps(alike, {"B-5x5-256": 1.0, "B-256": -1.0})
    once = difference_of_tests(alike, {"B-5x5-256": 1.0, "B-256": -1.0})
    assert both.standard_error == pytest.approx(2**0.5 * once.standard_error)


@pytest.mark.parametrize(
    ("all_images", "gains", "told"),
    [
        (2, "+9.00 points", ": the deeper net gains more;"),
        (10, "+1.00 points", ": which gains more is left open;"),
        (20, "-9.00 points", ": A gains more;"),
    ],
)
def test_errors_are_said_by_the_number_of_images(all_images, gains, told):
    runs = [
        run("A-256-1-in-8", 20, images=125),
        run("A-256", 10),
        run("D-256-1-in-8", 21, images=125),
        run("D-256", all_images),
    ]
    a, d, difference, gained, _ = images_seen(runs, 10)
    assert a == "A: from 125 to 1,000 training images the test error goes from 20.0 to 10.0%."
    assert d == f"D: from 125 to 1,000 training images the test error goes from 21.0 to {all_images}.0%."
    assert f"+1.00 at 125, {all_images - 10:+.2f} at 1,000; one test image is 0.50 points." in difference
    assert f"by {gains} (95% interval" in gained
    assert told in gained
    assert gained.endswith("of these trained networks alone on other images, each by itself.")


def test_one_number_of_images_tells_nothing_of_more_images():
    """As where a class has so few that an eighth of them is as many."""
    said = images_seen([run("A-256-1-in-8", 20), run("A-256", 20), run("D-256-1-in-8", 5), run("D-256", 5)], 10)
    assert said[0] == "A: with 1,000 training images the test error is 20.0%."
    assert "-15.00 at 1,000" in said[2]
    assert [sentence for sentence in said if "fewest" in sentence] == []


def test_a_command_of_two_lines_is_code_and_no_heading():
    values = {
        "study": STUDIES_BY_NAME["initialisation"],
        "source": "made up",
        "shown": SimpleNamespace(label="a picture", caption="what it shows"),
        "table": initialisation_table(FIRST_WEIGHTS),
        "command": "verydeep reproduce 'my\n# photos'",
        "seen": [],
        "limits": [],
        "seeds": [0],
    }
    shown = MarkdownIt().render(render("reproduction/study.md", values))
    assert "<pre><code>verydeep reproduce 'my # photos'\n</code></pre>" in shown
    assert shown.count("<h1>") == 1
