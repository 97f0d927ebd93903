"""Files of weights are like any other input: nothing in them is run, and damaged ones end in one line."""

import io
import json
import pickle
import random
import resource
import tarfile
from pathlib import Path

import foreign_weights as foreign
import numpy as np
import pytest
import torch
from damage import damaged
from onnx_models import as_pytorch
from pickled_code import Payload
from safetensors.torch import save_file

from verydeep import TrainedPreprocessing, import_weights, load
from verydeep.networks.foreign import reader_process
from verydeep.networks.foreign.weight_files import _READERS, _kind, read_weights
from verydeep.runs.foreign_model import foreign_model

# the pickle wall


def zipped(mark):
    """As torch.save writes it: an archive whose data.pkl is the payload."""
    buffer = io.BytesIO()
    torch.save({"features.0.weight": torch.ones(2), "epoch": Payload(mark)}, buffer)
    return buffer.getvalue()


def legacy(mark):
    buffer = io.BytesIO()
    torch.save(
        {"features.0.weight": torch.ones(2), "epoch": Payload(mark)}, buffer, _use_new_zipfile_serialization=False
    )
    return buffer.getvalue()


def oldest(mark):
    """A tar of pickles, as PyTorch wrote them at first."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(Payload(mark))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def bare(mark):
    return pickle.dumps(Payload(mark), protocol=2)


def objects(mark):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def metadata(mark):
    """A distributed checkpoint's `.metadata` is a pickle."""
    return pickle.dumps({"state_dict_metadata": Payload(mark)})


FORMS = (zipped, legacy, oldest, bare, objects, metadata)
SUFFIXES = (*_READERS, ".metadata")

SAME_FORMAT = {".pt", ".ckpt", ".bin", ".hdf5"}
"""Suffixes of files that are the same, byte for byte, under another one."""


@pytest.mark.parametrize("form", FORMS)
def test_the_payloads_do_run_where_nothing_guards(tmp_path, form):
    mark = tmp_path / "mark"
    content = io.BytesIO(form(mark))
    if form is objects:
        np.load(content, allow_pickle=True)
    elif form in (zipped, legacy):
        torch.load(content, weights_only=False)
    elif form is oldest:
        with tarfile.open(fileobj=content) as archive:
            pickle.load(archive.extractfile("pickle"))
    else:
        pickle.load(content)
    assert mark.exists()


def test_a_payload_never_runs_on_any_way_in(tmp_path, figure):
    mark, tried = tmp_path / "mark", 0
    for form in FORMS:
        content = form(mark)
        for suffix in SUFFIXES:
            file = tmp_path / f"weights{suffix}"
            file.write_bytes(content)
            with pytest.raises(ValueError, match="weights") as caught:
                import_weights(file, tmp_path / "run")
            assert "\n" not in str(caught.value)
            assert "weights_only" not in str(caught.value)  # no advice to open the wall
            tried += 1
        for name in ("model.safetensors", "pytorch_model.bin"):
            for config in ("{}", '{"network": "A"}', content):
                folder = tmp_path / "folder"
                folder.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
                (folder / "config.json").write_bytes(config if isinstance(config, bytes) else config.encode())
                with pytest.raises(ValueError, match=r"cannot be read|usable|neither|is not a run"):
                    import_weights(folder, tmp_path / "run")
                with pytest.raises(ValueError, match="does not hold a usable model"):
                    load(folder)
                tried += 2
            (folder / name).unlink()
    assert not mark.exists()
    assert not (tmp_path / "run").exists()
    figure(21, "pickle wall", f"{len(FORMS)} payloads on {tried} ways in: none ran")


# damaged files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small file of every format; they differ in what a library may have written."""
    folder, net = tmp_path_factory.mktemp("whole"), foreign.plain("A", window=1, classes=3)
    state = foreign.state_dict(net, "torchvision")
    torch.save(state, folder / "zip.pth")
    torch.save({"state_dict": state, "epoch": 1}, folder / "legacy.tar", _use_new_zipfile_serialization=False)
    save_file(foreign.state_dict(net, "timm"), folder / "timm.safetensors", metadata={"mean": "0.5,0.5,0.5"})
    index = {"weight_map": dict.fromkeys(state, SHARD)}
    (folder / "shards.safetensors.index.json").write_text(json.dumps(index))
    foreign.write_keras(net, folder / "legacy.h5", form="legacy")
    foreign.write_keras(net, folder / "whole.h5", form="whole")
    foreign.write_keras(net, folder / "new.weights.h5", form="new")
    foreign.write_keras(net, folder / "new.keras", form="archive")
    (folder / "new.inner.h5").unlink()
    (folder / "old.caffemodel").write_bytes(foreign.caffemodel(net, old=True))
    (folder / "new.caffemodel").write_bytes(foreign.caffemodel(net, old=False))
    foreign.write_matconvnet(net, folder / "old.mat", old=True)
    foreign.write_matconvnet(net, folder / "new.mat", old=False, classes=["a", "b", "c"], compress=True)
    layers = foreign.numpy_layers(net)
    for name, form in (("arrays.npz", "npz"), ("lists.npy", "lists"), ("pairs.npy", "dictionaries")):
        foreign.write_numpy(folder / name, form, layers)
    as_pytorch(net, folder / "inside.onnx", side=32)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    assert {_kind(Path(name)) for name in files} == _READERS.keys() - SAME_FORMAT
    return files


SHARD = "shard.safetensors"
"""The file that holds the arrays of the index among the whole files."""


@pytest.fixture
def beside(tmp_path):
    """Return a folder with the shard in it."""
    net = foreign.plain("A", window=1, classes=3)
    save_file(foreign.state_dict(net, "torchvision"), tmp_path / SHARD)
    return tmp_path


def outcome(file):
    """`read`, or the message of a ValueError or OSError on one line."""
    told, numpy = "read", file.suffix in (".npz", ".npy")
    try:
        foreign_model(read_weights(file), trained=TrainedPreprocessing(channels="bgr" if numpy else None))
    except UnicodeError:
        raise
    except (ValueError, OSError) as error:
        told = str(error)
    assert told.count("\n") == 0, told
    return told


def test_whole_files_are_read(whole, beside):
    for name, content in whole.items():
        file = beside / name
        file.write_bytes(content)
        assert outcome(file) == "read", name


def test_damaged_files_end_in_one_line(whole, battery, figure, beside, monkeypatch):
    monkeypatch.setattr(reader_process, "PATIENCE", 4.0)  # for a reader that hangs
    rng, read, given_up, whole_after_cut = random.Random(22), 0, 0, []
    quick = [name for name in whole if not name.endswith((".h5", ".keras", ".mat", ".npz", ".npy"))]
    slow = [name for name in whole if name not in quick]  # a process each
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 10_000 if battery else 150
    for number in range(count):
        name = rng.choice(quick if number % 10 else slow)
        content = damaged(whole[name], rng)
        file = beside / f"damaged-{name}"
        file.write_bytes(content)
        told = outcome(file)
        read += told == "read"
        if told == "read" and len(content) < len(whole[name]) and whole[name].startswith(content):
            whole_after_cut.append((name, len(whole[name]) - len(content)))
        given_up += "its reader" in told
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 600, f"{grown:.0f} MiB"
    assert read < 3 * count / 4
    assert not whole_after_cut  # a download that ended early is never taken for whole
    told = f"{count:,} damaged files of {len(whole)} kinds: {count - read:,} refused in one line, {read:,} still whole"
    figure(22, "loader fuzz", f"{told}; readers lost {given_up} times; {grown:.0f} MiB of memory more")
