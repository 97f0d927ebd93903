"""NumPy's files of weights: `.npz` with conv1_1_W, and `.npy` of a dictionary, which is a pickle."""

import itertools
import pickle
import re

import foreign_weights as foreign
import numpy as np
import pytest
import torch
from pickled_code import Payload

from verydeep import TrainedPreprocessing, import_weights, load

RGB = foreign.images(64)
NET = foreign.plain("D", white=255)


def write(path, form, named=None):
    return foreign.write_numpy(path, form, foreign.numpy_layers(NET) if named is None else named)


@pytest.mark.parametrize("form", ["npz", "lists", "dictionaries"])
def test_the_well_known_forms(tmp_path, form):
    file = write(tmp_path / ("vgg16.npz" if form == "npz" else "vgg16.npy"), form)
    with pytest.raises(ValueError, match="nothing in it tells the order of channels: say --channels bgr"):
        import_weights(file, tmp_path / "run")
    found = import_weights(file, tmp_path / "run", trained=TrainedPreprocessing(channels="bgr"))
    assert (found.layout, found.network) == ("numpy", "D")
    with torch.no_grad():
        scores = load(tmp_path / "run")(torch.from_numpy(RGB)).numpy()
    assert np.abs(scores - foreign.keras_scores(NET, RGB)).max() < 1e-4


def scores_of(run):
    with torch.no_grad():
        return load(run)(torch.from_numpy(RGB)).numpy()


BGR = TrainedPreprocessing(channels="bgr")


def test_convolutions_without_biases(tmp_path):
    """As Paddle has them; the fully connected layers have theirs."""
    net = foreign.plain("D", white=255)
    net.convolutions = [(*place, kernel, 0 * bias, norm) for *place, kernel, bias, norm in net.convolutions]
    arrays = {
        f"{name}_{kind}": v
        for name, values in foreign.numpy_layers(net).items()
        for kind, v in zip("Wb", values, strict=True)
    }
    np.savez(tmp_path / "net.npz", **{name: v for name, v in arrays.items() if not re.fullmatch("conv.*_b", name)})
    found = import_weights(tmp_path / "net.npz", tmp_path / "run", trained=BGR)
    assert found.notes == ("its convolutions have no biases, which are taken as 0",)
    assert np.abs(scores_of(tmp_path / "run") - foreign.keras_scores(net, RGB)).max() < 1e-4
    np.savez(tmp_path / "some.npz", **{name: v for name, v in arrays.items() if name != "conv3_2_b"})
    with pytest.raises(ValueError, match=r"conv3_2\.bias is missing, which D has"):
        import_weights(tmp_path / "some.npz", tmp_path / "other", trained=BGR)


SAME_SIZES = foreign.plain("D", white=255, classes=foreign.HIDDEN)
"""fc7 and fc8 are both of 256 x 256."""

PYTHON_2 = (
    *("fc6", "conv5_2", "conv5_3", "fc7", "conv1_1", "conv1_2", "conv4_1", "fc8"),
    *("conv5_1", "conv4_2", "conv4_3", "conv3_1", "conv2_2", "conv2_1", "conv3_3", "conv3_2"),
)
"""An order in which a dictionary of Python 2, which has none of its own, may be written."""


@pytest.mark.parametrize("form", ["npz", "lists"])
@pytest.mark.parametrize("heads", list(itertools.permutations(("fc6", "fc7", "fc8"))), ids="-".join)
def test_layers_in_any_order_go_by_their_names(tmp_path, form, heads):
    places = iter(heads)
    order = [next(places) if name.startswith("fc") else name for name in PYTHON_2]
    named = foreign.numpy_layers(SAME_SIZES)
    suffix = "npz" if form == "npz" else "npy"
    file = write(tmp_path / f"vgg16.{suffix}", form, {name: named[name] for name in order})
    found = import_weights(file, tmp_path / "run", trained=BGR)
    assert (found.network, found.classes, found.notes) == ("D", foreign.HIDDEN, ())
    expected = foreign.keras_scores(SAME_SIZES, RGB)
    assert np.abs(scores_of(tmp_path / "run") - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("heads", list(itertools.permutations(("fc1", "fc2", "predictions"))), ids="-".join)
def test_keras_names_go_before_the_order_of_its_file(tmp_path, heads, monkeypatch):
    pytest.importorskip("h5py")
    named = {name: layer for layer in foreign.keras_layers(SAME_SIZES) for name in layer[:1]}
    mixed = [named[name] for name in (*heads, *sorted(named.keys() - {*heads}, reverse=True))]
    with monkeypatch.context() as patch:
        patch.setattr(foreign, "keras_layers", lambda _net: mixed)
        foreign.write_keras(SAME_SIZES, tmp_path / "net.h5")
    import_weights(tmp_path / "net.h5", tmp_path / "run")
    expected = foreign.keras_scores(SAME_SIZES, RGB)
    assert np.abs(scores_of(tmp_path / "run") - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("names", [("fc6", "fc8"), ("fc8", "fc6")], ids="-".join)
def test_heads_of_two_layers_go_by_their_names(tmp_path, names):
    """Both of 128 x 128, before the convolutions from the last to the first."""
    rng = np.random.default_rng(1)
    first, last = (rng.normal(0, (2 / 128) ** 0.5, (128, 128)).astype(np.float32) for _ in names)
    biases = rng.normal(0, 0.1, (2, 128)).astype(np.float32)
    head = {"fc6": [first, biases[0]], "fc8": [last, biases[1]]}
    convolutions = {
        name: values for name, values in reversed(foreign.numpy_layers(NET).items()) if name.startswith("conv")
    }
    file = write(tmp_path / "net.npz", "npz", {**{name: head[name] for name in names}, **convolutions})
    import_weights(file, tmp_path / "run", trained=BGR)
    pool5 = foreign.features(NET, foreign.caffe_pixels(RGB)).transpose(0, 2, 3, 1).reshape(len(RGB), -1)
    expected = np.maximum(pool5 @ first + biases[0], 0) @ last + biases[1]
    assert np.abs(scores_of(tmp_path / "run") - expected).max() < 1e-4 * np.abs(expected).max()


def test_nothing_in_a_pickle_is_run(tmp_path):
    mark = tmp_path / "mark"
    np.save(tmp_path / "a.npy", {"conv1_1": [np.ones(2), Payload(mark)]}, allow_pickle=True)
    with pytest.raises(ValueError, match=r"builtins\.exec and would run its code"):
        import_weights(tmp_path / "a.npy", tmp_path / "run")
    np.savez(tmp_path / "b.npz", conv1_1_W=np.array([Payload(mark)], dtype=object))
    with pytest.raises(ValueError, match="cannot be read"):
        import_weights(tmp_path / "b.npz", tmp_path / "run")
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(ValueError, match="cannot be read"):
        import_weights(tmp_path / "c.npy", tmp_path / "run")
    assert not mark.exists()


@pytest.mark.parametrize("content", [np.ones(3), {"conv1_1": "text"}, {"conv1_1": np.arange(3)}, [1, 2]])
def test_other_content_is_refused(tmp_path, content):
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy cannot be read: ") as caught:
        import_weights(tmp_path / "a.npy", tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_sizes_that_are_claimed_are_checked(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", conv1_1_W=np.zeros(30_000_000))
    with pytest.raises(ValueError, match="many times as much as its size allows"):
        import_weights(tmp_path / "bomb.npz", tmp_path / "run")
    file = write(tmp_path / "vgg16.npy", "lists")
    file.write_bytes(file.read_bytes().replace(b"K\x03K\x03K\x03K\x04", b"K\x03K\x03K\x03K\x7f"))
    with pytest.raises(ValueError, match="another size than it claims"):
        import_weights(file, tmp_path / "run")


@pytest.mark.parametrize("suffix", [".pkl", ".pb", ".tflite", ".t7", ".pt2", ".params"])
def test_other_kinds_are_named_with_the_way_out(tmp_path, suffix):
    (tmp_path / f"net{suffix}").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"is an? .*: .*(state_dict|Keras|savez|format)"):
        import_weights(tmp_path / f"net{suffix}", tmp_path / "run")
