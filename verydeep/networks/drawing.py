"""A network's layers as a picture: how the receptive field grows, while maps shrink and parameters gather."""

from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _MARGIN, _TOP, _ROW = 1280, 30, 118, 26
"""Pixels: of the picture, around it, above the first layer, and from a layer to the next."""

_MAP, _STRIDE, _PARAMETERS = 130, 345, 920
"""Pixels from the left: where the columns of maps and parameters begin, and where that of the strides ends."""

_FIELDS = 375, 890
"""Pixels from the left: where the receptive fields begin, and where their numbers end."""

_LONGEST_FIELD, _LONGEST_PARAMETERS = 450, 200
"""Widths of the bars for the largest receptive field and for the most parameters."""


@dataclass(frozen=True, kw_only=True)
class DrawnLayer:
    """The figures of a layer that are drawn."""

    name: str
    kind: str
    output: tuple[int, int, int]
    """[C, H, W] of one image."""
    stride: int
    receptive_field: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class _Row:
    layer: DrawnLayer
    y: int
    """Base line of its text."""
    field_width: float
    parameters_width: float
    ends_stage: bool


def layers_svg(layers: Sequence[DrawnLayer], *, crop: int, title: str, subtitle: str) -> str:
    """Draw a line for every layer: its map, stride, receptive field beside the input's `crop` pixels, parameters.

    The SVG has a background of its own, which is dark for readers who have asked for dark pages.
    """
    from verydeep.presentation.pages import render

    pixel = _LONGEST_FIELD / max(crop, *(layer.receptive_field for layer in layers))
    parameter = _LONGEST_PARAMETERS / max(layer.parameters for layer in layers)
    rows = [
        _Row(
            layer=layer,
            y=_TOP + _ROW * number + 19,
            field_width=pixel * layer.receptive_field,
            parameters_width=max(1, parameter * layer.parameters),
            ends_stage=layer.kind == "pool",
        )
        for number, layer in enumerate(layers)
    ]
    values = {
        "title": title,
        "subtitle": subtitle,
        "rows": rows,
        "crop": crop,
        "crop_width": pixel * crop,
        "width": _WIDTH,
        "height": _TOP + _ROW * len(rows) + _MARGIN,
        "margin": _MARGIN,
        "top": _TOP,
        "map_x": _MAP,
        "stride_x": _STRIDE,
        "centre": _FIELDS[0] + _LONGEST_FIELD / 2,
        "fields_end": _FIELDS[1],
        "parameters_x": _PARAMETERS,
    }
    return render("networks/layers.svg", values)
