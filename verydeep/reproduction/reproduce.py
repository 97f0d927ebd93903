"""The grid: the paper's trainings and tests on one source, over seeds; what is there already is not repeated."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, cast

from rich.console import Console

from verydeep.evaluation.evaluate import evaluate
from verydeep.images.sources.open import open_source
from verydeep.images.sources.source import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine import atomic
from verydeep.machine.processes import joined, rank_of_environment
from verydeep.machine.runtime import Execution, Runtime, Stopped, torch_device
from verydeep.networks.configurations import InitialisationScheme
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.paper_tables import Entry
from verydeep.reproduction.report import HTML, write_report
from verydeep.reproduction.stored_tests import file_of_test, is_tested, read_test, write_test
from verydeep.reproduction.table_rows import best_network
from verydeep.reproduction.trainings import GridTraining
from verydeep.runs.model import weights_fingerprint
from verydeep.runs.record import is_finished
from verydeep.training.loop import train
from verydeep.training.recipe import FINETUNING_RATE, LEARNING_RATE, Recipe

PLAN, RUNS = "plan.json", "runs"

QUICK_RECIPE = Recipe(crop=32, width=0.25, batch=32, learning_rate=2.5e-3, epochs=14, patience=3)
"""The recipe scaled down to minutes on two cores; what is not named here is the paper's."""


class Options(TypedDict):
    """What trainings and evaluations share beside the recipe."""

    runtime: Runtime
    tolerance: Tolerance


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained on and how; `plan.json`. Trainings, tables and seeds may be added later."""

    fingerprints: dict[str, str]
    """Of the source's parts."""
    recipe: dict[str, Any]
    """Of all networks; S, what each starts from and the seeds after the first are the grid's."""


def quick_recipe(source: str) -> Recipe:
    """The quick recipe for a source: the mirror image of a digit is no digit, so those are not flipped."""
    return replace(QUICK_RECIPE, flip=source != "digits")


def reproduce(
    source: str | Splits = "digits",
    *,
    out: str | Path,
    recipe: Recipe | None = None,
    grid: Grid | None = None,
    runtime: Runtime | None = None,
    execution: Execution | None = None,
    tolerance: Tolerance | None = None,
) -> Path:
    """Trains the paper's networks, tests them as its tables do, says which of its claims hold, and reports.

    Everything lies below `out`: runs/seed-0/D-384, evaluations/seed-0/, report.html, report.md and results.json. On a
    folder that has some of it already only the rest is done, also with more seeds, trainings or tables than before.
    Under torchrun all processes work on each training and each test; `out` must be the same folder for all.

    Args:
        source: SOURCE, or its splits.
        out: folder of everything.
        recipe: of all networks, but for what the grid says: S, what each starts from, and the seeds after the first.
        grid: how much is done; without it, all.
        runtime: device, and processes that decode.
        execution: how the steps are computed.
        tolerance: how many images may be unusable.

    Returns the path of report.html.

    Raises:
        ValueError: unusable source or recipe, or `out` holds something else.
        Stopped: SIGINT or SIGTERM; what was done is kept.
    """
    out, recipe, grid = Path(out).resolve(), recipe or Recipe(), grid or Grid()
    if recipe.start is not None or recipe.scale != Recipe().scale:
        raise ValueError("reproduce says itself at which S each network is trained and what it starts from")
    splits = open_source(source) if isinstance(source, str) else source
    fingerprints = {split: part.fingerprint for split, part in splits.parts.items()}
    first = not rank_of_environment()
    if first:
        _write_or_check_plan(Plan(fingerprints=fingerprints, recipe=asdict(recipe)), out)
    options: Options = {"runtime": runtime or Runtime(), "tolerance": tolerance or Tolerance()}
    seeds = range(recipe.seed, recipe.seed + grid.seeds)
    for seed in seeds:
        for number, training in enumerate(grid.trainings, 1):
            if first:
                seeded = f"seed {seed}, " if len(seeds) > 1 else ""
                _tell(f"[{seeded}{number}/{len(grid.trainings)}] {training.name}", training, run_folder(out, seed))
            own = recipe_of(training, replace(recipe, seed=seed), run_folder(out, seed))
            _train(training, splits, run_folder(out, seed) / training.name, own, execution, options)
        weights = {one.name: weights_fingerprint(run_folder(out, seed) / one.name) for one in grid.trainings}
        for entry in grid.entries:
            _test(entry, weights, splits, out, seed, options)
    _report(out, grid, seeds, splits, options)
    return out / HTML


def _report(out: Path, grid: Grid, seeds: Sequence[int], splits: Splits, options: Options) -> None:
    """Write the report in the first process; all test the best network once more for it, from kept posteriors."""
    with joined(torch_device(options["runtime"].device), advice="start it again") as processes:
        tests = processes.from_first(
            lambda: {
                seed: {entry.name: read_test(file_of_test(out, entry, seed)) for entry in grid.entries}
                for seed in seeds
            }
        )
    best, folders = best_network(grid, tests), {seed: run_folder(out, seed) for seed in seeds}
    run = folders[seeds[0]] / best.trainings[0]
    evaluation = evaluate(run, data=splits, protocol=best.method, scales=best.scales, **options)
    if not rank_of_environment():
        write_report(out, grid=grid, folders=folders, tests=tests, best=evaluation, splits=splits)


def run_folder(out: Path, seed: int) -> Path:
    """Where the trainings of a seed lie."""
    return out / RUNS / f"seed-{seed}"


def recipe_of(training: GridTraining, recipe: Recipe, folder: Path) -> Recipe:
    """The recipe of one training, given that of its seed and the folder in which the others lie."""
    if training.init:
        scheme = cast(InitialisationScheme, recipe.init)
        return replace(recipe, init=str(folder / training.init), init_rest=scheme)
    if training.finetune:
        lower = None if recipe.learning_rate is None else recipe.learning_rate / (LEARNING_RATE / FINETUNING_RATE)
        return replace(recipe, scale=training.scale, finetune=str(folder / training.finetune), learning_rate=lower)
    return replace(recipe, init="glorot") if training.unseeded else recipe


def _tell(which: str, training: GridTraining, folder: Path) -> None:
    start = f", from {training.start}" if training.start else ", from random weights"
    known = ": already trained" if is_finished(folder / training.name) else start
    Console(stderr=True, highlight=False).print(f"{which}{known}", markup=False)


def _train(
    training: GridTraining, splits: Splits, out: Path, recipe: Recipe, execution: Execution | None, options: Options
) -> None:
    if is_finished(out):
        return
    try:
        train(splits, network=training.network, out=out, recipe=recipe, execution=execution, resume=True, **options)
    except Stopped as stopped:
        raise Stopped(stopped.signal, f"stopped, and saved in {out}: the same command goes on") from None


def _write_or_check_plan(plan: Plan, out: Path) -> None:
    path = out / PLAN
    if not path.exists():
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise ValueError(f"{out} exists and holds something else: choose another folder")
        out.mkdir(parents=True, exist_ok=True)
        atomic.write_json(path, asdict(plan))
        return
    before, now = (
        {**settings.pop("recipe"), **settings}
        for settings in (json.loads(path.read_text()), json.loads(json.dumps(asdict(plan))))
    )
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        raise ValueError(
            f"{out} was begun with another {', '.join(changed)}: choose another folder, or the same settings"
        )


def _test(entry: Entry, weights: Mapping[str, str], splits: Splits, out: Path, seed: int, options: Options) -> None:
    """Test an entry, unless that was done on these images and weights (by training, their fingerprints)."""
    tested = {
        "weights": [weights[name] for name in entry.trainings],
        "images": splits.part(splits.testing).fingerprint,
    }
    file = file_of_test(out, entry, seed)
    if is_tested(file, tested):
        return
    folders = [run_folder(out, seed) / name for name in entry.trainings]
    evaluation = evaluate(folders, data=splits, protocol=entry.method, scales=entry.scales, **options)
    if not rank_of_environment():
        write_test(file, evaluation, tested)
