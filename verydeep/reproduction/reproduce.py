"""The grid: the paper's trainings and tests on one source, over seeds; finished ones are not repeated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

from verydeep.evaluation.evaluate import evaluate
from verydeep.evaluation.results import Evaluation
from verydeep.images.order import batches_per_epoch
from verydeep.images.sources.default import DIGITS
from verydeep.images.sources.samples import sampled
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.errors import say
from verydeep.machine.lock import locked
from verydeep.machine.processes import joined
from verydeep.machine.runtime import Execution, Runtime, torch_device
from verydeep.machine.threads import use_threads
from verydeep.machine.torchrun import rank_of_environment
from verydeep.networks.architecture import InitialisationScheme
from verydeep.presentation.translation import DEFAULT_LANGUAGE, Language
from verydeep.reproduction.equivalent_command import equivalent_command, with_options
from verydeep.reproduction.files import HTML, RUNS
from verydeep.reproduction.grid import Grid, Jobs
from verydeep.reproduction.limits import why_too_few_seeds
from verydeep.reproduction.network_tests import NetworkTests, network_by_network, test_networks
from verydeep.reproduction.paper_tables import Entry
from verydeep.reproduction.plan_file import begin_or_go_on
from verydeep.reproduction.process_pool import refuse_to_begin_again
from verydeep.reproduction.report import write_report
from verydeep.reproduction.side_by_side import in_order, jobs_to_use, side_by_side
from verydeep.reproduction.steering import about_steering, open_for_experiment, said_outright
from verydeep.reproduction.stored_tests import file_of_test, read_test
from verydeep.reproduction.studies import recipe_on_part
from verydeep.reproduction.study_report import write_studies
from verydeep.reproduction.study_runs import why_diverged
from verydeep.reproduction.table_rows import best_network
from verydeep.reproduction.task import Task
from verydeep.reproduction.training_task import TrainingTask, has_ended, train_task
from verydeep.reproduction.trainings import GridTraining
from verydeep.runs.model import has_weights
from verydeep.training.recipe import FINETUNING_RATE, LEARNING_RATE, Recipe


class _Options(TypedDict):
    """Options that trainings and tests share."""

    runtime: Runtime
    tolerance: Tolerance


@dataclass(frozen=True, kw_only=True)
class _Experiment:
    """The work to do: on which images, how, and where."""

    splits: Splits
    out: Path
    recipe: Recipe
    """Recipe of all networks; S, what each starts from and the seeds after the first are the grid's."""
    grid: Grid
    execution: Execution | None
    options: _Options
    jobs: int
    """Trainings at once."""
    on_ray: bool
    """Whether a Ray cluster does them."""
    language: Language
    """Language of the report."""

    @property
    def folders(self) -> dict[int, Path]:
        """Where the trainings of each seed are."""
        seeds = range(self.recipe.seed, self.recipe.seed + self.grid.seeds)
        return {seed: run_folder(self.out, seed) for seed in seeds}


def run_folder(out: Path, seed: int) -> Path:
    """Return where the trainings of a seed are."""
    return out / RUNS / f"seed-{seed}"


def reproduce(
    source: str | Path | Splits = DIGITS,
    *,
    out: str | Path,
    recipe: Recipe | None = None,
    grid: Grid | None = None,
    runtime: Runtime | None = None,
    execution: Execution | None = None,
    tolerance: Tolerance | None = None,
    jobs: Jobs = None,
    command: str | None = None,
    language: Language = DEFAULT_LANGUAGE,
) -> Path:
    """Train the paper's networks, test them as its tables do, decide which of its claims hold, and report.

    Everything lies below `out`: runs/seed-0/D-384, evaluations/seed-0/, report.html, report.md and results.json. On a
    folder that has some of it already only the rest is done, also with more seeds, trainings or tables than before, and
    where weights whose tests are done have been removed.
    Under torchrun all processes work on each training and each test; `out` must be the same folder for all.

    Args:
        source: SOURCE, or its splits.
        out: folder of everything.
        recipe: for all networks, except for what the grid decides: S, what each starts from, and seeds after the first.
        grid: how much is done; without it, all.
        runtime: device, and processes that decode.
        execution: how the steps are computed.
        tolerance: how many images may be unusable.
        jobs: trainings and tests that are done side by side, each in a process of its own with its part of the
            cores, or with a CUDA device of its own; by default one for each core or device. These processes run a
            script that calls this once more, so its call has to stand below `if __name__ == "__main__":`, unless jobs
            is 1. `ray`: on the machines of the Ray cluster that this one belongs to, which must all see the folders of
            the images and of the experiment.
        command: the command line to record; by default the one that is equivalent to this call.
        language: language of the report, en or ja; figures in JSON are the same in both.

    Returns:
        The path of report.html.

    Raises:
        ValueError: unusable source or recipe, or `out` contains something other than this experiment.
        Stopped: SIGINT, SIGTERM, SIGHUP or SIGQUIT; what was done is kept.
    """
    refuse_to_begin_again()
    recipe = recipe or Recipe()
    if recipe.start is not None or recipe.scale != Recipe().scale:
        raise ValueError("reproduce itself decides at which S each network is trained and what it starts from")
    if execution is not None and execution.fc_parallel and grid is not None and "gradients" in grid.studies:
        raise ValueError("the study gradients looks into whole layers: leave out --fc-parallel")
    out, asked = Path(out).resolve(), grid or Grid()
    at_once = jobs_to_use(jobs, runtime or Runtime())  # while all cores count
    use_threads((runtime or Runtime()).threads)
    splits, grid = open_for_experiment(source, asked, out)
    experiment = _Experiment(
        splits=splits,
        out=out,
        recipe=recipe,
        grid=grid,
        execution=execution,
        options={"runtime": runtime or Runtime(), "tolerance": tolerance or Tolerance()},
        jobs=at_once,
        language=language,
        on_ray=jobs == "ray",
    )
    with locked(None if rank_of_environment() else experiment.out):
        if not rank_of_environment():
            outright = said_outright(asked, grid, splits)
            settings = (
                outright,
                recipe,
                runtime or Runtime(),
                execution or Execution(),
                tolerance or Tolerance(),
            )
            equivalent = equivalent_command(source, out, *settings, jobs=jobs, language=language)
            command = with_options(command, asked, outright) if command else equivalent
            begin_or_go_on(out, splits=splits, recipe=recipe, grid=grid, command=command)
            say(about_steering(splits, grid))
            if too_few := why_too_few_seeds(grid.seeds):
                say(f"{too_few} --dry-run shows what more seeds cost and tell.")
        _do(experiment)
    return experiment.out / HTML


def _do(experiment: _Experiment) -> None:
    """Do the trainings, tests and reports that are missing, the paper's experiment before the studies."""
    grid = experiment.grid
    _train_and_test(experiment, grid.trainings, grid.entries)
    _report(experiment)
    _train_and_test(experiment, grid.studied, grid.study_entries)
    if not rank_of_environment():
        write_studies(
            experiment.out,
            grid=grid,
            folders=experiment.folders,
            source=experiment.splits.name,
            language=experiment.language,
        )


def _train_and_test(experiment: _Experiment, trainings: Sequence[GridTraining], entries: Sequence[Entry]) -> None:
    """Do the trainings and tests that are missing, with every seed; do not test networks that diverged."""
    if experiment.jobs > 1 or experiment.on_ray:
        _do_side_by_side(experiment, trainings, entries)
    for seed in experiment.folders:
        for training in trainings:
            _train(experiment, training, seed)
        test_networks(_tests(experiment, entries, seed))


def _do_side_by_side(experiment: _Experiment, trainings: Sequence[GridTraining], entries: Sequence[Entry]) -> None:
    """Do what is missing side by side but for tests of fused networks, one seed after the other."""
    tasks: list[Task] = []
    every = (*experiment.grid.trainings, *experiment.grid.studied)  # a study may test trainings of the tables too
    networks = {training.name: training.network for training in every}
    for seed in experiment.folders:
        of_seed = [_task(experiment, training, seed) for training in trainings]
        tasks += in_order([task for task in of_seed if not has_ended(task.out)])
        tasks += network_by_network(_tests(experiment, entries, seed), networks)
    if len({task.name for task in tasks}) > 1:  # one network alone has all cores
        what = "train and test" if any(isinstance(task, TrainingTask) for task in tasks) else "test"
        device = torch_device(experiment.options["runtime"].device)
        side_by_side(what, tasks, jobs=experiment.jobs, device=device, on_ray=experiment.on_ray)


def _train(experiment: _Experiment, training: GridTraining, seed: int) -> None:
    """Say which training comes next, and train unless that is done.

    Raises:
        ValueError: it diverged when it was part of a study alone, and now the tables need it.
    """
    task = _task(experiment, training, seed)
    done, trainings = has_ended(task.out), (*experiment.grid.trainings, *experiment.grid.studied)
    diverged = why_diverged(task.out)
    if diverged and not task.may_diverge:
        raise ValueError(f"{task.name}: {diverged}: remove {task.out} to train it again, or leave it out with --only")
    first = not rank_of_environment()
    if first:
        how = f": {diverged or 'already trained'}" if done else f", from {training.start or 'random weights'}"
        say(f"[{trainings.index(training) + 1}/{len(trainings)}] {task.name}{how}")
    if not done:
        train_task(task)
        if first and (diverged := why_diverged(task.out)):
            say(diverged)


def _task(experiment: _Experiment, training: GridTraining, seed: int) -> TrainingTask:
    folder = experiment.folders[seed]
    seeded = f"seed {seed}, " if experiment.grid.seeds > 1 else ""
    return TrainingTask(
        name=f"{seeded}{training.name}",
        splits=_images_of(training, experiment.splits, seed),
        network=training.network,
        out=folder / training.name,
        recipe=_recipe_of(training, replace(experiment.recipe, seed=seed), folder),
        execution=_recording(experiment),
        may_diverge=training.scheme is not None and training not in experiment.grid.trainings,
        **experiment.options,
    )


def _images_of(training: GridTraining, splits: Splits, seed: int) -> Splits:
    """Return the splits with as many training images as a training has; a sample depends on the seed alone."""
    if training.one_in == 1:
        return splits
    return replace(
        splits,
        sources={**splits.sources, "train": sampled(splits.source("train"), one_in=training.one_in, seed=seed)},
    )


def _recording(experiment: _Experiment) -> Execution:
    """Record norms once in an epoch of all images, unless told otherwise, where layers are whole."""
    execution = experiment.execution or Execution()
    if execution.norms_every or execution.fc_parallel:
        return execution
    images = len(experiment.splits.source("train"))
    return replace(execution, norms_every=batches_per_epoch(images, experiment.recipe.batch))


def _recipe_of(training: GridTraining, recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe of one training, given that of its seed and the folder in which the others are."""
    recipe = recipe_on_part(recipe, training.one_in)
    if training.init:
        scheme = cast(InitialisationScheme, recipe.init)
        return replace(recipe, init=str(folder / training.init), init_rest=scheme)
    if training.finetune:
        lower = None if recipe.learning_rate is None else recipe.learning_rate / (LEARNING_RATE / FINETUNING_RATE)
        return replace(recipe, scale=training.scale, finetune=str(folder / training.finetune), learning_rate=lower)
    return replace(recipe, init=training.scheme or recipe.init)


def _tests(experiment: _Experiment, entries: Sequence[Entry], seed: int) -> NetworkTests:
    return NetworkTests(
        name=f"seed {seed}" if experiment.grid.seeds > 1 else "",
        entries=tuple(entries),
        splits=experiment.splits,
        out=experiment.out,
        seed=seed,
        runs=experiment.folders[seed],
        pooling_grid=experiment.grid.pooling_grid,
        sample_seed=experiment.recipe.seed,
        **experiment.options,
    )


def _best_evaluation(experiment: _Experiment, best: Entry) -> Evaluation | None:
    """Test the best network once more, with the first seed whose weights are there; None where all were removed."""
    runs = [folder / best.trainings[0] for folder in experiment.folders.values()]
    run = next(filter(has_weights, runs), None)
    if run is None:
        if not rank_of_environment():
            say(f"The report has no pictures of {best.trainings[0]}, the best network: its weights were removed.")
        return None
    return evaluate(
        run,
        data=experiment.splits,
        protocol=best.method,
        scales=best.scales,
        grid=best.pooling_grid(experiment.grid.pooling_grid),
        **experiment.options,
    )


def _report(experiment: _Experiment) -> None:
    """Write the report in the first process; all test the best network once more for it, from kept posteriors."""
    out, grid, folders = experiment.out, experiment.grid, experiment.folders
    with joined(torch_device(experiment.options["runtime"].device), advice="start it again") as processes:
        tests = processes.from_first(
            lambda: {
                seed: {entry.name: read_test(file_of_test(out, entry, seed)) for entry in grid.entries}
                for seed in folders
            }
        )
    evaluation = _best_evaluation(experiment, best_network(grid, tests))
    if not rank_of_environment():
        write_report(
            out,
            grid=grid,
            folders=folders,
            tests=tests,
            best=evaluation,
            splits=experiment.splits,
            language=experiment.language,
        )
