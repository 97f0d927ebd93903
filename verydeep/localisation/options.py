"""The full test's choices (needs neither PyTorch nor NumPy)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verydeep.evaluation.protocols import Windows


@dataclass(frozen=True, kw_only=True)
class FullProcedure:
    """How whole images are tested, with no class given."""

    classifiers: tuple[Path | str, ...]
    """A classification run with the same classes and crop, which ranks classes and rates boxes; several are
    averaged."""

    scales: Sequence[int] = ()
    """Test scales Q of the full test for a crop of 224, such as 352,384, for all runs. By default each run's own S."""

    windows: Windows | None = None
    """dense: whole images through the networks, as in the paper; crops: each window cut out, as in training. By default
    dense for a crop of 224 or more, crops for smaller ones."""
