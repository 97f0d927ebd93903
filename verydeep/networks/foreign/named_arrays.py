"""Named arrays, as they are read from a file of weights of any format."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from verydeep.networks.foreign.heads import Head
from verydeep.networks.foreign.layouts import Channels, Layout, Triple, White

_EXPANSION = 4
"""How many times its size a file may hold: weights hardly compress, and nothing larger is allocated for them."""

_LEAST_ALLOWED = 64 * 2**20
"""Bytes that any file may hold, because small ones compress better."""


@dataclass(frozen=True, kw_only=True)
class NamedArrays:
    """Arrays under the names of their layout, in its axes: `features.0.weight`, `conv1_1.bias`."""

    arrays: dict[str, Tensor]
    layout: Layout
    mean: Triple | None = None
    """In the library's order of channels and range of values; None if the file does not say."""
    std: Triple | None = None
    channels: Channels | None = None
    white: White | None = None
    head: Head | None = None
    """Layers after pool5 that are not the paper's three."""
    unread_head: str | None = None
    """Why those cannot be read; None if they can."""
    crop: int | None = None
    """Side in pixels of the images that go in; None if the file does not say."""
    beside: tuple[Path, ...] = ()
    """Further files that its arrays come from, by name."""
    ours: bool = False
    """Whether names and axes are this package's already, because the file described its layers one by one."""
    classes: tuple[str, ...] | None = None
    """Names or WordNet ids of the outputs; None if the file does not say."""
    notes: tuple[str, ...] = ()
    """Sentences about parts of the file that were left out or replaced."""


def allowed_bytes(file_size: int) -> int:
    """Return how many bytes of arrays a file of this size may hold."""
    return max(_EXPANSION * file_size, _LEAST_ALLOWED)
