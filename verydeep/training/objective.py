"""Objectives: classes (section 2.1), or the box of an image's object (appendix A.1)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from verydeep.box_regression import Regression
from verydeep.images.boxes.geometry import CORRECT_IOU
from verydeep.images.loader import DeviceBatch


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Two functions of a network's outputs [B, ...] and the images that it was given."""

    loss: Callable[[Tensor, DeviceBatch], Tensor]
    """Loss summed over the images; their mean is descended on."""
    wrong: Callable[[Tensor, DeviceBatch], Tensor]
    """bool [B], the images that the network has wrong."""


def classification(*, label_smoothing: float = 0.0) -> Objective:
    """Return multinomial logistic regression on logits [B, classes]."""

    def loss(logits: Float[Tensor, "B K"], batch: DeviceBatch) -> Tensor:
        return F.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=label_smoothing)

    def wrong(logits: Float[Tensor, "B K"], batch: DeviceBatch) -> Tensor:
        return logits.argmax(1) != batch.labels

    return Objective(loss=loss, wrong=wrong)


def box_regression(regression: Regression) -> Objective:
    """Return half the squared Euclidean distance of (x, y, width, height) to the true box, in units of the crop.

    Outputs are [B, 4], or [B, 4 * classes], of which the true class's four count. An image is wrong if the intersection
    over union with its box is not above one half, both taken as they are, also beyond the crop.
    """

    def of_true_class(outputs: Float[Tensor, "B outputs"], batch: DeviceBatch) -> Float[Tensor, "B 4"]:
        if regression == "shared":
            return outputs.float()
        boxes = outputs.float().unflatten(1, (-1, 4))
        return boxes.gather(1, batch.labels[:, None, None].expand(-1, 1, 4))[:, 0]

    def loss(outputs: Tensor, batch: DeviceBatch) -> Tensor:
        return F.mse_loss(of_true_class(outputs, batch), _boxes(batch), reduction="sum") / 2

    def wrong(outputs: Tensor, batch: DeviceBatch) -> Tensor:
        return ~(_intersection_over_union(of_true_class(outputs, batch), _boxes(batch)) > CORRECT_IOU)

    return Objective(loss=loss, wrong=wrong)


def _boxes(batch: DeviceBatch) -> Float[Tensor, "B 4"]:
    if not len(batch.labels):
        return batch.images.new_zeros(0, 4)
    if batch.boxes is None:
        raise ValueError("these images have no boxes to learn")
    return batch.boxes


def _intersection_over_union(one: Float[Tensor, "B 4"], other: Float[Tensor, "B 4"]) -> Float[Tensor, " B"]:
    """Return the overlap of boxes (x, y, width, height); 0 for a side below 0."""
    (low, high), (lower, higher) = _edges(one), _edges(other)
    shared = (high.minimum(higher) - low.maximum(lower)).clamp(min=0).prod(1)
    union = (high - low).clamp(min=0).prod(1) + (higher - lower).clamp(min=0).prod(1) - shared
    return shared / union


def _edges(boxes: Float[Tensor, "B 4"]) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B 2"]]:
    return boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
