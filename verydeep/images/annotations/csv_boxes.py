"""Boxes of CSV files, whose columns are named in the first line or in our order."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from verydeep.images.annotations.annotation import Annotation, four_numbers, quoted, stated_size
from verydeep.machine.text_files import table_lines

COLUMNS = ("file", "x0", "y0", "x1", "y1", "class")
"""In the order of a file that does not name them; the class may be missing."""

TABLE_SUFFIXES = (".csv", ".tsv")
"""Endings of tables, whatever separates their cells."""

FILE_NAMES = frozenset({"file", "filename", "filepath", "image", "imagefile", "imagename", "imagepath", "path"})
CLASS_NAMES = frozenset({"class", "classname", "label", "category"})

_EDGES = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
"""Names of a box's edges. `x1` is the left one in some files and the right one in others, so four count together."""

_SIZE = ("width", "height")
"""Columns with the image's size, which a file may have beside the four edges."""


def csv_boxes(path: Path) -> Iterator[Annotation]:
    """Read the boxes of a file.

    Raises:
        ValueError: it is damaged, or has other columns; the message names the line.
    """
    columns: Sequence[str] = COLUMNS
    for count, (number, cells) in enumerate(table_lines(path)):
        where = f"{path} line {number}"
        if count == 0 and (named := named_columns(cells, where)):
            columns = named
        else:
            yield annotation_of(cells, where, columns)


def named_columns(cells: Sequence[str], where: str) -> Sequence[str] | None:
    """Return the columns that a file's first line names, by our names; None if that line is a box already.

    Raises:
        ValueError: it names columns that are not those of boxes.
    """
    names = [plain(cell) for cell in cells]
    known = FILE_NAMES | CLASS_NAMES | {"name", *_SIZE}.union(*_EDGES)
    if any(map(_is_number, cells)) or not known & set(names):
        return None
    edges = edges_of(names)
    ours = dict(zip(edges, COLUMNS[1:5], strict=False)) | {side: side for side in _SIZE}
    ours |= dict.fromkeys(FILE_NAMES, "file") | dict.fromkeys(CLASS_NAMES, "class")
    ours["name"] = "class" if FILE_NAMES & set(names) else "file"
    columns = [ours.get(name, "") for name in names]
    if len(set(columns)) < len(columns) or not set(columns) >= set(COLUMNS[:5]) or "" in columns:
        raise ValueError(f"{where}: columns are {','.join(COLUMNS)} in any order, not {quoted(cells)}")
    return columns


def edges_of(names: Collection[str]) -> Sequence[str]:
    """Return the names of a box's edges among those of columns; no names unless all four are there."""
    return next((edges for edges in _EDGES if set(edges) <= set(names)), ())


def annotation_of(cells: Sequence[str], where: str, columns: Sequence[str] = COLUMNS) -> Annotation:
    """Make a box of a line's cells; a class in the last column may be missing.

    Raises:
        ValueError: the cells are something else.
    """
    if len(cells) == len(columns) - 1 and columns[-1] == "class":
        cells = [*cells, ""]
    by_column = dict(zip(columns, cells, strict=False))
    if len(cells) != len(columns) or not by_column["file"]:
        raise ValueError(f"{where}: a line is {','.join(columns)}, not {quoted(cells)}")
    box = four_numbers([by_column[edge] for edge in COLUMNS[1:5]], where)
    size = stated_size(by_column.get("width"), by_column.get("height"), where)
    return Annotation(by_column["file"], box, by_column.get("class") or None, where, size=size)


def plain(name: str) -> str:
    """Return a column's name in lower case, without the characters that separate its words."""
    return name.lower().translate(str.maketrans("", "", "_- ."))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
