"""`plan.json`: how an experiment was begun (images, recipe, steering), and the commands that worked on it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from verydeep.images.sources.splits import Splits
from verydeep.machine import atomic
from verydeep.machine.documents import read_json
from verydeep.machine.torchrun import processes_of_environment
from verydeep.reproduction.equivalent_command import differing
from verydeep.reproduction.files import PLAN, RESULTS
from verydeep.reproduction.grid import Grid, Steer
from verydeep.runs.record import command as running_command
from verydeep.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that worked on an experiment."""

    command: str
    """As it was typed, quoted for a shell, with the options that the folder was begun with where a new one would get
    others; for a call in Python, or with a file of options, the command that asks for the same without it."""
    began: str | None
    """Time of its first use, ISO 8601; None where an earlier version did not keep it."""
    processes: int = 1
    """Processes that worked together."""
    directory: str | None = None
    """Where it ran, which relative paths in it start from; None where an earlier version did not keep it."""


@dataclass(frozen=True, kw_only=True)
class ExperimentPlan:
    """How an experiment was begun, and the commands that worked on it; `plan.json`.

    Earlier versions did not say what steers, nor fields of the recipe that they did not know and so did not change.
    """

    fingerprints: dict[str, str]
    """Fingerprint of the images of each split."""
    recipe: Recipe
    steer: Steer = "validation"
    held_out: float | None = None
    commands: tuple[Command, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Results:
    """Fields read from the results of an earlier version."""

    command: str


def read_plan(out: Path) -> ExperimentPlan | None:
    """Read the plan of an experiment; None where none was begun.

    Raises:
        ValueError: the file is damaged.
    """
    path = out / PLAN
    if not path.is_file():
        return None
    try:
        return read_json(path, ExperimentPlan)
    except ValueError as error:
        raise ValueError(f"{error}: choose another folder, or restore the file") from error


def begin_or_go_on(out: Path, *, splits: Splits, recipe: Recipe, grid: Grid, command: str) -> None:
    """Write the plan of a new experiment, or go on with one that was begun in the same way; note the command.

    A command that is repeated, as after a stop, is noted once.

    Raises:
        ValueError: as `plan_to_follow`.
    """
    plan = plan_to_follow(out, splits=splits, recipe=recipe, grid=grid)
    commands = [*commands_of(out)]
    if not commands or commands[-1].command != command:
        began, directory = datetime.now(UTC).isoformat(timespec="seconds"), str(Path.cwd())
        processes = processes_of_environment()
        commands.append(Command(command=command, began=began, processes=processes, directory=directory))
    out.mkdir(parents=True, exist_ok=True)
    atomic.write_json(out / PLAN, asdict(replace(plan, commands=tuple(commands))))


def plan_to_follow(out: Path, *, splits: Splits, recipe: Recipe, grid: Grid) -> ExperimentPlan:
    """Return the plan that the experiment in `out` has, or would begin with.

    Trainings, tables and seeds are not part of it: they may be added later.

    Raises:
        ValueError: it was begun with other settings or images, or the folder contains something else.
    """
    plan = ExperimentPlan(
        fingerprints={split: part.fingerprint for split, part in splits.sources.items()},
        recipe=recipe,
        steer=grid.steer or "validation",
        held_out=grid.held_out,
    )
    begun = read_plan(out)
    if begun is not None:
        _check_the_same(out, begun, plan)
    elif out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out} exists and contains something other than an experiment: choose another folder")
    return begun or plan


def commands_of(out: Path) -> Sequence[Command]:
    """Return the commands that worked on an experiment, in order; of an earlier version the last one, if any.

    Raises:
        ValueError: `plan.json` is damaged.
    """
    plan = read_plan(out)
    if plan is not None and plan.commands:
        return plan.commands
    try:
        return [Command(command=read_json(out / RESULTS, _Results).command, began=None)]
    except ValueError:
        return []


def last_command(out: Path) -> str:
    """Return the command whose results these are: the last one that was noted, else the one that is running."""
    commands = commands_of(out)
    return commands[-1].command if commands else running_command()


def _check_the_same(out: Path, begun: ExperimentPlan, now: ExperimentPlan) -> None:
    rest = [replace(plan, recipe=now.recipe, commands=()) for plan in (begun, now)]
    if changed := sorted([*differing(begun.recipe, now.recipe), *differing(*rest)]):
        raise ValueError(
            f"{out} was started with a different {', '.join(changed)}: choose another folder, or the same settings"
        )
