"""What a network predicts of boxes (needs neither NumPy nor Pillow)."""

from typing import Literal

Regression = Literal["shared", "per-class"]
"""A box for all classes, or one for each (SCR and PCR in appendix A.1)."""
