"""What is read from a file of weights, whatever its format."""

from dataclasses import dataclass

from torch import Tensor

from verydeep.networks.foreign.layouts import Channels, Layout, Triple

EXPANSION = 4
"""So many times its size a file may hold: weights hardly compress, and nothing larger is allocated for them."""

LEAST_ALLOWED = 64 * 2**20
"""Bytes that any file may hold, because small ones compress better."""


@dataclass(frozen=True, kw_only=True)
class NamedArrays:
    """Arrays under the names of their layout, in its axes: `features.0.weight`, `conv1_1.bias`."""

    arrays: dict[str, Tensor]
    layout: Layout
    mean: Triple | None = None
    """In the library's order of channels and range of values, where the file tells it."""
    std: Triple | None = None
    channels: Channels | None = None
    classes: tuple[str, ...] | None = None
    """Names or WordNet ids of the outputs, where the file tells them."""
    notes: tuple[str, ...] = ()
    """What was left out of the file, or put up with."""


def allowed_bytes(file_size: int) -> int:
    """How much a file of this size may hold."""
    return max(EXPANSION * file_size, LEAST_ALLOWED)
