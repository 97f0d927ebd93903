"""Activations of layers as descriptors of images (appendix B): averaged over space, mirror image and scales."""

import itertools
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from verydeep.descriptors.descriptor import Descriptor
from verydeep.descriptors.extraction import Extraction, Images, checked_extraction
from verydeep.evaluation.passes import SameSizeBatches
from verydeep.evaluation.pixel_limits import pixels_at_once
from verydeep.images.decode import UnusableImageError
from verydeep.images.image_kinds import missing_for_heif, was_missing_for_heif
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import rescaled_images
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import Tolerance
from verydeep.images.views import centre_location
from verydeep.machine.runtime import Runtime, in_float32
from verydeep.networks.vgg import LayeredNetwork
from verydeep.numbers import number
from verydeep.prediction.pieces import Decoder
from verydeep.runs.model import Model

_TOO_LARGE = re.compile(r"(\d+) x (\d+) pixels when rescaled, more than the .* that are computed at once")
"""Refusal of an image that there is no memory for."""


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """The features of one image."""

    index: int
    """Index in its source."""
    id: str
    label: int
    """-1 if there are no classes."""
    values: dict[str, Float[np.ndarray, " C"] | Float[np.ndarray, "C h w"]]
    """Values of each layer: [C], or [C, h, w] without pooling; stacked scales, the smallest first, make
    [scales * C]."""


class Chunk(NamedTuple):
    """The features of some images of a source."""

    indices: list[int]
    """Indices of the images that could be used, ascending."""
    values: dict[str, Float[np.ndarray, "N ..."]]
    """Values of each layer for these images."""
    refusals: list[UnusableImageError]


def features(
    run: str | Path | Model[LayeredNetwork],
    data: Images,
    *,
    descriptor: Descriptor | None = None,
    split: str | None = None,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
) -> Iterator[ImageFeatures]:
    """Yield the features of every usable image, in the source's order, computed some at a time: up to 64 on a CPU.

    Args:
        run: a run folder, a file that `verydeep export` wrote, or a model that is loaded already (`load_model`), which
            is moved to the device.
        data: SOURCE, as for training, or an image or a folder of them without classes; an open source; or several
            images, as for `predict`. Its classes need not be the run's.
        descriptor: which layers, at which scales, pooled how. By default the paper's at one scale.
        split: part of the source; required for a source with splits.
        runtime: device, processes that decode, and threads, which this process keeps.
        tolerance: how many images may be unusable; those are left out.

    Raises:
        ValueError: unusable run, source, split, layers or scales.
        TooManyBadImagesError: more images are unusable than is tolerated.
    """
    checked = checked_extraction(run, data, descriptor=descriptor, split=split, runtime=runtime, tolerance=tolerance)
    return _image_features(checked)


def _image_features(extraction: Extraction) -> Iterator[ImageFeatures]:
    source, at_once = extraction.source, extraction.images_at_once
    ids, labels = source.ids, source.labels
    quarantine = Quarantine(len(source), extraction.tolerance, split="all")
    for start in range(0, len(source), at_once):
        chunk = extract(extraction, range(start, min(start + at_once, len(source))))
        quarantine.settle(chunk.refusals)
        for row, index in enumerate(chunk.indices):
            values = {name: of_layer[row] for name, of_layer in chunk.values.items()}
            yield ImageFeatures(index=index, id=ids[index], label=int(labels[index]), values=values)


def extract(extraction: Extraction, indices: range, decoder: Decoder | None = None) -> Chunk:
    """Compute the features of some images of the source; on a CPU, with as many threads, always the same to the bit.

    Images come from `decoder`, if several chunks follow each other; otherwise they are decoded for this one.

    Raises:
        WorkerDiedError: a worker was killed, for example.
        ValueError: the network's activations are not finite.
    """
    refused: dict[int, UnusableImageError] = {}
    with in_float32(), torch.inference_mode():
        # Two scales may be the same side in pixels, at which a decoder gives each image once.
        at_sides = {
            side: _at_side(extraction, indices, side, refused, decoder) for side in dict.fromkeys(extraction.sides)
        }
    of_scales = [at_sides[side] for side in extraction.sides]
    usable = [index for index in indices if index not in refused]
    rows = [index - indices.start for index in usable]
    values = {
        name: _combined(extraction, [scale[name][rows] for scale in of_scales]) for name in extraction.crop_shapes
    }
    if not all(np.isfinite(of_layer).all() for of_layer in values.values()):
        reason = " in float16" if extraction.descriptor.dtype == "float16" else ": its training has diverged"
        raise ValueError(f"activations of the network are not finite{reason}")
    return Chunk(usable, values, list(refused.values()))


def _at_side(
    extraction: Extraction, indices: range, side: int, refused: dict[int, UnusableImageError], decoder: Decoder | None
) -> dict[str, NDArray[np.float32]]:
    """Return each layer's values [len(indices), ...], 0 for images that are refused, and note those in `refused`."""
    net = extraction.model.net.eval()
    values = {
        name: np.zeros((len(indices), *(shape if extraction.descriptor.pool == "none" else shape[:1])), np.float32)
        for name, shape in extraction.crop_shapes.items()
    }
    at_once = pixels_at_once([net], net.mean_rgb.device)
    batches = SameSizeBatches(at_once // extraction.views_at_once)
    with closing(_usable_images(extraction, indices, side, refused, decoder)) as images:
        full = (batch for index, image in images if (batch := batches.add(index, image)))
        for its_indices, its_images in itertools.chain(full, batches.rest()):
            rows = [index - indices.start for index in its_indices]
            for name, of_batch in _of_batch(extraction, its_images, at_once).items():
                values[name][rows] = of_batch.cpu().numpy()
    return values


def _usable_images(
    extraction: Extraction, indices: range, side: int, refused: dict[int, UnusableImageError], decoder: Decoder | None
) -> Generator[tuple[int, Tensor]]:
    """Yield the images at a scale that no scale has refused so far, or their centre crops without pooling."""
    if decoder is None:
        wanted = [index for index in indices if index not in refused]
        limits = {"max_pixels": extraction.tolerance.max_pixels, "workers": extraction.runtime.workers}
        images = rescaled_images(extraction.source, side, indices=wanted, **limits)
    else:
        images = decoder(side, indices)
    with closing(images):
        for index, image in images:
            if index in refused:  # at another scale
                continue
            if isinstance(image, UnusableImageError):
                refused[index] = image
                continue
            crop = extraction.model.net.architecture.crop
            view = _centre_crop(image, crop) if extraction.descriptor.pool == "none" else image
            if view[0].numel() > extraction.most_pixels:
                refused[index] = _too_large(extraction.source.ids[index], view, extraction.most_pixels)
            else:
                yield index, view


def _too_large(name: str, image: Tensor, most: int) -> UnusableImageError:
    """Return why an image is refused: activations are those of whole images, never of tiles."""
    height, width = image.shape[1:]
    size = f"{width} x {height} pixels when rescaled"
    detail = f"{size}, more than the {number(most)} that are computed at once: take smaller scales"
    return UnusableImageError(name, "too large", detail)


def any_usable_now(source: Source, unusable: Mapping[str, str], indices: range, *, most_pixels: int) -> bool:
    """Return whether an image that was left out may be used now: it was away, or a package or memory was missing.

    A device has more of it when other processes need less.

    Args:
        source: where the images come from.
        unusable: names of the images that were left out, each with the reason.
        indices: where in the source they are to be looked for.
        most_pixels: pixels of an image that can be computed at once now.
    """
    if any(_fits(reason, most_pixels) for reason in unusable.values()):
        return True
    if missing_for_heif() is None and any(map(was_missing_for_heif, unusable.values())):
        return True
    away = {name for name, reason in unusable.items() if reason.startswith("unreadable")}
    for index in (index for index in indices if source.ids[index] in away):
        with suppress(UnusableImageError):
            source[index]
            return True
    return False


def _fits(reason: str, most_pixels: int) -> bool:
    refused = _TOO_LARGE.search(reason)
    return refused is not None and int(refused[1]) * int(refused[2]) <= most_pixels


def _centre_crop(image: Tensor, crop: int) -> Tensor:
    top, left = centre_location((image.shape[1], image.shape[2]), crop)
    return image[:, top : top + crop, left : left + crop]


def _of_batch(extraction: Extraction, images: Tensor, at_once: int) -> dict[str, Tensor]:
    """Return each layer's average [B, C] over positions and mirror images; or its output [B, ...] for crops.

    Images and their mirror images go through the network together, so that it reads its weights once, unless they are
    more than `at_once` pixels.
    """
    net, layers = extraction.model.net, list(extraction.crop_shapes)
    on_device = images.to(net.mean_rgb.device, torch.float32, memory_format=torch.channels_last)
    if extraction.descriptor.pool == "none":
        return net.activations(on_device, layers)
    views = [on_device, on_device.flip(-1)] if extraction.descriptor.mirror else [on_device]
    together = len(views) * images[:, 0].numel() <= at_once
    pooled = [
        {name: values.mean(dim=(2, 3)) for name, values in net.activations(batch, layers, dense=True).items()}
        for batch in ([torch.cat(views)] if together else views)
    ]
    of_views = {name: torch.cat([of_batch[name] for of_batch in pooled]) for name in layers}
    return {name: values.unflatten(0, (len(views), len(images))).mean(dim=0) for name, values in of_views.items()}


def _combined(extraction: Extraction, of_scales: list[NDArray[np.float32]]) -> NDArray[np.floating]:
    """Return the descriptor [N, ...] from a layer's values at each scale."""
    stack = extraction.descriptor.pool == "stack"
    combined: NDArray[np.floating] = (
        np.concatenate(of_scales, axis=1) if stack else np.mean(of_scales, axis=0, dtype=np.float32)
    )
    if extraction.descriptor.normalise:
        lengths = np.linalg.norm(combined, axis=1, keepdims=True)
        lengths[lengths == 0] = 1  # no unit of the layer responds to the image
        combined = np.divide(combined, lengths, dtype=np.float32)
    with np.errstate(over="ignore"):  # refused by the caller
        return combined.astype(extraction.descriptor.dtype)
