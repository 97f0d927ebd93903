"""Exported files that are damaged, changed or hostile: what is refused, and that nothing in them runs."""

import json
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path

import exported_runs as shared
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from verydeep.conversion import export as exporting
from verydeep.exported_networks import exported
from verydeep.exported_networks.exported import load_exported
from verydeep.exported_networks.metadata import KEY, SHA256, UNSTATED, Metadata, metadata_of, state_checksum
from verydeep.exported_networks.onnx import _compute_by_onnxruntime
from verydeep.exported_networks.openvino import _compute_by_openvino
from verydeep.runs.model import load_model

FILES = shared.FILES
network, images = shared.network, shared.images


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a run, its network and the folder of one file of each kind."""
    folder = tmp_path_factory.mktemp("tiny")
    run = shared.saved(network("A"), folder / "run")
    model = load_model(run)
    for to, name in FILES.items():
        exporting.write_exported(model, folder / name, to=to)
    return run, model.net, folder


def copies(folder, place):
    for name in (*FILES.values(), *map(shared.BESIDE.get, FILES.values())):
        if name:
            shutil.copy(folder / name, place / name)


@pytest.mark.parametrize("name", FILES.values())
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.99])
def test_truncated_files_are_refused_in_one_line(tiny, tmp_path, name, share):
    copies(tiny[2], tmp_path)
    for file in (name, shared.BESIDE[name]) if name in shared.BESIDE else (name,):
        copies(tiny[2], tmp_path)
        whole = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=rf"^.*{name} cannot be used: .*$") as refusal:
            load_exported(tmp_path / name)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", FILES.values())
def test_changed_weights_are_noticed(tiny, tmp_path, name):
    for seed in range(8):
        copies(tiny[2], tmp_path)
        file = tmp_path / shared.BESIDE.get(name, name)
        data = bytearray(file.read_bytes())
        first, last = len(data) // 4, len(data) // 2  # all weights there
        if name == "net.pt2":  # with much else between them
            with zipfile.ZipFile(file) as archive:
                stored = [entry for entry in archive.infolist() if "/data/weights/weight" in entry.filename]
                weights = archive.read(max(stored, key=lambda entry: entry.file_size))
            first = data.find(weights)
            last = first + len(weights)
        data[np.random.default_rng(seed).integers(first, last)] ^= 1
        file.write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} cannot be used: "):
            load_exported(tmp_path / name)


def test_foreign_files_are_refused_by_what_is_missing(tiny, tmp_path):
    import openvino

    copies(tiny[2], tmp_path)
    model = onnx.load(tmp_path / "net.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "net.onnx")
    openvino.save_model(openvino.Core().read_model(tmp_path / "net.onnx"), tmp_path / "net.xml")
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.ones(2),)), tmp_path / "net.pt2")
    (tmp_path / "net.ncnn.param").write_text("7767517\n1 1\nInput images 0 1 images\n")
    for name in FILES.values():
        with pytest.raises(ValueError, match=f"{name} cannot be used: it has no metadata 'verydeep'"):
            load_exported(tmp_path / name)
    (tmp_path / "photo.jpg").write_bytes(b"jpeg")
    with pytest.raises(ValueError, match="neither a run folder nor an exported network"):
        load_exported(tmp_path / "photo.jpg")


def saved_onnx(model, file):
    """With the SHA-256 that it has as it is now."""
    next(entry for entry in model.metadata_props if entry.key == SHA256).value = UNSTATED
    file.write_bytes(model.SerializeToString())
    state_checksum(file)


def outside(name="outside"):
    """A tensor whose values are in another file, which could be any of the machine."""
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[3])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="outside")
    return tensor


def node(**attributes):
    return onnx.helper.make_node("Constant", [], ["value"], **attributes)


def graph(*nodes):
    value = onnx.helper.make_tensor_value_info("value", onnx.TensorProto.FLOAT, [3])
    return onnx.helper.make_graph(nodes, "inner", [], [value])


def sparse():
    return onnx.helper.make_sparse_tensor(outside(), onnx.numpy_helper.from_array(np.arange(3), "indices"), [3])


def an_initializer(model):
    next(one for one in model.graph.initializer if one.name == "fc8.bias").CopyFrom(outside("fc8.bias"))


def a_constant(model):
    """In place of the bias."""
    del model.graph.initializer[[one.name for one in model.graph.initializer].index("fc8.bias")]
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["fc8.bias"], value=outside()))


def a_function(model):
    opsets = [onnx.helper.make_opsetid("", 18)]
    model.functions.append(onnx.helper.make_function("own", "f", [], ["value"], [node(value=outside())], opsets))


def tensors_of_an_attribute(model):
    attribute = model.graph.node[0].attribute.add(name="many", type=onnx.AttributeProto.TENSORS)
    attribute.tensors.append(outside())


HIDDEN = (
    an_initializer,
    a_constant,
    a_function,
    tensors_of_an_attribute,
    lambda model: model.graph.sparse_initializer.append(sparse()),
    lambda model: model.graph.node.append(node(sparse_value=sparse())),
    lambda model: model.graph.node.append(
        onnx.helper.make_node("If", ["c"], ["v"], then_branch=graph(node(value=outside())))
    ),
)


@pytest.mark.parametrize("hide", HIDDEN)
def test_weights_in_other_files_are_refused(tiny, tmp_path, hide):
    (tmp_path / "outside").write_bytes(bytes(12))
    model = onnx.load(tiny[2] / "net.onnx")
    hide(model)
    saved_onnx(model, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="its weights are in other files"):
        load_exported(tmp_path / "net.onnx")
    if hide in (an_initializer, a_constant):
        onnxruntime.InferenceSession(tmp_path / "net.onnx")  # which would read them


def endless(model):
    """A loop of 2**60 rounds that hands its input on."""
    identity = onnx.helper.make_node("Identity", ["c_in"], ["c_out"])
    boolean = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, []) for name in ("c_in", "c_out")]
    count = onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [])
    body = onnx.helper.make_graph([identity], "body", [count, boolean[0]], [boolean[1]])
    for value in (np.int64(2**60), np.bool_(True)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), value.dtype.name))
    model.graph.node.append(onnx.helper.make_node("Loop", ["int64", "bool"], [], body=body))


def of_another_domain(model):
    model.graph.node[0].domain = "com.example"


def filled(model):
    shape = onnx.numpy_helper.from_array(np.array([2**20, 2**20]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["shape"], ["large"]))


def huge(model):
    model.graph.initializer[1].dims[:] = [10 * 2**30]


def negative(model):
    model.graph.initializer[1].dims[:] = [-1]


FOREIGN = {
    endless: "operators that verydeep export does not write: Loop$",
    of_another_domain: r"operators that verydeep export does not write: com\.example\.Sub$",
    filled: "operators that verydeep export does not write: ConstantOfShape$",
    huge: "a tensor in it, .*, claims 10737418240 values, more than [0-9,]+ bytes can hold",
    negative: "a tensor in it, .*, claims -1 values",
}


@pytest.mark.parametrize("change", FOREIGN)
def test_a_graph_that_export_does_not_write_never_reaches_the_runtime(tiny, tmp_path, monkeypatch, change):
    model = onnx.load(tiny[2] / "net.onnx")
    change(model)
    saved_onnx(model, tmp_path / "net.onnx")
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    with pytest.raises(ValueError, match=FOREIGN[change]):
        load_exported(tmp_path / "net.onnx")


@pytest.mark.parametrize("operator", ["Loop", "TensorIterator", "If", "ReadValue"])
def test_an_xml_with_other_operators_never_reaches_the_runtime(tiny, tmp_path, monkeypatch, operator):
    """Its SHA-256 is right, as anybody can make it."""
    import openvino

    copies(tiny[2], tmp_path)
    file = tmp_path / "net.xml"
    stated = re.search(rf'<{SHA256} value="(\w+)"', file.read_text()).group(1)
    file.write_text(file.read_text().replace('type="ReLU"', f'type="{operator}"', 1).replace(stated, UNSTATED))
    state_checksum(file)
    monkeypatch.setattr(openvino, "Core", None)
    with pytest.raises(ValueError, match=f"operators that verydeep export does not write: {operator}$"):
        load_exported(file)


@pytest.mark.parametrize("name", ["net.onnx", "net.xml", "net.ncnn.param"])
@pytest.mark.parametrize("of_the_weights", [False, True])
def test_a_file_that_is_replaced_while_it_is_opened_is_refused(tiny, tmp_path, monkeypatch, name, of_the_weights):
    """Otherwise the classes of one network would name the scores of another."""
    copies(tiny[2], tmp_path)
    replaced = tmp_path / (shared.BESIDE.get(name, name) if of_the_weights else name)
    load_exported(tmp_path / name)

    def replace(*arguments, net=exported.checked_net):
        (tmp_path / "other").write_bytes(replaced.read_bytes())
        (tmp_path / "other").replace(replaced)
        return net(*arguments)

    for module in ("onnx", "openvino", "ncnn"):
        monkeypatch.setattr(f"verydeep.exported_networks.{module}.checked_net", replace)
    with pytest.raises(ValueError, match=rf"{name} cannot be used: it was replaced while it was opened: try again"):
        load_exported(tmp_path / name)


def another_operator(model):
    next(one for one in model.graph.node if one.op_type == "Relu").op_type = "Abs"


def another_attribute(model):
    next(one for one in model.graph.node if one.op_type == "MaxPool").attribute[0].ints[0] = 1


def another_class(model):
    stated = next(entry for entry in model.metadata_props if entry.key == KEY)
    stated.value = stated.value.replace("dark", "bark")


@pytest.mark.parametrize("change", [another_operator, another_attribute, another_class])
def test_a_changed_graph_is_noticed(tiny, tmp_path, change):
    model = onnx.load(tiny[2] / "net.onnx")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    load_exported(tmp_path / "net.onnx")
    change(model)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"net.onnx cannot be used: it has changed since it was exported"):
        load_exported(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("old", "new"), [('type="ReLU"', 'type="Abs"'), ("dark", "bark"), ('kernel="2, 2"', 'kernel="1, 2"')]
)
def test_a_changed_xml_is_noticed(tiny, tmp_path, old, new):
    copies(tiny[2], tmp_path)
    text = (tmp_path / "net.xml").read_text()
    assert old in text
    (tmp_path / "net.xml").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"net.xml cannot be used: it has changed since it was exported"):
        load_exported(tmp_path / "net.xml")


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["dark", "light"]}, "say 2 classes at crop 32, but its scores have the shapes (1, 3)"),
        ({"classes": list("abcd")}, "say 4 classes"),
        ({"crop": 64}, "say 3 classes at crop 64"),
        ({"crop": 33}, "crop 33 is not a multiple of 32"),
        ({"crop": 10**30 * 32}, "a number of 32 digits"),
        ({"crop": None}, "cannot be read"),
        ({"width": 0}, "width must be a positive number"),
        ({"width": "wide"}, "cannot be read"),
        ({"mean_rgb": [1.0]}, "mean_rgb: a list of length 3 expected, not 1"),
        ({"scale": 256}, "cannot be read"),
    ],
)
def test_metadata_that_do_not_fit_the_graph_are_refused(tiny, tmp_path, monkeypatch, to, change, message):
    """Written with a right SHA-256, by a program that is wrong."""
    run, *_ = tiny
    metadata = metadata_of(load_model(run), int8=False)
    wrong = json.dumps({**json.loads(metadata.to_json()), **change})
    monkeypatch.setattr(Metadata, "to_json", lambda _: wrong)
    exporting.write_exported(load_model(run), tmp_path / FILES[to], to=to)
    with pytest.raises(ValueError, match=f"{FILES[to]} cannot be used: .*{re.escape(message)}"):
        load_exported(tmp_path / FILES[to])


def test_what_a_runtime_refuses_is_said_in_one_line(tiny, tmp_path, capfd):
    """When the file is read, and when it computes."""
    import openvino

    model = onnx.load(tiny[2] / "net.onnx")
    next(one for one in model.graph.node if one.op_type == "Relu").input.append("images")
    saved_onnx(model, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"^.*cannot be used: the runtime cannot compute net.onnx: .*input.*$"):
        load_exported(tmp_path / "net.onnx")
    four_channels = np.zeros((1, 4, 32, 32), np.float32)
    file = tiny[2] / "net.xml"
    by_openvino = _compute_by_openvino(file, openvino.Core().read_model(file))
    for compute, name in ((_compute_by_onnxruntime(tiny[2] / "net.onnx"), "net.onnx"), (by_openvino, "net.xml")):
        with pytest.raises(ValueError, match=rf"^the runtime cannot compute {name}: .*$"):
            compute(four_channels)
    assert capfd.readouterr() == ("", "")


class Payload:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def rewritten(file, change):
    """A .pt2 with other contents under some names."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for name, data in change(entries).items():
        entries[name] = data
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_a_program_never_runs_what_is_in_it(tiny, tmp_path):
    """Payloads as pickles and as an expression: PyTorch runs both, here neither is looked at."""
    copies(tiny[2], tmp_path)
    touched = tmp_path / "touched"

    def pickled(entries):
        config = next(name for name in entries if name.endswith("weights_config.json"))
        table = json.loads(entries[config])
        first = table["config"]["net.conv1_1.weight"]
        first["use_pickle"] = True
        place = f"{config.rpartition('/')[0]}/{first['path_name']}"
        return {config: json.dumps(table).encode(), place: pickle.dumps(Payload(touched))}

    def expression(entries):
        graph = next(name for name in entries if name.endswith("models/model.json"))
        code = f"__import__('pathlib').Path({str(touched)!r}).touch()"
        found = re.sub(r'"expr_str": "[^"]*"', lambda _: '"expr_str": ' + json.dumps(code), entries[graph].decode())
        return {graph: found.encode()}

    for change, usable in ((pickled, False), (expression, True)):
        copies(tiny[2], tmp_path)
        rewritten(tmp_path / "net.pt2", change)
        with nullcontext() if usable else pytest.raises(ValueError, match="is not stored as"):
            load_exported(tmp_path / "net.pt2")
        assert not touched.exists()
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it says, it has run
            torch.export.load(tmp_path / "net.pt2")
        assert touched.exists(), "the payload is none"
        touched.unlink()


NO_TELEMETRY = """
import sys
from pathlib import Path
import torch
from verydeep.exported_networks.exported import write_exported
from verydeep.runs.model import load_model
write_exported(load_model(sys.argv[1]), Path(sys.argv[2]), to="openvino", calibration=[torch.zeros(3, 32, 32)])
assert {"openvino", "nncf"} <= sys.modules.keys()
assert "openvino_telemetry" not in sys.modules
"""


def test_no_telemetry_is_imported(tiny, tmp_path):
    """Nor while NNCF quantises, which would tell of that. In a process of its own, where nobody else imports it."""
    subprocess.run(
        [sys.executable, "-c", NO_TELEMETRY, str(tiny[0]), str(tmp_path / "net.xml")], check=True, timeout=300
    )


def test_a_network_that_was_computed_with_is_written_without_a_warning(tiny, tmp_path):
    """Computing moves its weights to another order in memory, of which torch.export warns."""
    model = load_model(tiny[0])
    model.net.to(memory_format=torch.channels_last)
    exporting.write_exported(model, tmp_path / "net.pt2", to="torch")
    assert not model.net.conv2_1.weight.is_contiguous(), "the model itself stays as it was"
    copied, (given, _) = load_exported(tmp_path / "net.pt2").net.state_dict(), tiny[1:]
    assert all(torch.equal(copied[name], value) for name, value in given.state_dict().items())


def test_other_devices_are_refused(tiny):
    *_, folder = tiny
    assert load_exported(folder / "net.onnx", "auto").net.mean_rgb.device.type == "cpu"
    with pytest.raises(ValueError, match="computes on the CPU"):
        load_exported(folder / "net.onnx").net.to("meta")
    net = load_exported(folder / "net.onnx").net
    with pytest.raises(ValueError, match=re.escape("images must be [B, 3, 32, 32]")):
        net(images(1, 33, 32))
    with pytest.raises(ValueError, match="sides from 32"):
        net.score_map(images(1, 31, 40))
