"""Costs and receptive field of a network, from its architecture alone: parameters, multiply-adds, memory.

It needs no PyTorch and builds no weights, so it answers at once even for E.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from verydeep.networks.architecture import Architecture, Layer, LayerKind
from verydeep.networks.drawing import DrawnLayer, layers_svg
from verydeep.numbers import billions, counted, millions

FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class LayerDescription:
    """One layer on crop-sized input."""

    name: str
    kind: LayerKind
    kernel: int
    """Side of the window."""
    output: tuple[int, int, int]
    """[C, H, W] of one image."""
    parameters: int
    macs: int
    """Multiply-adds for one image; biases, ReLU, normalisation and pooling are not counted."""
    activation_bytes: int
    """The output in float32, for the whole batch."""
    receptive_field: int
    """Side in pixels of the square of the input that one position of the output depends on."""
    stride: int
    """Pixels of the input from one position of the output to the next; of fully connected layers, in dense use."""


@dataclass(frozen=True, kw_only=True)
class NetworkDescription:
    """A network on crop-sized input; totals over its layers.

    ReLU and dropout keep the shape and can share the memory of their input: they are not listed.
    """

    network: str
    input: int
    classes: int
    weight_layers: int
    parameters: int
    macs: int
    activation_bytes: int
    receptive_field: int
    """Side in pixels for `pool5`, the last layer before the classifier."""
    layers: tuple[LayerDescription, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and lists, ready for JSON."""
        return asdict(self)

    def to_svg(self) -> str:
        """Draw its layers as SVG, which notebooks display: maps, strides, receptive fields, parameters."""
        side = self.input
        return layers_svg(
            [
                DrawnLayer(**{field.name: getattr(layer, field.name) for field in fields(DrawnLayer)})
                for layer in self.layers
            ],
            crop=side,
            title=f"{self.network}: {self.weight_layers} layers with weights, {millions(self.parameters)} M parameters",
            subtitle=f"{billions(self.macs, 2)} G multiply-adds for an image of {side} × {side} pixels, "
            f"{counted(self.classes, 'class', 'classes')}",
        )

    _repr_svg_ = to_svg


@dataclass(frozen=True, kw_only=True)
class StackDescription:
    """A stack of k x k convolutions against one layer with the same receptive field (section 2.3)."""

    kernels: tuple[int, ...]
    channels: int
    receptive_field: int
    weights: int
    single_weights: int
    """Weights of the one layer whose kernel is as large as the stack's receptive field."""

    @property
    def weights_per_square_channel(self) -> int:
        """Weights in units of C^2: the 27 of '27 C^2'."""
        return sum(kernel**2 for kernel in self.kernels)

    @property
    def single_extra_percent(self) -> float:
        """Percent by which the single layer has more weights."""
        return 100 * (self.single_weights / self.weights - 1)

    @property
    def fewer_percent(self) -> float:
        """Percent by which the stack has fewer weights."""
        return 100 * (1 - self.weights / self.single_weights)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


def describe(
    network: str,
    *,
    input: int = Architecture.crop,
    classes: int = Architecture.classes,
    batch: int = 1,
    width: float = Architecture.width,
    batch_norm: bool = Architecture.batch_norm,
) -> NetworkDescription:
    """Count a network's costs, by its name; the defaults are the paper's sizes.

    Args:
        network: a column of Table 1, or `B-5x5`.
        input: side of the crop in pixels, a multiple of 32.
        classes: outputs of the last layer.
        batch: images whose activations are counted in `activation_bytes`.
        width: factor on the channels of every hidden layer.
        batch_norm: with batch normalisation after each convolution (not in the paper).

    Raises:
        ValueError: unknown name, or unusable input, classes, batch or width.
    """
    architecture = Architecture(network=network, crop=input, classes=classes, width=width, batch_norm=batch_norm)
    return describe_architecture(architecture, batch=batch)


def describe_architecture(architecture: Architecture, *, batch: int = 1) -> NetworkDescription:
    """Count, per layer and in total: output shape, parameters, multiply-adds, activation bytes, receptive field.

    Raises:
        ValueError: a batch of fewer than 1 image.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    side, field, stride = architecture.crop, 1, 1
    described = []
    for layer in architecture.layers():
        field += (layer.kernel - 1) * stride
        if layer.kind == "pool":
            side, stride = side // layer.kernel, stride * layer.kernel
        elif layer.kind == "linear":
            side = 1
        if layer.kind not in ("relu", "dropout"):
            described.append(_describe_layer(layer, side=side, receptive_field=field, stride=stride, batch=batch))
    pool5 = next(layer for layer in described if layer.name == "pool5")
    return NetworkDescription(
        network=architecture.network,
        input=architecture.crop,
        classes=architecture.classes,
        weight_layers=sum(layer.kind in ("conv", "linear") for layer in described),
        parameters=sum(layer.parameters for layer in described),
        macs=sum(layer.macs for layer in described),
        activation_bytes=sum(layer.activation_bytes for layer in described),
        receptive_field=pool5.receptive_field,
        layers=tuple(described),
    )


def output_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the output of every layer for one crop: [C, h, w], or [C] from `fc6` on."""
    side, in_space, shapes = architecture.crop, True, dict[str, tuple[int, ...]]()
    for layer in architecture.layers():
        side = side // layer.kernel if layer.kind == "pool" else side
        in_space = in_space and layer.kind != "linear"
        shapes[layer.name] = (layer.outputs, side, side) if in_space else (layer.outputs,)
    return shapes


def describe_stack(kernels: Sequence[int], *, channels: int) -> StackDescription:
    """Compare stacked stride-1 convolutions, `channels` in and out of each, with one layer that sees as much.

    Three 3 x 3 layers see 7 x 7 pixels with 27 C^2 weights where one 7 x 7 layer has 49 C^2, 81% more.

    Raises:
        ValueError: no kernels, an even or non-positive kernel, or channels below 1.
    """
    if not kernels or any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
        raise ValueError(f"a stack is odd kernel sizes such as 3,3,3, not {','.join(map(str, kernels)) or 'nothing'}")
    if channels < 1:
        raise ValueError(f"channels must be at least 1, not {channels}")
    receptive_field = 1 + sum(kernel - 1 for kernel in kernels)
    return StackDescription(
        kernels=tuple(kernels),
        channels=channels,
        receptive_field=receptive_field,
        weights=sum(kernel**2 for kernel in kernels) * channels**2,
        single_weights=receptive_field**2 * channels**2,
    )


def _describe_layer(layer: Layer, *, side: int, receptive_field: int, stride: int, batch: int) -> LayerDescription:
    learned_per_output = {"conv": 1, "linear": 1, "batch_norm": 2}.get(layer.kind, 0)
    return LayerDescription(
        name=layer.name,
        kind=layer.kind,
        kernel=layer.kernel,
        output=(layer.outputs, side, side),
        parameters=layer.weight_count + learned_per_output * layer.outputs,
        macs=layer.weight_count * side**2,
        activation_bytes=layer.outputs * side**2 * FLOAT32_BYTES * batch,
        receptive_field=receptive_field,
        stride=stride,
    )
