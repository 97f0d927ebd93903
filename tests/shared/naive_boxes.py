"""Overlap and merging of boxes in plain Python, to compare with."""

from verydeep.localisation.full_test import _CLOSE_IOU


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def mean(members):
    return [sum(box[side] for box, _ in members) / len(members) for side in range(4)]


def naive(boxes, scores):
    """Groups of (box, score); two groups become one as long as their means are close."""
    groups = [[(list(box), score)] for box, score in zip(boxes, scores, strict=True)]
    while True:
        pairs = [
            (overlap(mean(one), mean(other)), i, j)
            for j, other in enumerate(groups)
            for i, one in enumerate(groups[:j])
        ]
        closest = max(pairs, default=(0, 0, 0), key=lambda pair: pair[0])
        if closest[0] < _CLOSE_IOU:
            break
        _, i, j = closest
        groups[i] += groups.pop(j)
    found = [(mean(group), sum(score for _, score in group)) for group in groups]
    return sorted(found, key=lambda one: -one[1])
