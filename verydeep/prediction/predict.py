"""Images to their most probable classes, a few at a time."""

import io
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from verydeep.evaluation.passes import PassContext
from verydeep.evaluation.pictures import image_at_scale
from verydeep.evaluation.posteriors import averages, protocol_passes
from verydeep.evaluation.protocols import Method, Protocol, Scales, chosen_scales
from verydeep.evaluation.score_maps import overlay, posterior_map
from verydeep.export.exported import is_exported, load_exported
from verydeep.images.decode import UnusableImageError
from verydeep.images.open import open_given
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.derived import Subset
from verydeep.images.sources.given import GivenImage, GivenImages
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.processes import Processes, joined
from verydeep.machine.runtime import Device, Runtime, torch_device
from verydeep.networks.scales import scale_in_pixels
from verydeep.networks.scoring import ScoringNetwork
from verydeep.networks.vgg import VGG
from verydeep.prediction import pieces
from verydeep.prediction.files import write_picture
from verydeep.runs.model import Model, Net, load_model

ADVICE = "start it again"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network makes of one image."""

    image: str
    """Its path; `image 3` for the fourth of those given as pixels or bytes."""
    classes: tuple[str, ...]
    """The most probable ones, the first first; empty when the image cannot be used."""
    probabilities: tuple[float, ...]
    """Posterior of each, 0..1."""
    error: str | None = None
    """Why the image cannot be used, or why it could no longer be when its picture was to be drawn."""
    score_map: str | None = None
    """File of the picture that shows where the first class is seen, if pictures were asked for."""

    def to_dict(self) -> dict[str, Any]:
        """The same as a plain dictionary, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What was asked for."""

    name: str
    model: Model[ScoringNetwork]
    source: Source
    protocol: Protocol
    top: int
    maps: Path | None
    runtime: Runtime
    tolerance: Tolerance


def predict(
    run: str | Path | Model[ScoringNetwork],
    images: GivenImage | GivenImages | Iterable[GivenImage],
    *,
    top: int = 5,
    protocol: Method = "dense",
    scales: Sequence[int] | Scales = "single",
    maps: str | Path | None = None,
    runtime: Runtime | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Prediction]:
    """The most probable classes of every image, in the order given, as they are computed.

    An image that cannot be used gives a prediction with `error` set, and the others go on. Under torchrun every
    process computes its share, and all predictions come in the first one; in the others there are none.

    Args:
        run: a run folder, a file that `verydeep export` wrote, or a model that is loaded already (`load_model`);
            it goes to the device.
        images: one image or several: paths of files, folders (the image files in them and below) or patterns
            (`photos/**/*.jpg`); bytes of an image file; pixels, uint8 [H, W, 3]; images as Pillow holds them.
        top: how many classes.
        protocol: `dense`, `crops` or `both` (`Protocol.method`).
        scales: Q for a crop of 224, or `single` (Q = S), or `paper` (the three that follow from the run's S).
        maps: folder for a picture of each image with the score map of its first class over it.
        runtime: device, and processes that decode, so many for each scale.
        max_pixels: larger images cannot be used.

    Raises:
        ValueError: unusable run, protocol or scales, `top` below 1, unusable `max_pixels`, a path that does not exist,
            or pixels of another kind.
        OSError: the pictures cannot be written.
    """
    if top < 1:
        raise ValueError(f"top must be 1 or more, not {top}")
    tolerance = Tolerance(max_bad=100, max_pixels=max_pixels)
    source = open_given(images)
    runtime = runtime or Runtime()
    model = model_on(runtime.device, run)
    asked = Protocol(method=protocol, scales=chosen_scales(scales, trained=model.scale), mirror=model.flip)
    order = _Order(
        name=str(run) if isinstance(run, str | Path) else "the model",
        model=model,
        source=source,
        protocol=asked,
        top=top,
        maps=None if maps is None else Path(maps),
        runtime=runtime,
        tolerance=tolerance,
    )
    return _predictions(order)


def model_on(device: Device, run: str | Path | Model[ScoringNetwork]) -> Model[ScoringNetwork]:
    """A run's or an exported file's model, its network on a device; one that is loaded already is moved there.

    An exported network stays on the CPU, which `auto` is for it.

    Raises:
        ValueError: there is no usable model, or it cannot compute there.
    """
    if not isinstance(run, str | Path):
        return on_device(device, run)
    return on_device(device, load_exported(run, device) if is_exported(run) else load_model(run))


def on_device(device: Device, model: Model[Net]) -> Model[Net]:
    """Move a model's network to a device; an exported one stays on the CPU, which `auto` is for it.

    Raises:
        ValueError: it cannot compute there.
    """
    if isinstance(model.net, VGG):
        model.net.to(torch_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    elif device != "auto":
        model.net.to(torch_device(device))
    return model


def _predictions(order: _Order) -> Iterator[Prediction]:
    """Pieces of the source, each of as many images as take a few seconds."""
    images = len(order.source)
    model, protocol = order.model, order.protocol
    with joined(model.net.mean_rgb.device, advice=ADVICE, known=(WorkerDiedError,)) as processes:
        processes.check_alike(
            "images or another run under these names",
            lambda: (order.source.fingerprint, model.weights_sha256, model.classes, protocol, order.top, order.maps),
        )
        share = range(processes.rank, images, processes.count)
        workers, max_pixels = order.runtime.workers, order.tolerance.max_pixels
        with pieces.decoding(order.source, share=share, workers=workers, max_pixels=max_pixels) as opened:
            start, at_once = 0, pieces.FIRST_IMAGES
            while start < images:
                began, stop = time.monotonic(), start + at_once * processes.count
                found = _of_piece(order, range(start, min(stop, images)), processes, opened)
                seconds = time.monotonic() - began
                yield from found
                start, at_once = stop, processes.all_of(pieces.next_piece(at_once, seconds))[0]


def _of_piece(order: _Order, indices: range, processes: Processes, opened: pieces.Opened) -> list[Prediction]:
    """The predictions of some images; none in other processes than the first."""
    piece = Subset(source=order.source, indices=tuple(indices))
    quarantine = Quarantine(len(piece), order.tolerance)
    context = PassContext(source=piece, quarantine=quarantine, processes=processes, opened=opened)
    passes = protocol_passes(order.model.net, order.protocol, name=order.name)
    found = averages([passes], context).values
    best = [_best(posterior, order.top) for posterior in found[0]] if processes.first else []
    pictures = _pictures(order, piece, best, processes) if order.maps is not None else {}
    predictions = []
    for place, classes in enumerate(best):
        picture = pictures.get(place)
        error = None if classes else quarantine.reasons[piece.ids[place]]
        predictions.append(
            Prediction(
                image=piece.ids[place],
                classes=tuple(order.model.classes[label] for label in classes),
                probabilities=tuple(float(found[0][place, label]) for label in classes),
                error=picture.reason if isinstance(picture, UnusableImageError) else error,
                score_map=_written(order, indices[place], picture) if isinstance(picture, bytes) else None,
            )
        )
    return predictions


def _best(posterior: NDArray[np.float64], top: int) -> list[int]:
    """Labels of the most probable classes; none of an image that cannot be used."""
    if np.isnan(posterior[0]):
        return []
    best: list[int] = (-posterior).argsort(kind="stable")[:top].tolist()
    return best


def _pictures(
    order: _Order, piece: Source, best: Sequence[Sequence[int]], processes: Processes
) -> dict[int, bytes | UnusableImageError]:
    """PNG files with the score map of every image's first class, by place; each process draws its share.

    In place of one stands why the image, which is read again, can no longer be used.
    """
    tops = processes.from_first(lambda: [classes[0] if classes else None for classes in best])
    mine: dict[int, bytes | UnusableImageError] = {}
    for place in range(processes.rank, len(piece), processes.count):
        label = tops[place]
        if label is not None:
            try:
                mine[place] = _picture(order, piece, place, label)
            except UnusableImageError as refusal:
                mine[place] = refusal
    told = processes.to_first(mine) or []
    return {place: picture for share in told for place, picture in share.items()}


def _picture(order: _Order, piece: Source, place: int, label: int) -> bytes:
    """At the middle one of the scales."""
    net, scales = order.model.net, order.protocol.scales
    side = scale_in_pixels(scales[len(scales) // 2], net.architecture.crop)
    image = image_at_scale(piece, place, side, max_pixels=order.tolerance.max_pixels)
    buffer = io.BytesIO()
    Image.fromarray(overlay(image, posterior_map(net, image)[label], crop=net.architecture.crop)).save(buffer, "PNG")
    return buffer.getvalue()


def _written(order: _Order, number: int, picture: bytes) -> str:
    assert order.maps is not None
    return write_picture(order.maps, order.source.ids, number, picture, suffix=".png")
