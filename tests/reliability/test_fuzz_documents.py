"""Documents of any content end in a value or in one line: JSON, JSON lines, TOML and CSV, mutated by structure."""

import json
import random
import resource
import shutil
import time
from pathlib import Path

import pytest

from verydeep.commands.options import options_file
from verydeep.evaluation.predictions import compare
from verydeep.export.metadata import from_json
from verydeep.images.annotations.box_files import read_boxes
from verydeep.images.quarantine import read_quarantine
from verydeep.machine import cache
from verydeep.machine.documents import read_json
from verydeep.machine.errors import one_line
from verydeep.reproduction.plan_file import read_plan
from verydeep.reproduction.stored_tests import read_test
from verydeep.runs.model import load_config, load_model
from verydeep.runs.record import read_metrics, read_record
from verydeep.training.checkpoint import Progress, load_latest
from verydeep.training.recipe import recipe_from
from verydeep.transfer_learning.classifier_folder import load_classifier

BEFORE = Path(__file__).parents[1] / "before" / "written_at_0046bf4"

MOST_SECONDS, MOST_KILOBYTES = 10, 2 * 2**20

METADATA = {
    "format": 1,
    "version": "0.1.0",
    "network": "A",
    "crop": 32,
    "width": 0.1,
    "batch_norm": False,
    "int8": False,
    "mean_rgb": [1.0, 2.0, 3.0],
    "classes": ["a", "b"],
    "scale": "256",
    "flip": True,
    "weights_sha256": None,
}
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 5, "height": 6}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
}
BOXES = "file,x0,y0,x1,y1,class\na.jpg,1,2,3,4,cat\nb.jpg,1,2,3,4,dog\n"
PREDICTIONS = "id,true_class,class_1,probability_1\r\n1.jpg,cat,cat,0.5\r\n2.jpg,dog,cat,0.5\r\n"
TOML = 'network = "B"\ncrop = 32\nflip = false\nscales = [256, 384]\n'


def record(file):
    found = read_record(file.parent)
    return recipe_from(found.recipe), found.architecture


READERS = {
    "config.json": ("model/config.json", lambda file: (load_config(file.parent), load_model(file.parent))),
    "run.json": ("finished_run/run.json", record),
    "metrics.jsonl": ("finished_run/metrics.jsonl", lambda file: read_metrics(file.parent)),
    "state.json": (
        "stopped_run/checkpoints/step-00000004/state.json",
        lambda file: (read_json(file, Progress, exact=True), load_latest(file.parents[1])),
    ),
    "manifest.json": ("stopped_run/checkpoints/step-00000004/manifest.json", lambda file: load_latest(file.parents[1])),
    "classifier.json": ("classifier/classifier.json", lambda file: load_classifier(file.parent)),
    "plan.json": ("experiment/plan.json", lambda file: read_plan(file.parent)),
    "test.json": ("experiment/evaluations/seed-0/A-256 dense paper.json", read_test),
    "quarantine.jsonl": ('{"split": "val", "image": "1.jpg", "reason": "truncated (x)"}\n', read_quarantine),
    "metadata.json": (json.dumps(METADATA), lambda file: from_json(file.read_bytes())),
    "coco.json": (json.dumps(COCO), read_boxes),
    "boxes.csv": (BOXES, read_boxes),
    "predictions.csv": (PREDICTIONS, lambda file: compare(file, file)),
    "options.toml": (TOML, lambda file: options_file(["--config", str(file)])),
}
"""What is mutated, a path below `BEFORE` or its text, and what reads it."""

VALUES = [None, True, 0, -1, 1.5, 10**18, 10**25, 1e308, float("nan"), float("inf"), "", "x", "\x1b[2J"]
VALUES += ["\ud800", [], {}, [1], {"a": 1}, "9" * 100_000]
ENCODINGS = ["utf-16", "utf-32", "utf-8-sig", "cp1252", "utf-7"]
JUNK = [b"", b"\0", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b'"' * 1000, b"," * 1000, b"\r", b"\n" * 1000]


def places(value, path=()):
    """Yield the path of every value in JSON."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


def changed(value, rng):
    """Return JSON with another value in a place, without it, with it twice, or deep in lists."""
    *above, last = rng.choice([*places(value)][1:] or [()]) or (None,)
    if last is None:
        return rng.choice(VALUES)
    holder = value
    for key in above:
        holder = holder[key]
    match rng.randrange(4):
        case 0:
            del holder[last]
        case 1 if isinstance(holder, dict):
            holder[f"{last}s"] = holder[last]
        case 2:
            for _ in range(rng.choice([1, 90, 150])):
                holder[last] = [holder[last]]
        case _:
            holder[last] = rng.choice(VALUES)
    return value


def mutated(text, name, rng):
    """Return the bytes of a file: mostly changed in its structure, sometimes in its encoding or its bytes."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        if name.endswith(".json"):
            text = json.dumps(changed(json.loads(text), rng)) if len(text) < 10**5 else text
        elif name.endswith(".jsonl"):
            lines = text.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = json.dumps(changed(json.loads(lines[at]), rng))
            text = "\n".join(lines)
        else:
            cells = text.replace("\n", ",\n,").split(",")
            cells[rng.randrange(len(cells))] = str(rng.choice(VALUES)).encode("utf-8", "replace").decode()
            text = ",".join(cells).replace(",\n,", "\n")
    data = text.encode("utf-8", "surrogatepass")
    match rng.randrange(12):
        case 0:
            return text.encode(rng.choice(ENCODINGS), "replace")
        case 1:
            at = rng.randrange(len(data) + 1)
            return data[:at] + rng.choice(JUNK) + data[at:]
        case 2:
            return data[: rng.randrange(len(data) + 1)]
    return data


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Copy of the folders that the readers need, so that the file alone is changed."""
    place = tmp_path_factory.mktemp("documents") / "before"
    shutil.copytree(BEFORE, place)
    found = {}
    for name, (source, _) in READERS.items():
        if source.endswith((".json", ".jsonl")) and "\n" not in source and not source.startswith("{"):
            found[name] = (place / source, (place / source).read_text())
        else:
            (place / name).write_text(source, newline="")
            found[name] = (place / name, source)
    return found


@pytest.mark.parametrize("name", READERS)
def test_a_mutated_document_ends_in_a_value_or_a_line(files, name, battery, figure):
    times = (10_000 if battery else 308) // len(READERS)
    (file, text), lines = files[name], []
    READERS[name][1](file)
    for seed in range(times):
        file.write_bytes(mutated(text, name, random.Random(f"{name} {seed}")))
        started = time.monotonic()
        try:
            READERS[name][1](file)
        except (ValueError, OSError) as error:  # the command's status is 2 or 1, and the line this one
            lines.append((type(error).__name__, one_line(error)))
        assert time.monotonic() - started < MOST_SECONDS
    file.write_bytes(text.encode())
    assert [line for kind, line in lines if kind in line or len(line) > 2100] == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MOST_KILOBYTES
    figure(28, f"fuzzed {name}", f"{times:,} mutations, {len(lines):,} refused in a line, the others read")


@pytest.mark.parametrize("damage", [b"", b"[", b"null", b'{"a": 1}', b'["x"]', b"[" * 10_000, b"\xff"])
def test_a_damaged_cache_entry_is_computed_anew_and_said(tmp_path, monkeypatch, capsys, damage):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path))
    assert cache.remembered("kind", "key", lambda: [1, 2], list[int]) == [1, 2]
    (entry,) = (tmp_path / "kind").iterdir()
    entry.write_bytes(damage)
    assert cache.remembered("kind", "key", lambda: [3], list[int]) == [3]
    assert "damaged, so they are computed again" in capsys.readouterr().err
    assert cache.remembered("kind", "key", lambda: [4], list[int]) == [3]
