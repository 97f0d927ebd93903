"""Merging of predicted boxes: close ones averaged, and rated by the class scores of their windows (appendix A.1)."""

import numpy as np
from jaxtyping import Float

from verydeep.images.boxes.geometry import intersection_over_union

_CLOSE_IOU = 0.5
"""Boxes with at least this intersection over union are taken for the same object's."""


def merged(
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
    # The greatest overlap of each box, and with which: a merge changes few of them, so not all are searched again.
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
