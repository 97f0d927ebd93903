"""Names of the 1,000 ILSVRC classes, in the order of a network's outputs.

`ilsvrc_classes.tsv` has a line for each: WordNet id and name. The order is that of the ids, which all published
weights share; a name is the first lemma of its WordNet synset (ids in their order and lemmas as timm 1.0.31 lists
them), but for four that are said so that no two are the same: the bird and the machine called crane, the Cardigan
Welsh corgi beside the cardigan, and the tank suit, whose first lemma is maillot too.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path

from verydeep.networks.configurations import ILSVRC_CLASSES

WORDS, WNIDS = "words", "wnids"


@cache
def ilsvrc_classes() -> dict[str, str]:
    """WordNet id to name, in order: {"n01440764": "tench", ...}."""
    text = files("verydeep.networks").joinpath("ilsvrc_classes.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in text.splitlines())


def names_of_classes(count: int, chosen: str, told: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """A name for each of `count` outputs.

    Args:
        count: how many there are.
        chosen: `words` or `wnids` for ILSVRC's, else a file with a name per line.
        told: names or WordNet ids that came with the weights. Without any, 1,000 outputs are ILSVRC's, and others
            are numbered: `class 0`, `class 1`, ...

    Raises:
        ValueError: no such file, not one name for each output, or the same name twice, there or in what was told.
    """
    if chosen not in (WORDS, WNIDS):
        return _from_file(Path(chosen), count)
    words = ilsvrc_classes()
    if told is not None:
        if len(told) != count or len(set(told)) < count:
            raise ValueError(
                f"{len(set(told)):,} different names came with {count:,} outputs: name a file of names as class_names"
            )
        if all(name in words for name in told):
            return tuple(words[name] for name in told) if chosen == WORDS else told
        if chosen == WORDS:
            return told
    if count == ILSVRC_CLASSES:
        return tuple(words.values() if chosen == WORDS else words)
    if chosen == WNIDS:
        raise ValueError(f"ILSVRC's {WNIDS} are for {ILSVRC_CLASSES:,} outputs, not {count:,}: name a file of names")
    return numbered_classes(count)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Names for classes that have none."""
    return tuple(f"class {number}" for number in range(count))


def _from_file(path: Path, count: int) -> tuple[str, ...]:
    if not path.is_file():
        raise ValueError(f"class names are {WORDS}, {WNIDS} or a file with a name per line; there is no file {path}")
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8") from error
    if len(names) != count:
        raise ValueError(f"{path} has {len(names):,} names for {count:,} outputs")
    if len(set(names)) < count:
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} has {twice!r} twice")
    return names
