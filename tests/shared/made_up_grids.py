"""Reports of grids that were never run: their numbers are made up, and looked for in the page, Markdown and JSON."""

import io
import json
import re
from dataclasses import asdict
from unittest.mock import patch
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from verydeep import evaluate
from verydeep.evaluation.protocols import chosen_scales
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.report import write_report
from verydeep.reproduction.stored_tests import StoredTest
from verydeep.reproduction.table_rows import best_network
from verydeep.reproduction.trainings import TRAININGS_BY_NAME
from verydeep.runs.model import has_weights
from verydeep.runs.record import EpochMetrics, Record, append_metrics, write_record
from verydeep.statistics import wilson_interval
from verydeep.training.recipe import Recipe

TEN = tuple("0123456789")
SMALL = Grid(only=("A-256", "B-256", "D-256"), tables=(3, 4))

ERRORS = {
    "A-256 dense single": 30.0,
    "B-256 dense single": 20.0,
    "D-256 dense single": 10.0,
    "A-256 dense paper": 29.0,
    "B-256 dense paper": 19.5,
    "D-256 dense paper": 9.5,
}
"""Percent of 200 images: the first ones are wrong, so one test's wrong images are among those of a worse one."""


def stored(entry, error, *, n=200, classes=TEN, unusable=(), top5=2.04):
    """Return what the grid keeps of a test."""
    n -= len(unusable)
    wrong = np.arange(n) < round(n * error / 100)
    trained = TRAININGS_BY_NAME[entry.trainings[0]].scale
    return StoredTest(
        split="test",
        scales=chosen_scales(entry.scales, trained=trained),
        n=n,
        top1_error=100 * float(wrong.mean()),
        top5_error=None if len(classes) <= 5 else top5,
        top1_error_ci95=wilson_interval(wrong),
        images_of_classes=(max(1, n // len(classes)),) * len(classes),
        unusable=tuple(unusable),
        wrong=wrong,
    )


def made_up(
    folder,
    *,
    grid=SMALL,
    errors=ERRORS,
    source="made up",
    classes=TEN,
    command="verydeep reproduce",
    unusable=None,
    splits=None,
    memory=None,
    cut_off=(),
    language="en",
    **recipe,
):
    """Make folders of finished trainings, and their report: page, Markdown and JSON.

    With `splits` it has pictures, by the best network with the first seed whose weights are there. `errors` may be a
    function of (entry's name, seed), and `memory` a mapping by training. Trainings in `cut_off` are an epoch short of
    their schedule.
    """
    folders, tests = {}, {}
    of = errors if callable(errors) else lambda name, _: errors[name]
    for seed in range(grid.seeds):
        folders[seed] = folder / "runs" / f"seed-{seed}"
        for number, training in enumerate(grid.trainings):
            settings = {
                "crop": 32,
                "width": 0.05,
                "epochs": 2,
                "schedule": "cosine",
                **recipe,
                "scale": training.scale,
                "seed": seed,
            }
            if training.name in cut_off:
                settings["epochs"] += 1
            record = Record(
                network=training.network,
                recipe=asdict(Recipe(**settings)),
                runtime={},
                source=source,
                fingerprints={"train": "f1e2d3", "val": "a4b5c6"},
                images={"train": 1234, "val": 56},
                classes=classes,
                initialisation="made up",
                command=command,
                versions={"verydeep": "9.9.9", "machine": "Linux", "processor": "Abacus", "threads": "2"},
            )
            write_record(folders[seed] / training.name, record)
            for epoch in (1, 2):
                metrics = EpochMetrics(
                    epoch=epoch,
                    step=100 * epoch,
                    learning_rate=0.01,
                    loss=2.25 / epoch + number,
                    training_error=80.0 / epoch,
                    validation_error=80.0 / epoch + number + seed,
                    images=1234,
                    images_per_second=1234 / (30.0 + number),
                    seconds=30.0 + number,
                    waiting=5.0,
                    peak_memory_bytes=memory.get(training.name) if isinstance(memory, dict) else memory,
                )
                append_metrics(folders[seed] / training.name, metrics)
        tests[seed] = {
            entry.name: stored(
                entry, of(entry.name, seed), classes=classes, unusable=(unusable or {}).get(entry.name, ())
            )
            for entry in grid.entries
        }
    best = None
    if splits is not None:
        network = best_network(grid, tests)
        runs = [one / network.trainings[0] for one in folders.values()]
        best = evaluate(next(filter(has_weights, runs)), data=splits, scales=network.scales)
    with patch("verydeep.reproduction.results.command", lambda: command):
        how = {"best": best, "splits": splits, "language": language}
        written = write_report(folder, grid=grid, folders=folders, tests=tests, **how)
    assert written == folder / "report.html"
    page, markdown = ((folder / name).read_text() for name in ("report.html", "report.md"))
    results = json.loads((folder / "results.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    return page, markdown, results


def html_tables(text):
    """Return {caption: [row][cell]}, by Python's XML parser."""
    tables = [ElementTree.fromstring(table) for table in re.findall(r"<table.*?</table>", text, flags=re.DOTALL)]
    captions = ["".join(table.find("caption").itertext()) for table in tables]
    rows = [[[" ".join("".join(c.itertext()).split()) for c in row] for row in table.iter("tr")] for table in tables]
    return dict(zip(captions, rows, strict=True))


def html_table(text, caption):
    """Return the lines of one table below its head."""
    rows = next(rows for words, rows in html_tables(text).items() if words.startswith(caption))
    return rows[2:] if re.match("As Table [3-6]", caption) else rows[1:]


def markdown_table(text, heading):
    """Return the lines of the tables below a heading."""
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)[1]
    tables = re.findall(r"(?:^\|.*\|\n)+", section, flags=re.MULTILINE)
    lines = [table.replace("\\*", "*").splitlines()[2:] for table in tables]
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in table] for table in lines]


def noise(classes=TEN):
    """Return splits of ten classes with three images each."""
    rng = np.random.default_rng(0)
    samples = []
    for index in range(30):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), index % 10, f"{index}.png"))
    source = memory_source(classes=classes, samples=tuple(samples))
    return Splits(name="noise", sources={"train": source, "val": source, "test": source})
