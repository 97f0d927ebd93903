"""One finished grid as a self-contained HTML page, the same in Markdown, and its numbers as JSON."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from verydeep import atomic, runs
from verydeep.experiments.charts import Point, error_against_depth, learning_curves
from verydeep.experiments.paper import B_5X5_EXTRA_TOP1, FUSED, TABLE_3, TABLE_4, Row, reported
from verydeep.images.quarantine import read_quarantine
from verydeep.networks.arithmetic import describe
from verydeep.networks.configurations import DOWNSAMPLING
from verydeep.networks.initialisation import COPIED
from verydeep.networks.scales import middle_scale, scale_in_pixels, scale_range
from verydeep.pages import render
from verydeep.training.recipe import Recipe, recipe_from

Evaluations = Mapping[tuple[str, Literal["single", "paper"]], Mapping[str, Any]]
"""By (network or 'D + E', which test scales), as `Evaluation.to_dict` gives them."""

HTML, MARKDOWN, RESULTS = "report.html", "report.md", "results.json"


def write_report(out: Path, *, folders: Mapping[str, Path], evaluations: Evaluations) -> Path:
    """Writes report.html, report.md (with its two pictures) and results.json into `out`, and returns the first's path.

    Args:
        out: the folder of the grid.
        folders: run folder of each network.
        evaluations: what was found.
    """
    results = collect(folders, evaluations)
    atomic.write_json(out / RESULTS, results)
    charts = {"curves": learning_curves(results["curves"]), "depth": error_against_depth(_points(results))}
    for name, svg in charts.items():
        atomic.write_bytes(out / f"{name}.svg", svg.encode())
    for name in (HTML, MARKDOWN):
        atomic.write_bytes(out / name, render(name, {"charts": charts, **results}, range=_range).encode())
    return out / HTML


def collect(folders: Mapping[str, Path], evaluations: Evaluations) -> dict[str, Any]:
    """Every number of the report."""
    records = {name: runs.read_record(folder) for name, folder in folders.items()}
    first = next(iter(records.values()))
    recipe = first.recipe
    rows = {
        scales: [
            _row(name, evaluation, table, recipe["scale"], recipe["crop"])
            for (name, which), evaluation in evaluations.items()
            if which == scales
        ]
        for scales, table in (("single", TABLE_3), ("paper", TABLE_4))
    }
    seeded = [name for name, record in records.items() if record.initialisation.startswith(COPIED)]
    curves = {name: runs.read_metrics(folder) for name, folder in folders.items()}
    costs = [_cost(name, record, curves[name]) for name, record in records.items()]
    n = rows["single"][0]["n"]
    split = next(iter(evaluations.values()))["split"]
    best = min((row for table in rows.values() for row in table), key=lambda row: row["top1_error"])
    unusable = _unusable(folders.values(), evaluations.values())
    return {
        "source": {
            "name": first.source,
            "classes": list(first.classes),
            "images": {**first.images, split: n},
            "fingerprints": first.fingerprints,
            "tested_on": split,
        },
        "recipe": recipe,
        "one_scale": rows["single"],
        "several_scales": rows["paper"],
        "best": best,
        "seeded": seeded,
        "results_compared": sum(map(len, rows.values())),
        "unusable": unusable,
        "limits": _limits(recipe, rows["single"], seeded, records.keys() - seeded) + _left_out(unusable),
        "curves": curves,
        "costs": costs,
        "initialisations": {name: record.initialisation for name, record in records.items()},
        "training_seconds": sum(cost["seconds"] for cost in costs),
        "versions": first.versions,
        "command": first.command,
    }


def _unusable(folders: Iterable[Path], evaluations: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many images of each split were left out of a training or a test because they cannot be used."""
    found = {(e["split"], e["image"]) for folder in folders for e in read_quarantine(folder / runs.QUARANTINE)}
    found |= {(evaluation["split"], image) for evaluation in evaluations for image in evaluation.get("unusable", ())}
    return dict(sorted(Counter(split for split, _ in found).items()))


def _left_out(unusable: Mapping[str, int]) -> list[str]:
    if not unusable:
        return []
    counts = _listed([f"{count:,} of {split}" for split, count in unusable.items()])
    return [
        f"Images that cannot be used were left out: {counts}. They are listed, with reasons, in the runs' "
        "quarantine.jsonl and in evaluations/."
    ]


def _row(name: str, found: Mapping[str, Any], table: tuple[Row, ...], scale: str, crop: int) -> dict[str, Any]:
    paper = FUSED if name == FUSED.network and table is TABLE_4 else reported(table, name, scale)
    return {
        "network": name,
        "train": scale,
        "test": list(found["scales"]),
        "test_pixels": [scale_in_pixels(q, crop) for q in found["scales"]],
        "n": found["n"],
        "top1_error": found["top1_error"],
        "top1_error_ci95": list(found["top1_error_ci95"]),
        "top5_error": found["top5_error"],
        "paper_top1_error": paper and paper.top1,
        "paper_top5_error": paper and paper.top5,
        "paper_train": paper and paper.train,
    }


def _cost(name: str, record: runs.Record, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    recipe = record.recipe
    network = describe(
        name,
        input=recipe["crop"],
        classes=len(record.classes),
        width=recipe["width"],
        batch_norm=recipe["batch_norm"],
    )
    seconds = sum(epoch["seconds"] for epoch in metrics)
    return {
        "network": name,
        "weight_layers": network.weight_layers,
        "parameters": network.parameters,
        "macs": network.macs,
        "epochs": len(metrics),
        "seconds": seconds,
        "images_per_second": len(metrics) * record.images["train"] / seconds,
    }


def _limits(
    recipe: Mapping[str, Any], rows: list[dict[str, Any]], seeded: Sequence[str], unseeded: Collection[str]
) -> list[str]:
    """What so small a test can show and what it cannot, in sentences."""
    n, own, full = rows[0]["n"], recipe_from(recipe), Recipe()
    widest = max((row["top1_error_ci95"][1] - row["top1_error_ci95"][0]) / 2 for row in rows)
    compared = [row.top1 for row in TABLE_3 if row.train == TABLE_3[0].train]
    gap = max(compared) - min(compared)
    told = "far apart enough to show here" if widest < gap / 2 else "too close to be told apart here"
    with_or_without = "with" if recipe["batch_norm"] else "without"
    sentences = [
        f"It shows what error each network, {with_or_without} batch normalisation, reaches on these images by the "
        "paper's recipe, and how sure that figure is.",
        f"One test image is {100 / n:.2f} points of error, and the intervals reach up to {widest:.1f} points to either "
        f"side. In the paper the networks at S = {TABLE_3[0].train} lie within {gap:.1f} points: such differences are "
        f"{told}.",
        "Each network was trained once. How much its error would vary with another seed is not known, so no "
        "difference between two networks here confirms or refutes the paper.",
        "The lowest of many errors on the same images is lower than that network would reach on others.",
    ]
    if seeded:
        sentences.append(
            f"{_listed(seeded)} start from layers of trained A and so have its training behind them; "
            f"{_listed(sorted(unseeded))} start from random weights, which every comparison between the two groups "
            f"includes (B against B-5x5 too, in the paper {B_5X5_EXTRA_TOP1:.0f} points apart on a centre crop)."
        )
    smaller = [
        f"{words} {getattr(own, name):g} (paper: {getattr(full, name):g})"
        for name, words in {
            "crop": "crop",
            "width": "width",
            "epochs": "at most epochs",
            "batch": "batch",
            "first_rate": "first learning rate",
        }.items()
        if getattr(own, name) != getattr(full, name)
    ]
    if not recipe["flip"]:
        smaller.append("no mirrored images (paper: half of them)")
    if smaller:
        sentences.append(
            f"The recipe was scaled down: {', '.join(smaller)}. Deep networks take off later than shallow ones, so one "
            "that is behind may only have been stopped too early."
        )
    if _map_positions(recipe) == 1:
        sentences.append(
            "At this crop the score map of a square image has a single position at the one test scale: dense "
            "evaluation and several scales have little to add."
        )
    return sentences


def _map_positions(recipe: Mapping[str, Any]) -> int:
    """Positions of the score map of a square image at the middle scale."""
    side = scale_in_pixels(middle_scale(recipe["scale"]), recipe["crop"])
    return (side // DOWNSAMPLING - recipe["crop"] // DOWNSAMPLING + 1) ** 2


def _points(results: Mapping[str, Any]) -> list[Point]:
    layers = {cost["network"]: cost["weight_layers"] for cost in results["costs"]}
    return [
        Point(
            label=row["network"],
            layers=layers[row["network"]],
            error=row["top1_error"],
            low=row["top1_error_ci95"][0],
            high=row["top1_error_ci95"][1],
        )
        for row in results["one_scale"]
        if row["network"] in layers
    ]


def _listed(names: Sequence[str]) -> str:
    """`A, B and C`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _range(scale: str) -> str:
    """`256:512` as the paper writes it, `[256;512]`."""
    low, high = scale_range(scale)
    return f"{low}" if low == high else f"[{low};{high}]"
