"""`make demo`'s job: the accuracy floor, the report, and that nothing is done twice.

`make battery` trains all seven networks to the end and makes all tables; the suite trains A for a few epochs and makes
two tables.
"""

import json
import sys

import pytest
import several_commands as commands

from verydeep.reproduction.claims import CLAIMS
from verydeep.reproduction.trainings import QUICK

FLOOR = 3.0
"""Percent of the held-out digits that the best network may get wrong."""

SHORT = ("--only", "A-256", "--tables", "3,4", "--epochs", "4")
SHORT_FLOOR = 20.0


@pytest.fixture
def reproduce_quick(capsys, monkeypatch):
    """Return the command, in this process; runs note how they were started."""

    def command(out, options):
        words = ["reproduce", "--quick", *options, "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["verydeep/__main__.py", *words])
        assert commands.status_of(*words) == 0
        return capsys.readouterr()

    return command


def changes(folder):
    files = (*(folder / "runs").rglob("*"), *(folder / "evaluations").rglob("*"))
    return {path: path.stat().st_mtime_ns for path in files if path.is_file()}


def test_the_demo_reaches_its_floor_and_repeats_nothing(tmp_path, battery, reproduce_quick):
    out, names, options, floor, repeated = tmp_path / "demo", ("A-256",), SHORT, SHORT_FLOOR, "A-256 dense paper.json"
    if battery:
        names, options, floor, repeated = QUICK, (), FLOOR, "D-256+E-256 dense paper.json"
    first = reproduce_quick(out, options)
    results = json.loads((out / "results.json").read_text())
    *answer, report, further = first.out.splitlines()
    assert answer == results["answer"]
    assert report == f"report: {out / 'report.html'}"
    assert further.startswith("next: python -m verydeep reproduce --quick")
    assert further.endswith(f"--out {out} --seeds 5")
    assert [[row["entry"] for row in results["tables"][table]] for table in "34"] == [
        [f"{name} dense {scales}" for name in names] for scales in ("single", "paper")
    ]
    assert [len(results["tables"][table][0]["test"]) for table in "34"] == [1, 3]
    if battery:
        assert len(results["tables"]["5"]) == 6
        assert [row["entry"].partition(" ")[0] for row in results["tables"]["6"]] == ["D-256+E-256"] * 3
    assert len(results["findings"]) == len(CLAIMS)
    assert results["best"]["top1_error"] <= floor
    assert all(row["top1_error"] < 20 for row in results["tables"]["3"]), "a network did not learn"

    (out / "report.md").unlink()
    (out / "evaluations" / "seed-0" / repeated).unlink()
    before = changes(out)
    second = reproduce_quick(out, options)
    after = changes(out)
    assert {path.name for path in after.keys() - before.keys()} == {repeated}
    assert all(after[path] == time for path, time in before.items())
    assert second.err.count("already trained") == len(names)
    assert json.loads((out / "results.json").read_text())["best"] == results["best"]
    assert (out / "report.md").exists()
