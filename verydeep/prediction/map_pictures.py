"""Pictures of where in an image a class is seen: the image in its own size, a map over it, and a legend."""

import io
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from verydeep.evaluation.example_images import FEWEST_POSITIONS
from verydeep.evaluation.grad_cam import grad_cam, last_convolution
from verydeep.evaluation.score_maps import PlacedMap, enlarged, image_at_scale, overlay, placed_score_map, posterior_map
from verydeep.images.decode import UnusableImageError, decode
from verydeep.images.sources.source import Sample
from verydeep.machine.runtime import in_float32
from verydeep.networks.architecture import DOWNSAMPLING, PAPER_CROP
from verydeep.networks.grids import PoolingGrid, positions_along
from verydeep.networks.scales import scale_in_pixels
from verydeep.networks.vgg import VGG, ScoringNetwork
from verydeep.numbers import counted, number, share
from verydeep.prediction.options import MapMethod
from verydeep.presentation.lettering import fitting_lines, font_for

SUFFIX = ".jpg"

_FEWEST_PIXELS = 320
"""Approximate least length of a picture's longer side: smaller ones are enlarged, so that the legend can be read."""

_NARROWEST = 160
"""Width of a picture with its legend; a narrower image has white beside it."""

LONGEST_SIDE = 65_500
"""Most pixels of a JPEG file's side, as libjpeg writes it."""

_QUALITY = 92
"""JPEG quality; letters stay sharp."""

_LETTERS = (1 / 40, 12)
"""Height of letters: share of a picture's width, and fewest pixels."""

_INK, _PAPER, _GREY = (33, 33, 33), (255, 255, 255), 128


@dataclass(frozen=True, kw_only=True)
class MapView:
    """How maps are computed."""

    method: MapMethod
    scale: int
    """Q, for a crop of 224."""
    grid: PoolingGrid
    max_pixels: int


def check_method(method: MapMethod, net: ScoringNetwork) -> None:
    """Refuse Grad-CAM of a network that has no gradients.

    Raises:
        ValueError: the network of an ONNX, OpenVINO or ncnn file.
    """
    if method == "grad-cam" and not isinstance(net, VGG):
        raise ValueError("an exported file has no gradients for grad-cam: use its run or a .pt2, or score-map")


def about_positions(net: ScoringNetwork, view: MapView) -> list[str]:
    """Say so if the score map of a square image has too few positions to show a place, and what shows more."""
    crop, enough = net.architecture.crop, math.isqrt(FEWEST_POSITIONS)
    window = crop // DOWNSAMPLING
    along = positions_along(scale_in_pixels(view.scale, crop), window, view.grid)
    if view.method != "score-map" or along >= enough:
        return []
    larger = math.ceil((crop + (enough - 1) * DOWNSAMPLING) * PAPER_CROP / crop)
    finer = ", or --method grad-cam," if isinstance(net, VGG) else ""
    return [
        f"the score map of a square image has {counted(along**2, 'position')} at Q = {view.scale}: --scales {larger}"
        f"{finer} shows more"
    ]


def map_picture(
    net: ScoringNetwork, sample: Sample, label: int, view: MapView, *, class_name: str, probability: float
) -> bytes:
    """Return a JPEG file: an image in its own size, the map of a class over it, and below it a legend of the colours.

    Raises:
        UnusableImageError: the image can no longer be used, or is too large for Grad-CAM.
    """
    placed, note = _map_of(net, sample, label, view)
    picture = enlarged(decode(sample.data, sample.id, max_pixels=view.max_pixels), _FEWEST_PIXELS)
    drawn, beside = overlay(picture, placed), max(0, _NARROWEST - picture.shape[1])
    drawn = np.pad(drawn, ((0, 0), (0, beside), (0, 0)), constant_values=_PAPER[0])
    width, (share_of_width, least) = drawn.shape[1], _LETTERS
    letters = max(least, round(share_of_width * width))
    ends = ("0%", "100%") if view.method == "score-map" else ("0", "most")
    legend = [
        _text(width, f"{share(probability)} {class_name}", letters + letters // 4, most=2),
        _colour_bar(width, ends, letters),
        _text(width, note, letters, most=3),
    ]
    whole, buffer = np.vstack([drawn, *legend]), io.BytesIO()
    if max(whole.shape) > LONGEST_SIDE:
        detail = f"a picture has sides of at most {number(LONGEST_SIDE)} pixels"
        raise UnusableImageError(sample.id, "too large", detail)
    Image.fromarray(whole).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def _map_of(net: ScoringNetwork, sample: Sample, label: int, view: MapView) -> tuple[PlacedMap, str]:
    """Return the map of a class, and its description."""
    crop, grid = net.architecture.crop, view.grid
    image = image_at_scale(sample, scale_in_pixels(view.scale, crop), max_pixels=view.max_pixels)
    if view.method == "grad-cam":
        assert isinstance(net, VGG)
        with in_float32():
            placed = grad_cam(net, image, label, name=sample.id, grid=grid)
        return placed, f"Grad-CAM of {last_convolution(net)}, {_positions(placed)}, Q = {view.scale}"
    with in_float32():
        values = posterior_map(net, image, grid=grid)[label]
    placed = placed_score_map(values, image.shape[:2], crop=crop, grid=grid)
    seen = " to ".join(dict.fromkeys((share(float(values.min())), share(float(values.max())))))
    return placed, f"score map, {_positions(placed)}, Q = {view.scale}: {seen}"


def _positions(placed: PlacedMap) -> str:
    rows, columns = placed.values.shape
    return f"{rows} x {columns} positions"


def _text(width: int, text: str, letters: int, *, most: int) -> UInt8[np.ndarray, "h W 3"]:
    """Write a text in letters of so many pixels, on `most` lines or fewer."""
    font, shown = font_for(" ".join(text.split()), letters)
    margin, line = letters // 2, sum(font.getmetrics())
    lines = fitting_lines(shown, font, width - 2 * margin, most=most)
    strip = Image.new("RGB", (width, line * len(lines) + margin), _PAPER)
    for row, one in enumerate(lines):
        ImageDraw.Draw(strip).text((margin, margin // 2 + row * line), one, fill=_INK, font=font)
    return np.asarray(strip)


def _colour_bar(width: int, ends: tuple[str, str], letters: int) -> UInt8[np.ndarray, "h W 3"]:
    """Draw the colours from 0 to 1, as they lie over a medium grey, between the meanings of their ends."""
    font, margin = font_for("".join(ends), letters)[0], letters // 2
    strip = Image.new("RGB", (width, letters + margin), _PAPER)
    pen, middle = ImageDraw.Draw(strip), strip.height // 2
    pen.text((margin, middle), ends[0], fill=_INK, font=font, anchor="lm")
    pen.text((width - margin, middle), ends[1], fill=_INK, font=font, anchor="rm")
    left, right = (2 * margin + math.ceil(font.getlength(end)) for end in ends)
    drawn = np.array(strip)
    drawn[margin // 2 :][:letters, left : width - right] = _colours_in_order(letters, width - left - right)
    return drawn


def _colours_in_order(height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    in_order = np.linspace(0, 1, width)[None]
    placed = PlacedMap(values=in_order, size=(height, width), first_centre=(height / 2, 0.5), stride=1)
    return overlay(np.full((height, width, 3), _GREY, np.uint8), placed)
