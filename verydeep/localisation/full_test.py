"""The full test of boxes (appendix A.2): whole images, with no class given."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from verydeep.evaluation.dense import score_map
from verydeep.evaluation.metrics import TOP
from verydeep.evaluation.pixel_limits import largest_image
from verydeep.evaluation.protocols import Windows
from verydeep.ilsvrc_classes import class_numbers
from verydeep.images.boxes.geometry import boxes_in_image, clipped, intersection_over_union, rescaled_boxes
from verydeep.images.decode import Size, UnusableImageError, image_sizes
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import Rescaled, rescaled_images
from verydeep.images.sources.source import Source
from verydeep.machine.runtime import in_float32
from verydeep.networks.architecture import DOWNSAMPLING, PAPER_CROP
from verydeep.networks.grids import first_pixel, positions_along
from verydeep.networks.scales import check_test_scales, middle_scale, scale_in_pixels
from verydeep.runs.model import Model

CROPS_AT_ONCE = 32

_CLOSE_IOU = 0.5
"""Boxes with at least this intersection over union are taken for the same object's."""


class ClassBoxes(NamedTuple):
    """Result of the full test on one image."""

    posterior: Float[np.ndarray, " K"]
    """Average over the classification networks; the same for all groups."""
    boxes: Float[np.ndarray, "groups K 4"]
    """The best box of every group of box networks for each class; NaN for classes not asked for."""


@dataclass(frozen=True, kw_only=True)
class FullTest:
    """The networks of a full test, all with the same crop and classes, and the scales Q for a crop of 224.

    An ILSVRC class may have either of its names in a classification network: its WordNet id or its word.
    """

    box_models: Sequence[Model]
    classifiers: Sequence[Model]
    groups: Sequence[Sequence[int]]
    """Box models whose predictions are put together."""
    scales: Sequence[int]
    """Q of all networks. Without any, each network has its own S, so that a group's boxes are the same whatever other
    networks are tested beside it."""
    windows: Windows | None
    """`dense` is the paper's. None: `dense` for crops of 224 or more, `crops` for smaller, whose windows are mostly
    border, where dense application sees the neighbouring pixels and training saw zero padding."""
    names: Sequence[str] = ()
    """Names of the networks of boxes, then of those that classify, for messages."""

    def __post_init__(self) -> None:
        """Raise ValueError for networks that do not go together, and for impossible scales."""
        if self.scales:
            check_test_scales(self.scales)
        if not self.classifiers:
            raise ValueError("the full test rates boxes by class scores: name a classification run (--classifier)")
        for other in (*self.box_models, *self.classifiers):
            crop = other.net.architecture.crop
            if crop != self.crop:
                raise ValueError(f"crops differ ({self.crop} and {crop}): windows must be the same")
            differing = _differing(self.classes, other.classes)
            if differing:
                raise ValueError(f"classes of the runs differ: {', '.join(differing[:TOP])} are not in all")
        if any(other.classes != self.classes for other in self.box_models):
            raise ValueError("runs of boxes have the same classes in another order or under other names")

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes in the order of all results."""
        return self.box_models[0].classes

    @property
    def crop(self) -> int:
        """Crop of all networks, in pixels."""
        return self.box_models[0].net.architecture.crop

    @property
    def all_scales(self) -> tuple[int, ...]:
        """Q at which any network looks at images, the smallest first."""
        return tuple(
            sorted({scale for model in (*self.box_models, *self.classifiers) for scale in self.scales_of(model)})
        )

    def scales_of(self, model: Model) -> tuple[int, ...]:
        """Return the Q at which a network predicts boxes or ranks classes."""
        return tuple(self.scales) or (middle_scale(model.scale),)

    def name_of(self, model: Model) -> str:
        """Return the name of one of the networks."""
        networks = (*self.box_models, *self.classifiers)
        return next((name for one, name in zip(networks, self.names, strict=False) if one is model), "the network")

    def scales_of_group(self, group: Sequence[int]) -> tuple[int, ...]:
        """Return the Q at which the boxes of a group are predicted, the smallest first."""
        return tuple(sorted({scale for which in group for scale in self.scales_of(self.box_models[which])}))

    @property
    def windows_used(self) -> Windows:
        """How windows go through the networks."""
        return self.windows or ("dense" if self.crop >= PAPER_CROP else "crops")


def full_test(
    test: FullTest, source: Source, *, quarantine: Quarantine, workers: int = 0, wanted: Sequence[int] | None = None
) -> Generator[tuple[int, ClassBoxes | None]]:
    """Yield index and result of every image of a source, in order; None for images that cannot be used.

    A network of boxes is applied to all windows at its scales (`FullTest.scales_of`). Every window gives a box, which
    is rated for a class by the classification networks' posterior in that window, at that scale: whatever S they were
    trained at. Boxes of all scales and of all networks in a group are merged; the one with the highest rating is the
    class's. Classes are ranked by the posterior of the whole image, the average over the classification networks, each
    at its own scales. Boxes are returned for the `TOP` most probable classes, and for the one that `wanted` names for
    each image.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        ValueError: a network's boxes or scores are not finite.
        WorkerDiedError: a worker was killed, for example.
    """
    limit = quarantine.tolerance.max_pixels
    with ExitStack() as open_now:
        streams = [
            open_now.enter_context(
                closing(rescaled_images(source, scale_in_pixels(scale, test.crop), max_pixels=limit, workers=workers))
            )
            for scale in test.all_scales
        ]
        for index, at_scales in enumerate(zip(*streams, strict=True)):
            images = _usable(at_scales, quarantine)
            size = None if images is None else image_size(source, index, quarantine)
            if images is None or size is None:
                yield index, None
                continue
            also = () if wanted is None else (wanted[index],)
            yield index, _class_boxes(test, dict(zip(test.all_scales, images, strict=True)), size, also)


def _differing(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """Return the names of classes that only one of the two has; an ILSVRC class may have another name in each."""
    in_one, in_other = class_numbers(one), class_numbers(other)
    return sorted({*(name for name in one if name not in in_other), *(name for name in other if name not in in_one)})


def _usable(at_scales: Sequence[Rescaled], quarantine: Quarantine) -> list[Tensor] | None:
    """Return an image at all scales; None if it cannot be used at one of them."""
    refusal = next((image for _, image in at_scales if isinstance(image, UnusableImageError)), None)
    if refusal is not None:
        quarantine.add(refusal)
        return None
    return [image for _, image in at_scales if isinstance(image, Tensor)]


def _class_boxes(test: FullTest, images: Mapping[int, Tensor], size: Size, also: Sequence[int]) -> ClassBoxes:
    """Return posterior and boxes of an image of `size` (height, width), given at all scales."""
    seen = _seen_in_windows(test, images, size)
    chosen = {*np.argsort(-seen.posterior, kind="stable")[:TOP].tolist(), *also}
    boxes = np.full((len(test.groups), len(test.classes), 4), np.nan)
    for number, group in enumerate(test.groups):
        for label in chosen:
            candidates = [seen.boxes[which][:, label % seen.boxes[which].shape[1]] for which in group]
            ratings = [seen.scores[which][:, label] for which in group]
            best, _ = _merged(np.concatenate(candidates), np.concatenate(ratings))
            boxes[number, label] = clipped(best[0], size)
    return ClassBoxes(seen.posterior, boxes)


class _SeenInWindows(NamedTuple):
    """The boxes of each box model in all windows of one image at its scales, and the classes of the image."""

    boxes: list[Float[np.ndarray, "windows heads 4"]]
    """In pixels of the image; one head for all classes, or one for each."""
    scores: list[Float[np.ndarray, "windows K"]]
    posterior: Float[np.ndarray, " K"]


def _seen_in_windows(test: FullTest, images: Mapping[int, Tensor], size: Size) -> _SeenInWindows:
    boxes: list[list[Float[np.ndarray, "windows heads 4"]]] = [[] for _ in test.box_models]
    scores: list[list[Float[np.ndarray, "windows K"]]] = [[] for _ in test.box_models]
    posteriors: list[list[Float[np.ndarray, " K"]]] = [[] for _ in test.classifiers]
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
    return _SeenInWindows(
        boxes=[np.concatenate(its) for its in boxes],
        scores=[np.concatenate(its) for its in scores],
        posterior=np.mean([np.mean(its, axis=0) for its in posteriors], axis=0),
    )


def _class_scores(
    model: Model, image: UInt8[Tensor, "3 H W"], test: FullTest, *, mirror: bool
) -> tuple[Float[np.ndarray, "windows K"], Float[np.ndarray, " K"]]:
    """Return posteriors of the windows, and of the image: if wanted, averaged with its mirror's."""
    views = torch.stack([image, image.flip(-1)] if mirror else [image])
    known = class_numbers(model.classes)
    scores = _outputs_over_space(model, views, test.windows_used)[:, [known[name] for name in test.classes]]
    windows = scores[0].flatten(1).softmax(dim=0).T
    whole = scores.mean(dim=(2, 3)).softmax(dim=1).mean(dim=0)
    check_finite([windows, whole], "scores", test.name_of(model))
    return windows.double().numpy(), whole.double().numpy()


def _window_boxes(
    model: Model, image: UInt8[Tensor, "3 H W"], test: FullTest, size: Size
) -> Float[np.ndarray, "windows heads 4"]:
    """Return a network's boxes in a rescaled image, in pixels of the image of `size` (height, width)."""
    whole = (image.shape[1], image.shape[2])
    top, left = _window_corners(whole, test.crop)
    heads = _outputs_over_space(model, image[None], test.windows_used)[0].flatten(1).T.reshape(len(top), -1, 4)
    check_finite([heads], "boxes", test.name_of(model))
    return rescaled_boxes(boxes_in_image(heads.numpy(), test.crop, top=top[:, None], left=left[:, None]), whole, size)


def check_finite(values: Iterable[Tensor], what: str, name: str) -> None:
    """Check what a network gives before any of it counts: NaN would be taken for an image that cannot be used.

    Raises:
        ValueError: it is not finite.
    """
    if not all(torch.isfinite(each).all() for each in values):
        raise ValueError(f"the {what} of {name} are not finite: its training has diverged")


def image_size(source: Source, index: int, quarantine: Quarantine) -> Size | None:
    """Read an image again for its height and width; None if it can no longer be used.

    Raises:
        TooManyBadImagesError: the quarantine is full.
    """
    try:
        sample = source[index]
        return image_sizes(sample.data, sample.id, max_pixels=quarantine.tolerance.max_pixels)[0]
    except UnusableImageError as refusal:
        quarantine.add(refusal)
        return None


def _window_corners(size: Size, crop: int) -> tuple[Int[np.ndarray, " windows"], Int[np.ndarray, " windows"]]:
    """Return top and left of the windows of an image's score map (the centred grid), row by row."""
    tops, lefts = (
        first_pixel(side, "centred") + DOWNSAMPLING * np.arange(positions_along(side, crop // DOWNSAMPLING, "centred"))
        for side in size
    )
    return np.repeat(tops, len(lefts)), np.tile(lefts, len(tops))


def _outputs_over_space(
    model: Model, images: UInt8[Tensor, "B 3 H W"], windows: Windows
) -> Float[Tensor, "B outputs h w"]:
    """Return a network's outputs in every window, whole images given at once or each window cut out."""
    net, crop = model.net, model.net.architecture.crop
    if windows == "dense":
        with in_float32():
            return score_map(net, images, pixels=largest_image([net], net.mean_rgb.device)).float().cpu()
    tops, lefts = _window_corners((images.shape[2], images.shape[3]), crop)
    cut = [images[:, :, top : top + crop, left : left + crop] for top, left in zip(tops, lefts, strict=True)]
    with in_float32(), torch.inference_mode():
        outputs = [net(crops.to(net.mean_rgb.device)).float().cpu() for crops in torch.cat(cut).split(CROPS_AT_ONCE)]
    rows = len(np.unique(tops))
    return torch.cat(outputs).unflatten(0, (rows, -1, len(images))).permute(2, 3, 0, 1)


def _merged(
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "m 4"], Float[np.ndarray, " m"]]:
    """Merge boxes that are scored for one class greedily; return them with their ratings, the best first.

    As long as any two overlap by `_CLOSE_IOU` or more, those that overlap most become one: the average of all boxes
    that went into it, rated by the sum of their scores. The paper takes this from OverFeat (Sermanet et al., 2014) and
    says neither what is close nor how scores are put together.
    """
    boxes, ratings = np.array(boxes, np.float64), np.array(scores, np.float64)
    members = np.ones(len(boxes))
    overlaps = intersection_over_union(boxes[:, None], boxes[None])
    np.fill_diagonal(overlaps, -1)
    # The greatest overlap of each box, and with which box: a merge changes few, so not all are searched again.
    closest = overlaps.argmax(axis=1)
    greatest = overlaps.max(axis=1)
    while greatest.max() >= _CLOSE_IOU:
        one = int(greatest.argmax())
        other = int(closest[one])
        shares = members[[one, other]] / members[[one, other]].sum()
        boxes[one] = shares @ boxes[[one, other]]
        ratings[one] += ratings[other]
        members[one] += members[other]
        members[other] = 0
        overlaps[other] = overlaps[:, other] = -1
        rest = np.flatnonzero((members > 0) & (np.arange(len(boxes)) != one))
        overlaps[one, rest] = overlaps[rest, one] = intersection_over_union(boxes[one], boxes[rest])
        now = overlaps[one]
        nearer = (now > greatest) | ((now == greatest) & (one < closest))
        closest[nearer] = one
        lost = ((closest == one) | (closest == other)) & ~nearer
        closest[lost] = overlaps[lost].argmax(axis=1)
        greatest = overlaps[np.arange(len(boxes)), closest]
    left = np.flatnonzero(members)
    order = left[np.argsort(-ratings[left], kind="stable")]
    return boxes[order], ratings[order]
