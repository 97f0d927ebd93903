"""Caffe's and MatConvNet's names of layers, which are the paper's."""

import re
from collections.abc import Mapping

from torch import Tensor


def from_paper_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with axes OIHW or OI under this package's names; `fc8_flowers`, say, counts as fc8.

    Raises:
        ValueError: an entry that the paper's networks do not have, or one of another number of axes.
    """
    ours: dict[str, Tensor] = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        match = re.fullmatch(r"(conv\d_\d+|fc[678])(?:[-_].*)?", layer)
        if not match or kind not in ("weight", "bias") or f"{match[1]}.{kind}" in ours:
            raise ValueError(f"it holds the layer {layer}, which the paper's networks do not have")
        if kind == "bias":
            ours[f"{match[1]}.bias"] = value.flatten()
            continue
        if not 2 <= value.ndim <= 4:
            raise ValueError(f"{name} has the shape {list(value.shape)}, which no layer of the paper's networks has")
        ours[f"{match[1]}.weight"] = _rows(value) if match[1].startswith("fc") else value
    return ours


def _rows(value: Tensor) -> Tensor:
    """Return a fully connected layer's matrix: of [O, I], Caffe's old [1, 1, O, I], or a convolution [O, C, h, w]."""
    old = value.ndim == 4 and value.shape[:2] == (1, 1)
    return value[0, 0] if old else value.flatten(1)
