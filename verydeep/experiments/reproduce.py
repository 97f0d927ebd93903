"""The grid: every network of the paper trained and tested on one source; what is there already is not repeated."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from rich.console import Console

from verydeep import atomic, runs
from verydeep.evaluation.evaluate import evaluate
from verydeep.experiments.paper import DEEPER, NETWORKS
from verydeep.experiments.report import write_report
from verydeep.images.open_source import open_source
from verydeep.images.sources import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.networks.configurations import InitialisationScheme, configuration
from verydeep.runtime import Execution, Runtime, Stopped
from verydeep.training.loop import train
from verydeep.training.recipe import Recipe

PLAN, RUNS, EVALUATIONS = "plan.json", "runs", "evaluations"
FUSED = ("D", "E")

Scales = Literal["single", "paper"]
TEST_SCALES: tuple[Scales, ...] = ("single", "paper")
"""Table 3's one test scale, and Table 4's three."""

QUICK = Recipe(crop=32, width=0.25, batch=32, learning_rate=2.5e-3, epochs=14, patience=3)
"""The recipe scaled down to minutes on two cores; what is not named here is the paper's."""


class Options(TypedDict):
    """What trainings and evaluations share beside the recipe."""

    runtime: Runtime
    tolerance: Tolerance


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained and on what; `plan.json`."""

    fingerprints: dict[str, str]
    """Of the source's parts."""
    networks: tuple[str, ...]
    recipe: dict[str, Any]
    """Of all networks; those deeper than A start from it."""


def quick_recipe(source: str) -> Recipe:
    """The quick recipe for a source: the mirror image of a digit is no digit, so those are not flipped."""
    return replace(QUICK, flip=source != "digits")


def reproduce(
    source: str | Splits = "digits",
    *,
    out: str | Path,
    recipe: Recipe | None = None,
    networks: Sequence[str] = NETWORKS,
    runtime: Runtime | None = None,
    execution: Execution | None = None,
    tolerance: Tolerance | None = None,
) -> Path:
    """Trains the networks at one S, tests them densely at one and at three scales, fuses D and E, and reports.

    A is trained from random weights, B to E start from it by the paper's rule (without A among the networks, from
    random weights), A-LRN and B-5x5 from random weights. Everything lies below `out`: runs/NETWORK, evaluations/,
    report.html, report.md and results.json. On a folder that has some of it already only the rest is done.

    Returns the path of report.html.

    Raises:
        ValueError: unusable source or recipe, or `out` holds something else.
        Stopped: SIGINT or SIGTERM; what was done is kept.
    """
    out, recipe = Path(out).resolve(), recipe or Recipe()
    options: Options = {"runtime": runtime or Runtime(), "tolerance": tolerance or Tolerance()}
    networks = [known for known in NETWORKS if known in {configuration(name).name for name in networks}]
    if not networks or recipe.start is not None:
        raise ValueError("reproduce trains one network or more, the first from random weights")
    splits = open_source(source) if isinstance(source, str) else source
    plan = Plan(
        fingerprints={split: part.fingerprint for split, part in splits.parts.items()},
        networks=tuple(networks),
        recipe=asdict(recipe),
    )
    _write_or_check_plan(plan, out)
    console = Console(stderr=True, highlight=False)
    for number, network in enumerate(networks, 1):
        seed = out / RUNS / "A" if network in DEEPER and "A" in networks else None
        start = "from A" if seed else "from random weights"
        if runs.is_finished(out / RUNS / network):
            console.print(f"[{number}/{len(networks)}] {network}: already trained", markup=False)
            continue
        console.print(f"[{number}/{len(networks)}] {network}, {start}", markup=False)
        own = recipe
        if seed:
            own = replace(recipe, init=str(seed), init_rest=cast(InitialisationScheme, recipe.init))
        try:
            train(
                splits,
                network=network,
                out=out / RUNS / network,
                recipe=own,
                execution=execution,
                resume=True,
                **options,
            )
        except Stopped as stopped:
            raise Stopped(stopped.signal, f"stopped, and saved in {out}: the same command goes on") from None
    evaluations = _evaluate_all(splits, out, networks, options)
    return write_report(out, folders={name: out / RUNS / name for name in networks}, evaluations=evaluations)


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


def _evaluate_all(
    splits: Splits, out: Path, networks: Sequence[str], options: Options
) -> dict[tuple[str, Scales], dict[str, Any]]:
    """Every network, and D and E fused, at one and at three scales, each from its file if it stands there."""
    groups = [(name,) for name in networks] + ([FUSED] if set(FUSED) <= set(networks) else [])
    (out / EVALUATIONS).mkdir(exist_ok=True)
    weights = {name: runs.weights_fingerprint(out / RUNS / name) for name in networks}
    return {
        (" + ".join(group), scales): _evaluate_once(splits, out, [weights[n] for n in group], group, scales, options)
        for group in groups
        for scales in TEST_SCALES
    }


def _evaluate_once(
    splits: Splits, out: Path, weights: Sequence[str], group: tuple[str, ...], scales: Scales, options: Options
) -> dict[str, Any]:
    tested = {
        "weights": list(weights),
        "images": splits.part(splits.testing).fingerprint,
    }
    path = out / EVALUATIONS / f"{'+'.join(group)}-{scales}.json"
    if path.exists():
        stored: dict[str, Any] = json.loads(path.read_text())
        if stored["tested"] == tested:
            return stored
    folders = [out / RUNS / name for name in group]
    found = evaluate(folders, data=splits, scales=scales, **options).to_dict()
    atomic.write_json(path, {"tested": tested, **found})
    result: dict[str, Any] = json.loads(path.read_text())
    return result
