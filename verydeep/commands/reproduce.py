"""The verb `reproduce`."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from verydeep.commands import options
from verydeep.images.sources.default import DIGITS
from verydeep.images.tolerance import Tolerance
from verydeep.machine.documents import converted, read_json
from verydeep.machine.runtime import Execution, Runtime
from verydeep.machine.torchrun import rank_of_environment
from verydeep.numbers import trimmed
from verydeep.presentation.terminal import show
from verydeep.presentation.translation import DEFAULT_LANGUAGE, Language
from verydeep.reproduction.grid import Grid, Jobs
from verydeep.reproduction.trainings import QUICK, QUICK_RECIPE, quick_recipe
from verydeep.runs.record import command
from verydeep.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class ExperimentFolder:
    """The folder of an experiment, and the file of its options."""

    out: options.RequiredFolder
    """Folder of the report, the runs and the figures."""

    config: options.ConfigFile = None
    """TOML file of options (seeds = 5); the command line overrides it."""

    language: Language = DEFAULT_LANGUAGE
    """Language of the report: en, or ja (Japanese headings, tables and captions)."""

    json_file: options.JsonFile = None
    """Write the report's figures to this file as well (- for standard output instead of the path)."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is computed, and how much of it at once."""

    quick: Annotated[
        bool,
        Parameter(
            help=f"Scale down: every network once at S = {QUICK_RECIPE.scale}, crop {QUICK_RECIPE.crop}, width "
            f"{trimmed(QUICK_RECIPE.width)}, {QUICK_RECIPE.epochs} epochs; about two minutes for the digits."
        ),
    ] = False

    dry_run: bool = False
    """Only show what would be trained, about how long and with how much memory, and how large differences must be to
    count with these seeds and images, or with more."""

    jobs: Jobs = None
    """Trainings and tests side by side, each in a process of its own with its part of the cores, or with a CUDA
    device of its own; by default one for each core or device. ray: on the machines of a Ray cluster, which see the same
    folders."""


@dataclass(frozen=True, kw_only=True)
class _Results:
    """The fields of results.json that the command reports at its end."""

    seeds: tuple[int, ...]
    answer: tuple[str, ...]
    best_network: str
    larger_run: str | None


ExperimentFolderOptions = Annotated[ExperimentFolder, Parameter(name="*")]
ExtentOptions = Annotated[Extent, Parameter(name="*")]


def reproduce(
    source: str = DIGITS,
    *,
    experiment: ExperimentFolderOptions,
    extent: ExtentOptions = Extent(),
    grid: options.GridOptions = Grid(),
    changes: options.RecipeChangeOptions = options.RecipeChanges(),
    images: options.ImageOptions = Tolerance(),
    runtime: options.RuntimeOptions = Runtime(),
    execution: options.ExecutionOptions = Execution(),
) -> None:
    """Train all networks of the paper, repeat its tables and tell which of its findings hold on your images.

    Work that is in the folder already is not repeated; more seeds, tables, networks or studies can be added later.

    Args:
        source: The images (see below).
    """
    out, json_file = experiment.out, experiment.json_file
    if extent.quick and not grid.only:
        grid = replace(grid, only=QUICK)
    recipe = changes.applied(quick_recipe(source) if extent.quick else Recipe())
    how: Any = {"runtime": runtime, "execution": execution, "tolerance": images, "jobs": extent.jobs}
    if extent.dry_run:
        from verydeep.reproduction.dry_run import forecast

        if not rank_of_environment():
            forecasted = forecast(source, out=out, recipe=recipe, grid=grid, **how)
            show(forecasted.to_dict(), json_file, *forecasted.tables())
        return
    from verydeep.reproduction.files import RESULTS
    from verydeep.reproduction.reproduce import reproduce as reproduce_paper
    from verydeep.reproduction.study_report import study_page

    typed = None if experiment.config else command()  # a file may change: its options are recorded in its place
    report = reproduce_paper(
        source, out=out, recipe=recipe, grid=grid, **how, command=typed, language=experiment.language
    )
    if not rank_of_environment():
        figures = read_json(out / RESULTS, dict[str, Any])
        results = converted(figures, _Results)
        pages = [f"study of {name}: {study_page(report.parent, name)}" for name in dict.fromkeys(grid.studies)]
        show(figures, json_file, *results.answer, f"report: {report}", *pages, f"next: {_next(results, out)}")


def _next(results: _Results, out: Path) -> str:
    """Return the command that follows: more seeds where there are too few, else predictions by the best network.

    Where the weights of that network were removed with every seed, it is the one that decides the claims again.
    """
    from verydeep.reproduction.claims import FEWEST_SEEDS
    from verydeep.reproduction.contrasts import trainings_of
    from verydeep.reproduction.reproduce import run_folder
    from verydeep.runs.model import has_weights

    if len(results.seeds) < FEWEST_SEEDS and results.larger_run is not None:
        return results.larger_run
    runs = [run_folder(out, seed) / trainings_of(results.best_network)[0] for seed in results.seeds]
    run = next(filter(has_weights, runs), None)
    words = ["findings", str(out)] if run is None else ["predict", str(run), "picture.jpg"]
    return shlex.join(["verydeep", *words])
