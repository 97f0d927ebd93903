"""How much of the paper's experiment is done: trainings, tests and seeds."""

from dataclasses import dataclass
from typing import Literal, get_args

from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid
from verydeep.numbers import plural
from verydeep.reproduction.claims import MARGIN, check_margin
from verydeep.reproduction.paper_tables import PAPER_TABLES, Entry
from verydeep.reproduction.studies import STUDIES_BY_NAME, StudyName, tests_of_studies, trainings_of_studies
from verydeep.reproduction.trainings import TRAININGS, GridTraining

Steer = Literal["held-out", "validation"]

Jobs = int | Literal["ray"] | None
"""Trainings at once; `ray`: as many as a Ray cluster has room for; None: as many as this machine has."""

_NUMBERS = tuple(table.number for table in PAPER_TABLES)


GRID_OPTIONS = {"pooling_grid": "grid", "studies": "study"}
"""Options of the command, by the fields of `Grid` that have other names."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How much of the paper's experiment is done.

    Raises:
        ValueError: an unknown name, another table, no table or test, no seed, or settings that do not go together.
    """

    only: tuple[str, ...] = ()
    """Networks (D, for all of its trainings) or trainings, such as D,E-384; those that they start from are added."""

    tables: tuple[int, ...] = _NUMBERS
    """Tables of the paper, 3 to 6. For 5 and 6 alone only the networks in them are trained."""

    seeds: int = 1
    """How often everything is trained. Claims about networks trained again are decided from three on; --dry-run says
    which differences a number of seeds tells."""

    studies: tuple[StudyName, ...] = ()
    """Questions beside the paper's tables, each with trainings of its own and a page: `initialisation`, `gradients`,
    `regularisation`, `images`."""

    pooling_grid: PoolingGrid = DEFAULT_GRID
    """Where the positions of dense evaluation lie if an image's sides are not multiples of 32: `centred`; `floor`, as
    PyTorch pools; `ceil`, as Caffe does, which the paper used."""

    margin: float = MARGIN
    """Percentage points up to which errors count as alike, where a claim says so."""

    steer: Steer | None = None
    """What the learning rate follows, where a source brings no test images: `held-out`, a part of the training images,
    so that the validation images only test; or `validation`, the test images themselves, as in the paper. By default
    as the folder was begun; a new one with held-out."""

    held_out: float | None = None
    """For held-out: the share of each class's training images, by default an eighth, or as the folder was begun."""

    def __post_init__(self) -> None:
        """Refuse names and numbers that do not exist."""
        unknown = sorted(set(self.only) - {name for one in TRAININGS for name in (one.name, one.network)})
        if unknown:
            names = ", ".join(one.name for one in TRAININGS)
            raise ValueError(f"unknown {', '.join(unknown)}: name networks (D), or trainings: {names}")
        if not self.tables or not set(self.tables) <= set(_NUMBERS):
            raise ValueError(f"tables are some of {', '.join(map(str, _NUMBERS))}, not {list(self.tables)}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be 1 or more, not {self.seeds}")
        check_margin(self.margin)
        if self.pooling_grid not in get_args(PoolingGrid):
            raise ValueError(f"grid is one of {', '.join(get_args(PoolingGrid))}, not {self.pooling_grid}")
        if not self.entries:
            tables = f"{plural('Table', len(self.tables))} {', '.join(map(str, self.tables))}"
            raise ValueError(
                f"{tables} of the paper cannot be made from {', '.join(self.only)} alone: add networks or tables"
            )
        self._check_steering()
        self._check_studies()

    def _check_steering(self) -> None:
        if self.steer not in (None, *get_args(Steer)):
            raise ValueError(f"steer is one of {', '.join(get_args(Steer))}, not {self.steer}")
        if self.held_out is not None and self.steer == "validation":
            raise ValueError("held_out is for training images that steer, and does nothing with --steer validation")

    def _check_studies(self) -> None:
        for name in self.studies:
            if name not in STUDIES_BY_NAME:
                raise ValueError(f"studies are some of {', '.join(STUDIES_BY_NAME)}, not {name}")
            networks = dict.fromkeys(one.network for one in STUDIES_BY_NAME[name].trainings)
            if not self.networks & set(networks):
                raise ValueError(f"the study {name} needs one of {', '.join(networks)}: add one to those chosen")

    @property
    def trainings(self) -> tuple[GridTraining, ...]:
        """Each after the one it starts from."""
        wanted = {one.name for one in TRAININGS if not self.only or {one.name, one.network} & set(self.only)}
        wanted = {name for entry in self._tests_of(sorted(wanted)) for name in entry.trainings}
        for one in reversed(TRAININGS):
            if one.name in wanted and one.start:
                wanted.add(one.start)
        return tuple(one for one in TRAININGS if one.name in wanted)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Tests of all its tables, each once."""
        return self._tests_of([one.name for one in self.trainings])

    @property
    def networks(self) -> set[str]:
        """Networks that studies are of: those chosen by `only`."""
        return {one.network for one in TRAININGS if not self.only or {one.name, one.network} & set(self.only)}

    @property
    def studied(self) -> tuple[GridTraining, ...]:
        """Trainings that studies take besides those of the tables, each after the one it starts from."""
        own = set(self.trainings)
        return tuple(one for one in trainings_of_studies(self.studies, self.networks) if one not in own)

    @property
    def study_entries(self) -> tuple[Entry, ...]:
        """Tests that studies take besides those of the tables."""
        own = set(self.entries)
        return tuple(entry for entry in tests_of_studies(self.studies, self.networks) if entry not in own)

    def _tests_of(self, names: list[str]) -> tuple[Entry, ...]:
        needed = (entry for table in PAPER_TABLES if table.number in self.tables for entry in table.entries(names))
        return tuple(dict.fromkeys(needed))
