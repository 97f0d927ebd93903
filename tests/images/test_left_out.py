"""All verbs say the same of what they found and do not use, and what they use is the rest."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from several_commands import status_of


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six usable images of each of two classes, an unusable one, and nine files that are hidden or not images."""
    root = tmp_path_factory.mktemp("all") / "photos"
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    (root / "dog" / "page.jpg").write_bytes(b"<html>")
    for name in ("a.nef", "b.NEF", "c.cr2", "notes.txt"):
        (root / "dog" / name).write_bytes(b"words")
    (root / "cat" / ".ipynb_checkpoints").mkdir()
    for name in ("0-checkpoint.png", "1-checkpoint.png"):
        (root / "cat" / ".ipynb_checkpoints" / name).write_bytes((root / "cat" / "0.png").read_bytes())
    for number in range(3):
        (root / "cat" / f"gone{number}.png").symlink_to("/nowhere")
    return root


LINES = [
    "left out 4 files of other kinds: 2 .nef, 1 .cr2, 1 .txt; convert pictures among them to JPEG or PNG",
    "left out 2 hidden files or leftovers of programs",
]
LINKS = "left out 3 broken links: cat/gone0.png, cat/gone1.png, cat/gone2.png"


def told(capsys):
    return [
        line.strip()
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("left out") and "page" not in line
    ]


def test_all_verbs_say_what_they_leave_out_and_use_the_rest(photos, tmp_path, capsys):
    recipe = ("--network", "A", "--crop", 32, "--width", 0.05, "--batch", 4, "--epochs", 1, "--max-bad", 50)
    assert status_of("train", photos, *recipe, "--out", tmp_path / "run") == 0
    assert [line for line in told(capsys) if "quarantine" not in line] == [*LINES, LINKS]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert sum(record["images"].values()) == 13
    data = ("--data", photos, "--split", "all", "--scales", "single", "--max-bad", 50)
    assert status_of("evaluate", tmp_path / "run", *data, "--json", tmp_path / "e.json") == 0
    assert told(capsys) == [*LINES, LINKS]
    figures = json.loads((tmp_path / "e.json").read_text())
    assert (figures["n"], len(figures["unusable"])) == (12, 1)
    out = tmp_path / "f.safetensors"
    assert status_of("features", tmp_path / "run", photos, "--out", out, "--max-bad", 50) == 0
    assert told(capsys) == [*LINES, LINKS]
    with safe_open(out, "np") as features:
        assert len(features.get_tensor("relu7")) == 12
    assert status_of("predict", tmp_path / "run", photos, "--out", tmp_path / "p.jsonl") == 1  # page.jpg
    assert told(capsys) == [*LINES, LINKS.replace("cat/", f"{photos}/cat/")]
    predictions = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert (len(predictions), sum(one["error"] is not None for one in predictions)) == (13, 1)
    assert status_of("scan", photos, "--json", tmp_path / "s.json") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[lines.index("22 files found: 13 images, 9 left out") + 1 :][:3] == [*LINES, LINKS]
    inventory = json.loads((tmp_path / "s.json").read_text())["inventory"]
    files = [name for _, _, names in os.walk(photos) for name in names]
    assert (inventory["files"], inventory["images"], inventory["left_out"]) == (len(files), 13, 9)
