"""`verydeep findings FOLDER`: never more than the report itself could decide."""

import json
from dataclasses import replace

import pytest
from made_up_grids import ERRORS, made_up

import verydeep.reproduction.study_runs as studied
from verydeep.cli import main
from verydeep.reproduction.fair_tests import with_descendants
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.kept_findings import kept_findings
from verydeep.reproduction.studies import STUDIES_BY_NAME, with_its_starts
from verydeep.reproduction.study_runs import study_runs

DEPTH = Grid(only=("A-256", "B-256", "D-256"), tables=(3,), seeds=3)


def test_where_the_report_decided_nothing_findings_decide_nothing(tmp_path, capsys):
    """Five tests have other images than the sixth, and every seed of each the same, so all could be read."""
    _, _, results = made_up(tmp_path, unusable=dict.fromkeys(ERRORS, ("x.png",)) | {"D-256 dense paper": ("x", "y")})
    assert results["not_told"].startswith("Not every test could use the same images")
    main(["findings", str(tmp_path)])
    assert "Not every test could use the same images" in " ".join(capsys.readouterr().out.split())
    main(["findings", str(tmp_path), "--json", "-"])
    assert json.loads(capsys.readouterr().out) == {"findings": [], "not_told": results["not_told"]}


@pytest.mark.parametrize("of_before", [False, True])
def test_what_starts_from_an_unfinished_training_is_not_told(tmp_path, of_before):
    _, _, results = made_up(tmp_path, grid=DEPTH, errors=lambda name, _: ERRORS[name], cut_off=("A-256",))
    if of_before:  # a report that named only those cut off themselves
        results["unfinished"] = ["A-256"]
        del results["cut_off"]
        (tmp_path / "results.json").write_text(json.dumps(results))
    parts = {part.id: part for part in kept_findings(tmp_path).findings[1].parts}
    assert parts["d_against_b"].unfinished == ("B-256", "D-256")
    assert parts["d_against_b"].networks.verdict == "cannot_be_told"


@pytest.mark.parametrize(
    ("more", "digest"),
    [
        ({"seeds": 4}, False),
        ({"only": ("A-256", "B-256", "D-256", "E-256")}, False),
        ({"only": ("A-256", "B-256")}, True),
        ({}, True),
    ],
)
def test_files_of_two_reports_are_not_taken_for_one(tmp_path, more, digest):
    """As they are left where a process is killed between writing one and the other."""
    errors = {**ERRORS, "E-256 dense single": 10.0}
    made_up(tmp_path, grid=DEPTH, errors=lambda name, _: errors[name])
    kept_findings(tmp_path)
    before = json.loads((tmp_path / "results.json").read_text())
    errors["B-256 dense single"] += 1
    made_up(tmp_path, grid=replace(DEPTH, **more), errors=lambda name, _: errors[name], cut_off=("A-256",))
    if not digest:  # a report of before
        del before["outcomes_sha256"]
    (tmp_path / "results.json").write_text(json.dumps(before))
    with pytest.raises(ValueError, match=r"outcomes.npz and results.json are not of one report: repeat"):
        kept_findings(tmp_path)


def test_studies_count_it_as_unfinished_too(tmp_path, monkeypatch):
    grid = Grid(only=("A", "B"), tables=(3,))
    made_up(tmp_path, grid=grid, errors=lambda name, _: 20.0, cut_off=("A-256",))
    monkeypatch.setattr(studied, "read_test", lambda file: file)
    folders = {0: tmp_path / "runs" / "seed-0"}
    runs = study_runs(STUDIES_BY_NAME["regularisation"], grid=grid, folders=folders, out=tmp_path)
    ended = {run.training.name: run.schedule_ended for run in runs}
    assert ended == {"A-256": False, "B-256": False, "B-256-glorot": True}
    chain = with_its_starts(STUDIES_BY_NAME["images"].trainings[-3])
    assert [one.name for one in chain] == ["D-256-1-in-4", "A-256-1-in-4"]


def test_descendants_are_those_that_a_walk_to_the_first_weights_finds():
    starts = {"A": None, "B": "A", "C": None, "D": "B", "E": "C"}
    assert with_descendants({"A"}, starts) == ("A", "B", "D")
    assert with_descendants({"B", "E"}, starts) == ("B", "D", "E")
    assert with_descendants((), starts) == ()
