"""Names of a network's outputs: ILSVRC's, those that came with its weights, a file's, or numbers."""

from pathlib import Path

from verydeep.ilsvrc_classes import ilsvrc_classes, ilsvrc_ids
from verydeep.machine.text_files import read_text
from verydeep.numbers import counted, number

WORDS, _WNIDS = "words", "wnids"


def names_of_classes(count: int, chosen: str, told: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Return a name for each of `count` outputs.

    Args:
        count: the number of outputs.
        chosen: `words` or `wnids` for ILSVRC's classes, otherwise a file with a name per line.
        told: names or WordNet ids that came with the weights. Without any, 1,000 outputs are ILSVRC's, and others
            are numbered.

    Raises:
        ValueError: there is no such file, it or `told` does not have one distinct name for each output, or `wnids`
            for classes that are not ILSVRC's.
    """
    if chosen not in (WORDS, _WNIDS):
        return _from_file(Path(chosen), count)
    words, ids = ilsvrc_classes(), ilsvrc_ids()
    if told is not None:
        if len(told) != count or len(set(told)) < count:
            raise ValueError(
                f"{counted(len(set(told)), 'distinct name')} came with {counted(count, 'output')}: "
                "name a file of names as class_names"
            )
        known, other = (words, ids) if chosen == _WNIDS else (ids, words)
        if all(name in known or name in other for name in told):
            return tuple(name if name in known else other[name] for name in told)
        if chosen == WORDS:
            return told
        raise ValueError(f"its classes are not ILSVRC's, so they have no {_WNIDS}: they begin with {told[0]!r}")
    if count == len(words):
        return tuple(ids if chosen == WORDS else words)
    if chosen == _WNIDS:
        raise ValueError(
            f"ILSVRC's {_WNIDS} are for {number(len(words))} outputs, not {number(count)}: name a file of names"
        )
    return numbered_classes(count)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Return names for classes that have none: `class 0`, `class 1`, ..."""
    return tuple(f"class {index}" for index in range(count))


def _from_file(path: Path, count: int) -> tuple[str, ...]:
    if not path.is_file():
        raise ValueError(f"class names are {WORDS}, {_WNIDS} or a file with a name per line; there is no file {path}")
    names = tuple(line.strip() for line in read_text(path, strict=True).splitlines() if line.strip())
    if len(names) != count:
        raise ValueError(f"{path} has {counted(len(names), 'name')} for {counted(count, 'output')}")
    if len(set(names)) < count:
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} has {twice!r} twice")
    return names
