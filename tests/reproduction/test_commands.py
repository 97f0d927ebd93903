"""The recorded command is the one that was run: read again by the command line's own parser, it asks for the same."""

import dataclasses
import json
import re
import shlex
import sys
from types import SimpleNamespace
from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_grids import noise

from verydeep import Execution, Grid, Recipe, Runtime, Tolerance, reproduce
from verydeep.cli import app, main
from verydeep.commands.options import RecipeChanges, refuse_fractions, split_lists
from verydeep.networks.architecture import InitialisationScheme
from verydeep.reproduction.equivalent_command import _NO_OPTIONS, equivalent_command
from verydeep.reproduction.plan_file import commands_of, read_plan

TINY = Recipe(crop=32, width=0.05, batch=8, epochs=1, learning_rate=1e-3, schedule="cosine")


def asked_for(command):
    """Return what the command line's parser makes of a command, without what is not the experiment."""
    program, *words = shlex.split(command)
    assert program == "verydeep"
    app.config = (split_lists, refuse_fractions)
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    values = {"source": "digits", "changes": RecipeChanges(), **bound.arguments}
    values |= vars(values.pop("experiment"))
    recipe = values.pop("changes").applied(Recipe())
    defaults = {"grid": Grid(), "images": Tolerance(), "runtime": Runtime(), "execution": Execution()}
    return {**defaults, **values, "recipe": recipe}


GRIDS = st.builds(
    Grid,
    only=st.sampled_from([(), ("D",), ("A-256", "E-384")]),
    tables=st.sampled_from([(3,), (3, 4), (3, 4, 5, 6)]),
    seeds=st.integers(1, 20),
    studies=st.sampled_from([(), ("gradients",), ("regularisation", "images")]),
    margin=st.floats(0.1, 9),
    steer=st.sampled_from([None, "held-out"]),
    held_out=st.sampled_from([None, 0.1, 0.25]),
)
RECIPES = st.builds(
    Recipe,
    crop=st.sampled_from([32, 64, 224]),
    width=st.floats(0.01, 4),
    batch=st.integers(1, 512),
    learning_rate=st.none() | st.floats(1e-6, 1),
    flip=st.booleans(),
    batch_norm=st.booleans(),
    weight_decay=st.floats(0, 1),
    init=st.sampled_from(["glorot", "paper", "paper-variance"]),
    schedule=st.sampled_from(["plateau", "step"]),
    seed=st.integers(0, 1000),
)


@settings(max_examples=40)
@given(
    source=st.sampled_from(["digits", "my photos", "it's {000..009}.tar", "hub:a/b?image=x&label=y", "-odd"]),
    grid=GRIDS,
    recipe=RECIPES,
    workers=st.integers(0, 8),
    compiled=st.booleans(),
    language=st.sampled_from(["en", "ja"]),
)
def test_the_equivalent_command_asks_for_the_same(tmp_path_factory, source, grid, recipe, workers, compiled, language):
    if source.startswith("-"):
        source = f"./{source}"
    out = tmp_path_factory.getbasetemp() / "an experiment"
    how = (grid, recipe, Runtime(workers=workers), Execution(compile=compiled), Tolerance(max_bad=2.5))
    found = asked_for(equivalent_command(source, out, *how, jobs=3, language=language))
    assert (found["source"], found["out"]) == (source, out)
    assert (found["grid"], found["recipe"]) == (grid, recipe)
    assert (found["runtime"], found["execution"], found["images"]) == how[2:]
    assert (found["extent"].jobs, found["language"]) == (3, language)


def test_lists_are_written_as_tuples_are(tmp_path):
    lists, tuples = (
        Grid(only=kind(["A", "D"]), tables=kind([3, 4]), studies=kind(["images"])) for kind in (list, tuple)
    )
    assert asked_for(equivalent_command("digits", tmp_path, lists))["grid"] == tuples


def test_a_recipe_without_options_is_kept_as_the_call_in_python(tmp_path):
    names = {one.name for one in dataclasses.fields(Recipe)} - {one.name for one in dataclasses.fields(RecipeChanges)}
    assert set(_NO_OPTIONS) == names
    changes = get_type_hints(RecipeChanges)
    ours = {name: hint | None for name, hint in get_type_hints(Recipe).items() if name in changes}
    assert changes == {**ours, "init": InitialisationScheme | None}  # a RUN is the grid's to choose
    grid, recipe = Grid(seeds=2), Recipe(scale="384", crop=32)
    call = equivalent_command("photos", tmp_path, grid, recipe, Runtime(), jobs="ray", language="ja")
    asked = SimpleNamespace(Grid=Grid, Recipe=Recipe, reproduce=lambda *images, **settings: (images, settings))
    found = eval(call, {"verydeep": asked})
    settings = {"grid": grid, "recipe": recipe, "jobs": "ray", "language": "ja"}
    assert found == (("photos",), {"out": str(tmp_path), **settings})


def test_the_commands_of_a_folder_are_kept_and_ask_for_the_same_again(tmp_path, monkeypatch, capsys):
    """From the command line, with more seeds, and from Python; what is repeated is noted once."""
    out = tmp_path / "it's out"
    small = ["--crop", "32", "--width", "0.05", "--epochs", "1", "--schedule", "cosine", "--only", "A", "--tables", "3"]
    monkeypatch.setattr("verydeep.reproduction.reproduce._do", lambda _: (out / "results.json").write_text("{}"))
    commands = []
    for more in ([], [], ["--seeds", "2"]):
        words = ["reproduce", "digits", "--out", str(out), *small, *more]
        monkeypatch.setattr(sys, "argv", ["/some/where/verydeep", *words])
        with pytest.raises(ValueError, match="it has no seeds"):
            main(["--debug", *words])  # nothing was done, so there are no results to show
        commands.append(shlex.join(["verydeep", *words]))
    reproduce(
        "digits",
        out=out,
        recipe=dataclasses.replace(Recipe(), **parsed(small)),
        grid=Grid(only=("A",), tables=(3,), seeds=3),
    )
    kept = commands_of(out)
    assert [one.command for one in kept[:2]] == [commands[0], commands[2]]
    assert [asked_for(one.command)["grid"].seeds for one in kept] == [1, 2, 3]
    assert len({repr(asked_for(one.command)["recipe"]) for one in kept}) == 1
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", one.began) for one in kept)

    plans = [plan(capsys, shlex.split(command)[1:]) for command in (commands[2], kept[1].command)]
    assert plans[0] == plans[1]


def test_a_file_of_options_is_recorded_as_its_options(tmp_path, monkeypatch, capsys):
    """The command asks for the same on a new folder, without the file; the command line overrides the file."""
    out, other, file = (tmp_path / name for name in ("out", "other", "grid.toml"))
    options = 'crop = 32\nwidth = 0.05\nepochs = 1\nflip = false\nonly = ["A", "B"]\ntables = [3]\nstudy = "gradients"'
    file.write_text(f"{options}\nseeds = 3\nworkers = 1\njobs = 2\nmax_bad = 5\nlanguage = 'ja'\n")
    monkeypatch.setattr("verydeep.reproduction.reproduce._do", lambda _: (out / "results.json").write_text("{}"))
    words = ["reproduce", "digits", "--config", str(file), "--seeds", "2", "--out"]
    monkeypatch.setattr(sys, "argv", ["/some/where/verydeep", *words, str(out)])
    with pytest.raises(ValueError, match="it has no seeds"):
        main(["--debug", *words, str(out)])
    (kept,) = (one.command for one in commands_of(out))
    asked = plan(capsys, [*words, str(other)])
    file.unlink()
    assert plan(capsys, shlex.split(kept.replace(str(out), str(other)))[1:]) == asked
    found, recipe = asked_for(kept), Recipe(crop=32, width=0.05, epochs=1, flip=False)
    assert found["recipe"] == read_plan(out).recipe == recipe
    grid = Grid(only=("A", "B"), tables=(3,), studies=("gradients",), seeds=2)
    assert dataclasses.replace(found["grid"], steer=None, held_out=None) == grid
    assert (found["runtime"], found["images"]) == (Runtime(workers=1), Tolerance(max_bad=5))
    assert (found["extent"].jobs, found["language"], found["config"]) == (2, "ja", None)


def parsed(words):
    values = dict(zip(words[::2], words[1::2], strict=True))
    return {
        "crop": int(values["--crop"]),
        "width": float(values["--width"]),
        "epochs": int(values["--epochs"]),
        "schedule": values["--schedule"],
    }


def plan(capsys, words):
    """Return what a dry run says, but for times."""
    main([*words, "--dry-run", "--json", "-"])
    figures = json.loads(capsys.readouterr().out)
    trainings = [(one["training"], one["start"], one["epochs"]) for one in figures["trainings"]]
    return trainings, figures["seeds"], figures["tests"], figures["steer"], figures["held_out"]


def test_the_report_lists_all_commands(tmp_path):
    out, options = tmp_path / "out", {"recipe": TINY, "grid": Grid(only=("A",), tables=(3,))}
    reproduce(noise(), out=out, **options)
    reproduce(noise(), out=out, **{**options, "grid": dataclasses.replace(options["grid"], seeds=2)})
    results, page, text = (out / "results.json", out / "report.html", out / "report.md")
    results = json.loads(results.read_text())
    assert [one["command"] for one in results["commands"]] == [
        f"verydeep.reproduce(<splits of 'noise'>, out={str(out)!r}, "
        f"grid=verydeep.Grid(only=('A',), tables=(3,){more}), recipe=verydeep.{recipe})"
        for recipe in ["Recipe(crop=32, width=0.05, batch=8, learning_rate=0.001, epochs=1, schedule='cosine')"]
        for more in ("", ", seeds=2")
    ]
    assert results["command"] == results["commands"][-1]["command"]
    for shown in (page.read_text(), text.read_text()):
        assert "It was the last of 2 commands that worked on this folder" in shown
        assert results["commands"][0]["began"] in shown
