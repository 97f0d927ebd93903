"""How a network is tested (section 3.2): which views of an image, at which scales Q.

Only posteriors are ever averaged: over the mirror, over crops, over scales, and over networks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid
from verydeep.networks.scales import check_test_scales, middle_scale, paper_scales

if TYPE_CHECKING:
    from torch import Tensor

ViewName = Literal["dense", "dense by floor", "dense by ceil", "crops", "centre"]
"""The whole image, on one of three grids, the paper's 50 crops of it, or the crop in its middle."""

Windows = Literal["dense", "crops"]
"""Windows of an image on which boxes are sought: with the image around them, or cut out, as crops are in training."""

Method = Literal["dense", "crops", "both", "centre"]

_DENSE: dict[PoolingGrid, ViewName] = {"centred": "dense", "floor": "dense by floor", "ceil": "dense by ceil"}

PROTOCOLS: dict[Method, str] = {
    "dense": "dense evaluation",
    "crops": "multi-crop evaluation",
    "both": "multi-crop & dense evaluation",
    "centre": "centre-crop evaluation",
}
"""Names of the protocols, where the paper has them (Table 5) its own."""

Scales = Literal["paper", "single"]
"""The paper's choices of Q: several that follow from the training scale, or one."""

_CENTRE_SCALE = 256
"""Q at which libraries take their centre crop, whatever the net was trained at."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The views whose posteriors are averaged for an image; all weigh the same."""

    scales: tuple[int, ...]
    """Q, for a crop of 224."""

    method: Method = "dense"
    """`dense`: the score map of the whole image, averaged over space, then soft-max. `crops`: the posteriors of a
    5 x 5 grid of crops. `both`: the average of the two. `centre`: those of the crop in the middle."""

    mirror: bool = True
    """Average with the mirror image; off for nets trained without mirrored images, and for centre crops."""

    grid: PoolingGrid = DEFAULT_GRID
    """Grid of dense evaluation (`networks.grids`)."""

    def __post_init__(self) -> None:
        """Raise ValueError for words or scales that do not exist, or that do not go together."""
        if self.method not in get_args(Method):
            raise ValueError(f"protocol is one of {', '.join(get_args(Method))}, not {self.method}")
        check_test_scales(self.scales)
        if self.method == "centre" and self.mirror:
            raise ValueError("centre crops are tested without their mirror image")
        if self.grid not in _DENSE:
            raise ValueError(f"grid is one of {', '.join(_DENSE)}, not {self.grid}")
        if self.grid != "centred" and not self.grid_used:
            raise ValueError(f"the grid is that of dense evaluation: with --protocol {self.method} leave out --grid")

    @property
    def views(self) -> tuple[ViewName, ...]:
        """Kinds of views of every image at every scale."""
        dense = _DENSE[self.grid]
        views: dict[Method, tuple[ViewName, ...]] = {
            "dense": (dense,),
            "crops": ("crops",),
            "both": (dense, "crops"),
            "centre": ("centre",),
        }
        return views[self.method]

    @property
    def grid_used(self) -> PoolingGrid | None:
        """The grid of dense evaluation; None where nothing is dense."""
        return self.grid if _DENSE[self.grid] in self.views else None


@dataclass(frozen=True, kw_only=True)
class View:
    """How posteriors of one kind of view are computed."""

    posteriors: Callable[..., "Tensor"]
    """A function that is called as `dense_posteriors` and `crop_posteriors` are."""
    passes: int
    """Forward passes for each image, and as many for its mirror image."""
    of_crops: bool
    """Whether a pass sees a crop, and not the whole image."""
    posteriors_and_map: Callable[..., tuple["Tensor", "Tensor"]] | None = None
    """A function that is called as `dense_posteriors_and_map` is; None where a view has no score map of the image."""

    def pixels(self, size: tuple[int, int], crop: int) -> int:
        """Return the pixels that go through the first layer for an image (height and width), without its mirror image.

        Crops that fall on each other are computed once (`crop_posteriors`), but count as often as they occur.
        """
        return self.passes * (crop**2 if self.of_crops else math.prod(size))


def view_named(name: ViewName) -> View:
    """Return how posteriors of this kind of view are computed.

    The list is made here because PyTorch is not needed where protocols are only named, as on the command line.
    """
    from verydeep.evaluation.centre import centre_posteriors
    from verydeep.evaluation.crops import CROPS, crop_posteriors
    from verydeep.evaluation.dense import dense_posteriors, dense_posteriors_and_map

    views: dict[ViewName, View] = {
        view: View(
            posteriors=partial(dense_posteriors, grid=grid),
            passes=1,
            of_crops=False,
            posteriors_and_map=partial(dense_posteriors_and_map, grid=grid),
        )
        for grid, view in _DENSE.items()
    }
    views["crops"] = View(posteriors=crop_posteriors, passes=CROPS, of_crops=True)
    views["centre"] = View(posteriors=centre_posteriors, passes=1, of_crops=True)
    return views[name]


def protocol_of(
    method: Method,
    scales: Sequence[int] | Scales | None,
    *,
    usual: Scales,
    trained: str,
    mirror: bool,
    grid: PoolingGrid = DEFAULT_GRID,
) -> Protocol:
    """Return how a net trained at the scale `trained` is tested.

    Args:
        method: as `Protocol.method`.
        scales: as for `chosen_scales`; None: 256 for centre crops, else `usual`.
        usual: choice of scales if none is made.
        trained: `256`, say, or `256:512`.
        mirror: whether it was trained on mirrored images.
        grid: of dense evaluation.

    Raises:
        ValueError: another word, or as `Protocol`.
    """
    if scales is None:
        scales = (_CENTRE_SCALE,) if method == "centre" else usual
    chosen = chosen_scales(scales, trained=trained)
    return Protocol(method=method, scales=chosen, mirror=mirror and method != "centre", grid=grid)


def single_scale(trained: str) -> tuple[int, ...]:
    """Return the paper's one test scale for a net trained at `256`, say: Q = S, or the middle of S's range."""
    return (middle_scale(trained),)


def chosen_scales(chosen: Sequence[int] | Scales, *, trained: str) -> tuple[int, ...]:
    """Return Q for a net trained at the scale `trained`: one of the paper's choices, or numbers as they are.

    Raises:
        ValueError: another word.
    """
    if not isinstance(chosen, str):
        return tuple(sorted(chosen))
    if chosen not in get_args(Scales):
        raise ValueError(f"scales are {', '.join(get_args(Scales))} or a list of numbers, not {chosen!r}")
    return paper_scales(trained) if chosen == "paper" else single_scale(trained)
