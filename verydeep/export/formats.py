"""What a run can be exported to (needs no other library)."""

from pathlib import Path
from typing import Literal, get_args

Format = Literal["onnx", "openvino", "torch"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}

MAX_LOSS = 0.5
"""Percentage points of error that INT8 may cost, if not said otherwise.

One image more may always be wrong: of 179 it alone is 0.56 points.
"""


def check_export(to: Format, out: Path, *, int8: bool, max_loss: float, check_images: int | None) -> None:
    """Refuses, before any work, what cannot be.

    Raises:
        ValueError: what it is.
    """
    if to not in get_args(Format):
        raise ValueError(f"a run is exported to {', '.join(get_args(Format))}, not to {to!r}")
    if out.suffix != SUFFIXES[to]:
        raise ValueError(f"name a file that ends in {SUFFIXES[to]}, not {out}")
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file in it")
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent}")
    if int8 and to == "torch":
        raise ValueError("torch.export files are written in float32 only: INT8 goes to onnx or openvino")
    if not max_loss >= 0:
        raise ValueError(f"max_loss is 0 or more percentage points, not {max_loss}")
    if check_images is not None and check_images < 1:
        raise ValueError(f"check_images must be 1 or more, not {check_images}")
