"""Plan of a grid before it is trained: its trainings, their cost, and the differences that it could tell."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Execution, Runtime
from verydeep.machine.threads import threads_each, threads_kept, use_threads
from verydeep.numbers import counted, decimal, duration, number, plural, share
from verydeep.presentation.terminal import table_with
from verydeep.reproduction.claims import CLAIMS
from verydeep.reproduction.detectable import FOUND_SEED_SD, Assumed, Detectable, assumed_from, detectable
from verydeep.reproduction.estimate import TrainingEstimate, costs_table, estimates
from verydeep.reproduction.grid import Grid, Jobs
from verydeep.reproduction.limits import listed, why_too_few_seeds
from verydeep.reproduction.paper_tables import Entry
from verydeep.reproduction.plan_file import plan_to_follow
from verydeep.reproduction.reproduce import run_folder
from verydeep.reproduction.side_by_side import jobs_to_use, longest_way_first
from verydeep.reproduction.steering import about_steering, open_for_experiment
from verydeep.reproduction.stored_tests import StoredTest, file_of_test, read_test
from verydeep.reproduction.training_task import has_ended
from verydeep.statistics import POWER
from verydeep.training.recipe import Recipe

_MORE_SEEDS = (3, 5, 10)
"""Numbers of seeds that the plan compares with its own."""

_SPREAD_IS_ASSUMED = (
    f"On Imagenette, at crop 64, it was {decimal(FOUND_SEED_SD, 1)} points, mostly from two networks, which two seeds "
    "did not show: train a few seeds first, then ask again, and the spread is that of their tests."
)
"""Said of a plan that may be too hopeful (docs/LOG.md)."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A grid before it is trained."""

    grid: Grid
    steering: str
    """Which images steer and which test, in words."""
    trainings: Sequence[TrainingEstimate]
    seconds: Mapping[int, float]
    """Time of all trainings that are not done yet, at most, by the number of seeds."""
    tests_done: int
    """Tests whose results are there."""
    jobs: int
    """Trainings at once."""
    assumed: Assumed
    claims: Sequence[Detectable]

    @property
    def not_told(self) -> list[str]:
        """Sentences on differences that it cannot tell."""
        seeds, margin = self.grid.seeds, self.grid.margin
        missing = [
            str(place) for place, claim in enumerate(CLAIMS, 1) if claim.id not in {one.id for one in self.claims}
        ]
        narrow = [
            str(one.number)
            for one in self.claims
            if one.kind != "less" and (points := one.points[seeds]) is not None and points > margin
        ]
        told = [too_few] if (too_few := why_too_few_seeds(seeds)) else []
        if missing:
            told.append(f"Not compared by these trainings and tables: {_claims(missing)}.")
        if narrow:
            told.append(
                f"With {counted(seeds, 'seed')} and a margin of {decimal(margin, 1)} points this grid will hardly tell "
                f"that networks err alike: {_claims(narrow)}."
            )
        return told

    @property
    def _at_once(self) -> str:
        return f", {self.jobs} trainings at once" if self.jobs > 1 else ""

    @property
    def _tests(self) -> int:
        return self.grid.seeds * (len(self.grid.entries) + len(self.grid.study_entries))

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, ready for JSON."""
        return {
            "seeds": self.grid.seeds,
            "tests": self._tests,
            "tests_done": self.tests_done,
            "trainings": [one.to_dict() for one in self.trainings],
            "steer": self.grid.steer,
            "held_out": self.grid.held_out,
            "steering": self.steering,
            "seconds": dict(self.seconds),
            "jobs": self.jobs,
            "power": POWER,
            "assumed": asdict(self.assumed),
            "claims": [one.to_dict() for one in self.claims],
            "not_told": self.not_told,
        }

    def tables(self) -> list[Table | str]:
        """Return tables of the costs and of the differences that could be told, and sentences on the others."""
        seeds = self.grid.seeds
        costs = costs_table(self.trainings, seeds=seeds, seconds=self.seconds[seeds])
        left, done = counted(self._tests - self.tests_done, "test"), self.tests_done
        top = f"{left} on top{f', beside {number(done)} done already' if done else ''}"
        costs.caption = Text(f"Measured on a few images{self._at_once}. {top}. {self.steering}")
        return [costs, self._differences(), *self.not_told]

    def _differences(self) -> Table:
        seeds = list(self.seconds)
        title = f"Smallest differences that would be told, with a probability of {share(POWER, 0)}"
        table = table_with(title, left=("claim", ""), right=[counted(count, "seed") for count in seeds])
        for one in self.claims:
            kind = "from" if one.kind == "less" else "alike within"
            table.add_row(f"{one.number}. {one.says}", kind, *(decimal(one.points[count], 1) for count in seeds))
        table.add_section()
        table.add_row("training time, at most", "", *(duration(seconds) for seconds in self.seconds.values()))
        table.caption = Text(
            "In percentage points, for each comparison of a claim, corrected for all claims; 'alike within': the "
            f"smallest margin within which networks that truly err alike are told to. {_of_what(self.assumed)}"
        )
        table.caption_justify = "left"
        return table


def forecast(
    source: str,
    *,
    out: Path,
    recipe: Recipe,
    grid: Grid,
    runtime: Runtime,
    execution: Execution,
    tolerance: Tolerance,
    jobs: Jobs = None,
) -> Forecast:
    """Forecast a grid in `out`; write nothing. Arguments are those of `reproduce`.

    Raises:
        ValueError: unusable source, recipe or images, or `out` was begun with something else.
    """
    splits, grid = open_for_experiment(source, grid, out)
    plan_to_follow(out, splits=splits, recipe=recipe, grid=grid)
    jobs = jobs_to_use(jobs, runtime)
    with threads_kept():
        use_threads(runtime.threads or (threads_each(jobs) if jobs > 1 else None))
        own = range(recipe.seed, recipe.seed + grid.seeds)
        folders = [run_folder(out, seed) for seed in own]
        trainings = estimates(
            splits,
            folders=folders,
            recipe=recipe,
            grid=grid,
            runtime=runtime,
            execution=execution,
            tolerance=tolerance,
        )
    seeds = sorted({grid.seeds, *_MORE_SEEDS})
    done, every = _done_tests(out, grid.entries, seeds=own), (*grid.entries, *grid.study_entries)
    assumed = replace(assumed_from(done), images=len(splits.source(splits.testing)))
    return Forecast(
        grid=grid,
        steering=about_steering(splits, grid),
        trainings=trainings,
        seconds={count: _seconds(trainings, out, range(recipe.seed, recipe.seed + count), jobs) for count in seeds},
        tests_done=sum(file_of_test(out, entry, seed).is_file() for entry in every for seed in own),
        jobs=jobs,
        assumed=assumed,
        claims=detectable([one.name for one in grid.trainings], [one.name for one in grid.entries], seeds, assumed),
    )


def _done_tests(out: Path, entries: Sequence[Entry], *, seeds: Iterable[int]) -> list[list[StoredTest]]:
    """Return the dense tests of single networks at one scale that are done: for each network, those of its seeds."""
    return [
        [read_test(file) for seed in seeds if (file := file_of_test(out, entry, seed)).is_file()]
        for entry in entries
        if len(entry.trainings) == 1 and (entry.method, entry.scales) == ("dense", "single")
    ]


def _seconds(trainings: Sequence[TrainingEstimate], out: Path, seeds: Iterable[int], jobs: int) -> float:
    """Return the seconds until all trainings have ended, `jobs` at once, each after the one that it starts from."""
    free, ended = [0.0] * jobs, dict[tuple[int, str | None], float]()
    named = {one.training: one for one in trainings}
    starts = {name: one.start for name, one in named.items()}
    order = longest_way_first({name: one.seconds for name, one in named.items()}, starts)
    for seed in seeds:
        folder = run_folder(out, seed)
        for one in (named[name] for name in order):
            if not has_ended(folder / one.training):
                begun = max(free.pop(free.index(min(free))), ended.get((seed, one.start), 0.0))
                ended[seed, one.training] = begun + one.seconds
                free.append(ended[seed, one.training])
    return max(free)


def _claims(numbers: Sequence[str]) -> str:
    each = list(dict.fromkeys(numbers))
    return f"{plural('claim', len(each))} {listed(each)}"


def _of_what(assumed: Assumed) -> str:
    """Say which images, errors and spread the smallest differences are for."""
    error = f"measured, {counted(assumed.error_tests, 'test')}" if assumed.error_tests else "assumed"
    sd = f"measured, {counted(assumed.seed_freedom, 'degree')} of freedom" if assumed.seed_freedom else "assumed"
    return (
        f"For {number(assumed.images)} test images, an error of {decimal(assumed.error, 1)}% ({error}), and errors "
        f"that differ between seeds by a standard deviation of {decimal(assumed.seed_sd, 2)} points ({sd})."
        + ("" if assumed.seed_freedom else f" {_SPREAD_IS_ASSUMED}")
    )
