"""What the paper trained and how it tested that, as data: trainings, what each starts from, entries of its tables."""

from collections.abc import Collection, Iterable, Sequence
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


def chosen_trainings(only: Collection[str] = (), tables: Collection[int] = TABLES) -> tuple[Training, ...]:
    """Those that `only` names (networks, `D`, or trainings, `D-384`; all if empty) and what they start from.

    Of Tables 5 and 6 alone, the networks that are in them.

    Raises:
        ValueError: an unknown name, or another table.
    """
    known = {one.name for one in TRAININGS} | {one.network for one in TRAININGS}
    unknown = sorted(set(only) - known)
    if unknown:
        names = ", ".join(one.name for one in TRAININGS)
        raise ValueError(f"unknown {', '.join(unknown)}: name networks (D), or trainings: {names}")
    if not tables or not set(tables) <= set(TABLES):
        raise ValueError(f"the tables that are repeated are {', '.join(map(str, TABLES))}, not {list(tables)}")
    wanted = {one.name for one in TRAININGS if not only or {one.name, one.network} & set(only)}
    if not set(tables) & {3, 4}:
        wanted &= {name for entry in entries(TRAININGS, tables) for name in entry.trainings}
    for one in reversed(TRAININGS):
        if one.name in wanted and one.start:
            wanted.add(one.start)
    return tuple(one for one in TRAININGS if one.name in wanted)


def entries(trainings: Iterable[Training], tables: Collection[int] = TABLES) -> tuple[Entry, ...]:
    """What the tables want of some trainings, each once."""
    trainings = tuple(trainings)
    names = [one.name for one in trainings]
    found: list[Entry] = []
    if 3 in tables:
        found += [Entry(trainings=(name,), method="dense", scales="single") for name in names]
    if 4 in tables:
        found += [Entry(trainings=(name,), method="dense", scales="paper") for name in names]
    last = last_stages(names)
    if 5 in tables:
        found += [Entry(trainings=(name,), method=method, scales="paper") for name in last for method in METHODS]
    if 6 in tables and len(last) == len(FUSED):
        fused = tuple(last)
        found += [Entry(trainings=fused, method=method, scales="paper") for method in METHODS]
        found += [Entry(trainings=(name,), method="dense", scales="paper") for name in last]
    if 6 in tables and set(SEVEN) <= set(names):
        found.append(Entry(trainings=SEVEN, method="dense", scales="paper"))
    return tuple(dict.fromkeys(found))


def last_stages(names: Sequence[str]) -> list[str]:
    """Of D and of E, as far as they are there, the training that comes last: the jittered one in the paper."""
    found = []
    for network in FUSED:
        stages = [Training(network=network, scale=scale).name for scale in STAGES]
        found += [name for name in stages if name in names][:1]
    return found
