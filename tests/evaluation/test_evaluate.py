"""Saved runs on images: fusion, classes matched by name, and what the result says."""

import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from random_networks import lively

import verydeep
from verydeep import vgg
from verydeep.evaluation.evaluate import evaluate
from verydeep.evaluation.posteriors import posteriors
from verydeep.evaluation.protocols import Protocol
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.machine.runtime import Runtime
from verydeep.runs.files import MODEL
from verydeep.runs.model import Model, save_model
from verydeep.training.loop import train
from verydeep.training.recipe import Recipe

SEVEN = tuple("abcdefg")
CPU = Runtime(device="cpu")
KEYS = [
    "runs",
    "source",
    "split",
    "protocol",
    "grid",
    "scales",
    "n",
    "top1_error",
    "top5_error",
    "top1_error_ci95",
    "top5_error_ci95",
    "class_balanced_error",
    "per_run",
    "comparisons",
    "calibration",
    "per_class",
    "confusions",
    "notes",
    "unusable",
    "from_cache",
    "seconds",
    "images_per_second",
]


def save_run(folder, net, classes=SEVEN, scale="256", flip=True):
    save_model(Model(net=net, classes=classes, scale=scale, flip=flip), folder / MODEL)
    return folder


def constant(*posterior):
    """A net that gives every image the same posterior."""
    net = vgg("A", classes=len(posterior), crop=32, width=0.05)
    with torch.no_grad():
        net.fc8.weight.zero_()
        net.fc8.bias.copy_(torch.tensor(posterior).log())
    return net


def splits(labels, classes=SEVEN, parts=("train", "val"), size=(34, 41)):
    """In every part images of these labels, by index into `classes`."""
    rng = np.random.default_rng(len(labels))
    samples = []
    for number, label in enumerate(labels):
        buffer = io.BytesIO()
        colour = rng.integers(0, 256, 3)
        grain = rng.integers(-100, 100, (*size, 3)) * rng.random()
        Image.fromarray((colour + grain).clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), label, f"image {number}"))
    source = memory_source(classes=classes, samples=tuple(samples))
    return Splits(name="made up", sources=dict.fromkeys(parts, source))


def write_folder(root, counts):
    for place, count in counts.items():
        (root / place).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (40, 36), (20 * number, 90, 30)).save(root / place / f"{number}.png")


def test_one_run_is_its_protocols_errors(tmp_path):
    net, data = lively(0), splits([0, 1, 2, 3, 4, 5, 6] * 4)
    found = evaluate(save_run(tmp_path / "run", net), data=data, runtime=CPU)
    posterior = posteriors(net, data.source("val"), Protocol(scales=(224, 256, 288)))
    ranks = [sorted(p, reverse=True).index(p[label]) for p, label in zip(posterior, [*range(7)] * 4, strict=True)]
    assert found.top1_error == pytest.approx(100 * sum(rank >= 1 for rank in ranks) / 28)
    assert found.top5_error == pytest.approx(100 * sum(rank >= 5 for rank in ranks) / 28)
    assert 0 < found.top5_error < found.top1_error
    assert (found.n, found.per_run[0].top1_wrong) == (28, sum(rank >= 1 for rank in ranks))
    assert found.top1_error_ci95[0] < found.top1_error < found.top1_error_ci95[1]


def test_fusion_averages_posteriors(tmp_path):
    """Arithmetic mean: class 0. Geometric mean, or mean of scores: class 1. The second run alone: class 2."""
    first = save_run(tmp_path / "first", constant(0.82, 0.17, 0.01), classes=tuple("abc"))
    second = save_run(tmp_path / "second", constant(0.005, 0.2, 0.795), classes=tuple("abc"))
    data = splits([0] * 1 + [1] * 2 + [2] * 4, classes=tuple("abc"))
    found = evaluate([first, second], data=data, runtime=CPU)
    assert found.top1_error == pytest.approx(100 * 6 / 7)
    assert [run.top1_error for run in found.per_run] == pytest.approx([100 * 6 / 7, 100 * 3 / 7])
    assert evaluate([second, first], data=data, runtime=CPU).top1_error == pytest.approx(100 * 6 / 7)


def test_fusion_of_two_lively_runs_is_the_mean_of_both(tmp_path):
    nets, labels = [lively(0), lively(1)], [*range(7)] * 5
    data = splits(labels, parts=("train", "val", "test"))
    folders = [save_run(tmp_path / str(seed), net) for seed, net in enumerate(nets)]
    found = evaluate(folders, data=data, runtime=CPU, scales=[256])
    each = [posteriors(net, data.source("test"), Protocol(scales=(256,))) for net in nets]
    errors = [100 * np.mean(p.argmax(axis=1) != labels) for p in (*each, (each[0] + each[1]) / 2)]
    assert [*(run.top1_error for run in found.per_run), found.top1_error] == pytest.approx(errors)
    assert len(set(errors)) == 3


def test_results_as_json_have_exactly_the_documented_keys(tmp_path):
    folders = [save_run(tmp_path / "one", lively(0)), save_run(tmp_path / "two", lively(1))]
    result = evaluate([str(folder) for folder in folders], data=splits([0, 1, 2, 6, 6]), runtime=CPU).to_dict()
    assert list(result) == KEYS
    result = json.loads(json.dumps(result))
    assert result["runs"] == [str(folder) for folder in folders]
    assert (result["source"], result["split"], result["protocol"], result["n"]) == ("made up", "val", "dense", 5)
    assert (result["grid"], result["scales"]) == ("centred", [224, 256, 288])
    assert len(result["top1_error_ci95"]) == 2
    assert [run["name"] for run in result["per_run"]] == result["runs"]
    assert [run["n"] for run in result["per_run"]] == [5, 5]
    assert result["seconds"] > 0
    assert math.isclose(result["images_per_second"], 2 * 5 / result["seconds"])


@pytest.mark.parametrize(("classes", "reported"), [(4, False), (5, False), (6, True)])
def test_a_top5_error_needs_more_than_five_classes(tmp_path, classes, reported):
    names = SEVEN[:classes]
    run = save_run(tmp_path, constant(*(1 / 2**c for c in range(classes))), classes=names)
    found = evaluate(run, data=splits([0, classes - 1], classes=names), runtime=CPU)
    assert found.top5_error == (50 if reported else None)
    assert found.per_run[0].top5_error == found.top5_error


# scales and mirrors


@pytest.mark.parametrize(
    ("scale", "asked", "expected"),
    [
        ("256", "paper", (224, 256, 288)),
        ("256", "single", (256,)),
        ("256:512", "paper", (256, 384, 512)),
        ("256:512", "single", (384,)),
        ("256", [300, 450], (300, 450)),
    ],
)
def test_scales_follow_from_each_runs_own_training(tmp_path, scale, asked, expected):
    run = save_run(tmp_path, constant(0.5, 0.3, 0.2), classes=tuple("abc"), scale=scale)
    found = evaluate(run, data=splits([0, 1], classes=tuple("abc")), scales=asked, runtime=CPU)
    assert found.scales == found.per_run[0].scales == expected


def test_fused_runs_keep_their_own_scales(tmp_path):
    fixed = save_run(tmp_path / "fixed", constant(0.6, 0.4), classes=("a", "b"), scale="256")
    jittered = save_run(tmp_path / "jittered", constant(0.7, 0.3), classes=("a", "b"), scale="256:512")
    found = evaluate([fixed, jittered], data=splits([0, 1], classes=("a", "b")), runtime=CPU)
    assert [run.scales for run in found.per_run] == [(224, 256, 288), (256, 384, 512)]
    assert found.scales == (224, 256, 288, 384, 512)


def test_a_run_trained_without_mirrors_is_tested_without(tmp_path):
    net, labels = lively(3), [*range(7)] * 6
    data, results = splits(labels), {}
    for flip in (True, False):
        found = evaluate(save_run(tmp_path / str(flip), net, flip=flip), data=data, scales="single", runtime=CPU)
        expected = posteriors(net, data.source("val"), Protocol(scales=(256,), mirror=flip))
        assert found.per_run[0].mirror is flip
        assert found.top1_error == pytest.approx(100 * np.mean(expected.argmax(axis=1) != labels))
        results[flip] = expected
    assert np.abs(results[True] - results[False]).max() > 1e-3


@pytest.mark.parametrize("scales", ["dense", [100], []])
def test_unusable_scales_are_refused(tmp_path, scales):
    run = save_run(tmp_path, constant(0.6, 0.4), classes=("a", "b"))
    with pytest.raises(ValueError, match=r"^scales(, stated for a crop of 224,)? are "):
        evaluate(run, data=splits([0, 1], classes=("a", "b")), scales=scales, runtime=CPU)


# classes and splits


def test_a_class_missing_in_validation_keeps_the_others_in_place(tmp_path):
    write_folder(tmp_path / "images", {"train/ant": 2, "train/bee": 2, "train/cat": 2, "val/bee": 1, "val/cat": 3})
    run = save_run(tmp_path / "run", constant(0.1, 0.2, 0.7), classes=("ant", "bee", "cat"))
    found = evaluate(run, data=str(tmp_path / "images"), runtime=CPU)
    assert (found.n, found.split, found.top1_error) == (4, "val", 25)


def test_classes_are_matched_by_name_not_by_number(tmp_path):
    """The images' own numbering has cat first and lacks ant."""
    run = save_run(tmp_path, constant(0.1, 0.2, 0.7), classes=("ant", "bee", "cat"))
    data = splits([0, 0, 0, 1], classes=("cat", "bee"))
    assert evaluate(run, data=data, runtime=CPU).top1_error == 25


def test_images_of_a_class_the_run_does_not_know_are_refused(tmp_path):
    run = save_run(tmp_path, constant(0.5, 0.5), classes=("ant", "bee"))
    with pytest.raises(ValueError, match="does not know the classes gnat, wasp; it knows ant, bee"):
        evaluate(run, data=splits([0, 1, 2], classes=("ant", "gnat", "wasp")), runtime=CPU)


def test_runs_with_different_classes_are_not_fused(tmp_path):
    first = save_run(tmp_path / "first", constant(0.5, 0.5), classes=("ant", "bee"))
    second = save_run(tmp_path / "second", constant(0.5, 0.5), classes=("ant", "wasp"))
    with pytest.raises(
        ValueError, match=r"cannot be fused: their classes differ \(.*first alone has bee; .*second alone has wasp\)"
    ) as refusal:
        evaluate([first, second], data=splits([0, 1], classes=("ant", "bee")), runtime=CPU)
    assert str(first) in str(refusal.value)
    assert str(second) in str(refusal.value)


def test_runs_with_the_same_classes_in_another_order_are_not_fused(tmp_path):
    first = save_run(tmp_path / "first", constant(0.5, 0.5), classes=("ant", "bee"))
    second = save_run(tmp_path / "second", constant(0.5, 0.5), classes=("bee", "ant"))
    with pytest.raises(ValueError, match=r"cannot be fused: their classes differ \(in their order\)"):
        evaluate([first, second], data=splits([0, 1], classes=("ant", "bee")), runtime=CPU)


def test_the_test_split_is_the_default_where_there_is_one(tmp_path):
    run = save_run(tmp_path, constant(0.6, 0.4), classes=("a", "b"))
    wrong, right = splits([1, 1], classes=("a", "b")), splits([0, 0], classes=("a", "b"))
    parts = {"train": right.source("val"), "val": right.source("val"), "test": wrong.source("val")}
    data = Splits(name="made up", sources=parts)
    found = evaluate(run, data=data, runtime=CPU)
    assert (found.split, found.top1_error) == ("test", 100)
    assert evaluate(run, data=data, split="val", runtime=CPU).top1_error == 0
    with pytest.raises(ValueError, match="has no split 'holdout'"):
        evaluate(run, data=data, split="holdout", runtime=CPU)


def test_a_folder_of_new_images_is_tested_whole(tmp_path):
    """Also with one class only, or a single image of one."""
    run = save_run(tmp_path / "run", constant(0.7, 0.2, 0.1), classes=("ant", "bee", "cat"))
    write_folder(tmp_path / "new", {"ant": 1, "cat": 4})
    found = evaluate(run, data=str(tmp_path / "new"), runtime=CPU)
    assert (found.split, found.n, found.per_run[0].top1_wrong) == ("all", 5, 4)
    write_folder(tmp_path / "one", {"ant": 3})
    assert evaluate(run, data=str(tmp_path / "one"), runtime=CPU).n == 3
    write_folder(tmp_path / "apart", {"test/ant": 3, "val/bee": 2})
    assert evaluate(run, data=str(tmp_path / "apart"), runtime=CPU).n == 3
    assert evaluate(run, data=str(tmp_path / "apart"), split="val", runtime=CPU).n == 2


def test_of_the_training_folder_only_what_was_held_out_is_tested(tmp_path):
    write_folder(tmp_path / "images", {"ant": 10, "bee": 5})
    recipe = Recipe(crop=32, width=0.05, batch=8, epochs=1)
    run = train(str(tmp_path / "images"), network="A", out=tmp_path / "run", recipe=recipe)
    for tested in (run, run / "best", run / "model"):
        found = evaluate(tested, data=str(tmp_path / "images"), runtime=CPU)
        assert (found.split, found.n) == ("val", 3)
    assert evaluate(run, data=str(tmp_path / "images"), split="all", runtime=CPU).n == 15


def test_no_run_and_a_run_that_is_named_twice_are_refused(tmp_path):
    run = save_run(tmp_path / "run", constant(0.6, 0.4), classes=("a", "b"))
    for runs in ([], [run, tmp_path / "other" / ".." / "run"]):
        with pytest.raises(ValueError, match="name one or more runs to evaluate, each once"):
            evaluate(runs, data="digits")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a run"):
        evaluate(tmp_path, data=splits([0, 1]), runtime=CPU)


def test_the_package_offers_it(tmp_path):
    run = save_run(tmp_path, constant(0.6, 0.4), classes=("a", "b"))
    assert verydeep.evaluate(run, data=splits([0, 1], classes=("a", "b")), runtime=CPU).top1_error == 50
