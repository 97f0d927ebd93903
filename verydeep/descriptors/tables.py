"""Tables of what a file of features holds."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from verydeep.presentation.numbers import number
from verydeep.presentation.terminal import table_with


def feature_tables(found: Mapping[str, Any]) -> list[Table | str]:
    """What a file of features holds, as `FeatureFile.to_dict` gives it."""
    without = f", without {number(len(found['unusable']))} that cannot be used" if found["unusable"] else ""
    scales = ", ".join(map(str, found["scales"])) + (" and their mirror images" if found["mirror"] else "")
    table = table_with(None, left=("layer",), right=("numbers of each image",))
    for name, shape in found["layers"].items():
        table.add_row(name, " x ".join(map(number, shape)))
    return [f"{found['file']}: {number(found['images'])} images at Q = {scales}{without}", table]
