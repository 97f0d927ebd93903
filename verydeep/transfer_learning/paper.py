"""The paper's own results of appendix B: features of ILSVRC networks on other data, in percent."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Transferred:
    """A line of Table 11: a linear SVM over penultimate features, in percent."""

    networks: str
    """Names of the networks; `D + E` if features of both are in one vector."""
    voc_2007: float
    """Mean average precision."""
    voc_2012: float
    caltech_101: float
    """Mean class recall, over three splits."""
    caltech_101_sd: float
    caltech_256: float
    caltech_256_sd: float


Measure = Literal["mean class recall", "mAP"]
"""Measures of Table 11, for images with one label and with several."""

RECALL: Measure = "mean class recall"
MAP: Measure = "mAP"

TABLE_11 = (
    Transferred("D", 89.3, 89.0, 91.8, 1.0, 85.0, 0.2),
    Transferred("E", 89.3, 89.0, 92.3, 0.5, 85.1, 0.3),
    Transferred("D + E", 89.7, 89.3, 92.7, 0.5, 86.2, 0.3),
)
"""Table 11: features of ILSVRC networks on other data."""

TABLE_12: tuple[tuple[str, float], ...] = (("image only", 79.2), ("image and bounding box", 84.0))
"""Table 12, actions of VOC-2012: where D's and E's features were taken from, mean average precision in percent."""


def reported_transfer(networks: str) -> Transferred | None:
    """Return Table 11's line for a network, or for `D + E`; None if it has none."""
    return next((row for row in TABLE_11 if row.networks == networks), None)
