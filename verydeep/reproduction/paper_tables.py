"""The paper's Tables 3 to 6: the tests that each of them lists, and the paper's figures for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import get_args

from verydeep.evaluation.protocols import Method, Protocol, Scales
from verydeep.networks.grids import PoolingGrid
from verydeep.reproduction import paper
from verydeep.reproduction.trainings import SEVEN, TRAININGS_BY_NAME, TWO_BEST, last_stages

_METHODS: tuple[Method, ...] = ("dense", "crops", "both")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Trainings, fused if several, tested by one protocol."""

    trainings: tuple[str, ...]
    method: Method
    scales: Scales
    training_images: bool = False
    """Whether the test is on training images."""

    @property
    def name(self) -> str:
        """`D-384 dense paper`; also the name of its file, and what `entry_named` reads."""
        return f"{'+'.join(self.trainings)} {self.protocol}"

    @property
    def protocol(self) -> str:
        """`dense paper`: the name without the trainings."""
        return f"{self.method} {self.scales}{' on training images' if self.training_images else ''}"

    def pooling_grid(self, dense: PoolingGrid) -> PoolingGrid:
        """Return the test's grid, given that of dense evaluation; tests of crops alone have none but the centred."""
        return dense if self.method in ("dense", "both") else "centred"


_BY_PROTOCOL = {
    one.protocol: one
    for method, scales, whether in product(get_args(Method), get_args(Scales), (False, True))
    for one in [Entry(trainings=(), method=method, scales=scales, training_images=whether)]
}
"""Every way to test, still of no training."""


@cache
def entry_named(name: str) -> Entry:
    """Return the entry that has this name, `D-256+E-256 dense paper`.

    Raises:
        ValueError: none has.
    """
    trainings, _, protocol = name.partition(" ")
    if protocol not in _BY_PROTOCOL:
        raise ValueError(f"{name!r} is not a training, a protocol and its scales, such as 'D-256 dense single'")
    return replace(_BY_PROTOCOL[protocol], trainings=tuple(trainings.split("+")))


def is_test(name: str) -> bool:
    """Return whether this is the name of a test of the paper's trainings on test images."""
    try:
        entry = entry_named(name)
    except ValueError:
        return False
    return not entry.training_images and set(entry.trainings) <= set(TRAININGS_BY_NAME)


def one_scale(training: str, *, method: Method = Protocol.method) -> Entry:
    """Return the test of a training at the paper's one scale."""
    return Entry(trainings=(training,), method=method, scales="single")


def several_scales(*trainings: str, method: Method = Protocol.method) -> Entry:
    """Return the test of a training, or of several fused, at the paper's three scales."""
    return Entry(trainings=trainings, method=method, scales="paper")


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table of test results."""

    number: int
    heading: str
    caption: str
    entries: Callable[[Sequence[str]], Sequence[Entry]]
    """Tests that the table needs, given the names of the trainings that are done."""
    rows: tuple[paper.Row, ...]
    """The paper's figures."""
    figures_are: str | None = None
    """In words, where all of the paper's figures are of jittered networks."""
    networks: int = 1
    """Fewest networks in a line; tests of fewer are there to be compared with the lines."""

    def lines(self, names: Sequence[str]) -> list[Entry]:
        """Return the tests that the table shows: largest fusion first, centre crops last, networks as in the paper."""
        shown = [entry for entry in self.entries(names) if len(entry.trainings) >= self.networks]
        return sorted(shown, key=_place)

    def reported(self, entry: Entry) -> paper.Row | None:
        """Return the paper's line for a test (its jittered networks' in Tables 5 and 6), if it has one."""
        first = TRAININGS_BY_NAME[entry.trainings[0]]
        if first.unseeded:
            return None
        network = paper.SUBMITTED.network if entry.trainings == SEVEN else " + ".join(_networks(entry))
        return paper.reported(self.rows, network, None if self.figures_are else first.scale, method=entry.method)


def _networks(entry: Entry) -> list[str]:
    return [TRAININGS_BY_NAME[name].network for name in entry.trainings]


def _place(entry: Entry) -> tuple[int, bool, int]:
    return -len(entry.trainings), entry.method == "centre", paper.NETWORKS.index(_networks(entry)[0])


def _table_3(names: Sequence[str]) -> list[Entry]:
    """Return all trainings densely; where B-5x5 is one, those at its S on centre crops too, as in section 4.1.

    All of them, because verdicts take the variance by seeds from networks that were tested alike.
    """
    compared = TRAININGS_BY_NAME["B-5x5-256"]
    same_scale = [name for name in names if TRAININGS_BY_NAME[name].scale == compared.scale]
    on_crops = same_scale if compared.name in names else []
    return [*map(one_scale, names), *(one_scale(name, method="centre") for name in on_crops)]


def _table_5(names: Sequence[str]) -> list[Entry]:
    return [several_scales(name, method=method) for name in last_stages(names) for method in _METHODS]


def _table_6(names: Sequence[str]) -> list[Entry]:
    last = last_stages(names)
    entries = []
    if len(last) == len(TWO_BEST):
        entries += [several_scales(name) for name in last]
        entries += [several_scales(*last, method=method) for method in _METHODS]
    if set(SEVEN) <= set(names):
        entries.append(several_scales(*SEVEN))
    return entries


PAPER_TABLES = (
    PaperTable(
        number=3,
        heading="One test scale",
        caption="As Table 3 of the paper: dense evaluation at one scale.",
        entries=_table_3,
        rows=paper.TABLE_3,
    ),
    PaperTable(
        number=4,
        heading="Several test scales",
        caption="As Table 4: posteriors averaged over several scales.",
        entries=lambda names: [several_scales(name) for name in names],
        rows=paper.TABLE_4,
    ),
    PaperTable(
        number=5,
        heading="Dense and multi-crop",
        caption="As Table 5: dense evaluation, multi-crop, and the average of both, at several scales.",
        entries=_table_5,
        rows=paper.TABLE_5,
        figures_are="The paper's figures",
    ),
    PaperTable(
        number=6,
        heading="Fusion",
        caption="As Table 6: posteriors of several networks averaged, at several scales.",
        entries=_table_6,
        rows=paper.TABLE_6,
        figures_are=f"The paper's figures of {paper.D_AND_E}",
        networks=2,
    ),
)
