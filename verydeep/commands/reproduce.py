"""The verb `reproduce`."""

import json
from pathlib import Path
from typing import Any

from verydeep.commands.options import (
    ChangeOptions,
    ExecutionOptions,
    ImageOptions,
    JsonFile,
    RecipeChanges,
    RuntimeOptions,
    whole_numbers,
)
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import rank_of_environment
from verydeep.machine.runtime import Execution, Runtime
from verydeep.presentation.terminal import show
from verydeep.reproduction.tables import plan_table
from verydeep.training.recipe import Recipe


def reproduce(
    source: str = "digits",
    *,
    out: Path,
    quick: bool = False,
    only: str = "",
    tables: str = "3,4,5,6",
    seeds: int = 1,
    dry_run: bool = False,
    json_file: JsonFile = None,
    changes: ChangeOptions = RecipeChanges(),
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
    execution: ExecutionOptions = Execution(),
) -> None:
    """Train all networks of the paper, repeat its tables and tell which of its findings hold on your images.

    What stands in the folder already is not repeated; more seeds, tables or networks can be added later.

    Args:
        source: A folder, tar shards, hub:NAME or digits (see verydeep --help).
        out: Folder of the report, the runs and the figures.
        quick: Scaled down: every network once at S = 256, crop 32, quarter width, few epochs; about two minutes for
            the digits.
        only: Networks (D, for all of its trainings) or trainings (D-384), with commas; what they start from comes
            along.
        tables: Of the paper, 3 to 6.
        seeds: How often everything is trained; with three or more, findings are about networks, not single trainings.
        dry_run: Only tell what would be trained, and about how long and with how much memory.
        json_file: Write the report's figures to this file as well (- for standard output instead of the path).
    """
    from verydeep.reproduction.grid import Grid
    from verydeep.reproduction.reproduce import quick_recipe
    from verydeep.reproduction.trainings import QUICK

    recipe = changes.applied(quick_recipe(source) if quick else Recipe())
    named = tuple(name for name in only.split(",") if name) or (QUICK if quick else ())
    grid = Grid(only=named, tables=tuple(whole_numbers(tables, "--tables")), seeds=seeds)
    options: dict[str, Any] = {"recipe": recipe, "grid": grid, "runtime": runtime, "execution": execution}
    if dry_run:
        _show_plan(source, out, options, images, json_file)
        return
    from verydeep.reproduction.report import RESULTS
    from verydeep.reproduction.reproduce import reproduce as reproduce_paper

    report = reproduce_paper(source, out=out, tolerance=images, **options)
    if not rank_of_environment():
        show(json.loads((out / RESULTS).read_text()), json_file, f"report: {report}")


def _show_plan(source: str, out: Path, options: dict[str, Any], tolerance: Tolerance, json_file: Path | None) -> None:
    from verydeep.images.sources.open import open_source
    from verydeep.reproduction.estimate import estimates
    from verydeep.reproduction.reproduce import run_folder

    seed, grid = options["recipe"].seed, options["grid"]
    found = estimates(open_source(source), out=run_folder(out, seed), tolerance=tolerance, **options)
    figures = {"seeds": grid.seeds, "tests": len(grid.entries), "trainings": [one.to_dict() for one in found]}
    show(figures, json_file, plan_table(figures))
