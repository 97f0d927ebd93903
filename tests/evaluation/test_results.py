"""What an evaluation's figures are made of, counted by hand."""

import io
import itertools
import json
import math
from collections import Counter
from dataclasses import asdict, replace

import made_up_evaluations
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from random_networks import lively

from verydeep.evaluation.evaluate import evaluate
from verydeep.evaluation.metrics import calibration
from verydeep.evaluation.results import NO_TOP5
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Runtime
from verydeep.runs.files import MODEL
from verydeep.runs.model import Model, save_model
from verydeep.statistics import wilson_interval

NAMES = tuple("abcdefgh")
BROKEN = (4, 11)

FUSED = {"n", "top1_error", "top5_error", "top1_error_ci95", "top5_error_ci95", "class_balanced_error"}
"""The fused errors that stand at the top."""


def pictures(classes, count=30):
    """None of the last class; two are broken."""
    rng, samples = np.random.default_rng(3), []
    for number in range(count):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, 3) + rng.integers(-60, 60, (34, 40, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
        data = b"no image" if number in BROKEN else buffer.getvalue()
        samples.append(Sample(data, number % (classes - 1), f"{number}.png"))
    return Splits(name="made up", sources={"test": memory_source(classes=NAMES[:classes], samples=tuple(samples))})


@pytest.fixture(scope="module", params=[5, 6])
def tested(request, tmp_path_factory):
    """Three runs on the same images, and how to test them again."""
    classes, folder = request.param, tmp_path_factory.mktemp("runs")
    names = [str(folder / name) for name in ("one", "two", "three")]
    for seed, name in enumerate(names):
        model = Model(net=lively(seed, classes), classes=NAMES[:classes], scale="256", flip=True)
        save_model(model, folder / name / MODEL)
    options = {"runtime": Runtime(device="cpu"), "tolerance": Tolerance(max_bad=10), "scales": [256]}

    def again(runs=names, **more):
        return evaluate(runs, data=pictures(classes), **options, **more)

    return again(), names, again


def wrong_ones(posteriors, labels, top=1):
    """By sorting; there are no ties here."""
    return [
        label not in sorted(range(len(posterior)), key=lambda c: -posterior[c])[:top]
        for posterior, label in zip(posteriors.tolist(), labels.tolist(), strict=True)
    ]


# of real runs


def test_every_two_runs_are_compared_then_each_with_the_fusion(tested):
    found, names, _ = tested
    labels = np.array([number % (len(found.images.classes) - 1) for number in range(30) if number not in BROKEN])
    posteriors = dict(zip(names, found.images.posteriors_of_runs, strict=True))
    posteriors["fused"] = sum(posteriors.values()) / 3
    one, two, three = names
    pairs = [(one, two), (one, three), (two, three), (one, "fused"), (two, "fused"), (three, "fused")]
    assert [(pair.first, pair.second) for pair in found.comparisons] == pairs
    for pair in found.comparisons:
        errs, others = (wrong_ones(posteriors[name], labels) for name in (pair.first, pair.second))
        both = list(zip(errs, others, strict=True))
        assert (pair.n, pair.only_first_wrong) == (28, both.count((True, False)))
        assert pair.only_second_wrong == both.count((False, True))
        assert pair.difference == pytest.approx(100 * (sum(errs) - sum(others)) / 28)
    assert any(pair.only_first_wrong and pair.only_second_wrong for pair in found.comparisons)


def test_one_run_is_compared_with_nothing(tested):
    _, names, again = tested
    found = again(names[0])
    assert found.comparisons == ()
    assert found.to_dict()["comparisons"] == []


def test_a_top5_error_is_reported_and_noted_where_there_is_one(tested):
    found, _, _ = tested
    five = len(found.images.classes) == 5
    assert found.notes == ((NO_TOP5,) if five else ())
    whole = [found.per_run[0], found.per_run[1], found.per_run[2], found]
    for one, posteriors in zip(whole, [*found.images.posteriors_of_runs, found.images.posteriors], strict=True):
        errs = wrong_ones(posteriors, found.images.labels, top=5)
        assert one.top5_error == (None if five else pytest.approx(100 * sum(errs) / 28))
        assert one.top5_error_ci95 == (None if five else wilson_interval(np.array(errs)))
    assert (
        [one.top5_wrong for one in found.per_class] == [None] * 4
        if five
        else [sum(itertools.compress(errs, (found.images.labels == label).tolist())) for label in range(5)]
    )


def test_every_class_counts_the_same_in_the_class_balanced_error(tested):
    """The last class has no images, and counts nothing."""
    found, _, _ = tested
    labels = found.images.labels.tolist()
    whole = [*found.images.posteriors_of_runs, found.images.posteriors]
    for one, posteriors in zip([*found.per_run, found], whole, strict=True):
        errs = wrong_ones(posteriors, found.images.labels)
        of_classes = [[err for err, label in zip(errs, labels, strict=True) if label == its] for its in set(labels)]
        expected = 100 * sum(sum(one) / len(one) for one in of_classes) / len(of_classes)
        assert one.class_balanced_error == pytest.approx(expected)
    assert found.class_balanced_error != pytest.approx(found.top1_error)


def test_the_dictionary_is_plain_json_without_images(tested):
    found, names, _ = tested
    told = found.to_dict()
    text = json.dumps(told, allow_nan=False)
    assert json.loads(text)["unusable"] == {"4.png": found.unusable["4.png"], "11.png": found.unusable["11.png"]}
    assert told.keys() == (vars(found).keys() | FUSED) - {"fused", "tested"}

    def plain(value):
        if isinstance(value, dict):
            return all(type(key) is str and plain(one) for key, one in value.items())
        if isinstance(value, list | tuple):
            return all(map(plain, value))
        return type(value) in (str, int, float, bool, type(None))

    assert plain(told)
    assert told["per_run"] == [asdict(one) for one in found.per_run]
    assert told["comparisons"] == [one.to_dict() for one in found.comparisons]
    assert [tuple(one.values()) for one in told["confusions"]] == list(found.confusions)
    assert list(told["confusions"][0]) == ["true", "predicted", "images"]
    assert len(told["calibration"]["bins"]) == 15
    assert [run["name"] for run in told["per_run"]] == names


def test_where_there_are_no_posteriors_this_is_said(tested):
    found, _, _ = tested
    without = replace(found, tested=None)
    assert without.to_dict() == found.to_dict()
    with pytest.raises(ValueError, match="only the first process has the posteriors"):
        _ = without.images


def test_each_run_has_its_own_calibration_and_the_fusion_has_its(tested):
    found, _, _ = tested
    each = [one.expected_calibration_error for one in found.per_run]
    labels = found.images.labels
    assert each == [calibration(p, labels).expected_calibration_error for p in found.images.posteriors_of_runs]
    assert found.calibration == calibration(found.images.posteriors, labels)
    assert len({*each, found.calibration.expected_calibration_error}) == 4


def test_what_was_kept_is_told_from_what_was_computed(tested):
    first, names, again = tested
    assert (first.from_cache, first.images_per_second) == (0, pytest.approx(3 * 30 / first.seconds))
    second = again()
    assert (second.from_cache, second.images_per_second) == (1, None)
    assert np.array_equal(second.images.posteriors, first.images.posteriors)
    anew = again(names[:1], cache=False)
    assert (anew.from_cache, anew.images_per_second) == (0, pytest.approx(30 / anew.seconds))


def test_images_that_cannot_be_used_are_left_out(tested):
    found, _, _ = tested
    assert set(found.unusable) == {"4.png", "11.png"}
    assert found.n == len(found.images.ids) == len(found.images.labels) == len(found.images.posteriors) == 28
    assert found.images.ids == tuple(f"{number}.png" for number in range(30) if number not in BROKEN)
    assert sum(one.n for one in found.per_class) == sum(count for *_, count in found.confusions) == 28


# of posteriors


@st.composite
def shown(draw):
    """Images with ties among their posteriors, and classes without images."""
    classes, n = draw(st.integers(2, 8)), draw(st.integers(1, 25))
    values = draw(st.lists(st.integers(0, 6), min_size=classes * n, max_size=classes * n))
    posteriors = np.array(values, dtype=np.float64).reshape(n, classes) / 6
    labels = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    return made_up_evaluations.evaluation(["all"], [posteriors], labels, NAMES[:classes])


def taken_for(images):
    """By hand: of equals not the right class."""
    return [
        max(range(len(posterior)), key=lambda c: (posterior[c], c != label, -c))
        for posterior, label in zip(images.posteriors.tolist(), images.labels.tolist(), strict=True)
    ]


@settings(max_examples=100)
@given(found=shown())
def test_confusions_and_errors_of_classes_are_counted_image_by_image(found):
    images = found.images
    names, labels = images.classes, images.labels.tolist()
    counts = Counter((names[label], names[place]) for label, place in zip(labels, taken_for(images), strict=True))
    assert {(true, place): n for true, place, n in found.confusions} == counts
    assert len(found.confusions) == len(counts)
    assert [n for *_, n in found.confusions] == sorted(counts.values(), reverse=True)
    by_class = found.per_class
    assert [one.name for one in by_class] == [name for label, name in enumerate(names) if label in labels]
    whole = found.fused
    for one in by_class:
        wrong = sum(n for (true, place), n in counts.items() if true == one.name != place)
        assert (one.n, one.top1_wrong) == (labels.count(names.index(one.name)), wrong)
        assert one.top1_error == pytest.approx(100 * wrong / one.n)
        assert one.top1_error_ci95 == wilson_interval(np.arange(one.n) < wrong)
    assert sum(one.n for one in by_class) == sum(counts.values()) == whole.n == len(labels)
    assert sum(one.top1_wrong for one in by_class) == whole.top1_wrong
    if len(names) > 5:
        assert sum(one.top5_wrong for one in by_class) == whole.top5_wrong
        assert whole.top5_error == pytest.approx(100 * whole.top5_wrong / len(labels))
    else:
        assert {whole.top5_wrong, whole.top5_error, *(one.top5_wrong for one in by_class)} == {None}


@pytest.mark.parametrize("runs", [1, 2, 3, 4])
def test_so_many_runs_make_so_many_comparisons(runs):
    rng = np.random.default_rng(0)
    each = tuple(rng.dirichlet(np.ones(3), 20) for _ in range(runs))
    labels = rng.integers(0, 3, 20)
    found = made_up_evaluations.evaluation(NAMES[:runs], each, labels, NAMES[:3]).comparisons
    assert len(found) == (math.comb(runs, 2) + runs if runs > 1 else 0)
    assert len({(one.first, one.second) for one in found}) == len(found)
