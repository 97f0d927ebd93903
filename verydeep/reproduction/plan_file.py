"""`plan.json`: the images, the recipe and the steering that an experiment was begun with."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verydeep.images.sources.splits import Splits
from verydeep.machine import atomic
from verydeep.machine.documents import parse_json, read_json
from verydeep.reproduction.grid import Grid
from verydeep.training.recipe import Recipe

_PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What the file says; those of before have no choice of what steers."""

    fingerprints: dict[str, str]
    recipe: dict[str, Any]
    steer: str = "validation"
    held_out: int | float | None = None


def read_plan(out: Path) -> dict[str, Any] | None:
    """Read what an experiment was begun with; None where nothing is begun.

    Raises:
        ValueError: the file is damaged.
    """
    path = out / _PLAN
    if not path.is_file():
        return None
    try:
        plan = read_json(path, _Plan)
    except ValueError as error:
        raise ValueError(f"{error}: choose another folder, or restore the file") from error
    return asdict(plan)


def begin_or_go_on(out: Path, *, splits: Splits, recipe: Recipe, grid: Grid) -> None:
    """Write the plan of a new experiment; of one that was begun, check that it is the same.

    Trainings, tables and seeds are no part of it: they may be added later.

    Raises:
        ValueError: the experiment was begun with other settings or images, or the folder holds something else.
    """
    plan: dict[str, Any] = {
        "fingerprints": {split: part.fingerprint for split, part in splits.sources.items()},
        "recipe": asdict(recipe),
        "steer": grid.steer,
        "held_out": grid.held_out,
    }
    begun = read_plan(out)
    if begun is not None:
        _check_the_same(out, begun, asdict(parse_json(json.dumps(plan), _Plan)))
        return
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out} exists and holds something else: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    atomic.write_json(out / _PLAN, plan)


def _check_the_same(out: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    before, after = ({**plan["recipe"], **plan, "recipe": None} for plan in (begun, now))
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise ValueError(
            f"{out} was started with a different {', '.join(changed)}: choose another folder, or the same settings"
        )
