"""ncnn files, in float32: a graph as text with the weights beside it, both written here and computed by ncnn.

pnnx, which converts for ncnn, traces a network at the sizes of an example; the grid of a score map depends on them.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from verydeep.exported_networks.exported import (
    INPUT,
    OUTPUTS,
    ExportedNet,
    checked_net,
    convolution_as_tested,
    errors_of_runtime,
)
from verydeep.exported_networks.formats import weights_beside
from verydeep.exported_networks.layers import (
    Compute,
    FileLayers,
    computed_layers,
    tensors_of_layers,
)
from verydeep.exported_networks.metadata import (
    KEY,
    SHA256,
    UNSTATED,
    Metadata,
    checked_sha256,
    from_json,
    state_checksum,
)
from verydeep.machine.libraries import library
from verydeep.networks.architecture import Architecture, Layer
from verydeep.networks.vgg import VGG, vgg_without_weights
from verydeep.numbers import counted
from verydeep.runs.model import Model

_MAGIC = "7767517"
"""First line of every `.param`."""

_PARAMETERS = {
    "Bias": {"size": 0},
    "Convolution": {"outputs": 0, "kernel": 1, "padding": 4, "biases": 5, "weights": 6, "relu": 9},
    "Crop": {"starts": 19, "ends": 20, "axes": 21},
    "LRN": {"size": 1, "alpha": 2, "beta": 3, "k": 4},
    "Pooling": {"mean": 0, "kernel": 1, "stride": 2, "whole": 4, "only_full_windows": 5},
    "ReLU": {},
}
"""Numbers of the parameters of each kind of layer."""

_TO_THE_END = -233
"""End of a crop that is the end of its input."""

_IN_FLOAT32 = bytes(4)
"""Bytes before weights (not before biases) in a `.bin`; others say that they are in fewer bits."""

_REDUCED_PRECISION = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")
"""Options of ncnn, some of which are on unless they are turned off."""

_MENTION = "Metadata"
"""Kind of the lines after the last layer, which ncnn does not read; others see layers without inputs and outputs."""


class _Graph:
    """Layers and arrays while they are collected, in the order of the two files."""

    def __init__(self) -> None:
        self.layers: list[str] = []
        self.blobs = 0
        self.arrays: list[tuple[bytes, Tensor]] = []

    def layer(self, kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str], /, **parameters: Any) -> None:
        values = [f"{_PARAMETERS[kind][parameter]}={value}" for parameter, value in parameters.items()]
        counts = (str(len(inputs)), str(len(outputs)))
        self.layers.append(" ".join([kind, name, *counts, *inputs, *outputs, *values]))
        self.blobs += len(outputs)

    def convolution(self, layer: Layer, x: str, output: str, weight: Tensor, bias: Tensor, *, padding: int) -> None:
        sizes = {"outputs": len(bias), "kernel": layer.kernel, "padding": padding, "weights": weight.numel()}
        self.layer("Convolution", layer.name, [x], [output], **sizes, biases=1, relu=int(output != layer.name))
        self.arrays += [(_IN_FLOAT32, weight), (b"", bias)]

    def text(self) -> str:
        return "\n".join([_MAGIC, f"{len(self.layers)} {self.blobs}", *self.layers, ""])

    def write_arrays(self, file: BinaryIO) -> None:
        for prefix, array in self.arrays:
            file.write(prefix)
            file.write(array.detach().cpu().contiguous().numpy().data)

    def sizes(self) -> list[int]:
        """Return the bytes of each array in the `.bin`, with those before it."""
        return [len(prefix) + array.numel() * array.element_size() for prefix, array in self.arrays]


def _graph(net: VGG, apart: Sequence[str] = ()) -> _Graph:
    """Return the graph of a network in its testing mode, for one image of any size from the crop up.

    `images` [3, height, width] in 0..255 give `score_map` [classes, h, w] and its mean over space, `logits` [classes].
    A layer's output has the paper's name: `relu1_1`, `pool1`, `fc8`. A ReLU is one layer with the layer before it,
    unless that is named in `apart`.
    """
    graph = _Graph()
    centred = [layer.name for layer in net.architecture.layers() if layer.kind == "pool"][:-1]
    graph.layer("Input", INPUT, [], [INPUT])
    graph.layer("Split", f"{INPUT}_split", [INPUT], ["pixels", *(f"sides_for_{pool}" for pool in centred)])
    graph.layer("Bias", "minus_mean", ["pixels"], ["minus_mean"], size=len(net.mean_rgb))
    graph.arrays.append((b"", -net.mean_rgb))
    x = "minus_mean"
    layers = computed_layers(net.architecture)
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if layer.name == x:  # a ReLU that is there already
            continue
        alone = following is None or following.kind != "relu" or layer.name in apart
        output = layer.name if following is None or alone else following.name
        if layer.name in centred:
            x = _on_its_grid(graph, layer.name, x, bit=1 + centred.index(layer.name))
        _layer(graph, net, layer, x, output)
        x = output
    logits, score_map = OUTPUTS
    graph.layer("Split", f"{x}_split", [x], [score_map, "scores"])
    graph.layer("Pooling", logits, ["scores"], [logits], mean=1, whole=1)
    return graph


def _on_its_grid(graph: _Graph, pool: str, x: str, *, bit: int) -> str:
    """Add a crop without the first row or column where the height or width of the image has this binary digit.

    The digits of (H mod 32) // 2, which the poolings take (`VGG.score_map`), are H's own, one place higher.
    """
    output = f"{pool}_grid"
    starts = ",".join(f"and(rshift(1{side},{bit}),1)" for side in "hw")
    ends = f"{_TO_THE_END},{_TO_THE_END}"
    given = [x, f"sides_for_{pool}"]
    graph.layer("Crop", output, given, [output], starts=f'"{starts}"', ends=f'"{ends}"', axes='"1,2"')
    return output


def _layer(graph: _Graph, net: VGG, layer: Layer, x: str, output: str) -> None:
    """Add a layer, with its ReLU where `output` is the ReLU's."""
    of_net: Any = net.get_submodule(layer.name)
    match layer.kind:
        case "conv":
            graph.convolution(layer, x, output, *convolution_as_tested(net, layer.name), padding=layer.kernel // 2)
        case "linear":
            graph.convolution(layer, x, output, of_net.weight, of_net.bias, padding=0)
        case "relu":
            graph.layer("ReLU", layer.name, [x], [output])
        case "pool":
            graph.layer("Pooling", layer.name, [x], [output], kernel=2, stride=2, only_full_windows=1)
        case "lrn":
            alpha = of_net.alpha * of_net.n  # which ncnn divides by n
            graph.layer("LRN", layer.name, [x], [output], size=of_net.n, alpha=alpha, beta=of_net.beta, k=of_net.k)


def write(model: Model, metadata: Metadata, calibration: Sequence[Tensor], file: Path) -> None:
    """Write a `.ncnn.param` and a `.ncnn.bin`; there is nothing to calibrate."""
    graph = _graph(model.net)
    with weights_beside(file).open("wb") as weights:
        graph.write_arrays(weights)
    stated = {KEY: _in_one_word(metadata.to_json()), SHA256: UNSTATED}
    mentions = [f"{_MENTION} {name} 0 0 0={value}\n" for name, value in stated.items()]
    file.write_text("".join([graph.text(), *mentions]), encoding="ascii")
    state_checksum(file)


def _in_one_word(text: str) -> str:
    """Return JSON without blanks and equals signs, which would end the value of a parameter."""
    compact = json.dumps(json.loads(text), separators=(",", ":"))
    return compact.replace(" ", r"\u0020").replace("=", r"\u003d")


def read(file: Path) -> tuple[ExportedNet, Metadata, str]:
    """Read files that `write` made.

    ncnn believes what a graph says of memory, so it is given the one of the network that the metadata name, and of the
    files only their numbers.

    Raises:
        ValueError: they are other files, or damaged.
        OSError: they cannot be read.
    """
    metadata, sha256 = _checked(file)
    names = tuple(_tensors_of_layers(metadata.architecture))
    layers = FileLayers(names=names, file=file, sha256=sha256, opened=_opened, channels_last=False)
    compute = _compute_by_ncnn(file, _graph(vgg_without_weights(metadata.architecture)).text())
    return checked_net(compute, metadata, layers), metadata, sha256


def _checked(file: Path) -> tuple[Metadata, str]:
    """Return the metadata and the SHA-256 of files that `write` made."""
    stated = _stated(file)
    metadata = from_json(stated.get(KEY))
    sha256 = checked_sha256(file, stated.get(SHA256))
    _check_weights(weights_beside(file), _graph(vgg_without_weights(metadata.architecture)))
    return metadata, sha256


def _stated(file: Path) -> dict[str, str]:
    """Return the entries after the last layer, by name."""
    text = file.read_bytes().decode("ascii", errors="replace")
    if text.partition("\n")[0] != _MAGIC:
        raise ValueError("it is not an ncnn file, or it is damaged")
    return dict(re.findall(rf"^{_MENTION} (\w+) 0 0 0=(.*)$", text, re.MULTILINE))


def _check_weights(file: Path, graph: _Graph) -> None:
    """Check that weights are those of a graph, in float32.

    Raises:
        ValueError: they are not.
    """
    sizes, found = graph.sizes(), file.stat().st_size
    if found != sum(sizes):
        needed = counted(sum(sizes), "byte")
        raise ValueError(
            f"the network of its metadata has {needed} of weights, {file.name} has {counted(found, 'byte')}"
        )
    with file.open("rb") as weights:
        for (prefix, _), start in zip(graph.arrays, accumulate(sizes, initial=0), strict=False):
            weights.seek(start)
            if weights.read(len(prefix)) != prefix:
                raise ValueError(
                    f"{file.name} has weights that are not in float32, which verydeep export does not write"
                )


def reread(file: Path) -> ExportedNet:
    """Return the network of a file just written, by the graph in it; never of a file of unknown origin."""
    return checked_net(_compute_by_ncnn(file), from_json(_stated(file).get(KEY)))


def _tensors_of_layers(architecture: Architecture) -> dict[str, str]:
    """Return the blob of each layer."""
    return tensors_of_layers(architecture, [(layer.kind, layer.name) for layer in computed_layers(architecture)])


def _opened(file: Path, names: Sequence[str]) -> tuple[Compute, str]:
    """Return what `FileLayers.opened` says."""
    metadata, sha256 = _checked(file)
    tensors = _tensors_of_layers(metadata.architecture)
    outputs = [tensors.get(name, name) for name in names]
    graph = _graph(vgg_without_weights(metadata.architecture), apart=outputs)
    return _compute_by_ncnn(file, graph.text(), outputs), sha256


def _compute_by_ncnn(file: Path, graph: str | None = None, outputs: Sequence[str] = OUTPUTS) -> Compute:
    """Return a function that computes a file by ncnn, by its own graph or another, one image after the other."""
    ncnn = library("ncnn")
    net = ncnn.Net()
    net.opt.num_threads = torch.get_num_threads()
    for option in _REDUCED_PRECISION:
        setattr(net.opt, option, False)
    with errors_of_runtime(file):
        _check(net.load_param(str(file)) if graph is None else net.load_param_mem(graph))
        _check(net.load_model(str(weights_beside(file))))

    def extracted(image: Float32[np.ndarray, "3 H W"]) -> Iterator[NDArray[np.float32]]:
        extractor = net.create_extractor()
        _check(extractor.input(INPUT, ncnn.Mat(image).clone()))  # whose channels are aligned
        for name in outputs:
            code, found = extractor.extract(name)
            _check(code)
            yield np.array(found)

    def compute(images: Float32[np.ndarray, "B C H W"]) -> Sequence[Float32[Tensor, "B ..."]]:
        with errors_of_runtime(file):
            return [torch.from_numpy(np.stack(found)) for found in zip(*map(extracted, images), strict=True)]

    return compute


def _check(code: int) -> None:
    if code:
        raise RuntimeError(f"ncnn ends with {code}")
