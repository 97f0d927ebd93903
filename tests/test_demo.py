"""`make demo`'s job, whole: the accuracy floor, the report, and that nothing is done twice."""

import json
import subprocess
import sys

FLOOR = 3.0
"""Percent of the held-out digits that the best network may get wrong."""


def reproduce_quick(out):
    command = [sys.executable, "-m", "verydeep", "reproduce", "--quick", "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)


def changes(folder):
    return {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()} | {
        path: path.stat().st_mtime_ns for path in (folder / "evaluations").iterdir()
    }


def test_the_demo_reaches_its_floor_and_repeats_nothing(tmp_path):
    out = tmp_path / "demo"
    first = reproduce_quick(out)
    assert first.stdout.strip() == f"report: {out / 'report.html'}"
    results = json.loads((out / "results.json").read_text())
    networks = ["A", "A-LRN", "B", "B-5x5", "C", "D", "E"]
    for table in ("one_scale", "several_scales"):
        assert [row["network"] for row in results[table]] == [*networks, "D + E"]
    assert [len(row["test"]) for row in (results["one_scale"][0], results["several_scales"][0])] == [1, 3]
    assert results["best"]["top1_error"] <= FLOOR
    assert all(row["top1_error"] < 20 for row in results["one_scale"]), "a network did not learn"

    (out / "report.md").unlink()
    (out / "evaluations" / "D+E-paper.json").unlink()
    before = changes(out)
    second = reproduce_quick(out)
    after = changes(out)
    assert {path.name for path in after.keys() - before.keys()} == {"D+E-paper.json"}
    assert all(after[path] == time for path, time in before.items())
    assert second.stderr.count("already trained") == len(networks)
    assert json.loads((out / "results.json").read_text())["best"] == results["best"]
    assert (out / "report.md").exists()
