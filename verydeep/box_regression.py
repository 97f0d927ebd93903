"""How many boxes a network predicts: known to images and networks alike, which do not know each other."""

from typing import Literal

Regression = Literal["shared", "per-class"]
"""One box for all classes, or one for each (SCR and PCR in appendix A.1)."""
