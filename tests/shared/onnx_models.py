"""ONNX graphs as PyTorch's exporter writes them."""

import numpy as np
import onnx


class Graph:
    """A graph that grows node by node, each taking what the last one gives."""

    def __init__(self, shape):
        self.nodes, self.constants, self.last = [], [], "images"
        self.given = [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)]

    def add(self, kind, *arrays, backwards=False, **attributes):
        names = []
        for array in arrays:
            names.append(f"c{len(self.constants)}")
            self.constants.append(onnx.numpy_helper.from_array(np.asarray(array), names[-1]))
        inputs = [*names, self.last] if backwards else [self.last, *names]
        self.last = f"x{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [self.last], **attributes))

    def save(self, path, *, inputs=False, beside=False):
        given = list(self.given)
        if inputs:  # as versions before 4 list them
            given += [onnx.helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in self.constants]
        result = [onnx.helper.make_tensor_value_info(self.last, onnx.TensorProto.FLOAT, ["b", "n"])]
        model = onnx.helper.make_model(onnx.helper.make_graph(self.nodes, "vgg", given, result, self.constants))
        onnx.save(model, path, save_as_external_data=beside, location=f"{path.name}.data", size_threshold=0)
        return path


def convolutions(graph, net, **padded):
    before = 1
    for stage, _, kernel, bias, norm in [*net.convolutions, (6, 0, None, None, None)]:
        if stage != before:
            graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        if kernel is not None:
            graph.add("Conv", kernel, bias, **padded or {"pads": [kernel.shape[-1] // 2] * 4})
            if norm is not None:
                graph.add("BatchNormalization", *norm, epsilon=1e-5)
            graph.add("Relu")
        before = stage


def as_pytorch(net, path, *, side=64, **how):
    graph = Graph(["batch", 3, side, side])
    convolutions(graph, net)
    graph.add("AveragePool", kernel_shape=[1, 1], strides=[1, 1])
    graph.add("Flatten", axis=1)
    for number, (weights, bias) in enumerate(net.connected):
        graph.add("Gemm", weights.reshape(len(weights), -1), bias, transB=1)
        if number < 2:
            graph.add("Relu")
    return graph.save(path, **how)
