"""The paper's own results of appendix A: localisation errors in percent."""

from verydeep.box_regression import Regression

LEARNED_ALL, LEARNED_FC = "all layers", "fully connected layers"
"""Layers that learn boxes; the first ones come from a classification network."""

TABLE_8: tuple[tuple[str, Regression, float], ...] = (
    (LEARNED_FC, "shared", 36.4),
    (LEARNED_FC, "per-class", 34.3),
    (LEARNED_ALL, "per-class", 33.1),
)
"""Localisation error of D at S = 384 on the validation set: the true class's box from the centre crop."""

TABLE_9: tuple[tuple[str, tuple[int, ...], float, float | None], ...] = (
    ("256", (256,), 29.5, None),
    ("384", (384,), 28.2, 26.7),
    ("384", (352, 384), 27.5, None),
    ("256 + 384", (256, 352, 384), 26.9, 25.3),
)
"""Localisation with S, Q: top-5 error on the validation and the test set, boxes by the full procedure."""

TABLE_10: tuple[tuple[str, float | None, float], ...] = (
    ("VGG", 26.9, 25.3),
    ("GoogLeNet", None, 26.7),
    ("OverFeat", 30.0, 29.9),
    ("Krizhevsky et al.", None, 34.2),
)
"""Localisation: top-5 error on the validation and the test set."""


def reported_box_error(regression: Regression, learned: str | None) -> float | None:
    """Return Table 8's error for a box head and the layers that learned; None if it has no such line."""
    return next((error for layers, head, error in TABLE_8 if (layers, head) == (learned, regression)), None)
