"""Which layers describe an image, at which scales, pooled how (needs neither PyTorch nor NumPy)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from verydeep.evaluation.protocols import Scales

Pool = Literal["avg", "stack", "none"]
VectorPool = Literal["avg", "stack"]
DType = Literal["float32", "float16"]

PENULTIMATE = "relu7"
"""The 4,096 numbers that the paper takes."""


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """A choice of layers, scales and pooling.

    Raises:
        ValueError: a value that is not possible; the message says which ones are.
    """

    layers: Sequence[str] = (PENULTIMATE,)
    """Layers by the paper's names, such as pool5,relu7: fc7 is before the ReLU, relu7 after it, pool5 the last
    pooling."""

    scales: Sequence[int] | Scales = "single"
    """Test scales Q for a crop of 224, such as 256,384,512; `single`: the training scale; `paper`: the three that
    follow from it."""

    pool: Pool = "avg"
    """`avg`: the average over all positions of the whole image, and over the scales; `stack`: over positions, the
    scales one after the other; `none`: the layer as it is, of the crop in the middle at one scale."""

    mirror: bool | None = None
    """Average with the mirror image. By default as in training: if the run was trained with mirrored images. Never
    without pooling."""

    normalise: bool = False
    """Divide each layer's vector by its Euclidean length."""

    dtype: DType = "float32"
    """Type of the numbers."""

    def __post_init__(self) -> None:
        """Refuse values that are not possible."""
        if self.pool not in get_args(Pool):
            raise ValueError(f"pool is one of {', '.join(get_args(Pool))}, not {self.pool}")
        if self.dtype not in get_args(DType):
            raise ValueError(f"dtype is one of {', '.join(get_args(DType))}, not {self.dtype}")
        if self.pool == "none" and (self.mirror or self.normalise):
            raise ValueError("mirror and normalise are for vectors: they need pool avg or stack")
