"""Units of boxes: pixels, or shares of the image's sides (needs neither NumPy nor Pillow)."""

from typing import Literal

BoxUnits = Literal["pixels", "relative"]
