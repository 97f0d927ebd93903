"""What is trained and tested, against lists typed by hand."""

import pytest

from verydeep.reproduction.grid import Grid
from verydeep.reproduction.paper import NETWORKS, TABLE_3, TABLE_4
from verydeep.reproduction.paper_tables import entry_named, several_scales
from verydeep.reproduction.studies import STUDIES
from verydeep.reproduction.trainings import QUICK, SEVEN, TRAININGS, last_stages

STARTS = {  # what each training starts from, in the order in which they are done
    "A-256": None,
    "A-LRN-256": None,
    "B-256": "A-256",
    "B-5x5-256": None,
    "C-256": "A-256",
    "D-256": "A-256",
    "E-256": "A-256",
    "B-256-glorot": None,
    "D-256-glorot": None,
    "C-384": "C-256",
    "D-384": "D-256",
    "E-384": "E-256",
    "C-256-512": "C-384",
    "D-256-512": "D-384",
    "E-256-512": "E-384",
}


def names(grid):
    return [training.name for training in grid.trainings]


def entry_names(grid):
    return {entry.name for entry in grid.entries}


def test_all_of_the_papers_trainings_come_after_what_they_start_from():
    assert {training.name: training.start for training in TRAININGS} == STARTS
    order = list(STARTS)
    assert all(order.index(start) < order.index(name) for name, start in STARTS.items() if start)
    assert names(Grid()) == order
    assert tuple(training.network for training in TRAININGS[:7]) == NETWORKS
    assert {training.network for training in TRAININGS if training.init} == set("BCDE")


def test_every_line_of_tables_3_and_4_has_its_training():
    trained = {(training.network, training.scale) for training in TRAININGS if not training.unseeded}
    assert trained == {(row.network, row.train) for row in TABLE_3} | {("B-5x5", "256")}
    assert {(row.network, row.train) for row in TABLE_4} <= trained


def test_the_tests_of_all_tables():
    found = entry_names(Grid())
    dense = {f"{name} dense {scales}" for name in STARTS for scales in ("single", "paper")}
    fifth = {f"{network}-256-512 {method} paper" for network in "DE" for method in ("dense", "crops", "both")}
    fused = {f"D-256-512+E-256-512 {method} paper" for method in ("dense", "crops", "both")}
    centre = {f"{name} centre single" for name in list(STARTS)[:9]}
    seven = {"D-256+D-384+D-256-512+C-256+C-384+E-256+E-384 dense paper"}
    assert found == dense | fifth | fused | seven | centre
    assert len(Grid().entries) == len(found)


def test_centre_crops_are_there_to_compare_small_filters_with_large_ones():
    assert not any("centre" in name for name in entry_names(Grid(only=("A", "B", "D"))))
    tested = {name for name in entry_names(Grid(only=("A", "B-5x5", "D"), tables=(3,))) if "centre" in name}
    assert tested == {f"{name}-256 centre single" for name in ("A", "B-5x5", "D")} | {"D-256-glorot centre single"}


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (("A",), ["A-256"]),
        (("D-384",), ["A-256", "D-256", "D-384"]),
        (("D-256-glorot", "A-LRN"), ["A-LRN-256", "D-256-glorot"]),
        (("C",), ["A-256", "C-256", "C-384", "C-256-512"]),
        (QUICK, ["A-256", "A-LRN-256", "B-256", "B-5x5-256", "C-256", "D-256", "E-256"]),
    ],
)
def test_some_of_it_with_what_they_start_from(only, expected):
    assert names(Grid(only=only)) == expected


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ((3,), list(STARTS)),
        ((5,), ["A-256", "D-256", "E-256", "D-384", "E-384", "D-256-512", "E-256-512"]),
        ((6,), ["A-256", "C-256", "D-256", "E-256", "C-384", "D-384", "E-384", "D-256-512", "E-256-512"]),
    ],
)
def test_what_some_tables_need(tables, expected):
    assert names(Grid(tables=tables)) == expected


def test_tables_five_and_six_take_the_last_stage_that_is_there():
    assert last_stages(list(STARTS)) == ("D-256-512", "E-256-512")
    assert last_stages(QUICK) == ("D-256", "E-256")
    assert last_stages(["A-256", "D-384", "D-256"]) == ("D-384",)
    assert "D-256+E-256 both paper" in entry_names(Grid(only=QUICK))
    assert not any("+" in name for name in entry_names(Grid(only=("D",))))
    assert not any(set(SEVEN) <= set(entry.trainings) for entry in Grid(only=QUICK).entries)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"only": ("F",)}, "unknown F: name networks"),
        ({"only": ("D-512",)}, "unknown D-512"),
        ({"tables": (7,)}, r"tables are some of 3, 4, 5, 6, not \[7\]"),
        ({"tables": ()}, "tables are some of"),
        (
            {"tables": (5, 6), "only": ("A", "B-256")},
            "Tables 5, 6 of the paper cannot be made from A, B-256 alone: add",
        ),
        ({"tables": (6,), "only": ("D",)}, "Table 6 of the paper cannot be made from D alone"),
        ({"margin": float("inf")}, "the margin must be above 0 percentage points, not inf"),
        ({"seeds": 0}, "seeds must be 1 or more"),
        ({"pooling_grid": "round"}, "grid is one of centred, floor, ceil, not round"),
    ],
)
def test_what_is_not_there_is_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        Grid(**changes)


def test_the_name_of_a_test_says_which_it_is():
    """Names are keys of results and names of files."""
    everything = Grid(studies=tuple(one.name for one in STUDIES))
    entries = (*everything.entries, *everything.study_entries)
    assert any(entry.training_images for entry in entries)
    assert any(len(entry.trainings) == 7 for entry in entries)
    assert [entry_named(entry.name) for entry in entries] == [*entries]
    assert entry_named("D-256+E-256 dense paper") == several_scales("D-256", "E-256")
    for name in ("D-256", "D-256 dense", "D-256 densely paper", "D-256 dense paper on other images", ""):
        with pytest.raises(ValueError, match="is not a training, a protocol and its scales"):
            entry_named(name)
