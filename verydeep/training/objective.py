"""What a network learns: classes (section 2.1), or the box of an image's object (appendix A.1)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from verydeep.box_regression import Regression
from verydeep.images.boxes.geometry import CORRECT_IOU
from verydeep.images.on_device import DeviceBatch


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Functions of a network's outputs [B, ...] and the images that it was shown."""

    loss: Callable[[Tensor, DeviceBatch], Tensor]
    """Summed over the images; their mean is what is descended on."""
    wrong: Callable[[Tensor, DeviceBatch], Tensor]
    """bool [B], which images the network has wrong."""


def classification(*, label_smoothing: float = 0.0) -> Objective:
    """Multinomial logistic regression on logits [B, classes]."""

    def loss(logits: Tensor, shown: DeviceBatch) -> Tensor:
        return F.cross_entropy(logits, shown.labels, reduction="sum", label_smoothing=label_smoothing)

    def wrong(logits: Tensor, shown: DeviceBatch) -> Tensor:
        return logits.argmax(1) != shown.labels

    return Objective(loss=loss, wrong=wrong)


def localisation(regression: Regression) -> Objective:
    """Half the squared Euclidean distance between predicted and true (x, y, width, height), in units of the crop.

    Outputs are [B, 4], or [B, 4 * classes], of which the true class's four count. An image is wrong if the intersection
    over union with its box is not above one half, both taken as they are, also beyond the crop.
    """

    def of_true_class(outputs: Tensor, shown: DeviceBatch) -> Tensor:
        if regression == "shared":
            return outputs.float()
        boxes = outputs.float().unflatten(1, (-1, 4))
        return boxes.gather(1, shown.labels[:, None, None].expand(-1, 1, 4))[:, 0]

    def loss(outputs: Tensor, shown: DeviceBatch) -> Tensor:
        return F.mse_loss(of_true_class(outputs, shown), _boxes(shown), reduction="sum") / 2

    def wrong(outputs: Tensor, shown: DeviceBatch) -> Tensor:
        return ~(_intersection_over_union(of_true_class(outputs, shown), _boxes(shown)) > CORRECT_IOU)

    return Objective(loss=loss, wrong=wrong)


def _boxes(shown: DeviceBatch) -> Tensor:
    if not len(shown.labels):
        return shown.images.new_zeros(0, 4)
    if shown.boxes is None:
        raise ValueError("these images have no boxes to learn")
    return shown.boxes


def _intersection_over_union(one: Tensor, other: Tensor) -> Tensor:
    """[B], of boxes (x, y, width, height) [B, 4]; 0 for a side below 0."""
    (low, high), (lower, higher) = _edges(one), _edges(other)
    shared = (high.minimum(higher) - low.maximum(lower)).clamp(min=0).prod(1)
    union = (high - low).clamp(min=0).prod(1) + (higher - lower).clamp(min=0).prod(1) - shared
    return shared / union


def _edges(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
