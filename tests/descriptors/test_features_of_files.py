"""Features of exported files against those of their runs, layer by layer, and against what files say wrongly."""

import json
import shutil
from dataclasses import replace

import exported_runs as shared
import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from several_commands import refusal, status_of

import verydeep.descriptors.extraction
from verydeep import Descriptor, features, write_features
from verydeep.descriptors import chunks
from verydeep.exported_networks.exported import load_exported, write_exported
from verydeep.exported_networks.metadata import SHA256, UNSTATED, Metadata, metadata_of, state_checksum
from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.machine.libraries import library
from verydeep.machine.runtime import multiplies_in_bfloat16
from verydeep.runs.model import Model, load_model

FILES = shared.FILES
GRAPHS = [name for name in FILES.values() if name != "net.pt2"]
LAYERS = ("conv2_1", "relu3_2", "pool5", "fc7", "relu7")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a run, the folder of one file of each kind, also in INT8, and pictures of three sizes."""
    folder = tmp_path_factory.mktemp("exported")
    run, rng = shared.saved(shared.network("A"), folder / "run"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number, size in enumerate([(40, 46), (61, 50), (40, 46), (33, 70)]):
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(folder / "photos" / f"{number}.png")
    model, seen = load_model(run), list(shared.images(3, 70, 70).byte())
    for to, name in FILES.items():
        write_exported(model, folder / name, to=to)
    for to in ("onnx", "openvino"):
        write_exported(model, folder / f"int8-{FILES[to]}", to=to, calibration=seen)
    return run, folder, folder / "photos"


def of_all(run, data, **chosen):
    """Return the values of each layer for all images, [N, ...]."""
    found = list(features(run, data, descriptor=Descriptor(**{"layers": LAYERS, **chosen})))
    return {name: np.stack([one.values[name] for one in found]) for name in found[0].values}


def differences(found, expected):
    """Return how far each layer is off, of its largest value; fail where shapes or names differ."""
    assert {name: values.shape for name, values in found.items()} == {
        name: values.shape for name, values in expected.items()
    }
    return {name: np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max() for name in expected}


@pytest.mark.parametrize("name", FILES.values())
@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"scales": (224, 288), "mirror": True, "normalise": True},
        {"scales": (224, 384), "pool": "stack", "mirror": False},
        {"pool": "none"},
        {"layers": ("relu7",)},
    ],
)
def test_features_of_a_file_are_those_of_its_run(made, name, chosen):
    run, folder, photos = made
    assert max(differences(of_all(folder / name, photos, **chosen), of_all(run, photos, **chosen)).values()) < 1e-4


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(("network", "batch_norm"), [("A-LRN", False), ("C", True)])
def test_every_layer_of_a_file_is_the_runs(tmp_path, name, network, batch_norm):
    """Batch normalisation is in its convolution's weights, so a file has only the two together."""
    model = Model(
        net=shared.network(network, 64, batch_norm=batch_norm), classes=shared.CLASSES, scale="256", flip=True
    )
    write_exported(model, tmp_path / name, to=next(to for to, file in FILES.items() if file == name))
    net, images = load_exported(tmp_path / name).net, shared.images(2, 97, 131)
    missing = [layer for layer in model.net.layer_names if layer not in net.layer_names]
    assert missing == [layer for layer in model.net.layer_names if batch_norm and layer.startswith("conv")]
    with torch.inference_mode():
        for dense, x in ((True, images), (False, images[:, :, :64, :64])):
            expected = model.net.activations(x, net.layer_names, dense=dense)
            for layer, values in net.activations(x, net.layer_names, dense=dense).items():
                assert shared.difference(values, expected[layer]) < 1e-4, layer
        assert list(net.activations(images, ["relu7", "pool1"], dense=True)) == ["relu7", "pool1"]
        assert shared.difference(net.score_map(images), model.net.score_map(images)) < 1e-4, "after layers too"
    if batch_norm:
        with pytest.raises(ValueError, match=rf"^.*{name} has no conv1_1 apart from other layers: .* bn1_1, relu1_1, "):
            features(tmp_path / name, [np.zeros((70, 70, 3), np.uint8)], descriptor=Descriptor(layers=["conv1_1"]))


def test_int8_is_told_as_such_and_is_near_the_run(made, tmp_path, capsys):
    run, folder, photos = made
    layers = ("relu1_1", "relu3_2", "pool5", "fc7", "relu7")
    expected = of_all(run, photos, layers=layers)
    for name in ("int8-net.onnx", "int8-net.xml"):
        found = of_all(folder / name, photos, layers=layers)
        off = differences(found, expected)
        assert 1e-4 < min(off.values()) <= max(off.values()) < 0.1, (name, off)
        assert found["relu1_1"].min() >= 0
        out = tmp_path / "f.safetensors"
        assert status_of("features", folder / name, photos, "--out", out, "--json", tmp_path / "f.json") == 0
        assert json.loads((tmp_path / "f.json").read_text())["precision"] == "int8"
        with safe_open(out, "numpy") as opened:
            about = {key: json.loads(text) for key, text in opened.metadata().items()}
        assert about["precision"] == "int8"
        assert about["exported"] == list(load_exported(folder / name).exported)
        assert status_of("features", folder / name, photos, "--out", out) == 0
        assert ", computed in INT8" in " ".join(capsys.readouterr().out.split())


def test_a_relu_that_is_in_the_rounding_is_not_taken_from_the_tensor_of_its_name(made, capsys):
    """ONNX Runtime leaves the name of the ReLU that it takes out to the convolution, whose numbers may be negative."""
    _, folder, photos = made
    model, x = onnx.load(folder / "int8-net.onnx"), shared.images(2, 45, 77)
    named = next(node for node in model.graph.node if "relu3_2" in node.output)
    assert named.op_type == "Conv"
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name="relu3_2"))
    session = library("onnxruntime").InferenceSession(model.SerializeToString())
    (by_name,) = session.run(["relu3_2"], {"images": x.numpy()})
    assert by_name.min() < -1e-2 * by_name.max()
    found = load_exported(folder / "int8-net.onnx").net.activations(x, ["relu3_2"], dense=True)["relu3_2"].numpy()
    step = found[found > 0].min()
    assert np.abs(found - np.clip(by_name, 0, found.max())).max() <= 0.51 * step
    told = refusal(
        capsys, "features", folder / "int8-net.onnx", photos, "--out", folder / "f.parquet", "--layers", "conv3_2,fc7"
    )
    assert "int8-net.onnx has no conv3_2 apart from other layers: name the run" in told
    assert "of its layers relu1_1, pool1, relu2_1," in told
    assert "fc6, relu6, drop6, fc7, relu7, drop7, fc8" in told


@pytest.mark.skipif(not multiplies_in_bfloat16(), reason="this processor does not multiply in bfloat16")
def test_bfloat16_is_told_as_such_and_is_near_the_run(made, tmp_path):
    run, _, photos = made
    write_exported(load_model(run), tmp_path / "net.xml", to="openvino", bf16=True)
    off = differences(of_all(tmp_path / "net.xml", photos), of_all(run, photos))
    assert 1e-4 < max(off.values()) < 0.05
    assert write_features(tmp_path / "net.xml", photos, tmp_path / "f.parquet").precision == "bf16"


def test_other_grids_sizes_and_names_are_refused(made):
    _, folder, photos = made
    net, images = load_exported(folder / "net.onnx").net, shared.images(1, 45, 77)
    for grid in ("floor", "ceil"):
        with pytest.raises(ValueError, match="has the centred grid only"):
            net.activations(images, ["relu7"], dense=True, grid=grid)
    with pytest.raises(ValueError, match="use dense=True"):
        net.activations(images, ["relu7"])
    with pytest.raises(ValueError, match="sides from 32"):
        net.activations(images[:, :, :31], ["relu7"], dense=True)
    for name in ("images", "score_map", "logits", "fc7_product", "pool1_grid", "fc7.weight", "../relu7", "", "relu7\n"):
        with pytest.raises(ValueError, match=r"^no layer '.*': this file gives conv1_1, "):
            net.activations(images, [name], dense=True)
        with pytest.raises(ValueError, match=r"^no layer '.*': this network has conv1_1, "):
            features(folder / "net.onnx", photos, descriptor=Descriptor(layers=[name]))


# --- hostile and changed files ---


def changed_onnx(made, tmp_path, change):
    """Return a copy of the file whose graph is another one, with the SHA-256 that it has now."""
    model, file = onnx.load(made[1] / "net.onnx"), tmp_path / "net.onnx"
    change(model.graph)
    next(entry for entry in model.metadata_props if entry.key == SHA256).value = UNSTATED
    file.write_bytes(model.SerializeToString())
    state_checksum(file)
    return file


def exchanged_names(graph):
    """Call relu6 relu7 and relu7 relu6, wherever they are."""
    other = {"relu6": "relu7", "relu7": "relu6"}
    for node in graph.node:
        node.input[:] = [other.get(name, name) for name in node.input]
        node.output[:] = [other.get(name, name) for name in node.output]


def one_relu_more(graph):
    place = next(place for place, node in enumerate(graph.node) if node.output[0] == "pool2")
    graph.node.insert(place + 1, onnx.helper.make_node("Relu", ["pool2"], ["more"]))
    graph.node[place + 2].input[0] = "more"


def beside_the_way(graph):
    """Give the name of a layer to a node that nothing takes anything from."""
    next(node for node in graph.node if node.output[0] == "relu7").output[0] = "other"
    next(node for node in graph.node if "relu7" in node.input).input[0] = "other"
    graph.node.append(onnx.helper.make_node("Relu", ["relu6"], ["relu7"]))


@pytest.mark.parametrize("change", [exchanged_names, beside_the_way])
def test_layers_are_known_by_their_order_and_not_by_their_names(made, tmp_path, change):
    run, _, photos = made
    chosen = {"layers": ("relu6", "relu7")}
    found = of_all(changed_onnx(made, tmp_path, change), photos, **chosen)
    assert max(differences(found, of_all(run, photos, **chosen)).values()) < 1e-4


def test_layers_of_another_graph_are_refused(made, tmp_path):
    file = changed_onnx(made, tmp_path, one_relu_more)
    assert load_exported(file).net.score_map(shared.images(1, 40, 40)).shape == (1, 3, 1, 1)
    with pytest.raises(ValueError, match=r"^the graph in .*net.onnx is unknown, so its layers are too: name the run"):
        features(file, made[2])


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_layers_of_other_sizes_than_the_metadata_say_are_refused(made, tmp_path, monkeypatch, to):
    """The scores of networks of all widths have the same shape."""
    wider = json.dumps({**json.loads(metadata_of(load_model(made[0]), int8=False).to_json()), "width": 0.125})
    monkeypatch.setattr(Metadata, "to_json", lambda _: wider)
    write_exported(load_model(made[0]), tmp_path / FILES[to], to=to)
    with pytest.raises(ValueError, match=rf"{FILES[to]} cannot be used: relu7 of a crop is \[512, 1, 1\] by"):
        list(features(tmp_path / FILES[to], made[2]))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_file_that_changes_before_its_layers_are_computed_is_refused(made, tmp_path, name):
    _, folder, _ = made
    for file in (name, shared.BESIDE.get(name)):
        if file:
            shutil.copy(folder / file, tmp_path / file)
    net = load_exported(tmp_path / name).net
    other = Model(net=shared.network("A"), classes=("a", "b", "c"), scale="256", flip=True)
    write_exported(other, tmp_path / name, to=next(to for to, file in FILES.items() if file == name))
    for compute in (lambda x: net.activations(x, ["relu7"]), net.forward):
        with pytest.raises(ValueError, match=rf"{name} cannot be used: it has changed since it was opened$"):
            compute(shared.images(1, 32, 32))


# --- what is kept ---


def test_chunks_of_a_run_and_of_its_files_are_kept_apart(made, tmp_path, monkeypatch):
    run, folder, photos = made
    monkeypatch.setattr(verydeep.descriptors.extraction, "IMAGES_AT_ONCE_ON_CPU", 2)
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "4.png").write_bytes(b"broken")
    out, of_files = tmp_path / "f.safetensors", [folder / name for name in (*FILES.values(), "int8-net.onnx")]
    for number, one in enumerate([run, load_model(run), *of_files], 1):
        with pytest.raises(TooManyBadImagesError):
            write_features(one, tmp_path / "photos", out)
        assert len({chunk.parent for chunk in chunks.folder(out).glob("*/*")}) == number
    (tmp_path / "photos" / "4.png").unlink()
    for one in (folder / "int8-net.onnx", load_exported(folder / "int8-net.onnx")):
        write_features(one, tmp_path / "photos", out)
        assert np.array_equal(load_file(out)["relu7"], of_all(one, photos, layers=("relu7",))["relu7"])


def test_a_runtime_of_another_version_is_another_origin(made, tmp_path):
    _, folder, photos = made
    told, model = [], load_exported(folder / "net.onnx")
    sha256, runtime = model.exported
    assert runtime.startswith("onnxruntime ")
    for one in (model, replace(model, exported=(sha256, "onnxruntime 0.1"))):
        write_features(one, photos, tmp_path / "f.safetensors")
        with safe_open(tmp_path / "f.safetensors", "numpy") as opened:
            told.append(json.loads(opened.metadata()["exported"]))
    assert told == [[sha256, runtime], [sha256, "onnxruntime 0.1"]]
