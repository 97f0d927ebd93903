"""The 1,000 ILSVRC classes, in the order of a network's outputs, by WordNet id and by name.

`ilsvrc_classes.tsv` has a line for each: WordNet id and name. The order is that of the ids, which all published
weights share; a name is the first lemma of its WordNet synset (ids in their order and lemmas as timm 1.0.31 lists
them). Four have other names, so that no two are the same: the bird and the machine called crane, the Cardigan Welsh
corgi beside the cardigan, and the tank suit, whose first lemma is maillot too.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.resources import files


@cache
def ilsvrc_classes() -> dict[str, str]:
    """Return each WordNet id with its name, in order: {"n01440764": "tench", ...}."""
    text = files("verydeep").joinpath("ilsvrc_classes.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in text.splitlines())


@cache
def ilsvrc_ids() -> dict[str, str]:
    """Return each name with its WordNet id."""
    return {name: wnid for wnid, name in ilsvrc_classes().items()}


def normal_form(name: str) -> str:
    """Return a name as it is compared: some file systems store `é` as one character, some as two (Unicode's NFC)."""
    return unicodedata.normalize("NFC", name)


def class_numbers(classes: Sequence[str]) -> dict[str, int]:
    """Return the number of each class by its name, by its name's normal form, and for ILSVRC by its other name.

    The other name of `n01440764` is `tench`, for example, and the other way round.
    """
    other = ilsvrc_classes() | ilsvrc_ids()
    numbered = {name: number for number, name in enumerate(classes)}
    named_otherwise = {other[name]: number for name, number in numbered.items() if name in other}
    return named_otherwise | {normal_form(name): number for name, number in numbered.items()} | numbered
