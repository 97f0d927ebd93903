"""A table of what a file of features holds."""

from typing import TYPE_CHECKING

from rich.table import Table

from verydeep.presentation.numbers import number
from verydeep.presentation.terminal import table_with

if TYPE_CHECKING:
    from verydeep.descriptors.files import FeatureFile


def feature_tables(written: "FeatureFile") -> list[Table | str]:
    """Return a line about a file of features, and a table of its layers."""
    without = f", without {number(len(written.unusable))} that cannot be used" if written.unusable else ""
    scales = ", ".join(map(str, written.scales)) + (" and their mirror images" if written.mirror else "")
    table = table_with(None, left=("layer",), right=("numbers of each image",))
    for name, shape in written.layers.items():
        table.add_row(name, " x ".join(map(number, shape)))
    return [f"{written.file}: {number(written.images)} images at Q = {scales}{without}", table]
