"""How a network is tested (section 3.2): which views of an image, at which scales Q.

Only posteriors are ever averaged: over the mirror, over crops, over scales, and over networks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from verydeep.networks.architecture import PAPER_CROP
from verydeep.networks.scales import middle_scale, scale_range

if TYPE_CHECKING:
    from torch import Tensor

ViewName = Literal["dense", "crops"]
"""The whole image, or the paper's 50 crops of it."""

Windows = Literal["dense", "crops"]
"""Windows of an image on which boxes are sought: with the image around them, or cut out, as crops are in training."""

Method = Literal["dense", "crops", "both"]

_VIEWS: dict[Method, tuple[ViewName, ...]] = {"dense": ("dense",), "crops": ("crops",), "both": ("dense", "crops")}

PROTOCOLS: dict[Method, str] = {
    "dense": "dense evaluation",
    "crops": "multi-crop evaluation",
    "both": "multi-crop & dense evaluation",
}
"""Names of the protocols in the paper (Table 5)."""

Scales = Literal["paper", "single"]
"""The paper's choices of Q: several that follow from the training scale, or one."""

_SCALE_STEP = 32
"""A net trained at a fixed S is tested at S - 32, S and S + 32."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The views whose posteriors are averaged for an image; all weigh the same."""

    scales: tuple[int, ...]
    """Q, for a crop of 224."""

    method: Method = "dense"
    """`dense`: the score map of the whole image, averaged over space, then soft-max. `crops`: the posteriors of a
    5 x 5 grid of crops. `both`: the average of the two."""

    mirror: bool = True
    """Average with the mirror image; off for nets trained without mirrored images."""

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown method, no scales, one below the crop, or one that is given twice."""
        if self.method not in get_args(Method):
            raise ValueError(f"protocol is one of {', '.join(get_args(Method))}, not {self.method}")
        if not self.scales or min(self.scales) < PAPER_CROP:
            raise ValueError(f"scales are whole numbers from {PAPER_CROP} (the crop) up, not {list(self.scales)}")
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales must be distinct, not {list(self.scales)}")

    @property
    def views(self) -> tuple[ViewName, ...]:
        """Kinds of views of every image at every scale."""
        return _VIEWS[self.method]


class View(NamedTuple):
    """How posteriors of one kind of view are computed."""

    posteriors: Callable[..., "Tensor"]
    """A function that is called as `dense_posteriors` and `crop_posteriors` are."""
    passes: int
    """Forward passes for each image, and as many for its mirror image."""


def view_named(name: ViewName) -> View:
    """Return how posteriors of this kind of view are computed.

    The list is made here because PyTorch is not needed where protocols are only named, as on the command line.
    """
    from verydeep.evaluation.crops import CROPS, crop_posteriors
    from verydeep.evaluation.dense import dense_posteriors

    dense = View(posteriors=dense_posteriors, passes=1)
    crops = View(posteriors=crop_posteriors, passes=CROPS)
    return {"dense": dense, "crops": crops}[name]


def single_scale(trained: str) -> tuple[int, ...]:
    """Return the paper's one test scale for a net trained at `256`, say: Q = S, or the middle of S's range."""
    return (middle_scale(trained),)


def _paper_scales(trained: str) -> tuple[int, ...]:
    """Return the paper's three test scales: {S-32, S, S+32}, or {Smin, middle, Smax} of a range such as `256:512`."""
    low, high = scale_range(trained)
    if low == high:
        return tuple(q for q in (low - _SCALE_STEP, low, low + _SCALE_STEP) if q >= PAPER_CROP)
    return low, middle_scale(trained), high


def chosen_scales(chosen: Sequence[int] | Scales, *, trained: str) -> tuple[int, ...]:
    """Return Q for a net trained at the scale `trained`: one of the paper's choices, or numbers as they are.

    Raises:
        ValueError: another word.
    """
    if not isinstance(chosen, str):
        return tuple(sorted(chosen))
    if chosen not in get_args(Scales):
        raise ValueError(f"scales are {', '.join(get_args(Scales))} or a list of numbers, not {chosen!r}")
    return _paper_scales(trained) if chosen == "paper" else single_scale(trained)
