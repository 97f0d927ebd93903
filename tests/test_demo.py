"""`make demo`'s job: the accuracy floor, the report, and that nothing is done twice.

`make battery` trains all seven networks to the end, the suite for a few epochs three of them, among them the two fused.
"""

import json
import subprocess
import sys

from verydeep.reproduction.claims import CLAIMS
from verydeep.reproduction.trainings import QUICK

FLOOR = 3.0
"""Percent of the held-out digits that the best network may get wrong."""


THREE = ("A-256", "D-256", "E-256")
SHORT = ("--only", ",".join(THREE), "--epochs", "5")
SHORT_FLOOR = 10.0


def reproduce_quick(out, options):
    command = [sys.executable, "-m", "verydeep", "reproduce", "--quick", *options, "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)


def changes(folder):
    files = (*(folder / "runs").rglob("*"), *(folder / "evaluations").rglob("*"))
    return {path: path.stat().st_mtime_ns for path in files if path.is_file()}


def test_the_demo_reaches_its_floor_and_repeats_nothing(tmp_path, battery):
    out, names, options, floor = tmp_path / "demo", THREE, SHORT, SHORT_FLOOR
    if battery:
        names, options, floor = QUICK, (), FLOOR
    first = reproduce_quick(out, options)
    results = json.loads((out / "results.json").read_text())
    *answer, report, further = first.stdout.splitlines()
    assert answer == results["answer"]
    assert report == f"report: {out / 'report.html'}"
    assert further.startswith("next: python -m verydeep reproduce --quick")
    assert further.endswith(f"--out {out} --seeds 5")
    assert [[row["entry"] for row in results["tables"][table]] for table in "34"] == [
        [f"{name} dense {scales}" for name in names] for scales in ("single", "paper")
    ]
    assert [len(results["tables"][table][0]["test"]) for table in "34"] == [1, 3]
    assert len(results["tables"]["5"]) == 6
    assert [row["entry"].partition(" ")[0] for row in results["tables"]["6"]] == ["D-256+E-256"] * 3
    assert len(results["findings"]) == len(CLAIMS)
    assert results["best"]["top1_error"] <= floor
    assert all(row["top1_error"] < 20 for row in results["tables"]["3"]), "a network did not learn"

    (out / "report.md").unlink()
    (out / "evaluations" / "seed-0" / "D-256+E-256 dense paper.json").unlink()
    before = changes(out)
    second = reproduce_quick(out, options)
    after = changes(out)
    assert {path.name for path in after.keys() - before.keys()} == {"D-256+E-256 dense paper.json"}
    assert all(after[path] == time for path, time in before.items())
    assert second.stderr.count("already trained") == len(names)
    assert json.loads((out / "results.json").read_text())["best"] == results["best"]
    assert (out / "report.md").exists()
