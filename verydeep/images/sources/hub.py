"""Image data sets by Hugging Face `datasets`: of its hub, or Parquet, Arrow and image folders on this machine."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from verydeep.images.decode import UnusableImageError
from verydeep.images.sources.source import SPLIT_NAMES, Part, Sample, digest, natural_order, number, one_of_each
from verydeep.machine.libraries import library

PREFIX = "hub:"

LABEL_COLUMNS = ("label", "labels", "class", "class_name", "cls", "category")
"""Tried in this order where no column says of itself that it holds classes."""

FILE_KINDS = {".parquet": "parquet", ".arrow": "arrow"}

BINARY = ("binary", "large_binary")

NO_LABEL = -1
"""How hub data sets mark images whose class is kept secret."""


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Images of one split, in its order."""

    rows: Any
    """A `datasets.Dataset` whose image column is not decoded."""
    image: str
    """Name of that column."""
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    split: str

    @cached_property
    def fingerprint(self) -> str:
        import pyarrow.compute as pc

        images = self.rows.data.column(self.image)
        lengths = pc.binary_length(pc.struct_field(images, "bytes")).to_pylist()
        paths = pc.struct_field(images, "path").to_pylist()
        sizes = [_file_size(path) if size is None else size for size, path in zip(lengths, paths, strict=True)]
        return digest(self.classes, self.labels, sizes, [path and Path(path).name for path in paths])

    @cached_property
    def ids(self) -> tuple[str, ...]:
        import pyarrow.compute as pc

        paths = pc.struct_field(self.rows.data.column(self.image), "path").to_pylist()
        return tuple(self._id(index, path) for index, path in enumerate(paths))

    def _id(self, index: int, path: str | None) -> str:
        return f"{self.split}/{index}" + (f" ({Path(path).name})" if path else "")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        found = self.rows[index][self.image]
        name = self._id(index, found and found["path"])
        if not found or (found["bytes"] is None and not found["path"]):
            raise UnusableImageError(name, "unreadable", "the row has no image")
        try:
            data = found["bytes"] if found["bytes"] is not None else Path(found["path"]).read_bytes()
        except OSError as error:
            raise UnusableImageError(name, "unreadable", error.strerror or str(error)) from error
        return Sample(data, self.labels[index], name)


def hub_parts(name: str) -> dict[str, Part]:
    """The splits of `hub:NAME[:CONFIGURATION][?image=COLUMN&label=COLUMN]`.

    NAME is a data set of the hub, or a folder or file on this machine. A split without labels is left out.

    Raises:
        ValueError: `datasets` is not installed, no such data set, or it is not plain which columns to use.
    """
    path, _, query = name.removeprefix(PREFIX).partition("?")
    chosen = {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}
    unknown = sorted(set(chosen) - {"image", "label"})
    if unknown:
        raise ValueError(f"{name}: after the question mark stand image= and label=, not {', '.join(unknown)}")
    splits = _load(path, name)
    ours = one_of_each({ours: [n for n in names if n in splits] for ours, names in SPLIT_NAMES.items()}, name)
    ours |= {split: split for split in splits if not any(split in names for names in SPLIT_NAMES.values())}
    if len(splits) == 1:
        ours = {"all": next(iter(splits))}
    parts = {split: _part(splits[theirs], theirs, name, chosen) for split, theirs in ours.items()}
    labelled = {split: part for split, part in parts.items() if part is not None}
    if not labelled:
        raise ValueError(f"{name}: its images have no labels")
    return labelled


def _load(path: str, name: str) -> dict[str, Any]:
    """The splits of a data set by their names there."""
    datasets = library("datasets", needed_by=name)
    local = Path(path).expanduser()
    try:
        if local.is_dir() and any((local / file).is_file() for file in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(str(local))
        elif local.is_dir():
            found = datasets.load_dataset(str(local.resolve()))
        elif local.is_file():
            if local.suffix not in FILE_KINDS:
                raise ValueError(f"a file must be one of {', '.join(FILE_KINDS)}")
            found = datasets.load_dataset(FILE_KINDS[local.suffix], data_files=str(local))
        else:
            repository, _, configuration = path.partition(":")
            found = datasets.load_dataset(repository, configuration or None)
    except Exception as error:  # the library, its readers and its transport raise almost anything
        raise ValueError(f"{name} cannot be loaded: {str(error) or type(error).__name__}") from error
    return dict(found) if isinstance(found, dict) else {"train": found}


def _part(rows: Any, split: str, name: str, chosen: dict[str, str]) -> Part | None:
    """One split; None if its images have no labels."""
    image, label = _columns(rows.features, name, chosen)
    every = _class_names(rows, label)
    names = [found for found in every if found is not None]
    if not names:
        return None
    if len(names) < len(every):
        raise ValueError(f"{name}: {every.count(None):,} of {len(every):,} images in {split} have no label")
    import datasets

    undecoded = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    feature = rows.features[label]
    present = set(names)
    ordered = feature.names if isinstance(feature, datasets.ClassLabel) else sorted(present, key=natural_order)

    def numbered(classes: tuple[str, ...]) -> HubSource:
        label_of = dict(number(present, classes))
        return HubSource(
            rows=undecoded,
            image=image,
            classes=classes,
            labels=tuple(label_of[found] for found in names),
            split=split,
        )

    return Part(where=f"{name}, {split}", names=tuple(n for n in ordered if n in present), numbered=numbered)


def _columns(features: Any, name: str, chosen: dict[str, str]) -> tuple[str, str]:
    """The image column and the label column."""
    import datasets

    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    stored = [column for column, feature in features.items() if _may_hold_images(feature)]
    classes = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    labels = classes or [column for column in LABEL_COLUMNS if column in features][:1]
    found = {}
    for kind, candidates in (("image", images or stored), ("label", labels)):
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
        found[kind] = column
    if found["image"] not in images + stored:
        raise ValueError(f"{name}: column {found['image']} holds no images")
    if not isinstance(features[found["label"]], datasets.ClassLabel | datasets.Value):
        raise ValueError(f"{name}: column {found['label']} does not hold one class for each image")
    return found["image"], found["label"]


def _may_hold_images(feature: Any) -> bool:
    """Files in a column that nobody has said to hold images: bytes, perhaps beside a path."""
    return (isinstance(feature, dict) and "bytes" in feature) or getattr(feature, "dtype", None) in BINARY


def _file_size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except (OSError, TypeError):
        return None  # gone, or no path at all: reading the image will tell


def _class_names(rows: Any, label: str) -> list[str | None]:
    """The class of every row, None where it is not told."""
    feature, values = rows.features[label], rows.select_columns([label])[:][label]
    names = getattr(feature, "names", None)
    if names is None:
        return [None if value is None or value == NO_LABEL else str(value) for value in values]
    return [None if value is None or value == NO_LABEL else names[value] for value in values]
