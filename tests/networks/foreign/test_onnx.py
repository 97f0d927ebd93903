"""ONNX graphs in the forms of PyTorch's, Keras' and the zoo's exporters give the scores that plain NumPy computes."""

import hashlib

import foreign_weights as foreign
import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
import onnx
from onnx_models import Graph, as_pytorch, convolutions

from verydeep import TakenWeights, TrainedPreprocessing, import_weights, load, load_model
from verydeep.networks.foreign import named_arrays

SIDE = 64
RGB = foreign.images(SIDE)
CAFFE_MEAN = np.array(foreign.RGB_MEAN[::-1], np.float32)


def as_the_zoo(net, path):
    """Its shape of a row is computed, its initialisers are inputs, and dropout stands in it."""
    graph = Graph([1, 3, SIDE, SIDE])
    convolutions(graph, net)
    pool5 = graph.last
    graph.nodes.append(onnx.helper.make_node("Shape", [pool5], ["shape"]))
    graph.constants += [
        onnx.numpy_helper.from_array(np.array(value), name) for name, value in (("zero", 0), ("all", [-1]))
    ]
    graph.nodes += [
        onnx.helper.make_node("Gather", ["shape", "zero"], ["count"]),
        onnx.helper.make_node("Unsqueeze", ["count", "zero"], ["counts"]),
        onnx.helper.make_node("Concat", ["counts", "all"], ["row"], axis=0),
        onnx.helper.make_node("Reshape", [pool5, "row"], ["rows"]),
    ]
    graph.last = "rows"
    for number, (weights, bias) in enumerate(net.connected):
        graph.add("Gemm", weights.reshape(len(weights), -1), bias, transB=1)
        if number < 2:
            graph.add("Relu")
            graph.add("Dropout")
    return graph.save(path, inputs=True)


def as_keras(net, path, *, end="Softmax"):
    """Images [B, H, W, 3] of which the graph itself makes BGR minus the mean; rows in h, w, c order."""
    graph = Graph(["batch", SIDE, SIDE, 3])
    graph.add("Slice", np.array([-1]), np.array([-(2**31)]), np.array([3]), np.array([-1]))
    graph.add("Add", -CAFFE_MEAN)
    graph.add("Transpose", perm=[0, 3, 1, 2])
    convolutions(graph, net, auto_pad="SAME_UPPER")
    graph.add("Transpose", perm=[0, 2, 3, 1])
    graph.add("Reshape", np.array([-1, net.connected[0][0].size // foreign.HIDDEN]))
    for number, (weights, bias) in enumerate(net.connected):
        kernel = weights.transpose(2, 3, 1, 0).reshape(-1, len(weights)) if weights.ndim == 4 else weights.T
        graph.add("MatMul", kernel)
        graph.add("Add", bias)
        if number < 2:
            graph.add("Relu")
    graph.add(end)
    return graph.save(path)


def scores_of(run):
    with torch.no_grad():
        return load(run)(torch.from_numpy(RGB)).double().numpy()


@pytest.mark.parametrize("form", ["pytorch", "normalised", "beside", "zoo"])
def test_graphs_for_the_pixels_of_pytorch(tmp_path, form):
    net = foreign.plain("A", batch_norm=form == "normalised")
    file = (
        as_the_zoo(net, tmp_path / "n.onnx")
        if form == "zoo"
        else as_pytorch(net, tmp_path / "n.onnx", beside=form == "beside")
    )
    found = import_weights(file, tmp_path / "run")
    assert (found.layout, found.network, found.crop, found.classes) == ("onnx", "A", SIDE, 6)
    expected = foreign.scores(net, foreign.torch_pixels(RGB))
    assert np.abs(scores_of(tmp_path / "run") - expected).max() < 1e-4


def test_a_graph_that_prepares_its_pixels_itself(tmp_path):
    net = foreign.plain("D", white=255)
    found = import_weights(as_keras(net, tmp_path / "n.onnx"), tmp_path / "run")
    assert found.mean_rgb == pytest.approx(foreign.RGB_MEAN)
    expected = foreign.scores(net, foreign.caffe_pixels(RGB))
    assert np.abs(scores_of(tmp_path / "run") - expected).max() < 1e-4
    with pytest.raises(ValueError, match="prepare images themselves"):
        import_weights(tmp_path / "n.onnx", tmp_path / "other", trained=TrainedPreprocessing(channels="rgb"))


def test_pixels_that_nothing_tells_of_are_not_guessed(tmp_path):
    net = foreign.plain("A", white=255)
    with pytest.raises(ValueError, match=r"it is for pixels in 0\.\.255"):
        import_weights(as_pytorch(net, tmp_path / "n.onnx"), tmp_path / "run")


def test_what_is_no_vgg_is_refused_by_its_node(tmp_path):
    net = foreign.plain("A", white=255)
    file = as_keras(net, tmp_path / "n.onnx", end="Tanh")
    with pytest.raises(
        ValueError, match=r"x\d+ \(Tanh\) is an operator.*; for its convolutions .* --convolutions-only"
    ):
        import_weights(file, tmp_path / "run")
    import_weights(file, tmp_path / "run", taken=TakenWeights(convolutions_only=True))
    assert load_model(tmp_path / "run").random_layers == ("fc6", "fc7", "fc8")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda graph: graph.node[0].attribute[0].ints.__setitem__(0, 0), "where the paper's networks keep height"),
        (lambda graph: graph.node[0].attribute[0].ClearField("type"), r"the attribute pads of the node x\d+ is empty"),
        (lambda graph: setattr(graph.node[1], "op_type", "LeakyRelu"), "LeakyRelu"),
        (lambda graph: graph.node[2].input.append("images"), "branches"),
        (lambda graph: graph.initializer[0].dims.__setitem__(0, 10**12), "claims 1000000000000 x"),
        (lambda graph: graph.initializer[0].dims.__setitem__(0, 5), "cannot be read"),
        (lambda graph: setattr(graph.initializer[0], "data_type", onnx.TensorProto.INT8), "INT8"),
        (lambda graph: graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", 1), "3 channels"),
        (lambda graph: graph.ClearField("node"), "its graph is empty"),
        (lambda graph: graph.output[0].__setattr__("name", "else"), "do not lead to its output"),
    ],
)
def test_changed_graphs_are_refused_with_the_reason(tmp_path, change, reason):
    file = as_pytorch(foreign.plain("A"), tmp_path / "n.onnx")
    model = onnx.load(file)
    change(model.graph)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=reason) as refusal:
        import_weights(file, tmp_path / "run")
    assert "\n" not in str(refusal.value)


def test_a_file_whose_last_bytes_are_missing_is_refused(tmp_path):
    """Four of them are a field of their own: without it the rest is a whole message."""
    file = as_pytorch(foreign.plain("A"), tmp_path / "n.onnx")
    content = file.read_bytes()
    for missing in range(1, 7):
        file.write_bytes(content[:-missing])
        with pytest.raises(ValueError, match="cut off" if missing == 4 else "damaged, or not an ONNX file"):
            import_weights(file, tmp_path / "run")


def test_arrays_beside_the_graph_must_be_there_and_whole(tmp_path):
    file = as_pytorch(foreign.plain("A"), tmp_path / "n.onnx", beside=True)
    data = tmp_path / "n.onnx.data"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cut off"):
        import_weights(file, tmp_path / "run")
    data.unlink()
    with pytest.raises(ValueError, match="not beside it: put it there"):
        import_weights(file, tmp_path / "run")
    file.write_bytes(file.read_bytes().replace(b"n.onnx.data", b"../etc/data"))
    with pytest.raises(ValueError, match="only files beside it"):
        import_weights(file, tmp_path / "run")


def test_arrays_that_share_the_bytes_of_one_file_do_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(named_arrays, "_LEAST_ALLOWED", 0)
    file = as_pytorch(foreign.plain("A"), tmp_path / "n.onnx", beside=True)
    model = onnx.load(file, load_external_data=False)
    for number in range(4):
        shared = model.graph.initializer.add(name=f"shared{number}", data_type=onnx.TensorProto.FLOAT, dims=[1])
        shared.data_location = onnx.TensorProto.EXTERNAL
        shared.external_data.add(key="location", value="n.onnx.data")
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"many times as large as n\.onnx\.data"):
        import_weights(file, tmp_path / "run")


@pytest.mark.parametrize(("kind", "shape"), [("Conv", (32, 32, 3, 3)), ("MatMul", (96, 96))])
def test_an_array_that_many_nodes_share_does_not_fill_memory(tmp_path, monkeypatch, kind, shape):
    copies, to_array = [], onnx.numpy_helper.to_array
    monkeypatch.setattr(named_arrays, "_LEAST_ALLOWED", 0)
    monkeypatch.setattr(onnx.numpy_helper, "to_array", lambda one: copies.append(one.name) or to_array(one))
    graph = Graph(["batch", 3, SIDE, SIDE])
    if kind == "MatMul":
        graph.add("Flatten", axis=1)
    padded = {"pads": [1] * 4} if kind == "Conv" else {}
    graph.add(kind, np.ones(shape, np.float32), **padded)
    for number in range(500):
        graph.nodes.append(onnx.helper.make_node(kind, [graph.last, "c0"], [f"y{number}"], **padded))
        graph.last = f"y{number}"
    file = graph.save(tmp_path / "n.onnx")
    with pytest.raises(ValueError, match=rf"cannot be read: with the node \w+ \({kind}\) .* share an array") as refusal:
        import_weights(file, tmp_path / "run")
    assert "\n" not in str(refusal.value)
    assert len(copies) <= 4 * file.stat().st_size // (4 * np.prod(shape)) + 1


def test_arrays_of_nodes_are_looked_for_beside_the_graph_too(tmp_path, monkeypatch):
    """ONNX would look for them in the current folder."""
    net = foreign.plain("A")
    file = as_pytorch(net, tmp_path / "n.onnx", beside=True)
    model = onnx.load(file, load_external_data=False)
    first = model.graph.initializer.pop(0)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [first.name], value=first))
    file.write_bytes(model.SerializeToString())
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")
    import_weights(file, tmp_path / "run")
    assert np.abs(scores_of(tmp_path / "run") - foreign.scores(net, foreign.torch_pixels(RGB))).max() < 1e-4


def test_the_sha256_is_of_the_files_beside_the_graph_too(tmp_path):
    """Arrays that lie in a file each: fc7 and fc8 of one size, which are then exchanged."""
    file = as_pytorch(foreign.plain("A", classes=foreign.HIDDEN), tmp_path / "n.onnx")
    whole = import_weights(file, tmp_path / "whole")
    assert (whole.sha256, whole.beside) == (hashlib.sha256(file.read_bytes()).hexdigest(), ())
    model = onnx.load(file)
    onnx.save(model, file, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    beside = import_weights(file, tmp_path / "beside")
    assert beside.beside == tuple(sorted(one.name for one in model.graph.initializer))
    assert np.abs(scores_of(tmp_path / "beside") - scores_of(tmp_path / "whole")).max() == 0
    fc7, fc8 = (tmp_path / model.graph.initializer[-n].name for n in (4, 2))
    fc7.rename(tmp_path / "aside")
    fc8.rename(fc7)
    (tmp_path / "aside").rename(fc8)
    other = import_weights(file, tmp_path / "other")
    assert np.abs(scores_of(tmp_path / "other") - scores_of(tmp_path / "whole")).max() > 0.1
    assert len({whole.sha256, beside.sha256, other.sha256}) == 3


def test_bytes_that_are_no_graph(tmp_path):
    (tmp_path / "n.onnx").write_bytes(b"\x80\x02garbage")
    with pytest.raises(ValueError, match="damaged, or not an ONNX file"):
        import_weights(tmp_path / "n.onnx", tmp_path / "run")
