"""Predictions and features by two processes equal those by one."""

import json

import numpy as np
import pytest
import several_commands
from PIL import Image


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    file = tmp_path_factory.mktemp("bad") / "bad.png"
    file.write_bytes(b"broken")
    return file


def commands(run, photos, bad, folder):
    """Return commands: broken images, fewer images than processes, an error; chunks that are shared unevenly."""
    images = [photos / "bee", bad, photos / "ant"]
    chosen = ["--protocol", "both", "--scales", "256,300", "--top", 7, "--device", "cpu"]
    features = ["features", run, photos, "--layers", "relu7,pool5", "--device", "cpu"]
    return [
        ["predict", run, *images, *chosen, "--out", folder / "p.jsonl", "--map", folder / "maps"],
        ["predict", run, photos / "ant" / "0.png", "--out", folder / "p.csv", "--device", "cpu"],
        [*features, "--out", folder / "f.safetensors"],
        [*features, "--scales", "256,300", "--pool", "stack", "--out", folder / "f.parquet"],
    ]


def test_several_processes_find_what_one_finds(python, run, photos, bad, tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    two.mkdir()
    one.mkdir()
    # Four images make a chunk: (0 1 2 3) (4 5 6 7) in the first round, (8 9 10) in the second.
    its_commands = [*commands(run, photos, bad, two), ["predict", run, "-"]]
    statuses, said = several_commands.together(python, 2, its_commands, tmp_path, images_at_once=4)
    assert statuses == [(1, 0), (0, 0), (0, 0), (0, 0), (2, 2)]
    assert "1 of 12 images could not be used" in said
    assert "several processes cannot share standard input" in said
    with several_commands.images_at_once(4):
        assert [several_commands.status_of(*each) for each in commands(run, photos, bad, one)] == [1, 0, 0, 0]
    pairs = zip(
        *([json.loads(line) for line in (f / "p.jsonl").read_text().splitlines()] for f in (two, one)), strict=True
    )
    for number, (mine, other) in enumerate(pairs):
        for key in ("image", "classes", "error"):
            assert mine[key] == other[key]
        assert mine["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)
        assert (mine["score_map"] is None) == (mine["error"] is not None) == (number == 5)
        if mine["score_map"]:
            pictures = [np.asarray(Image.open(found["score_map"])).astype(int) for found in (mine, other)]
            assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert number == 11
    for name in ("p.csv", "f.safetensors", "f.parquet"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
