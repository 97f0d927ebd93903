"""ncnn files: what is in them, and that of a foreign one only the numbers are used."""

import json
import re
import sys

import exported_runs as shared
import numpy as np
import pytest
import torch

from verydeep.exported_networks import ncnn as ncnn_files
from verydeep.exported_networks.exported import load_exported, write_exported
from verydeep.exported_networks.metadata import KEY, SHA256, UNSTATED, Metadata, metadata_of, state_checksum
from verydeep.runs.model import Model

ncnn = pytest.importorskip("ncnn")

CLASSES = ("dark = night", "grün", "light\n")


@pytest.fixture(scope="module")
def model():
    return Model(net=shared.network("A", batch_norm=True), classes=CLASSES, scale="256", flip=True)


@pytest.fixture
def file(model, tmp_path):
    write_exported(model, tmp_path / "net.ncnn.param", to="ncnn")
    return tmp_path / "net.ncnn.param"


def test_weights_are_in_the_order_of_the_layers_with_a_word_before_each(file, model):
    """Read by hand: four zeros stand before weights, nothing before biases."""
    data = file.with_suffix(".bin").read_bytes()
    found, place = [], 0
    for size in (3, 108, 4, 288):
        place += 4 * (size in (108, 288))
        found.append(torch.frombuffer(bytearray(data[place : place + 4 * size]), dtype=torch.float32))
        place += 4 * size
    net = model.net
    factor = net.bn1_1.weight / (net.bn1_1.running_var + net.bn1_1.eps).sqrt()
    assert torch.equal(found[0], -net.mean_rgb)
    assert torch.allclose(found[1].view(4, 3, 3, 3), net.conv1_1.weight * factor[:, None, None, None])
    assert torch.allclose(found[2], (net.conv1_1.bias - net.bn1_1.running_mean) * factor + net.bn1_1.bias)
    last = 4 * (net.fc8.weight.numel() + len(net.fc8.bias))
    assert data[-last:] == net.fc8.weight.detach().numpy().tobytes() + net.fc8.bias.detach().numpy().tobytes()


def test_every_line_is_a_layer_as_other_programs_read_it(file):
    """Kind, name, counts, blobs, and parameters with one equals sign each, also in what ncnn does not read."""
    lines = file.read_text("ascii").splitlines()
    assert lines[0] == "7767517"
    layers, blobs = map(int, lines[1].split())
    read = [line.split(" ") for line in lines[2:]]
    outputs = []
    for kind, name, given, gives, *others in read:
        blobs_there, parameters = others[: int(given) + int(gives)], others[int(given) + int(gives) :]
        assert (kind[0].isupper(), bool(name)) == (True, True)
        assert set(blobs_there[: int(given)]) <= set(outputs)
        assert all(parameter.count("=") == 1 for parameter in parameters)
        outputs += blobs_there[int(given) :]
    assert (len(read), len(outputs)) == (layers + 2, blobs)
    assert [fields[1] for fields in read[layers:]] == [KEY, SHA256]
    assert json.loads(read[layers][4].partition("=")[2])["classes"] == list(CLASSES)
    assert load_exported(file).classes == CLASSES


def test_layers_have_the_names_of_the_paper(file, model):
    net = ncnn.Net()
    net.opt.num_threads, net.opt.use_fp16_storage = 1, False
    net.load_param(str(file))
    net.load_model(str(file.with_suffix(".bin")))
    image = shared.images(1, 45, 77)
    with torch.inference_mode():
        expected = model.net.activations(image, ["relu1_1", "pool2", "relu5_2", "relu7", "fc8"], dense=True)
    for name, values in expected.items():
        extractor = net.create_extractor()
        extractor.input("images", ncnn.Mat(image[0].numpy()).clone())
        assert shared.difference(torch.from_numpy(np.array(extractor.extract(name)[1]))[None], values) < 1e-4


def test_it_computes_in_float32_with_as_many_threads_as_pytorch(file, monkeypatch):
    made, build = [], ncnn.Net
    monkeypatch.setattr(ncnn, "Net", lambda: made.append(build()) or made[-1])
    load_exported(file)
    options = made[0].opt
    assert options.num_threads == torch.get_num_threads()
    assert not options.use_fp16_packed | options.use_fp16_storage | options.use_fp16_arithmetic
    assert not options.use_bf16_storage | options.use_vulkan_compute


def test_each_image_of_a_batch_has_the_scores_that_it_has_alone(file):
    net, x = load_exported(file).net, shared.images(3, 45, 61)
    assert torch.equal(net.score_map(x), torch.cat([net.score_map(one[None]) for one in x]))


# --- foreign files ---


def restated(file):
    """Give a file the SHA-256 that it has as it is now."""
    file.write_text(re.sub(rf"({SHA256} 0 0 0=)\w+", rf"\g<1>{UNSTATED}", file.read_text()))
    state_checksum(file)


@pytest.mark.parametrize(
    ("old", "new"), [("5=1", "5=0"), ("1=3", "1=1"), ("gr", "Gr"), ("rshift(1h,2)", "rshift(1h,3)")]
)
def test_a_changed_graph_is_noticed(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"net.ncnn.param cannot be used: it has changed since it was exported"):
        load_exported(file)


@pytest.mark.parametrize("line", ["MemoryData huge 0 1 huge 0=2147483647 1=1000", "NoSuchLayer conv1_1 0 1 pool1"])
def test_a_graph_of_others_never_reaches_the_runtime(file, model, line):
    """Not even one that states a right SHA-256: the network is the one of the metadata."""
    lines = file.read_text().splitlines()
    lines[3:6] = [line]
    file.write_text("\n".join([*lines, ""]))
    restated(file)
    x = shared.images(1, 45, 61)
    with torch.inference_mode():
        assert shared.difference(load_exported(file).net.score_map(x), model.net.score_map(x)) < 1e-4
    if line.startswith("NoSuchLayer"):
        with pytest.raises(ValueError, match=r"the runtime cannot compute net.ncnn.param: ncnn ends with -\d+"):
            ncnn_files.reread(file)


def test_weights_in_fewer_bits_never_reach_the_runtime(file, monkeypatch):
    """A word before weights tells ncnn how to read them; it believes it, and reads elsewhere."""
    weights = file.with_suffix(".bin")
    data = bytearray(weights.read_bytes())
    data[12:16] = (0x000D4B38).to_bytes(4, "little")
    weights.write_bytes(data)
    restated(file)
    monkeypatch.setattr(ncnn, "Net", None)
    with pytest.raises(ValueError, match=r"net.ncnn.bin has weights that are not in float32"):
        load_exported(file)


@pytest.mark.parametrize("change", [lambda data: data[:-4], lambda data: data + bytes(4)])
def test_weights_of_another_size_never_reach_the_runtime(file, monkeypatch, change):
    weights = file.with_suffix(".bin")
    weights.write_bytes(change(weights.read_bytes()))
    restated(file)
    monkeypatch.setattr(ncnn, "Net", None)
    with pytest.raises(ValueError, match=r"has 4[0-9,]+ bytes of weights, net.ncnn.bin has 4[0-9,]+ bytes"):
        load_exported(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["dark", "light"]}, "the network of its metadata has"),
        ({"crop": 64}, "the network of its metadata has"),
        ({"network": "B"}, "the network of its metadata has"),
        ({"crop": 33}, "crop 33 is not a multiple of 32"),
        ({"width": 0}, "width must be a positive number"),
        ({"format": 99}, "a newer version of verydeep wrote it"),
    ],
)
def test_metadata_that_do_not_fit_the_weights_are_refused(model, tmp_path, monkeypatch, change, message):
    wrong = json.dumps({**json.loads(metadata_of(model, int8=False).to_json()), **change})
    monkeypatch.setattr(Metadata, "to_json", lambda _: wrong)
    write_exported(model, tmp_path / "net.ncnn.param", to="ncnn")
    with pytest.raises(ValueError, match=f"net.ncnn.param cannot be used: .*{re.escape(message)}"):
        load_exported(tmp_path / "net.ncnn.param")


def test_what_is_missing_is_named(file, monkeypatch):
    (file.parent / "net.param").write_text(file.read_text())
    with pytest.raises(ValueError, match=r"neither a run folder nor an exported network \(.*\.ncnn\.param"):
        load_exported(file.parent / "net.param")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ncnn", None)
        with pytest.raises(ValueError, match=re.escape("pip install 'verydeep[ncnn]'")):
            load_exported(file)
    file.with_suffix(".bin").unlink()
    with pytest.raises(ValueError, match=r"net.ncnn.param cannot be used: there is no net.ncnn.bin beside it"):
        load_exported(file)
