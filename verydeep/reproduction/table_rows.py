"""Lines of the report's tables: errors over the seeds, with intervals, beside the paper's."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import stdev
from typing import Any

import numpy as np
from jaxtyping import Bool

from verydeep.evaluation.protocols import Method
from verydeep.networks.scales import scale_in_pixels
from verydeep.reproduction import paper
from verydeep.reproduction.contrasts import Contrasts, Outcomes
from verydeep.reproduction.fair_tests import fair_tests
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.paper_tables import PAPER_TABLES, Entry
from verydeep.reproduction.stored_tests import StoredTest, StoredTests
from verydeep.reproduction.trainings import SEVEN, TRAININGS_BY_NAME


@dataclass(frozen=True, kw_only=True)
class EntryErrors:
    """Errors of one entry, mean over the seeds; in percent."""

    entry: str
    network: str
    """Its label; all labels if several are fused."""
    trainings: tuple[str, ...]
    train: tuple[str, ...]
    """S, each once."""
    test: tuple[int, ...]
    """Q, for a crop of 224."""
    test_pixels: tuple[int, ...]
    method: Method
    n: int
    top1_error: float
    of_seeds: tuple[float, ...]
    sd_of_seeds: float | None
    """Standard deviation of the error from seed to seed, percentage points; None with one seed."""
    top1_error_ci95: tuple[float, float] | None
    """None where several seeds had different images, or a single one."""
    top5_error: float | None
    """None with five classes or fewer."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One line of a table."""

    errors: EntryErrors
    reported: paper.Row | None
    """The paper's line."""

    @property
    def trained_alike(self) -> bool:
        """Whether the paper's network was trained at the same S, if it reports any."""
        if self.reported is None or self.reported is paper.SUBMITTED:
            return True
        return self.reported.train == self.errors.train[0]

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return {
            **asdict(self.errors),
            "paper_top1_error": self.reported and self.reported.top1,
            "paper_top5_error": self.reported and self.reported.top5,
            "paper_train": self.reported and self.reported.train,
            "paper_trained_alike": self.trained_alike,
        }


def outcomes_by_images(entries: Iterable[Entry], tests: StoredTests) -> list[Outcomes]:
    """Return which images were misclassified, divided into tests that have the same images with every seed.

    Entries whose seeds had different images are left out.
    """
    same: dict[object, dict[str, Bool[np.ndarray, "seeds N"]]] = {}
    for name in (entry.name for entry in entries):
        of_seeds = [of_seed[name] for of_seed in tests.values()]
        if len({one.images for one in of_seeds}) == 1:
            same.setdefault(of_seeds[0].images, {})[name] = np.stack([one.wrong for one in of_seeds])
    return [*same.values()]


def outcomes(entries: Iterable[Entry], tests: StoredTests) -> Outcomes:
    """Return which images were misclassified; entries whose seeds had different images are left out."""
    return {name: wrong for same in outcomes_by_images(entries, tests) for name, wrong in same.items()}


def contrasts_of_tests(
    same: Iterable[Outcomes], *, guessing: float, unfinished: Collection[str]
) -> dict[str, Contrasts]:
    """Return for each test the contrasts of all tests on the same images, as `outcomes_by_images` divides them.

    How seeds vary is estimated, as for the findings, from all tests that can be compared: of networks that learned and
    whose trainings are not in `unfinished`.
    """
    alike = [Contrasts(tests, pooled=fair_tests(tests, guessing=guessing, unfinished=unfinished)) for tests in same]
    return {name: contrasts for contrasts in alike for name in contrasts.outcomes}


def entry_errors(entry: Entry, tests: StoredTests, contrasts: Mapping[str, Contrasts], *, crop: int) -> EntryErrors:
    """Average the errors of an entry over the seeds; `contrasts` are those of `contrasts_of_tests`."""
    trainings = [TRAININGS_BY_NAME[name] for name in entry.trainings]
    of_seeds = [of_seed[entry.name] for of_seed in tests.values()]
    first = of_seeds[0]
    top5 = [one.top5_error for one in of_seeds if one.top5_error is not None]
    return EntryErrors(
        entry=entry.name,
        network="7 of C, D, E" if entry.trainings == SEVEN else " + ".join(one.label for one in trainings),
        trainings=entry.trainings,
        train=tuple(dict.fromkeys(one.scale for one in trainings)),
        test=first.scales,
        test_pixels=tuple(scale_in_pixels(q, crop) for q in first.scales),
        method=entry.method,
        n=first.n,
        top1_error=sum(one.top1_error for one in of_seeds) / len(of_seeds),
        of_seeds=tuple(one.top1_error for one in of_seeds),
        sd_of_seeds=stdev(one.top1_error for one in of_seeds) if len(of_seeds) > 1 else None,
        top1_error_ci95=_interval(entry, of_seeds, contrasts.get(entry.name)),
        top5_error=sum(top5) / len(of_seeds) if len(top5) == len(of_seeds) else None,
    )


def table_rows(grid: Grid, errors: Mapping[str, EntryErrors]) -> dict[int, list[TableRow]]:
    """Return the lines of the grid's tables, by number, without tables that have no tests."""
    names = [one.name for one in grid.trainings]
    tables = {table.number: table for table in PAPER_TABLES}
    rows = {
        number: [
            TableRow(errors=errors[entry.name], reported=tables[number].reported(entry))
            for entry in tables[number].lines(names)
        ]
        for number in grid.tables
    }
    return {number: lines for number, lines in rows.items() if lines}


def best_network(grid: Grid, tests: StoredTests) -> Entry:
    """Return the test of a single network with the lowest error, over all seeds."""
    alone = [entry for entry in grid.entries if len(entry.trainings) == 1]
    return min(alone, key=lambda entry: np.mean([of_seed[entry.name].top1_error for of_seed in tests.values()]))


def _interval(entry: Entry, of_seeds: list[StoredTest], contrasts: Contrasts | None) -> tuple[float, float] | None:
    """Return the 95% interval of the mean error in percent, by images and seeds.

    None if seeds had different images, or a single one.
    """
    if len(of_seeds) == 1:
        return of_seeds[0].top1_error_ci95
    if contrasts is None or contrasts.images < 2:
        return None
    return contrasts.of_networks({entry.name: 1.0}).ci95
