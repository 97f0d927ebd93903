"""Pixel operations in a Keras configuration that are not layers, such as those that `preprocess_input` leaves."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from verydeep.networks.foreign.layers_in_order import LayerStep
from verydeep.numbers import counted

_OPERATIONS = {
    "add": "add", "biasadd": "add", "bias_add": "add", "subtract": "subtract", "sub": "subtract",
    "multiply": "multiply", "mul": "multiply", "divide": "divide", "truedivide": "divide", "truediv": "divide",
}  # fmt: skip
"""Arithmetic on pixels, by the names of Keras 3's operations and TensorFlow's, in small letters."""


def operation_steps(kind: str, name: str, layer: Mapping[str, Any]) -> Iterator[LayerStep]:
    """Yield an operation's steps.

    Raises:
        ValueError: it is of another kind, or damaged.
    """
    nodes = layer.get("inbound_nodes") or []
    function = str(layer["config"].get("function", kind)).rpartition(".")[2].strip("_").lower()
    if function == "getitem" and _reverses(nodes):
        yield LayerStep(kind="reverse", name=name)
    elif kind == "Stack" and layer["picked"] in ([0, 1, 2], [2, 1, 0]):
        yield from [LayerStep(kind="reverse", name=name)] * (layer["picked"] == [2, 1, 0])
    elif function in _OPERATIONS and (constants := [*_constants(nodes)]):
        if len(constants) > 1:
            raise ValueError(f"{name} computes with {len(constants)} constants, where one is read")
        yield _arithmetic(_OPERATIONS[function], name, of_channels(name, constants[0]))
    else:
        way = ": it is a program, and nothing in a file is run" if kind in ("Lambda", "TFOpLambda") else ""
        raise ValueError(f"{name} is a {kind}, which the paper's networks do not have{way}")


def _arithmetic(operation: str, name: str, values: Tensor) -> LayerStep:
    match operation:
        case "add":
            return LayerStep(kind="scale", name=name, weight=torch.ones(3), bias=values)
        case "subtract":
            return LayerStep(kind="scale", name=name, weight=torch.ones(3), bias=-values)
        case "multiply":
            return LayerStep(kind="scale", name=name, weight=values, bias=torch.zeros(3))
        case _:
            return LayerStep(kind="scale", name=name, weight=1 / values, bias=torch.zeros(3))


def _arguments(nodes: Any) -> Iterator[Any]:
    """Yield the arguments of an operation: of Keras 3's nodes all, of older ones those that are not layers."""
    for node in nodes:
        if isinstance(node, dict):
            yield from [*node["args"], *node["kwargs"].values()]
        else:
            inner = node if isinstance(node[0], list) else [node]
            for one in inner:
                if len(one) != 4:  # name, node, tensor, arguments
                    raise ValueError("its configuration has an operation of an unknown version")
                yield {"config": {"keras_history": [one[0]]}}
                yield from one[3].values()


def _is_layer(argument: Any) -> bool:
    return isinstance(argument, dict) and "keras_history" in argument["config"]


def _constants(nodes: Any) -> Iterator[Any]:
    """Yield the constants that an operation computes with.

    Raises:
        ValueError: a constant comes first, as in 1 / x or 1 - x.
    """
    arguments = list(_arguments(nodes))
    if arguments and not _is_layer(arguments[0]):
        raise ValueError("its configuration has an operation whose first argument is not a layer")
    for argument in arguments[1:]:
        value = argument["config"]["value"] if isinstance(argument, dict) and not _is_layer(argument) else argument
        if isinstance(value, int | float | list) and not isinstance(value, bool):
            yield value


def picked_channel(nodes: Any) -> int | None:
    """Return the channel that x[..., channel] picks; None for any other index."""
    index = [*_arguments(nodes)][1:]
    last = index[0][-1] if index and isinstance(index[0], list) and index[0] else None
    return last if isinstance(last, int) else None


def _reverses(nodes: Any) -> bool:
    """Return whether this is x[..., ::-1]."""
    found = re.findall(r"'(start|stop|step)': (-?\d+|None)", str([*_arguments(nodes)][1:]))
    return found[-3:] == [("start", "None"), ("stop", "None"), ("step", "-1")]


def of_channels(name: str, told: Any) -> Tensor:
    """Return a number for each channel, [3], of a tensor or of its equivalent in a configuration.

    Raises:
        ValueError: there is neither one number nor three, one is not finite, or there is something else.
    """
    try:
        numbers = torch.as_tensor(told, dtype=torch.float64).flatten()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} computes with something other than numbers") from error
    if len(numbers) not in (1, 3):
        raise ValueError(f"{name} computes with {counted(len(numbers), 'number')}, where an image has 3 channels")
    if not numbers.isfinite().all():
        raise ValueError(f"{name} computes with numbers that are not finite")
    return numbers.expand(3)
