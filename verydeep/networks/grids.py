"""Grids of score maps, centred or not: the pixels of each position where a side is not a multiple of 32.

Each of the five poolings halves a side. Where the number of rows is odd, it leaves out the first or the last row, or
pools the last one alone. So a grid is `centred`, or `floor` as in PyTorch, or `ceil` as in Caffe (docs/DEVIATIONS.md).
"""

from typing import Literal, get_args

from verydeep.networks.architecture import DOWNSAMPLING

PoolingGrid = Literal["centred", "floor", "ceil"]

DEFAULT_GRID: PoolingGrid = "centred"


def positions_along(side: int, window: int, grid: PoolingGrid) -> int:
    """Return how many positions a score map has along `side` pixels; each covers `window` positions of `pool5`."""
    rows = -(-side // DOWNSAMPLING) if grid == "ceil" else side // DOWNSAMPLING
    return rows - window + 1


def first_pixel(side: int, grid: PoolingGrid) -> int:
    """Return the pixel of a side at which the first position begins; each next one begins 32 pixels further on.

    Raises:
        ValueError: there is no such grid.
    """
    if grid not in get_args(PoolingGrid):
        raise ValueError(f"grid is one of {', '.join(get_args(PoolingGrid))}, not {grid!r}")
    return side % DOWNSAMPLING // 2 if grid == "centred" else 0
