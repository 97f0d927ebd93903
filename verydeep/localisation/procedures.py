"""Where networks see objects (appendix A): in a centre crop, given the class; or in whole images, given nothing."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.evaluation.dense import largest_image, score_map
from verydeep.evaluation.protocols import Windows
from verydeep.ilsvrc_classes import places
from verydeep.images.boxes.geometry import Boxes, boxes_in_image, clipped, rescaled_boxes
from verydeep.images.decode import UnusableImageError, upright_size
from verydeep.images.loader import RescaledImages, centre_batches, rescaled_images
from verydeep.images.on_device import shown
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source
from verydeep.images.views import Size, centre_place, rescaled_size
from verydeep.localisation.box_merging import merged
from verydeep.networks.configurations import DOWNSAMPLING, PAPER_CROP
from verydeep.networks.scales import middle_scale, scale_in_pixels
from verydeep.runs.model import Model

CROPS_AT_ONCE = 32

TOP = 5
"""Classes whose boxes are told (ILSVRC's task allows five answers)."""


class Seen(NamedTuple):
    """What the full test makes of one image."""

    posterior: NDArray[np.float64]
    """[classes], of the classification runs; the same for all groups."""
    boxes: Boxes
    """[groups, classes, 4], the best one of every group of box runs for each class; NaN for classes not asked for."""


@dataclass(frozen=True, kw_only=True)
class FullTest:
    """The networks of a full test, all with the same crop and classes, and the scales Q for a crop of 224.

    An ILSVRC class may have either of its names in a classification network: its WordNet id or its word.
    """

    box_models: Sequence[Model]
    classifiers: Sequence[Model]
    groups: Sequence[Sequence[int]]
    """Which box models' predictions are put together."""
    scales: Sequence[int] = ()
    """Q of all networks. If none is said each has its own S, so that what a group finds is the same whatever other
    networks are tested beside it."""
    windows: Windows | None = None
    """`dense` is the paper's. If not said: that for crops of 224 or more, `crops` for smaller ones, whose windows are
    mostly border. There, what training saw was zero padding, and what dense application sees are the neighbours."""

    def __post_init__(self) -> None:
        """Raises ValueError where networks do not go together, or scales cannot be."""
        if self.scales and (min(self.scales) < PAPER_CROP or len(set(self.scales)) < len(self.scales)):
            raise ValueError(
                f"scales are different whole numbers from {PAPER_CROP} (the crop) up, not {list(self.scales)}"
            )
        if not self.classifiers:
            raise ValueError("the full test rates boxes by class scores: name a classification run (--classifier)")
        for other in (*self.box_models, *self.classifiers):
            if other.net.crop != self.crop:
                raise ValueError(f"crops differ ({self.crop} and {other.net.crop}): windows must be the same")
            differing = _differing(self.classes, other.classes)
            if differing:
                raise ValueError(f"classes of the runs differ: {', '.join(differing[:TOP])} are not in all")
        if any(other.classes != self.classes for other in self.box_models):
            raise ValueError("runs of boxes have the same classes in another order or under other names")

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of all results."""
        return self.box_models[0].classes

    @property
    def crop(self) -> int:
        """Of all networks."""
        return self.box_models[0].net.crop

    @property
    def all_scales(self) -> tuple[int, ...]:
        """Q at which any network looks at images, the smallest first."""
        return tuple(
            sorted({scale for model in (*self.box_models, *self.classifiers) for scale in self.scales_of(model)})
        )

    def scales_of(self, model: Model) -> tuple[int, ...]:
        """Q at which a network predicts boxes, or ranks classes."""
        return tuple(self.scales) or (middle_scale(model.scale),)

    def scales_of_group(self, group: Sequence[int]) -> tuple[int, ...]:
        """Q at which the boxes of a group are predicted, the smallest first."""
        return tuple(sorted({scale for which in group for scale in self.scales_of(self.box_models[which])}))

    @property
    def way(self) -> Windows:
        """How windows go through the networks."""
        return self.windows or ("dense" if self.crop >= PAPER_CROP else "crops")


def _differing(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """Names of classes that are in one only; an ILSVRC class may have another name in the other."""
    return sorted({*(name for name in one if name not in places(other)), *(n for n in other if n not in places(one))})


def centre_crop_boxes(
    model: Model,
    source: Source,
    *,
    quarantine: Quarantine,
    workers: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> Boxes:
    """The box of each image's true class, [N, 4] in pixels of the image, from its centre crop at S.

    Rows of images that cannot be used are NaN. Boxes are cut off at the image's borders. The source's labels are those
    of the model's classes.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        WorkerDiedError: a worker was killed, say.
    """
    net, crop = model.net.eval(), model.net.crop
    scale = scale_in_pixels(middle_scale(model.scale), crop)
    images = RescaledImages(source, max_pixels=quarantine.tolerance.max_pixels, once=True)
    batches = centre_batches(
        images, crop=crop, scale=scale, batch=CROPS_AT_ONCE, quarantine=quarantine, workers=workers
    )
    found = np.full((len(source), 4), np.nan)
    with closing(batches):
        for number, batch in enumerate(batches):
            given = shown(batch, net.mean_rgb.device)
            with torch.inference_mode():
                outputs = net(given.images).float().cpu()
            heads = outputs.unflatten(1, (-1, 4)).numpy()  # of a batch that may be empty
            for place, head, label in zip(given.places.tolist(), heads, given.labels.tolist(), strict=True):
                index = number * CROPS_AT_ONCE + place
                size = _size(source, index, quarantine)
                if size is None:
                    continue
                whole = rescaled_size(size, scale)
                top, left = centre_place(whole, crop)
                box = boxes_in_image(head[label % len(head)], crop, top=top, left=left)
                found[index] = clipped(rescaled_boxes(box, whole, size), size)
            advance(min(CROPS_AT_ONCE, len(source) - number * CROPS_AT_ONCE))
    return found


def full_test(
    test: FullTest, source: Source, *, quarantine: Quarantine, workers: int = 0, wanted: Sequence[int] | None = None
) -> Generator[tuple[int, Seen | None]]:
    """Index and what is seen of every image of a source, in order; None for images that cannot be used.

    A network of boxes is applied to all windows at its scales (`FullTest.scales_of`). Every window gives a box, which
    is rated for a class by the classification networks' posterior in that window, at that scale: whatever S they were
    trained at. Boxes of all scales and of all networks in a group are merged; the one with the highest rating is the
    class's. Classes are ranked by the posterior of the whole image, the average over the classification networks, each
    at its own scales. Boxes are told of the `TOP` most probable classes, and of the one that `wanted` says for each
    image.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        WorkerDiedError: a worker was killed, say.
    """
    limit = quarantine.tolerance.max_pixels
    sides = [scale_in_pixels(scale, test.crop) for scale in test.all_scales]
    streams = [rescaled_images(source, side, max_pixels=limit, workers=workers) for side in sides]
    try:
        for at_scales in zip(*streams, strict=True):
            index = at_scales[0][0]
            refusal = next((image for _, image in at_scales if isinstance(image, UnusableImageError)), None)
            if refusal is not None:
                quarantine.add(refusal)
                yield index, None
                continue
            size = _size(source, index, quarantine)
            if size is None:
                yield index, None
                continue
            images = [image for _, image in at_scales if isinstance(image, Tensor)]
            also = () if wanted is None else (wanted[index],)
            yield index, _seen(test, dict(zip(test.all_scales, images, strict=True)), size, also)
    finally:
        for stream in streams:
            stream.close()


@dataclass(frozen=True, kw_only=True)
class _Windows:
    """Of one image, each box model's windows at all its scales."""

    boxes: list[Boxes]
    """[windows, 1 or classes, 4] each, in pixels of the image."""
    scores: list[NDArray[np.float64]]
    """[windows, classes] each."""
    posterior: NDArray[np.float64]
    """[classes], of the whole image."""


def _seen(test: FullTest, images: Mapping[int, Tensor], size: Size, also: Sequence[int]) -> Seen:
    windows = _windows(test, images, size)
    chosen = {*np.argsort(-windows.posterior, kind="stable")[:TOP].tolist(), *also}
    boxes = np.full((len(test.groups), len(test.classes), 4), np.nan)
    for place, group in enumerate(test.groups):
        for label in chosen:
            candidates = [windows.boxes[which][:, label % windows.boxes[which].shape[1]] for which in group]
            ratings = [windows.scores[which][:, label] for which in group]
            best, _ = merged(np.concatenate(candidates), np.concatenate(ratings))
            boxes[place, label] = clipped(best[0], size)
    return Seen(windows.posterior, boxes)


def _windows(test: FullTest, images: Mapping[int, Tensor], size: Size) -> _Windows:
    """Of an image of `size` that is given at all scales."""
    boxes: list[list[Boxes]] = [[] for _ in test.box_models]
    scores: list[list[NDArray[np.float64]]] = [[] for _ in test.box_models]
    posteriors: list[list[NDArray[np.float64]]] = [[] for _ in test.classifiers]
    for scale, image in images.items():
        looking = [which for which, model in enumerate(test.box_models) if scale in test.scales_of(model)]
        of_windows = []
        for its, model in zip(posteriors, test.classifiers, strict=True):
            ranking = scale in test.scales_of(model)
            if looking or ranking:
                at_windows, of_image = _class_scores(model, image, test, mirror=ranking and model.flip)
                of_windows.append(at_windows)
                its.extend([of_image] if ranking else [])
        for which in looking:
            boxes[which].append(_window_boxes(test.box_models[which], image, test, size))
            scores[which].append(np.mean(of_windows, axis=0))
    return _Windows(
        boxes=[np.concatenate(found) for found in boxes],
        scores=[np.concatenate(found) for found in scores],
        posterior=np.mean([np.mean(its, axis=0) for its in posteriors], axis=0),
    )


def _window_boxes(model: Model, image: Tensor, test: FullTest, size: Size) -> Boxes:
    """[windows, 1 or classes, 4] in pixels of the image of `size` that is given rescaled, [3, H, W]."""
    whole = (image.shape[1], image.shape[2])
    top, left = window_places(whole, test.crop)
    heads = _map(model, image[None], test.way)[0].flatten(1).T.reshape(len(top), -1, 4)
    return rescaled_boxes(boxes_in_image(heads.numpy(), test.crop, top=top[:, None], left=left[:, None]), whole, size)


def window_places(size: Size, crop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Top and left of the windows of a score map (the centred grid) of an image of `size`, [windows] each, by rows."""
    tops, lefts = (
        side % DOWNSAMPLING // 2 + DOWNSAMPLING * np.arange(side // DOWNSAMPLING - crop // DOWNSAMPLING + 1)
        for side in size
    )
    return np.repeat(tops, len(lefts)), np.tile(lefts, len(tops))


def _class_scores(
    model: Model, image: Tensor, test: FullTest, *, mirror: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Posteriors of the windows [windows, classes], and of the image [classes], averaged with its mirror if wanted."""
    views = torch.stack([image, image.flip(-1)] if mirror else [image])
    known = places(model.classes)
    scores = _map(model, views, test.way)[:, [known[name] for name in test.classes]]
    windows = scores[0].flatten(1).softmax(dim=0).T
    whole = scores.mean(dim=(2, 3)).softmax(dim=1).mean(dim=0)
    return windows.double().numpy(), whole.double().numpy()


def _map(model: Model, images: Tensor, way: Windows) -> Tensor:
    """Outputs over space, [B, outputs, h, w], of images [B, 3, H, W]."""
    net, crop = model.net, model.net.crop
    if way == "dense":
        return score_map(net, images, pixels=largest_image([net], net.mean_rgb.device)).float().cpu()
    tops, lefts = window_places((images.shape[2], images.shape[3]), crop)
    cut = [images[:, :, top : top + crop, left : left + crop] for top, left in zip(tops, lefts, strict=True)]
    with torch.inference_mode():
        outputs = [net(part.to(net.mean_rgb.device)).float().cpu() for part in torch.cat(cut).split(CROPS_AT_ONCE)]
    rows = len(np.unique(tops))
    return torch.cat(outputs).unflatten(0, (rows, -1, len(images))).permute(2, 3, 0, 1)


def _size(source: Source, index: int, quarantine: Quarantine) -> Size | None:
    """Of an image that is read again; None if it can no longer be used."""
    try:
        sample = source[index]
        return upright_size(sample.data, sample.id, max_pixels=quarantine.tolerance.max_pixels)
    except UnusableImageError as refusal:
        quarantine.add(refusal)
        return None
