"""The kinds of SOURCE, in the order in which they are tried: a new kind is a new file and an entry here."""

from verydeep.images.sources.digits import DIGITS
from verydeep.images.sources.folders import FOLDERS
from verydeep.images.sources.hub import HUB
from verydeep.images.sources.kind import Kind
from verydeep.images.sources.shards import SHARDS
from verydeep.images.sources.splits import UnnumberedSplit

KINDS: tuple[Kind, ...] = (DIGITS, HUB, SHARDS, FOLDERS)


def unnumbered_splits(name: str) -> dict[str, UnnumberedSplit]:
    """Find the splits of SOURCE; `all` alone where it has none.

    Raises:
        ValueError: no such source, or no images in it.
    """
    kind = next((kind for kind in KINDS if kind.fits(name)), None)
    if kind is None:
        raise ValueError(f"no folder {name!r}: give {', '.join(kind.described for kind in KINDS[::-1])}")
    return kind.splits(name)
