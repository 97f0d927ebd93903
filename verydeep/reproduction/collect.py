"""Every number of the report: the paper's tables from what was found, findings, costs and learning curves."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.images.quarantine import read_quarantine
from verydeep.networks.arithmetic import describe
from verydeep.networks.scales import scale_in_pixels
from verydeep.reproduction import paper
from verydeep.reproduction.claims import Finding, claims, findings
from verydeep.reproduction.grid import JITTER, METHODS, SEVEN, TRAININGS, Entry, Grid, Training, last_stages
from verydeep.reproduction.limits import limits
from verydeep.runs.files import QUARANTINE
from verydeep.runs.record import Record, command, read_metrics, read_record
from verydeep.statistics import percentile_interval, resampled_differences

Found = Mapping[int, Mapping[str, Mapping[str, Any]]]
"""Of each seed and each entry, by name: `Evaluation.to_dict`, and which images were misclassified."""

CURVES = {"loss": 4, "validation_error": 2}
"""What is drawn over the epochs, and decimals that are kept of it."""

GAINS = {
    "trained at S in [256;512] nets err less than at S = 384": "scale jitter in training, against S = 384",
    "at several scales nets err less": "several test scales, against one",
    "by crops nets err less than densely": "multi-crop, against dense",
    "by both nets err less than densely": "multi-crop & dense, against dense",
    "by both nets err less than by crops": "multi-crop & dense, against multi-crop",
    "D and E fused err less than D": "D and E fused, against D",
    "D and E fused err less than E": "D and E fused, against E",
}
"""What is compared in some of the claims' parts, without saying how it turns out."""

OF_EACH = ("scale", "init_rest", "finetune", "seed")
"""Of the recipe, what each training has for itself."""

NOT_THE_SAME = (
    "Not every test could use the same images, so results cannot be paired: no claim was tested. The images that could "
    "not be used are named in evaluations/; without them, all tests have the same."
)

Wrong = Mapping[str, NDArray[np.bool_]]
"""By entry: [seeds, images]; without those whose seeds had different images."""


def collect(grid: Grid, folders: Mapping[int, Path], found: Found) -> dict[str, Any]:
    """Every number of the report, ready for JSON.

    Args:
        grid: what was done.
        folders: of each seed, the folder with its runs.
        found: what the tests gave.
    """
    trainings = {one.name: one for one in grid.trainings}
    records = {(seed, name): read_record(folder / name) for seed, folder in folders.items() for name in trainings}
    metrics = {where: read_metrics(folders[where[0]] / where[1]) for where in records}
    first = next(iter(records.values()))
    recipe = {name: value for name, value in first.recipe.items() if name not in OF_EACH}
    stored = next(iter(found.values()))
    wrong = _wrong(found, grid.entries)
    rows = {entry.name: _row(entry, found, wrong, first.recipe["crop"]) for entry in grid.entries}
    tested = next(iter(stored.values()))
    told, untold = _findings(grid, wrong, tested)
    kinds = [_training(one, folders, records, metrics) for one in grid.trainings]
    unusable = _unusable((folder / name for folder in folders.values() for name in trainings), found)
    return {
        "source": {
            "name": first.source,
            "classes": list(first.classes),
            "images": {**first.images, tested["split"]: tested["n"]},
            "fingerprints": {split: text for split, text in first.fingerprints.items() if split != "init"},
            "tested_on": tested["split"],
        },
        "recipe": recipe,
        "seeds": list(folders),
        "trainings": kinds,
        "networks": list(dict.fromkeys(one.network for one in grid.trainings)),
        "curves": _curves(grid, folders, metrics),
        "tables": {str(table): lines for table in grid.tables if (lines := _table(table, grid, rows))},
        "jittered": all(trainings[name].scale == JITTER for name in last_stages(list(trainings))),
        "findings": [one.to_dict() for one in told],
        "verdicts": dict(Counter(one.verdict for one in told)),
        "not_told": untold,
        "gains": _gains(told),
        "best": min(rows.values(), key=lambda row: row["top1_error"]),
        "best_network": best_network(grid, found).name,
        "results_compared": len(rows),
        "unusable": unusable,
        "limits": limits(first.recipe, list(trainings.values()), list(folders), list(rows.values()), unusable),
        "state_of_the_art": _state_of_the_art(),
        "training_seconds": sum(one["seconds"] for kind in kinds for one in kind["seeds"]),
        "versions": first.versions,
        "command": command(),
    }


def best_network(grid: Grid, found: Found) -> Entry:
    """The test of a single network with the lowest error, over all seeds."""
    alone = [entry for entry in grid.entries if len(entry.trainings) == 1]
    return min(alone, key=lambda entry: np.mean([stored[entry.name]["top1_error"] for stored in found.values()]))


def label(training: Training) -> str:
    """What a training's network is called: `D`, and `D (Glorot)` if it does not start from A as the paper's does."""
    return f"{training.network} (Glorot)" if training.unseeded else training.network


def _wrong(found: Found, entries: Iterable[Entry]) -> dict[str, NDArray[np.bool_]]:
    """Which images were misclassified, by entry; not of one whose seeds had different images."""
    outcomes = {}
    for entry in entries:
        of_seeds = [stored[entry.name]["top1_wrong_by_image"] for stored in found.values()]
        if len(set(map(len, of_seeds))) == 1:
            outcomes[entry.name] = np.array([[image == "1" for image in one] for one in of_seeds])
    return outcomes


def _row(entry: Entry, found: Found, wrong: Wrong, crop: int) -> dict[str, Any]:
    """A line of a table, without the paper's figures."""
    by_name = {one.name: one for one in TRAININGS}
    trainings = [by_name[name] for name in entry.trainings]
    of_seeds = [stored[entry.name] for stored in found.values()]
    scales = list(of_seeds[0]["scales"])
    top5 = [one["top5_error"] for one in of_seeds]
    interval = list(of_seeds[0]["top1_error_ci95"]) if len(of_seeds) == 1 else _interval(wrong.get(entry.name))
    return {
        "entry": entry.name,
        "network": "7 of C, D, E" if entry.trainings == SEVEN else " + ".join(map(label, trainings)),
        "trainings": list(entry.trainings),
        "train": list(dict.fromkeys(one.scale for one in trainings)),
        "test": scales,
        "test_pixels": [scale_in_pixels(q, crop) for q in scales],
        "method": entry.method,
        "n": of_seeds[0]["n"],
        "top1_error": sum(one["top1_error"] for one in of_seeds) / len(of_seeds),
        "of_seeds": [one["top1_error"] for one in of_seeds],
        "top1_error_ci95": interval,
        "top5_error": None if None in top5 else sum(top5) / len(top5),
    }


def _interval(wrong: NDArray[np.bool_] | None) -> list[float] | None:
    """Of the mean error over seeds, in percent: seeds and images drawn anew; None where seeds had different images."""
    if wrong is None:
        return None
    return list(percentile_interval(resampled_differences(wrong.astype(float))))


def _table(number: int, grid: Grid, rows: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of one of the paper's tables, with its figures beside."""
    return [
        {**rows[entry.name], **_papers(number, entry)}
        for entry in _entries_of(number, [one.name for one in grid.trainings])
        if entry.name in rows
    ]


def _entries_of(number: int, names: Sequence[str]) -> Iterator[Entry]:
    if number in (3, 4):
        networks = {one.name: paper.NETWORKS.index(one.network) for one in TRAININGS}
        for name in sorted(names, key=lambda name: networks[name]):
            yield Entry(trainings=(name,), method="dense", scales="single" if number == 3 else "paper")
        return
    last = tuple(last_stages(names))
    if number == 5:
        for name in last:
            for method in METHODS:
                yield Entry(trainings=(name,), method=method, scales="paper")
        return
    yield Entry(trainings=SEVEN, method="dense", scales="paper")
    if len(last) > 1:
        for method in METHODS:
            yield Entry(trainings=last, method=method, scales="paper")


def _papers(number: int, entry: Entry) -> dict[str, Any]:
    """What the paper reports of an entry's network (of its jittered nets in Tables 5 and 6), if anything."""
    one = next(one for one in TRAININGS if one.name == entry.trainings[0])
    found = None
    if number in (3, 4) and not one.unseeded:
        found = paper.reported(paper.TABLE_3 if number == 3 else paper.TABLE_4, one.network, one.scale)
    elif number == 5:
        found = paper.reported(paper.TABLE_5, one.network, method=entry.method)
    elif number == 6:
        network = paper.SUBMITTED.network if entry.trainings == SEVEN else paper.FUSED
        found = paper.reported(paper.TABLE_6, network, method=entry.method)
    return {
        "paper_top1_error": found and found.top1,
        "paper_top5_error": found and found.top5,
        "paper_train": found and found.train,
        "paper_trained_alike": not found or found is paper.SUBMITTED or found.train == one.scale,
    }


def _state_of_the_art() -> dict[str, Any]:
    """Table 7 of the paper: its networks beside others of its time. No figure of a grid is comparable with it."""
    return {
        "data": "ILSVRC",
        "rows": [asdict(row) for row in paper.TABLE_7],
        "clarifai_with_outside_data_top5_test": paper.CLARIFAI_WITH_OUTSIDE_DATA_TOP5_TEST,
    }


def _findings(grid: Grid, wrong: Wrong, tested: Mapping[str, Any]) -> tuple[tuple[Finding, ...], str]:
    """What became of the claims; or nothing, and why."""
    images = {one.shape[1] for one in wrong.values()}
    if len(wrong) < len(grid.entries) or len(images) > 1:
        return (), NOT_THE_SAME
    counts = [one["n"] for one in tested["per_class"]]
    guessing = 100 - 100 * max(counts) / sum(counts)
    stated = claims(grid.trainings, [entry.name for entry in grid.entries])
    return findings(stated, wrong, guessing=guessing), ""


def _gains(told: Sequence[Finding]) -> list[dict[str, Any]]:
    """What scale jitter, several scales, crops and fusion each add."""
    return [
        {
            "adds": GAINS[part.says],
            "first_error": part.first_error,
            "second_error": part.second_error,
            "difference": part.difference,
            "difference_ci95": list(part.difference_ci95),
            "learned": part.learned,
        }
        for finding in told
        for part in finding.parts
        if part.says in GAINS
    ]


def _training(
    training: Training,
    folders: Mapping[int, Path],
    records: Mapping[tuple[int, str], Record],
    metrics: Mapping[tuple[int, str], Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """What was trained, and what it cost with each seed."""
    of_seeds = {seed: records[seed, training.name] for seed in folders}
    record = next(iter(of_seeds.values()))
    network = describe(
        training.network,
        input=record.recipe["crop"],
        classes=len(record.classes),
        width=record.recipe["width"],
        batch_norm=record.recipe["batch_norm"],
    )
    costs = [_cost(seed, one, metrics[seed, training.name]) for seed, one in of_seeds.items()]
    seconds, epochs = (sum(one[figure] for one in costs) for figure in ("seconds", "epochs"))
    return {
        "name": training.name,
        "network": training.network,
        "label": label(training),
        "scale": training.scale,
        "start": training.start,
        "unseeded": training.unseeded,
        "initialisation": record.initialisation,
        "weight_layers": network.weight_layers,
        "parameters": network.parameters,
        "macs": network.macs,
        "images_per_second": epochs * record.images["train"] / seconds if seconds else None,
        "seeds": costs,
    }


def _cost(seed: int, record: Record, epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = sum(epoch["seconds"] for epoch in epochs)
    memory = [epoch["peak_memory_bytes"] for epoch in epochs if epoch.get("peak_memory_bytes")]
    return {
        "seed": seed,
        "epochs": len(epochs),
        "seconds": seconds,
        "images_per_second": len(epochs) * record.images["train"] / seconds if seconds else None,
        "peak_memory_bytes": max(memory, default=None),
        "lowest_validation_error": min((epoch["validation_error"] for epoch in epochs), default=None),
    }


def _curves(
    grid: Grid, folders: Mapping[int, Path], metrics: Mapping[tuple[int, str], Sequence[Mapping[str, Any]]]
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """By training and seed, the figures of all epochs."""
    return {
        one.name: {
            str(seed): {
                key: [round(epoch[key], decimals) for epoch in metrics[seed, one.name]]
                for key, decimals in CURVES.items()
            }
            for seed in folders
        }
        for one in grid.trainings
    }


def _unusable(folders: Iterable[Path], found: Found) -> dict[str, int]:
    """How many images of each split were left out of a training or a test because they cannot be used."""
    left_out = {(e["split"], e["image"]) for folder in folders for e in read_quarantine(folder / QUARANTINE)}
    left_out |= {
        (one["split"], image) for stored in found.values() for one in stored.values() for image in one["unusable"]
    }
    return dict(sorted(Counter(split for split, _ in left_out).items()))
