"""What the paper trained and how it tested that, as data: trainings, what each starts from, entries of its tables."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from verydeep.evaluation.protocols import Method, Scales

JITTER = "256:512"

STAGES = (JITTER, "384", "256")
"""S, the last stage of a network's training first."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One network trained at one S."""

    network: str
    scale: str
    """S: `256`, `384` or `256:512`."""
    init: str | None = None
    """Training whose layers it starts with, by the paper's rule; None: random weights."""
    finetune: str | None = None
    """Training of the same network that it goes on from."""
    unseeded: bool = False
    """Whether it is there to show what the paper's network would be from random weights."""

    @property
    def name(self) -> str:
        """`D-384`; also that of its folder."""
        return f"{self.network}-{self.scale.replace(':', '-')}{'-glorot' if self.unseeded else ''}"

    @property
    def start(self) -> str | None:
        """The training that has to come before."""
        return self.init or self.finetune


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Trainings, fused if several, tested by one protocol."""

    trainings: tuple[str, ...]
    method: Method
    scales: Scales

    @property
    def name(self) -> str:
        """`D-384 dense paper`; also that of its file."""
        return f"{'+'.join(self.trainings)} {self.method} {self.scales}"


TRAININGS = (
    Training(network="A", scale="256"),
    Training(network="A-LRN", scale="256"),
    Training(network="B", scale="256", init="A-256"),
    Training(network="B-5x5", scale="256"),
    *(Training(network=network, scale="256", init="A-256") for network in "CDE"),
    *(Training(network=network, scale="256", unseeded=True) for network in "BD"),
    *(Training(network=network, scale="384", finetune=f"{network}-256") for network in "CDE"),
    *(Training(network=network, scale=JITTER, finetune=f"{network}-384") for network in "CDE"),
)
"""All of the paper's, each after what it starts from; and from random weights D, for the paper's later finding that
Glorot's initialisation needs no copying, and B, to be compared with B-5x5, which cannot start from A."""

QUICK = tuple(one.name for one in TRAININGS if one.scale == "256" and not one.unseeded)
"""Every network once."""

SEVEN = ("D-256", "D-384", "D-256-512", "C-256", "C-384", "E-256", "E-384")
"""Fused in Table 6: the networks of the submission to ILSVRC-2014."""

FUSED = ("D", "E")

TABLES = (3, 4, 5, 6)
"""One test scale; several; multi-crop and dense; fusion."""

METHODS: tuple[Method, ...] = ("dense", "crops", "both")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How much of it is done.

    Raises:
        ValueError: an unknown name, another table, no table, or no seed.
    """

    only: tuple[str, ...] = ()
    """Networks (`D`, for all of its trainings) or trainings (`D-384`); those that they start from come along."""

    tables: tuple[int, ...] = TABLES
    """Of the paper. For 5 and 6 alone only the networks in them are trained."""

    seeds: int = 1
    """How often everything is trained."""

    def __post_init__(self) -> None:
        """Refuses what is not there."""
        known = {one.name for one in TRAININGS} | {one.network for one in TRAININGS}
        unknown = sorted(set(self.only) - known)
        if unknown:
            names = ", ".join(one.name for one in TRAININGS)
            raise ValueError(f"unknown {', '.join(unknown)}: name networks (D), or trainings: {names}")
        if not self.tables or not set(self.tables) <= set(TABLES):
            raise ValueError(f"tables are some of {', '.join(map(str, TABLES))}, not {list(self.tables)}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be 1 or more, not {self.seeds}")

    @property
    def trainings(self) -> tuple[Training, ...]:
        """Each after what it starts from."""
        wanted = {one.name for one in TRAININGS if not self.only or {one.name, one.network} & set(self.only)}
        if not set(self.tables) & {3, 4}:
            wanted &= {name for entry in _entries(sorted(wanted), self.tables) for name in entry.trainings}
        for one in reversed(TRAININGS):
            if one.name in wanted and one.start:
                wanted.add(one.start)
        return tuple(one for one in TRAININGS if one.name in wanted)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Of all its tables, each once."""
        return tuple(dict.fromkeys(_entries([one.name for one in self.trainings], self.tables)))


def _entries(names: Sequence[str], tables: Collection[int]) -> Iterator[Entry]:
    last = tuple(last_stages(names))
    if 3 in tables:
        yield from (Entry(trainings=(name,), method="dense", scales="single") for name in names)
    if 4 in tables:
        yield from (Entry(trainings=(name,), method="dense", scales="paper") for name in names)
    if 5 in tables:
        yield from (Entry(trainings=(name,), method=method, scales="paper") for name in last for method in METHODS)
    if 6 in tables and len(last) == len(FUSED):
        yield from (Entry(trainings=(name,), method="dense", scales="paper") for name in last)
        yield from (Entry(trainings=last, method=method, scales="paper") for method in METHODS)
    if 6 in tables and set(SEVEN) <= set(names):
        yield Entry(trainings=SEVEN, method="dense", scales="paper")


def last_stages(names: Sequence[str]) -> list[str]:
    """Of D and of E, as far as they are there, the training that comes last: the jittered one in the paper."""
    found = []
    for network in FUSED:
        stages = [Training(network=network, scale=scale).name for scale in STAGES]
        found += [name for name in stages if name in names][:1]
    return found
