"""Inventory of the places where images are looked for: files used and files left out, none uncounted."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

from verydeep.images.image_kinds import DATA_SUFFIXES, HEIF_SUFFIXES, missing_for_heif
from verydeep.numbers import counted, first_few, number
from verydeep.presentation.terminal import SHOWN

_LEFT_BY_PROGRAMS = frozenset(
    {
        *("__macosx", "icon\r", "@eadir", "#recycle", "#snapshot", "@recycle", "@tmp", "lost+found", "$recycle.bin"),
        *("system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    }
)
"""Names, without capitals, of files that macOS, NAS boxes, file systems and Windows leave beside images."""

_LEFT_SUFFIXES = (
    *("~", ".bak", ".tmp", ".part", ".crdownload", ".thm"),
    *(".safetensors.parts", ".parquet.parts"),
)
"""Endings of copies, of unfinished downloads, of the thumbnails that cameras write beside films, and of the folders
that verydeep features keeps its work in."""

What = Literal["image", "label", "other", "hidden", "unclassed", "dangling", "repeated", "unreadable", "special"]
"""Role of a file in a source: one of the fields of `Found`."""


class FoundFile(NamedTuple):
    """One file that was found, or one link, or a folder that cannot be read."""

    what: What
    path: str

    def within(self, folder: str) -> "FoundFile":
        """Return it with a folder put before its path."""
        return self._replace(path=os.path.join(folder, self.path))


@dataclass(frozen=True, kw_only=True)
class Found:
    """Files in one place: a class folder and below, or an archive. Folders are not counted, a link is one file."""

    images: int = 0
    """Images that are taken, usable or not."""
    labels: int = 0
    """Files of an archive with its images' classes."""
    other_kinds: Counter[str] = field(default_factory=Counter)
    """Files that are not images, or not in a format that can be read, by the ending of their names; commonest first."""
    hidden: int = 0
    """Files that are hidden, or left by programs, or in such folders."""
    unclassed: tuple[str, ...] = ()
    """Images that are in no class folder, or have no class."""
    dangling: tuple[str, ...] = ()
    """Links that lead nowhere."""
    repeated: tuple[str, ...] = ()
    """Linked folders that are already taken under another path, or that the link itself is in."""
    unreadable: tuple[str, ...] = ()
    """Folders that cannot be read."""
    special: tuple[str, ...] = ()
    """Pipes, sockets and devices; in archives, files with holes too."""

    @property
    def left_out(self) -> int:
        """Number of files that are not used."""
        named = (self.unclassed, self.dangling, self.repeated, self.unreadable, self.special)
        return sum(self.other_kinds.values()) + self.hidden + sum(map(len, named))

    @property
    def files(self) -> int:
        """Number of files that were found."""
        return self.images + self.labels + self.left_out

    def __add__(self, other: "Found") -> "Found":
        """Return the findings of two places together."""
        sums = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(Found)}
        return Found(**{**sums, "other_kinds": _commonest_first(sums["other_kinds"])})

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"files": self.files, "left_out": self.left_out, **own, "other_kinds": dict(self.other_kinds)}


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The findings in a source, by place."""

    places: Mapping[str, Found] = field(default_factory=dict)
    """By folder, archive or part of a data set; the empty name is for files beside them."""
    empty: tuple[str, ...] = ()
    """Folders that could be classes, but have no files."""

    @property
    def total(self) -> Found:
        """The findings of all places together."""
        return sum(self.places.values(), Found())

    def lines(self) -> list[str]:
        """Describe the files left out, a line for each reason; return no lines if there are none."""
        return [f"left out {reason}" for reason in self.reasons()]

    def reasons(self) -> list[str]:
        """Count the files left out, by reason."""
        found = self.total
        reasons = [_about_other_kinds(found.other_kinds)] if found.other_kinds else []
        if found.hidden:
            reasons.append(
                counted(found.hidden, "hidden file or leftover of a program", "hidden files or leftovers of programs")
            )
        for names, what in (
            (found.unclassed, ("image without a class", "images without a class")),
            (found.dangling, ("broken link", "broken links")),
            (found.repeated, ("folder already taken under another path", "folders already taken under other paths")),
            (found.unreadable, ("folder that cannot be read", "folders that cannot be read")),
            (found.special, ("pipe, socket or device", "pipes, sockets or devices")),
            (self.empty, ("folder without files, not taken as a class", "folders without files, not taken as classes")),
        ):
            if names:
                reasons.append(f"{counted(len(names), *what)}: {first_few(names)}")
        return reasons

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, ready for JSON."""
        places = {place: found.to_dict() for place, found in self.places.items()}
        return {**self.total.to_dict(), "empty": self.empty, "places": places}


def is_leftover(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or one that programs leave beside images."""
    lower = name.lower()
    return name.startswith(".") or lower in _LEFT_BY_PROGRAMS or lower.endswith(_LEFT_SUFFIXES)


def is_hidden(path: str | PurePath) -> bool:
    """Return whether a file, or a folder on the path to it from where images are looked for, is a leftover."""
    return any(part != ".." and is_leftover(part) for part in PurePath(path).parts)


def found_in(entries: Iterable[FoundFile]) -> Found:
    """Count the files found in one place."""
    by_kind: dict[What, list[str]] = {}
    for what, path in entries:
        by_kind.setdefault(what, []).append(path)

    def names(what: What) -> tuple[str, ...]:
        return tuple(sorted(by_kind.get(what, ())))

    return Found(
        images=len(names("image")),
        labels=len(names("label")),
        other_kinds=_commonest_first(Counter(PurePath(path).suffix.lower() for path in names("other"))),
        hidden=len(names("hidden")),
        unclassed=names("unclassed"),
        dangling=names("dangling"),
        repeated=names("repeated"),
        unreadable=names("unreadable"),
        special=names("special"),
    )


def _commonest_first(kinds: Counter[str]) -> Counter[str]:
    return Counter(dict(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))))


def _about_other_kinds(kinds: Mapping[str, int]) -> str:
    """Count files by their endings, and advise on them."""
    each = [f"{number(count)} {ending or 'without ending'}" for ending, count in kinds.items()]
    text = f"{counted(sum(kinds.values()), 'file')} of other kinds: {first_few(each, SHOWN)}"
    if HEIF_SUFFIXES & set(kinds) and (missing := missing_for_heif()):
        text += f"; {missing}"
    pictures = set(kinds) - DATA_SUFFIXES - HEIF_SUFFIXES
    return f"{text}; convert pictures among them to JPEG or PNG" if pictures - {""} else text
