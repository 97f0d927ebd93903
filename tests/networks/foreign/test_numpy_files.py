"""NumPy's files of weights: `.npz` with conv1_1_W, and `.npy` of a dictionary, which is a pickle."""

import pickle

import foreign_weights as foreign
import numpy as np
import pytest
import torch

from verydeep import TrainedPreprocessing, import_weights, load

RGB = foreign.images(64)
NET = foreign.plain("D", white=255)


def layers():
    """Kernels HWIO, rows of fc6 in h, w, c order, under the paper's names."""
    names = [f"conv{stage}_{position}" for stage, position, *_ in NET.convolutions] + ["fc6", "fc7", "fc8"]
    return {name: values for name, (_, *values) in zip(names, foreign.keras_layers(NET), strict=True)}


def write(path, form):
    if form == "npz":
        np.savez(
            path,
            **{f"{name}_{kind}": v for name, values in layers().items() for kind, v in zip("Wb", values, strict=True)},
        )
    elif form == "lists":
        np.save(path, layers(), allow_pickle=True)
    else:
        named = {name: dict(zip(("weights", "biases"), values, strict=True)) for name, values in layers().items()}
        np.save(path, named, allow_pickle=True)
    return path


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


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


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
