"""Tests in bfloat16: the network that was asked for, and what it costs."""

import json
import shutil

import exported_runs as shared
import numpy as np
import pytest
import torch
from torch import nn

from verydeep import vgg
from verydeep.cli import main
from verydeep.evaluation import dense
from verydeep.evaluation import evaluate as evaluation_module
from verydeep.evaluation.bfloat16 import BFloat16Network
from verydeep.evaluation.dense import score_map
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
        elif name == "fc8":
            x = layer(x)
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
    assert (found != found.bfloat16().float()).float().mean() > 0.9
    assert found.dtype == dense.dtype == torch.float32
    assert (found - expected).abs().max() < cost
    assert (dense - expected).abs().max() < cost


def test_the_cost_is_measured_on_some_of_the_images(made, monkeypatch):
    run, data = made
    monkeypatch.setattr(evaluation_module, "_IN_FLOAT32_TOO", 5)
    before = evaluate(run, data=data, cache=False)
    found = evaluate(run, data=data, precision="bf16", cache=False)
    cost = found.per_run[0].precision_cost
    chosen = [round(place * (before.n - 1) / 4) for place in range(5)]
    wrong = {
        precision: float(np.mean(one.images.predicted[chosen] != one.images.labels[chosen]) * 100)
        for precision, one in {"fp32": before, "bf16": found}.items()
    }
    assert (cost.images, cost.float32, cost.reduced) == (5, wrong["fp32"], wrong["bf16"])
    assert [one.fused.precision for one in (before, found)] == ["fp32", "bf16"]
    assert before.per_run[0].precision_cost is None
    assert 0 < np.abs(found.images.posteriors - before.images.posteriors).max() < 0.05
    assert [(one.fused.precision, one.per_run[0].precision) for one in (before, found)] == [
        ("fp32",) * 2,
        ("bf16",) * 2,
    ]
    assert before.per_run[0].precision_cost is None
    assert "of 5 images that were tested in float32 too" in found.notes[0]


def test_what_is_kept_of_one_precision_is_not_taken_for_the_other(made, tmp_path, monkeypatch):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path))
    run, data = made
    first = {precision: evaluate(run, data=data, precision=precision) for precision in ("fp32", "bf16")}
    again = {precision: evaluate(run, data=data, precision=precision) for precision in ("fp32", "bf16")}
    assert [one.from_cache for one in (*first.values(), *again.values())] == [0, 0, 1, 1]
    for precision, one in first.items():
        np.testing.assert_array_equal(again[precision].images.posteriors, one.images.posteriors)
    assert again["bf16"].per_run == first["bf16"].per_run
    monkeypatch.setattr("verydeep.machine.runtime._processor_flags", lambda: "avx2")
    elsewhere = {precision: evaluate(run, data=data, precision=precision) for precision in ("fp32", "bf16")}
    assert {precision: one.from_cache for precision, one in elsewhere.items()} == {"fp32": 1, "bf16": 0}


def test_several_runs_have_a_cost_each_and_an_unusable_image_is_not_compared(made, tmp_path):
    run, data = made
    other = shared.saved(shared.network("B"), tmp_path / "other")
    shutil.copytree(data, tmp_path / "pictures")
    next((tmp_path / "pictures").glob("val/*/*.png")).write_bytes(b"no picture")
    found = evaluate(
        [run, other], data=str(tmp_path / "pictures"), precision="bf16", cache=False, tolerance=Tolerance(max_bad=50)
    )
    assert len(found.unusable) == 1
    assert [one.precision_cost.images for one in found.per_run] == [found.n, found.n]
    assert [note.split(":")[0] for note in found.notes[:2]] == [str(run), str(other)]


def test_the_command_shows_the_cost(made, capsys, monkeypatch):
    run, data = made
    monkeypatch.setattr(evaluation_module, "has_bfloat16", lambda device: False)
    main(["evaluate", str(run), "--data", data, "--precision", "bf16", "--json", "-", "--no-cache"])
    shown = capsys.readouterr()
    figures = json.loads(shown.out)
    assert figures["per_run"][0]["precision"] == "bf16"
    assert figures["per_run"][0]["precision_cost"]["images"] == figures["n"]
    assert "this cpu does not multiply in bfloat16: float32 is faster on it" in " ".join(shown.err.split())


def test_an_exported_file_has_its_own_precision(made, tmp_path):
    run, data = made
    write_exported(load_model(run), tmp_path / "net.onnx", to="onnx")
    with pytest.raises(ValueError, match=r"net.onnx: an exported file has a precision of its own, fp32: leave out"):
        evaluate(tmp_path / "net.onnx", data=data, precision="bf16")


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


def test_images_that_tie_in_one_precision_are_told():
    """The right class ties with another one: wrong, although a search for the greatest finds the right one."""
    labels, before = np.zeros(50, dtype=int), np.tile([0.6, 0.3, 0.1], (50, 1))
    after = before.copy()
    after[:5] = [0.45, 0.45, 0.1]
    errors = precision_errors(before, after, labels)
    assert (errors.lost, errors.changed) == (5, 5)
    assert "5 are taken for another class: 10.00% are wrong" in precision_cost(errors)


@pytest.mark.parametrize("network", ["A-LRN", "C"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("grid", ["centred", "floor", "ceil"])
def test_score_maps_of_whole_images_and_in_tiles(network, batch_norm, grid):
    torch.manual_seed(0)
    net = vgg(network, classes=7, crop=32, width=0.1, batch_norm=batch_norm).eval()
    images = torch.randint(0, 256, (2, 3, 300, 330), dtype=torch.uint8)
    expected = score_map(net, images, grid=grid)
    whole, tiled = (score_map(BFloat16Network(net), images, pixels=pixels, grid=grid) for pixels in (10**6, 70_000))
    torch.testing.assert_close(tiled, whole, rtol=0, atol=0.01 * float(expected.abs().max()))
    torch.testing.assert_close(whole, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def test_images_that_were_tested_in_float32_before_are_not_tested_again(made, tmp_path, monkeypatch):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path))
    monkeypatch.setattr(evaluation_module, "_IN_FLOAT32_TOO", 5)
    run, data = made
    evaluate(run, data=data, precision="bf16", scales=[256])
    assert evaluate(run, data=data, scales=[256]).from_cache == pytest.approx(5 / 12)
    evaluate(run, data=data, scales=[300])
    tested, real = [], dense._score_map
    monkeypatch.setattr(dense, "_score_map", lambda net, *rest: tested.append(type(net)) or real(net, *rest))
    evaluate(run, data=data, precision="bf16", scales=[300])
    assert set(tested) == {BFloat16Network}


def test_no_other_precision_is_taken_for_float32(made):
    run, data = made
    with pytest.raises(ValueError, match="precision is one of fp32, bf16, not bfloat16"):
        evaluate(run, data=data, precision="bfloat16")


def test_a_file_in_int8_says_so_beside_its_run(made, tmp_path):
    run, data = made
    black = torch.zeros(3, 40, 46, dtype=torch.uint8)
    write_exported(load_model(run), tmp_path / "net.onnx", to="onnx", calibration=[black])
    found = evaluate([run, tmp_path / "net.onnx"], data=data, cache=False)
    assert [one.precision for one in (*found.per_run, found.fused)] == ["fp32", "int8", "fp32, int8"]
    assert found.notes[0] == f"{tmp_path / 'net.onnx'}: Computed in INT8."
