"""Activations of layers as descriptors of images (appendix B): averaged over space, mirror image and scales."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.descriptors.descriptor import Descriptor, DType, Pool
from verydeep.evaluation.batches import SameSizeBatch, SameSizeBatches
from verydeep.evaluation.dense import MOST_PIXELS, largest_image, pixels_at_once
from verydeep.evaluation.passes import in_float32
from verydeep.evaluation.protocols import chosen_scales
from verydeep.images.decode import UnusableImageError
from verydeep.images.loader import rescaled_images
from verydeep.images.open import open_one_split
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.given import GivenImage
from verydeep.images.sources.source import Source
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.images.views import centre_place
from verydeep.machine.runtime import Runtime
from verydeep.networks.arithmetic import describe
from verydeep.networks.configurations import PAPER_CROP
from verydeep.networks.scales import scale_in_pixels
from verydeep.networks.scoring import ScoringNetwork
from verydeep.networks.vgg import VGG
from verydeep.prediction.pieces import Opened
from verydeep.prediction.predict import model_on
from verydeep.runs.model import Model

IMAGES_AT_ONCE, IMAGES_AT_ONCE_ON_CPU = 1024, 64
"""Up to so many are computed, and lost if the work is killed, before they are kept."""

BYTES_AT_ONCE = 128 * 2**20
"""Fewer images where their features take more."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """A descriptor of the images of a source, all choices made."""

    model: Model
    source: Source
    of_crop: dict[str, tuple[int, ...]]
    """Of each layer what it gives for one crop, [C] or [C, h, w]."""
    scales: tuple[int, ...]
    pool: Pool
    mirror: bool
    normalise: bool
    dtype: DType
    runtime: Runtime
    tolerance: Tolerance
    largest: int
    """Pixels of an image at a scale that there is memory for."""

    @property
    def copies(self) -> int:
        """How many scales stand one after the other."""
        return len(self.scales) if self.pool == "stack" else 1

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each layer's values for one image."""
        return {
            name: shape if self.pool == "none" else (self.copies * shape[0],) for name, shape in self.of_crop.items()
        }

    @property
    def images_at_once(self) -> int:
        """How many images make a part."""
        numbers = sum(math.prod(shape) for shape in self.shapes.values())
        most = IMAGES_AT_ONCE_ON_CPU if self.model.net.mean_rgb.device.type == "cpu" else IMAGES_AT_ONCE
        return max(1, min(most, BYTES_AT_ONCE // (4 * numbers)))


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """What describes one image."""

    index: int
    """In its source."""
    id: str
    label: int
    """-1 where there are no classes."""
    values: dict[str, NDArray[np.floating]]
    """Of each layer: [C], or [C, h, w] without pooling; stacked scales, the smallest first, make [scales * C]."""


class Part(NamedTuple):
    """The features of some images of a source."""

    indices: list[int]
    """Of those that could be used, ascending."""
    values: dict[str, NDArray[np.floating]]
    """Of each layer, [len(indices), ...]."""
    refusals: list[UnusableImageError]


def features(
    run: str | Path | Model,
    data: str | Path | Source | Splits | GivenImage | Sequence[GivenImage],
    *,
    descriptor: Descriptor | None = None,
    split: str | None = None,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
) -> Iterator[ImageFeatures]:
    """The features of every usable image, in the source's order, a few hundred images at a time.

    Args:
        run: a run folder, or a model that is loaded already (`load_model`); it goes to the device.
        data: SOURCE, as for training, or an image or a folder of them without classes; an open source; or several
            images, as for `predict`. Its classes need not be the run's.
        descriptor: which layers, at which scales, pooled how. If not said, the paper's at one scale.
        split: part of the source; of one with splits it must be said.
        runtime: device, and processes that decode.
        tolerance: how many images may be unusable; those are left out.

    Raises:
        ValueError: unusable run, source, split, layers or scales.
        TooManyBadImagesError: more images are unusable than is tolerated.
    """
    asked = extraction(run, data, descriptor=descriptor, split=split, runtime=runtime, tolerance=tolerance)
    return _rows(asked)


def extraction(
    run: str | Path | Model,
    data: str | Path | Source | Splits | GivenImage | Sequence[GivenImage],
    *,
    descriptor: Descriptor | None = None,
    split: str | None = None,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
) -> Extraction:
    """What `features` is asked for, checked.

    Raises:
        ValueError: as `features`.
    """
    chosen, runtime = descriptor or Descriptor(), runtime or Runtime()
    model = model_on(runtime.device, run)
    if not _has_layers(model):
        raise ValueError(
            f"{run} is an exported network, whose layers cannot be reached: name the run that it came from"
        )
    scales = chosen_scales(chosen.scales, trained=model.scale)
    if not scales or min(scales) < PAPER_CROP or len(set(scales)) < len(scales):
        raise ValueError(f"scales are different whole numbers from {PAPER_CROP} (the crop) up, not {list(scales)}")
    if chosen.pool == "none" and len(scales) > 1:
        raise ValueError(f"without pooling features are of one scale, not of {', '.join(map(str, scales))}")
    mirror = model.flip if chosen.mirror is None else chosen.mirror
    of_crop = _shapes(model.net, chosen.layers)
    _check_trained(str(run), model, chosen.layers)
    return Extraction(
        model=model,
        source=open_one_split(data, split),
        of_crop=of_crop,
        scales=scales,
        pool=chosen.pool,
        mirror=mirror and chosen.pool != "none",
        normalise=chosen.normalise,
        dtype=chosen.dtype,
        runtime=runtime,
        tolerance=tolerance or Tolerance(),
        largest=_largest(model.net),
    )


def _has_layers(model: Model[ScoringNetwork]) -> TypeGuard[Model]:
    """Return whether its network is no exported one."""
    return isinstance(model.net, VGG)


def _check_trained(name: str, model: Model, layers: Sequence[str]) -> None:
    """Refuses layers that are random, or come after such."""
    order = model.net.layer_names
    first = min(map(order.index, model.drawn), default=len(order))
    random = [layer for layer in layers if order.index(layer) >= first]
    if random:
        last = max(map(order.index, random))
        needed = " and ".join(layer for layer in model.drawn if order.index(layer) <= last)
        raise ValueError(
            f"{name} was imported without {', '.join(model.drawn)}, so {', '.join(random)} would be of random weights: "
            f"take a run with {needed}, or of this one {order[first - 1]} or an earlier layer (verydeep features)"
        )


def _largest(net: VGG) -> int:
    """What other devices than CUDA's have free is not known."""
    device = net.mean_rgb.device
    return largest_image([net], device) if device.type == "cuda" else MOST_PIXELS


def _shapes(net: VGG, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """What each layer gives for one crop, [C] or [C, h, w]."""
    unknown = [name for name in names if name not in net.layer_names]
    if unknown or not names or len(set(names)) < len(names):
        asked = f"no layer {', '.join(map(repr, unknown))}" if unknown else "layers are one or more different ones"
        raise ValueError(f"{asked}: this network has {', '.join(net.layer_names)}")
    listed = {layer.name: layer.output for layer in describe(net.architecture).layers}
    shape: tuple[int, ...] = ()
    found = {}
    for name in net.layer_names:
        if name in listed:  # ReLU and dropout keep the shape
            shape = listed[name][:1] if name.startswith("fc") else listed[name]
        found[name] = shape
    return {name: found[name] for name in names}


def _rows(asked: Extraction) -> Iterator[ImageFeatures]:
    source, at_once = asked.source, asked.images_at_once
    ids, labels = source.ids, source.labels
    quarantine = Quarantine(len(source), asked.tolerance, split="all")
    for start in range(0, len(source), at_once):
        part = compute_part(asked, range(start, min(start + at_once, len(source))))
        quarantine.settle(part.refusals)
        for row, index in enumerate(part.indices):
            values = {name: of_layer[row] for name, of_layer in part.values.items()}
            yield ImageFeatures(index=index, id=ids[index], label=int(labels[index]), values=values)


def compute_part(asked: Extraction, indices: range, opened: Opened | None = None) -> Part:
    """The features of some images of the source; on a CPU, with as many threads, always the same to the bit.

    Images come from what is `opened`, where several parts follow each other; else they are opened for this one.

    Raises:
        WorkerDiedError: a worker was killed, say.
        ValueError: the network's activations are no numbers.
    """
    refused: dict[int, UnusableImageError] = {}
    of_scales: list[dict[str, NDArray[np.float32]]] = []
    with in_float32(), torch.inference_mode():
        for scale in asked.scales:
            side = scale_in_pixels(scale, asked.model.net.architecture.crop)
            of_scales.append(_at_scale(asked, indices, side, refused, opened))
    usable = [index for index in indices if index not in refused]
    rows = [index - indices.start for index in usable]
    values = {name: _combined(asked, [found[name][rows] for found in of_scales]) for name in asked.of_crop}
    if not all(np.isfinite(found).all() for found in values.values()):
        beyond = " in float16" if asked.dtype == "float16" else ": its training has diverged"
        raise ValueError(f"activations of the network are not finite{beyond}")
    return Part(usable, values, list(refused.values()))


def _combined(asked: Extraction, of_scales: list[NDArray[np.float32]]) -> NDArray[np.floating]:
    """The descriptor [N, ...] from a layer's values at each scale."""
    stacked = asked.pool == "stack"
    found: NDArray[np.floating] = (
        np.concatenate(of_scales, axis=1) if stacked else np.mean(of_scales, axis=0, dtype=np.float32)
    )
    if asked.normalise:
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        lengths[lengths == 0] = 1  # an image that nothing in the layer answers to
        found = np.divide(found, lengths, dtype=np.float32)
    with np.errstate(over="ignore"):  # told by the caller
        return found.astype(asked.dtype)


def _at_scale(
    asked: Extraction, indices: range, side: int, refused: dict[int, UnusableImageError], opened: Opened | None
) -> dict[str, NDArray[np.float32]]:
    """Of each layer [len(indices), ...], nothing where an image is refused."""
    net = asked.model.net.eval()
    found = {
        name: np.zeros((len(indices), *(shape if asked.pool == "none" else shape[:1])), np.float32)
        for name, shape in asked.of_crop.items()
    }
    batches = SameSizeBatches(pixels_at_once([net], net.mean_rgb.device))
    wanted = [index for index in indices if index not in refused]
    limits = {"max_pixels": asked.tolerance.max_pixels, "workers": asked.runtime.workers}
    images = opened(side, indices) if opened else rescaled_images(asked.source, side, indices=wanted, **limits)

    def put(batch: SameSizeBatch) -> None:
        rows = [index - indices.start for index in batch[0]]
        for name, values in _of_batch(asked, batch[1]).items():
            found[name][rows] = values.cpu().numpy()

    with closing(images):
        for index, image in images:
            if index in refused:  # at another scale
                continue
            if isinstance(image, UnusableImageError):
                refused[index] = image
                continue
            shown = image if asked.pool != "none" else _centre_crop(image, net.architecture.crop)
            if shown[0].numel() > asked.largest:
                refused[index] = _too_large(asked.source.ids[index], shown, asked.largest)
            elif batch := batches.add(index, shown):
                put(batch)
    for batch in batches.rest():
        put(batch)
    return found


def _too_large(name: str, image: Tensor, largest: int) -> UnusableImageError:
    """Layers are computed of whole images, never in tiles."""
    height, width = image.shape[1:]
    what = (
        f"{width} x {height} pixels when rescaled, over {largest:,}, too many for layers at once: take smaller scales"
    )
    return UnusableImageError(name, "too large", what)


def _centre_crop(image: Tensor, crop: int) -> Tensor:
    top, left = centre_place((image.shape[1], image.shape[2]), crop)
    return image[:, top : top + crop, left : left + crop]


def _of_batch(asked: Extraction, images: Tensor) -> dict[str, Tensor]:
    """Of each layer: [B, C], the average over positions and mirror images; or [B, ...] as it is, of crops."""
    net = asked.model.net
    shown = images.to(net.mean_rgb.device, torch.float32, memory_format=torch.channels_last)
    if asked.pool == "none":
        return net.activations(shown, asked.of_crop)
    views = [shown, shown.flip(-1)] if asked.mirror else [shown]
    pooled = [
        {name: values.mean(dim=(2, 3)) for name, values in net.activations(view, asked.of_crop, dense=True).items()}
        for view in views
    ]
    return {name: torch.stack([found[name] for found in pooled]).mean(dim=0) for name in asked.of_crop}
