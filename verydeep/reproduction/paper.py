"""The paper's own results on ILSVRC-2012, errors in percent; on the validation set unless stated otherwise."""

from dataclasses import dataclass

from verydeep.evaluation.protocols import Method

NETWORKS = ("A", "A-LRN", "B", "B-5x5", "C", "D", "E")
"""Networks that the paper trained, in the order of its tables."""

_DENSE: Method = "dense"
_CROPS: Method = "crops"
_BOTH: Method = "both"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: trained at S, tested at each Q and averaged."""

    network: str
    """`D + E` for several fused."""
    train: str
    """S: `256`, `384` or the range `256:512`; `various` for several that differ."""
    test: tuple[int, ...]
    """Q; for several that differ, all of them."""
    method: Method = _DENSE
    top1: float
    top5: float
    top5_test: float | None = None
    """On the test set; None where the paper does not report it."""


@dataclass(frozen=True, kw_only=True)
class Others:
    """One line of Table 7: errors that somebody reached with some networks; None: not reported."""

    who: str
    networks: str
    top1: float | None
    top5: float | None
    top5_test: float | None


def _rows(*lines: tuple[str, str, tuple[int, ...], float, float]) -> tuple[Row, ...]:
    return tuple(Row(network=n, train=s, test=q, top1=top1, top5=top5) for n, s, q, top1, top5 in lines)


TABLE_3 = _rows(
    ("A", "256", (256,), 29.6, 10.4),
    ("A-LRN", "256", (256,), 29.7, 10.5),
    ("B", "256", (256,), 28.7, 9.9),
    ("C", "256", (256,), 28.1, 9.4),
    ("C", "384", (384,), 28.1, 9.3),
    ("C", "256:512", (384,), 27.3, 8.8),
    ("D", "256", (256,), 27.0, 8.8),
    ("D", "384", (384,), 26.8, 8.7),
    ("D", "256:512", (384,), 25.6, 8.1),
    ("E", "256", (256,), 27.3, 9.0),
    ("E", "384", (384,), 26.9, 8.7),
    ("E", "256:512", (384,), 25.5, 8.0),
)
"""One test scale, dense."""

TABLE_4 = _rows(
    ("B", "256", (224, 256, 288), 28.2, 9.6),
    ("C", "256", (224, 256, 288), 27.7, 9.2),
    ("C", "384", (352, 384, 416), 27.8, 9.2),
    ("C", "256:512", (256, 384, 512), 26.3, 8.2),
    ("D", "256", (224, 256, 288), 26.6, 8.6),
    ("D", "384", (352, 384, 416), 26.5, 8.6),
    ("D", "256:512", (256, 384, 512), 24.8, 7.5),
    ("E", "256", (224, 256, 288), 26.9, 8.7),
    ("E", "384", (352, 384, 416), 26.7, 8.6),
    ("E", "256:512", (256, 384, 512), 24.8, 7.5),
)
"""Several test scales, dense."""

TABLE_5 = tuple(
    Row(network=network, train="256:512", test=(256, 384, 512), method=method, top1=top1, top5=top5)
    for network, method, top1, top5 in (
        ("D", _DENSE, 24.8, 7.5),
        ("D", _CROPS, 24.6, 7.5),
        ("D", _BOTH, 24.4, 7.2),
        ("E", _DENSE, 24.8, 7.5),
        ("E", _CROPS, 24.6, 7.4),
        ("E", _BOTH, 24.4, 7.1),
    )
)
"""Ways to look at the images, at several test scales."""

D_AND_E = "D + E"

SUBMITTED = Row(
    network="seven",
    train="various",
    test=(224, 256, 288, 352, 384, 416, 512),
    top1=24.7,
    top5=7.5,
    top5_test=7.3,
)
"""Table 6: the seven networks of the submission to ILSVRC-2014, six of a single S, and a D of S in [256;512] that was
fine-tuned in its fully connected layers only."""

TABLE_6 = (
    SUBMITTED,
    *(
        Row(network=D_AND_E, train="256:512", test=(256, 384, 512), method=method, top1=top1, top5=top5, top5_test=test)
        for method, top1, top5, test in ((_DENSE, 24.0, 7.1, 7.0), (_CROPS, 23.9, 7.2, None), (_BOTH, 23.7, 6.8, 6.8))
    ),
)
"""Posteriors of several networks averaged."""

TABLE_7 = tuple(
    Others(who=who, networks=networks, top1=top1, top5=top5, top5_test=test)
    for who, networks, top1, top5, test in (
        ("VGG", "2", 23.7, 6.8, 6.8),
        ("VGG", "1", 24.4, 7.1, 7.0),
        ("VGG", "7", 24.7, 7.5, 7.3),
        ("GoogLeNet", "1", None, 7.9, 7.9),
        ("GoogLeNet", "7", None, 6.7, 6.7),
        ("MSRA", "11", None, None, 8.1),
        ("MSRA", "1", 27.9, 9.1, 9.1),
        ("Clarifai", "several", None, None, 11.7),
        ("Clarifai", "1", None, None, 12.5),
        ("Zeiler & Fergus", "6", 36.0, 14.7, 14.8),
        ("Zeiler & Fergus", "1", 37.5, 16.0, 16.1),
        ("OverFeat", "7", 34.0, 13.2, 13.6),
        ("OverFeat", "1", 35.7, 14.2, None),
        ("Krizhevsky et al.", "5", 38.1, 16.4, 16.4),
        ("Krizhevsky et al.", "1", 40.7, 18.2, None),
    )
)
"""The state of the art of its time; the paper gives one figure for GoogLeNet's validation and test."""

CLARIFAI_WITH_OUTSIDE_DATA_TOP5_TEST = 11.2
"""Section 4.5."""

B_5X5_EXTRA_TOP1 = 7.0
"""Section 4.1: on a centre crop, B with 5 x 5 layers errs by so many points more than B."""


def reported(table: tuple[Row, ...], network: str, train: str | None = None, *, method: Method = _DENSE) -> Row | None:
    """Return the table's line for a network (or `D + E`, or `seven`), S if given, and a method; None without one."""
    return next(
        (row for row in table if (row.network, row.method) == (network, method) and train in (None, row.train)), None
    )
