"""Image data sets by Hugging Face `datasets`: of its hub, or Parquet, Arrow and image folders on this machine."""

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from gzip import BadGzipFile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from verydeep.ilsvrc_classes import normal_form
from verydeep.images.sources.folders import FOLDERS
from verydeep.images.sources.inventory import Found, FoundFile, Inventory, found_in
from verydeep.images.sources.source import ImagePath, Source, digest, numbered
from verydeep.images.sources.splits import (
    SPLIT_NAMES,
    FoundSplits,
    SourceKind,
    UnnumberedSplit,
    folder_names,
    names_of_present_splits,
    natural_order,
)
from verydeep.images.sources.walk import files_below
from verydeep.machine.errors import one_line, reason
from verydeep.machine.home import expanded
from verydeep.machine.libraries import library
from verydeep.machine.regular_files import read_file
from verydeep.numbers import counted, number

PREFIX = "hub:"

_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "cls", "category")
"""Tried in this order where no column is marked as holding classes."""

_FILE_KINDS = {".parquet": "parquet", ".arrow": "arrow"}

_THEIR_SPLITS = {"all": "train", "train": "train", "val": "validation", "test": "test"}
"""The library's names of our splits."""

_TABLES = frozenset((".parquet", ".arrow", ".csv", ".json", ".jsonl", ".tsv"))
"""Endings of files that may hold a data set's rows."""

_BINARY = ("binary", "large_binary")

_REFUSED = (401, 403, 404)
"""Status of the hub's answers about what is not there, or not for this user."""

_TRANSPORTS = ("httpx", "httpx2")
"""Modules of the hub's transport, whose errors are none of the system's."""

_NO_LABEL = -1
"""How hub data sets mark images whose class is kept secret."""


def _hub_splits(name: str) -> FoundSplits:
    """Find the splits of `hub:NAME[:CONFIGURATION][?image=COLUMN&label=COLUMN]`; a single one is called `all`.

    NAME is a data set of the hub, or a folder or file on this machine. A split without labels is left out.

    Raises:
        ValueError: `datasets` is not installed, no such data set, or it is not clear which columns to use.
        OSError: the hub cannot be reached, or the disk has no room for the data set.
    """
    path, _, query = name.removeprefix(PREFIX).partition("?")
    chosen = {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}
    unknown = sorted(set(chosen) - {"image", "label"})
    if unknown:
        raise ValueError(f"{name}: after the question mark give image= or label=, not {', '.join(unknown)}")
    if not path:
        raise ValueError(f"{name} names no data set: give {PREFIX}NAME, a data set of the hub, a folder or a file")
    loaded = _load(path, name)
    theirs_by_ours = names_of_present_splits(loaded, name)
    theirs_by_ours |= {split: split for split in loaded if split not in SPLIT_NAMES}
    if len(loaded) == 1:
        theirs_by_ours = {"all": next(iter(loaded))}
    splits = {ours: _split(loaded[theirs], theirs, name, chosen) for ours, theirs in theirs_by_ours.items()}
    labelled = {ours: split for ours, split in splits.items() if split is not None}
    if not labelled:
        raise ValueError(f"{name}: its images have no labels")
    places: dict[str, Found] = {}
    for ours, theirs in theirs_by_ours.items():
        rows = range(len(loaded[theirs]))
        unlabelled = Found(unclassed=tuple(f"{ours}/{row}" for row in rows))
        places[ours] = Found(images=len(rows)) if ours in labelled else unlabelled
    if expanded(path).is_dir():
        places |= _beside_rows(expanded(path).resolve(), loaded.values(), name, chosen)
    return FoundSplits(labelled, Inventory(places=places))


HUB = SourceKind(described="hub:NAME", fits=lambda name: name.startswith(PREFIX), splits=_hub_splits)


def _load(path: str, name: str) -> dict[str, Any]:
    """Load the splits of a data set by their names there."""
    datasets = library("datasets", needed_by=name)
    local, of_hub = expanded(path), False
    try:
        if local.is_dir() and any((local / file).is_file() for file in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(str(local))
        elif local.is_dir() and (files := _files_of_splits(local.resolve())):
            loaded = datasets.load_dataset("imagefolder", data_files=files)
        elif local.is_dir():
            loaded = datasets.load_dataset(str(local.resolve()))
        elif local.is_file():
            if local.suffix not in _FILE_KINDS:
                raise ValueError(f"a file must be one of {', '.join(_FILE_KINDS)}")
            loaded = datasets.load_dataset(_FILE_KINDS[local.suffix], data_files=str(local))
        else:
            of_hub = True
            repository, _, configuration = path.partition(":")
            loaded = datasets.load_dataset(repository, configuration or None)
    except Exception as error:  # the library, its readers and its transport raise almost anything
        raise _failure(name, error, of_hub=of_hub) from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _failure(name: str, error: Exception, *, of_hub: bool) -> ValueError | OSError:
    """Return an OSError with advice where network or disk failed, else a ValueError.

    What failed may be below other errors: the library wraps what happens while it makes its tables, and calls an answer
    of the hub such as 503 a file that is not found.
    """
    chain: list[Exception] = []
    below: BaseException | None = error
    while isinstance(below, Exception) and below not in chain:
        chain.append(below)
        below = below.__cause__ or below.__context__
    outage = next((one for one in chain if _is_of_disk(one) or (of_hub and _is_of_network(one))), None)
    if outage is None:
        return ValueError(f"{name} cannot be loaded: {one_line(error)}")
    advice = "check the network and the room in the folder of HF_HOME, and start again"
    return OSError(f"{name} cannot be loaded: {reason(outage)}: {advice}")


def _is_of_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _is_of_network(error: Exception) -> bool:
    """Return whether a data set of the hub may be there, but not be had now."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if getattr(getattr(error, "response", None), "status_code", None) in _REFUSED:
        return False
    if isinstance(error, FileNotFoundError):
        return isinstance(error, LocalEntryNotFoundError)  # the hub could not be asked
    of_this_machine = isinstance(error, PermissionError | BadGzipFile)
    return (isinstance(error, OSError) and not of_this_machine) or type(error).__module__.partition(".")[
        0
    ] in _TRANSPORTS


def _files_of_splits(folder: Path) -> dict[str, list[str]] | None:
    """Return the image files of each split of a folder of class folders; None if it is another kind of data set.

    Left to itself the library divides a folder by words in the names of files, and drops files without such a word.
    """
    if any(folder.rglob("metadata.*")):
        return None
    try:
        splits = FOLDERS.splits(str(folder)).splits
    except ValueError:
        return None
    for found in splits.values():
        below = next((path for path in found.numbered(found.names).ids if path.count(os.sep) > 1), None)
        if below and len(found.names) > 1:
            raise ValueError(
                f"{os.path.dirname(below)} is a folder inside a class folder, which the library would take for a class "
                f"of its own: name it without {PREFIX}"
            )
    return {
        _THEIR_SPLITS[split]: sorted(os.path.join(found.where, path) for path in found.numbered(found.names).ids)
        for split, found in splits.items()
    }


def _split(rows: Any, split: str, name: str, chosen: dict[str, str]) -> UnnumberedSplit | None:
    """Make one split; None if its images have no labels."""
    import datasets

    image, label = _columns(rows.features, name, chosen)
    of_rows = _class_names(rows, label, f"{name}: column {label} of {split}")
    class_names = [known for known in of_rows if known is not None]
    if not class_names:
        return None
    if len(class_names) < len(of_rows):
        without = number(of_rows.count(None))
        raise ValueError(f"{name}: {without} of {counted(len(of_rows), 'image')} in {split} have no label")
    feature = rows.features[label]
    present = set(class_names)
    listed = isinstance(feature, datasets.ClassLabel)
    ordered = map(normal_form, feature.names) if listed else sorted(present, key=natural_order)
    names = tuple(known for known in ordered if known in present)
    number_of = {known: place for place, known in enumerate(names)}
    source = _hub_source(*_undecoded(rows, image), names, tuple(number_of[known] for known in class_names), split)
    return UnnumberedSplit(where=f"{name}, {split}", names=names, numbered=partial(numbered, source))


def _undecoded(rows: Any, image: str) -> tuple[Any, str]:
    """Return the rows' column of images as files' bytes and paths, however it is stored, with its name."""
    import datasets

    return rows.select_columns([image]).cast_column(image, datasets.Image(decode=False)), image


def _hub_source(rows: Any, image: str, classes: tuple[str, ...], labels: tuple[int, ...], split: str) -> Source:
    """Make a source of the rows of a `datasets.Dataset`, whose column `image` is not decoded, in their order."""
    files = _field(rows, image, "path").to_pylist()
    return Source(
        classes=classes,
        labels=labels,
        paths=partial(_paths, files, split),
        read=partial(_read, rows, image),
        fingerprint_of=partial(_fingerprint, rows, image, files),
    )


def _beside_rows(folder: Path, splits: Iterable[Any], name: str, chosen: dict[str, str]) -> dict[str, Found]:
    """Count the files in a folder besides the images that are rows; none where rows hold the images."""
    entries = list(files_below(folder))
    if not any(entry.what == "image" for entry in entries):
        return {}
    rows = {
        os.path.realpath(path)
        for split in splits
        for path in _field(*_undecoded(split, _columns(split.features, name, chosen)[0]), "path").to_pylist()
        if path
    }
    return {"": found_in(_not_in(rows, folder, entries))}


def _not_in(rows: Collection[str], folder: Path, entries: Iterable[FoundFile]) -> Iterator[FoundFile]:
    for entry in entries:
        if entry.what == "other" and Path(entry.path).suffix.lower() in _TABLES:
            yield FoundFile("label", entry.path)
        elif entry.what != "image":
            yield entry
        elif os.path.realpath(folder / entry.path) not in rows:
            yield FoundFile("unclassed", entry.path)


def _paths(files: Sequence[str | None], split: str, index: int) -> tuple[ImagePath, ...]:
    path, by_row = files[index], f"{split}/{index}"
    if not path:
        return (ImagePath(by_row),)
    file = Path(path).name
    return (ImagePath(f"{by_row} ({file})"), ImagePath(by_row), ImagePath(file, folder_names(split)))


def _read(rows: Any, column: str, index: int) -> bytes:
    image = rows[index][column]
    if not image or (image["bytes"] is None and not image["path"]):
        raise OSError("the row has no image")
    return image["bytes"] if image["bytes"] is not None else read_file(image["path"])


def _fingerprint(rows: Any, image: str, files: Sequence[str | None], source: Source) -> str:
    import pyarrow.compute as pc

    lengths = pc.binary_length(_field(rows, image, "bytes")).to_pylist()
    sizes = [_file_size(path) if size is None else size for size, path in zip(lengths, files, strict=True)]
    return digest(source.classes, source.labels, sizes, [path and Path(path).name for path in files])


def _field(rows: Any, image: str, field: str) -> Any:
    import pyarrow.compute as pc

    return pc.struct_field(rows.data.column(image), field)


def _columns(features: Any, name: str, chosen: dict[str, str]) -> tuple[str, str]:
    """Return the names of the image column and of the label column."""
    import datasets

    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    stored = [column for column, feature in features.items() if _may_hold_images(feature)]
    classes = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    labels = classes or [column for column in _LABEL_COLUMNS if column in features][:1]
    image = _column("image", chosen, images or stored, features, name)
    label = _column("label", chosen, labels, features, name)
    if image not in images + stored:
        raise ValueError(f"{name}: column {image} holds no images")
    if not isinstance(features[label], datasets.ClassLabel | datasets.Value):
        raise ValueError(f"{name}: column {label} does not hold one class for each image")
    return image, label


def _column(kind: str, chosen: dict[str, str], candidates: list[str], features: Any, name: str) -> str:
    """Return the column that was chosen, or the only candidate."""
    column = chosen.get(kind)
    if column is None and len(candidates) == 1:
        column = candidates[0]
    if column and column not in features:
        raise ValueError(f"{name}: no column {column!r}; there are {', '.join(features)}")
    if not column:
        raise ValueError(
            f"{name}: say which column holds the {kind}, as in {PREFIX}NAME?{kind}=COLUMN; "
            f"there are {', '.join(features)}"
        )
    return column


def _may_hold_images(feature: Any) -> bool:
    """Return whether a column that is not marked as images may hold files: bytes, perhaps beside a path."""
    return (isinstance(feature, dict) and "bytes" in feature) or getattr(feature, "dtype", None) in _BINARY


def _file_size(path: str | None) -> int | None:
    try:
        return None if path is None else Path(path).stat().st_size
    except OSError:
        return None  # gone: reading the image will tell


def _class_names(rows: Any, label: str, where: str) -> list[str | None]:
    """Return the class of every row, None where it is unknown.

    Raises:
        ValueError: a number of a class that there is not; the message says `where`.
    """
    feature, values = rows.features[label], rows.select_columns([label])[:][label]
    names: Any = getattr(feature, "names", None)
    for value in [] if names is None else values:
        if value is not None and not _NO_LABEL <= value < len(names):
            raise ValueError(
                f"{where} has {value}, which is not the number of any of its {counted(len(names), 'class', 'classes')}"
            )
    return [
        None if value is None or value == _NO_LABEL else normal_form(str(value) if names is None else names[value])
        for value in values
    ]
