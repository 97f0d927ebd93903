"""Weights go out as torchvision and timm have them, and back as they came."""

import json

import foreign_weights as foreign
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from verydeep import import_weights, save, vgg, write_weights
from verydeep.cli import main
from verydeep.conversion import weights as export_weights
from verydeep.networks.foreign.torchvision import to_torchvision
from verydeep.runs.model import load_model

LAYOUTS = ("torchvision", "timm")


def read(file):
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)


def ulps(one, other):
    """The greatest distance in units in the last place."""
    units = np.spacing(np.abs(one.numpy()))
    return (np.abs(one.numpy().astype(np.float64) - other.numpy().astype(np.float64)) / units).max()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("network", "batch_norm"), [("A", False), ("B", True), ("D", True), ("E", False)])
def test_what_came_in_goes_out_again(tmp_path, network, batch_norm, layout, suffix):
    state = foreign.state_dict(foreign.plain(network, batch_norm=batch_norm), layout)
    torch.save(state, tmp_path / "in.pth")
    import_weights(tmp_path / "in.pth", tmp_path / "run")
    told = write_weights(tmp_path / "run", tmp_path / f"out{suffix}", layout)
    found = read(tmp_path / f"out{suffix}")
    assert found.keys() == state.keys()
    for name, value in state.items():
        if name == "features.0.weight":
            assert ulps(value, found[name]) <= 1
        else:
            assert torch.equal(value, found[name]), name
            assert value.dtype == found[name].dtype
    number = {"A": 11, "B": 13, "D": 16, "E": 19}[network]
    assert told.network == f"vgg{number}" + ("_bn" if batch_norm else "")
    assert (told.mean, told.std) == (foreign.TORCH_MEAN, foreign.TORCH_STD)
    assert told.notes == (
        f"{layout}'s own networks have width 1 and crop 224; this one has width 0.0625 and crop 64, so build one of "
        "these sizes to load it",
    )


def test_one_unit_in_the_last_place_holds_for_a_hundred_thousand_weights():
    """What the division by std and its reverse round, for weights of all sizes."""
    from verydeep.networks.foreign.preprocessing import PREPROCESSING, fold, unfold

    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(size=(4000, 3, 3, 3)) * 10.0 ** rng.integers(-6, 3, 3)[:, None, None])
    weights = {"conv1_1.weight": values.float()}
    back, _ = unfold(fold(weights, PREPROCESSING["torchvision"]), "torchvision")
    distance = ulps(weights["conv1_1.weight"], back["conv1_1.weight"])
    assert 0 < distance <= 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_networks_of_our_own_compute_the_same_there(tmp_path, layout):
    """With the mean and std that the file names."""
    torch.manual_seed(0)
    net = vgg("D", classes=6, crop=64, width=1 / 16, mean_rgb=(100.0, 110.0, 90.5)).eval()
    save(net, tmp_path / "model")
    told = write_weights(tmp_path / "model", tmp_path / "out.safetensors", layout)
    assert told.mean == pytest.approx((100 / 255, 110 / 255, 90.5 / 255), rel=1e-7)
    assert told.notes[0].startswith(f"its mean is not {layout}'s default: give it")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
    assert metadata["architecture"] == "vgg16"
    mean, std = ([float(part) for part in metadata[name].split(",")] for name in ("mean", "std"))
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]  # torchvision's vgg16
    stages = [stage for stage, depth in enumerate((2, 2, 3, 3, 3), 1) for _ in range(depth)]
    names = {
        "torchvision": ("classifier.0", "classifier.3", "classifier.6"),
        "timm": ("pre_logits.fc1", "pre_logits.fc2", "head.fc"),
    }
    plain = foreign.Plain(
        [
            (stage, 0, state[f"features.{n}.weight"], state[f"features.{n}.bias"], None)
            for stage, n in zip(stages, numbers, strict=True)
        ],
        [(state[f"{name}.weight"], state[f"{name}.bias"]) for name in names[layout]],
    )
    rgb = foreign.images(64)
    with torch.no_grad():
        ours = net(torch.from_numpy(rgb)).numpy()
    assert np.abs(foreign.scores(plain, foreign.torch_pixels(rgb, mean, std)) - ours).max() < 1e-4
    import_weights(tmp_path / "out.safetensors", tmp_path / "again")
    again = load_model(tmp_path / "again").net
    assert torch.equal(again.mean_rgb, net.mean_rgb)
    assert ulps(net.conv1_1.weight.detach(), again.conv1_1.weight.detach()) <= 1


def test_names_of_classes_go_out_and_come_back(tmp_path):
    save(vgg("A", classes=3, crop=32, width=0.05), tmp_path / "model", classes=["ant", "b\u00fcffel", 'c "d"'])
    assert len(write_weights(tmp_path / "model", tmp_path / "out.safetensors", "timm").notes) == 2
    import_weights(tmp_path / "out.safetensors", tmp_path / "run")
    assert load_model(tmp_path / "run").classes == ("ant", "b\u00fcffel", 'c "d"')
    told = write_weights(tmp_path / "model", tmp_path / "out.pth", "timm")
    assert told.notes[-1] == "a .pth does not hold the names of the classes, as a .safetensors does"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_that_would_not_come_back_are_not_written(tmp_path, monkeypatch, suffix):
    def turned(weights, layout):
        found = to_torchvision(weights, layout)
        return {**found, "features.6.weight": found["features.6.weight"].flip(1)}

    save(vgg("A", classes=3, crop=32, width=0.05), tmp_path / "model")
    monkeypatch.setattr(export_weights, "to_torchvision", turned)
    with pytest.raises(ValueError, match=r"is not written: conv3_1.weight does not come back as it is in"):
        write_weights(tmp_path / "model", tmp_path / f"out{suffix}", "torchvision")
    assert not (tmp_path / f"out{suffix}").exists()


@pytest.mark.parametrize("network", ["C", "A-LRN", "B-5x5"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_networks_that_a_library_lacks_are_refused_by_name(tmp_path, network, layout):
    save(vgg(network, classes=2, crop=32, width=0.05), tmp_path / "model")
    with pytest.raises(ValueError, match=f"{layout} has no {network}, only A, B, D, E"):
        write_weights(tmp_path / "model", tmp_path / "out.pth", layout)
    assert not (tmp_path / "out.pth").exists()


def test_wrong_use(tmp_path):
    save(vgg("A", classes=2, crop=32, width=0.05), tmp_path / "model")
    with pytest.raises(ValueError, match="for torchvision or timm, not for 'keras'"):
        write_weights(tmp_path / "model", tmp_path / "out.pth", "keras")
    with pytest.raises(ValueError, match=r"written as .safetensors, .pth, .pt"):
        write_weights(tmp_path / "model", tmp_path / "out.h5", "timm")
    with pytest.raises(OSError, match="cannot write"):
        write_weights(tmp_path / "model", tmp_path / "nowhere" / "out.pth", "timm")


def test_the_verb_writes_them_and_refuses_what_only_goes_with_graphs(tmp_path, capsys):
    save(vgg("A", classes=3, crop=32, width=1 / 16, mean_rgb=(51, 102, 204)), tmp_path / "run", classes=list("abc"))
    out = tmp_path / "a.safetensors"
    main(["export", str(tmp_path / "run"), "--to", "torchvision", "--out", str(out), "--json", "-"])
    told = json.loads(capsys.readouterr().out)
    assert (told["network"], told["mean"]) == ("vgg11", pytest.approx([0.2, 0.4, 0.8]))
    assert load_file(out)["features.0.weight"].shape == (4, 3, 3, 3)
    for option in (["--int8"], ["--data", "digits"], ["--max-loss", "1"], ["--check-images", "5"], ["--max-bad", "3"]):
        with pytest.raises(SystemExit) as end:
            main(["export", str(tmp_path / "run"), "--to", "timm", "--out", str(tmp_path / "b.pth"), *option])
        assert end.value.code == 2
        assert "weights for timm need no images" in capsys.readouterr().err
    assert not (tmp_path / "b.pth").exists()
