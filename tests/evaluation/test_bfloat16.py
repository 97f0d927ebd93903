"""Tests in bfloat16: the network that was asked for, and what it costs."""

import json
import shutil

import exported_runs as shared
import numpy as np
import pytest
import torch
from torch import nn

from verydeep.cli import main
from verydeep.evaluation import evaluate as evaluation_module
from verydeep.evaluation.bfloat16 import BFloat16Network
from verydeep.evaluation.evaluate import evaluate
from verydeep.evaluation.precision import precision_cost, precision_errors
from verydeep.exported_networks.exported import write_exported
from verydeep.images.tolerance import Tolerance
from verydeep.runs.model import load_model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bfloat16")
    return shared.saved(shared.network("A"), folder / "run"), shared.pictures(folder / "pictures")


def rounded(net, images):
    """Scores where the input, the weights and the output of each layer are rounded to bfloat16: sums are in float32."""
    x = (images.float() - net.mean_rgb[:, None, None]).bfloat16().float()
    for name in net.layer_names:
        layer = net.get_submodule(name)
        if isinstance(layer, nn.Conv2d):
            weights = layer.weight.bfloat16().float(), layer.bias.bfloat16().float()
            x = nn.functional.conv2d(x, *weights, padding=1).bfloat16().float()
        elif isinstance(layer, nn.Linear):
            weights = layer.weight.bfloat16().float(), layer.bias.bfloat16().float()
            x = nn.functional.linear(x.flatten(1), *weights).bfloat16().float()
        else:
            x = layer(x)
    return x


def test_the_scores_are_those_of_layers_rounded_to_bfloat16():
    net = shared.network("A").eval()
    crop = net.architecture.crop
    images = torch.randint(0, 256, (4, 3, crop, crop), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.inference_mode():
        exact, expected, found = net(images), rounded(net, images), BFloat16Network(net)(images)
        dense = BFloat16Network(net).score_map(images)[:, :, 0, 0]
    cost = (expected - exact).abs().max()
    assert cost > 0
    assert found.dtype == dense.dtype == torch.float32
    assert (found - expected).abs().max() < cost
    assert (dense - expected).abs().max() < cost


def test_the_cost_is_measured_on_some_of_the_images(made, monkeypatch):
    run, data = made
    monkeypatch.setattr(evaluation_module, "_IN_FLOAT32_TOO", 5)
    before = evaluate(run, data=data, cache=False)
    found = evaluate(run, data=data, precision="bf16", cache=False)
    (cost,) = found.precision_costs
    chosen = [round(place * (before.n - 1) / 4) for place in range(5)]
    wrong = {
        precision: float(np.mean(one.images.predicted[chosen] != one.images.labels[chosen]) * 100)
        for precision, one in {"fp32": before, "bf16": found}.items()
    }
    assert (cost.images, cost.float32, cost.reduced) == (5, wrong["fp32"], wrong["bf16"])
    assert 0 < np.abs(found.images.posteriors - before.images.posteriors).max() < 0.05
    assert (before.precision, before.precision_costs) == ("fp32", ())
    assert "of 5 images that were tested in float32 too" in found.notes[0]


def test_what_is_kept_of_one_precision_is_not_taken_for_the_other(made, tmp_path, monkeypatch):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path))
    run, data = made
    first = {precision: evaluate(run, data=data, precision=precision) for precision in ("fp32", "bf16")}
    again = {precision: evaluate(run, data=data, precision=precision) for precision in ("fp32", "bf16")}
    assert [one.from_cache for one in (*first.values(), *again.values())] == [0, 0, 1, 1]
    for precision, one in first.items():
        np.testing.assert_array_equal(again[precision].images.posteriors, one.images.posteriors)
    assert again["bf16"].precision_costs == first["bf16"].precision_costs


def test_several_runs_have_a_cost_each_and_an_unusable_image_is_not_compared(made, tmp_path):
    run, data = made
    other = shared.saved(shared.network("B"), tmp_path / "other")
    shutil.copytree(data, tmp_path / "pictures")
    next((tmp_path / "pictures").glob("val/*/*.png")).write_bytes(b"no picture")
    found = evaluate(
        [run, other], data=str(tmp_path / "pictures"), precision="bf16", cache=False, tolerance=Tolerance(max_bad=50)
    )
    assert len(found.unusable) == 1
    assert [cost.images for cost in found.precision_costs] == [found.n, found.n]
    assert [note.split(":")[0] for note in found.notes[:2]] == [str(run), str(other)]


def test_the_command_shows_the_cost(made, capsys, monkeypatch):
    run, data = made
    monkeypatch.setattr(evaluation_module, "multiplies_in_bfloat16", lambda: False)
    main(["evaluate", str(run), "--data", data, "--precision", "bf16", "--json", "-", "--no-cache"])
    shown = capsys.readouterr()
    figures = json.loads(shown.out)
    assert figures["precision"] == "bf16"
    assert figures["precision_costs"][0]["images"] == figures["n"]
    assert "this processor does not multiply in bfloat16: float32 is faster on it" in " ".join(shown.err.split())


def test_an_exported_file_has_its_own_precision_unless_it_is_a_program_of_pytorch(made, tmp_path):
    run, data = made
    for to in ("onnx", "torch"):
        write_exported(load_model(run), tmp_path / shared.FILES[to], to=to)
    with pytest.raises(ValueError, match="has a precision of its own: name the run, or a file that was exported"):
        evaluate(tmp_path / shared.FILES["onnx"], data=data, precision="bf16")
    of_file, of_run = (
        evaluate(one, data=data, precision="bf16", cache=False) for one in (tmp_path / shared.FILES["torch"], run)
    )
    np.testing.assert_array_equal(of_file.images.posteriors, of_run.images.posteriors)


def test_the_cost_in_words():
    """Of 50 images 2 change: one is then wrong, one is wrong either way."""
    labels = np.zeros(50, dtype=int)
    before = np.tile([0.6, 0.3, 0.1], (50, 1))
    before[1] = [0.1, 0.5, 0.4]
    after = before.copy()
    after[0], after[1] = [0.3, 0.6, 0.1], [0.1, 0.4, 0.5]
    said = precision_cost(precision_errors(before, after, labels))
    assert said.startswith(
        "Computed in bfloat16; of 50 images that were tested in float32 too, 2 are taken for another class: 4.00% are "
        "wrong in bfloat16, 2.00% in float32 (+2.00 points, 95% interval "
    )
    assert precision_cost(precision_errors(before, before, labels)) == (
        "Computed in bfloat16; of 50 images that were tested in float32 too, each is taken for the same class."
    )
