"""The paper's own results on ILSVRC-2012, validation set, errors in percent."""

from dataclasses import dataclass

NETWORKS = ("A", "A-LRN", "B", "B-5x5", "C", "D", "E")
"""Every network that the paper trained, in the order of its tables."""

DEEPER = ("B", "C", "D", "E")
"""Those whose first weights came from trained A (section 3.1)."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: trained at S, tested at each Q and averaged."""

    network: str
    train: str
    """S: `256`, `384` or the range `256:512`."""
    test: tuple[int, ...]
    """Q."""
    top1: float
    top5: float


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

FUSED = Row(network="D + E", train="256:512", test=(256, 384, 512), top1=24.0, top5=7.1)
"""Table 6: posteriors of D and E averaged, dense."""

B_5X5_EXTRA_TOP1 = 7.0
"""Section 4.1: on a centre crop, B with 5 x 5 layers errs by so many points more than B."""


def reported(table: tuple[Row, ...], network: str, train: str) -> Row | None:
    """The table's line for a network and S, if the paper has one."""
    return next((row for row in table if (row.network, row.train) == (network, train)), None)
