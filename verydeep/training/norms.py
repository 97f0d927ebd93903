"""Norms of a network's activations, gradients and weights, layer by layer: does a signal reach both of its ends?

Recording reads values that a step computes anyway and changes nothing. RUN/norms.jsonl has a line for each recorded
step.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from verydeep.machine import atomic
from verydeep.machine.documents import converted, parse_json
from verydeep.machine.processes import Processes
from verydeep.machine.regular_files import read_file
from verydeep.networks.initialisation import layers_with_weights
from verydeep.networks.vgg import VGG
from verydeep.runs.files import NORMS

_MOST_BYTES = 2**30
"""Size of a file of norms: hundreds of thousands of steps."""


@dataclass(frozen=True, kw_only=True)
class LayerNorms:
    """One layer in one step, before its weights are changed."""

    activation: float | None
    """Root mean square of its outputs (before a ReLU) over all images; None where the network is compiled."""
    gradient: float | None
    """Norm of the gradient of the mean loss with respect to its weights (without biases); None if it is frozen."""
    weight: float
    """Norm of its weights."""


@dataclass(frozen=True, kw_only=True)
class StepNorms:
    """All layers in one step."""

    step: int
    """Steps taken before it."""
    loss: float
    """Mean loss of its images."""
    layers: Mapping[str, LayerNorms]
    """By name, from the first layer to the last."""


class _Sums:
    """Sum of squares of a layer's outputs, and how many they were."""

    def __init__(self) -> None:
        self.squares: list[Tensor] = []
        self.count = 0

    @torch.no_grad()
    def add(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.squares.append(torch.linalg.vector_norm(output, dtype=torch.float32).double() ** 2)
        self.count += output.numel()


@contextmanager
def watched(net: VGG, *, on: bool = True) -> Iterator[Mapping[str, _Sums]]:
    """Add up the squared outputs of every layer with weights while the block lasts; nothing, if not `on`."""
    sums = {name: _Sums() for name in layers_with_weights(net)}
    hooks = [net.get_submodule(name).register_forward_hook(own.add) for name, own in sums.items() if on]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()


def layer_norms(net: VGG, sums: Mapping[str, _Sums], processes: Processes) -> dict[str, LayerNorms]:
    """Return the norms of a step whose gradients are there, given the sums of `watched` in every process."""
    told = [(sum(map(float, own.squares)), float(own.count)) for own in sums.values()]
    everyone = processes.gathered([number for pair in told for number in pair]).sum(0).view(-1, 2).tolist()
    return {
        name: LayerNorms(
            activation=math.sqrt(squares / count) if count else None,
            gradient=None if weight.grad is None else _norm(weight.grad),
            weight=_norm(weight),
        )
        for (name, (squares, count)) in zip(sums, everyone, strict=True)
        for weight in [net.get_parameter(f"{name}.weight")]
    }


@torch.no_grad()
def _norm(value: Tensor) -> float:
    return float(torch.linalg.vector_norm(value, dtype=torch.float32))


def append_norms(run: Path, norms: StepNorms) -> None:
    """Add the line of a step to `norms.jsonl`."""
    atomic.append_json(run / NORMS, asdict(norms))


def read_norms(run: Path) -> list[StepNorms]:
    """Read every recorded step in order, the last time of one that was repeated; nothing where none was recorded.

    Raises:
        ValueError: the file holds something other than norms.
    """
    file = run / NORMS
    if not file.is_file():
        return []
    steps = {}
    for number, line in enumerate(read_file(file, most=_MOST_BYTES).split(b"\n"), 1):
        try:
            written = parse_json(line, object)
        except ValueError:
            continue  # torn by a crash; that step was repeated
        try:
            one = converted(written, StepNorms)
            _check(one)
        except ValueError as error:
            raise ValueError(
                f"{file}, line {number}, does not hold norms ({error}): remove the file to go on"
            ) from error
        steps[one.step] = one
    if len({frozenset(one.layers) for one in steps.values()}) > 1:
        raise ValueError(f"{file} holds norms of several networks: remove the file to go on")
    return [steps[step] for step in sorted(steps)]


def _check(norms: StepNorms) -> None:
    """Raise a ValueError for impossible figures of a step."""
    if norms.step < 0:
        raise ValueError(f"step {norms.step}")
    if all(name.startswith("bn") for name in norms.layers):
        raise ValueError("none of a convolution or a fully connected layer")
    layers = norms.layers.values()
    values = (norms.loss, *(value for layer in layers for value in (layer.activation, layer.gradient, layer.weight)))
    for value in values:
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{value} is not a number from 0 up")
