"""Folders and files that an earlier version wrote (make.py) are read, tested and resumed, with the same figures.

Only public names and the command line are used here, so that nothing of this depends on where things are in the code.
"""

import io
import json
import runpy
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from several_commands import status_of

import verydeep

HERE = Path(__file__).parent
STORED = HERE / "written_at_0046bf4"
FIGURES = runpy.run_path(str(HERE / "figures.py"))
EXPECTED = json.loads((STORED / "expected.json").read_text())

SAME = 1e-4
"""Absolutely, and relatively to larger figures: float32 in another order, as on other processors, stays below 1e-5."""

CLOSE = 0.02
"""Of the way that weights go in a training: what rounding may make of it."""


@pytest.fixture(autouse=True)
def _copied(tmp_path, monkeypatch):
    """The stored folders, in the folder of work, because their names for each other are relative."""
    shutil.copytree(STORED, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")


def check(found, expected, where=""):
    """Compare nested figures; a newer version may add some."""
    if isinstance(expected, dict):
        assert set(found) >= set(expected), where
        for name, value in expected.items():
            check(found[name], value, f"{where} / {name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, value in enumerate(expected):
            check(found[place], value, f"{where} / {place}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=SAME, abs=SAME), where
    else:
        assert found == expected, where


def contents(folder):
    """Return the bytes of each file below it, by name."""
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def metrics(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def command(*arguments):
    """Return what a command writes with `--json -`."""
    with redirect_stdout(io.StringIO()) as written:
        assert status_of(*arguments, "--json", "-") == 0
    return json.loads(written.getvalue())


@pytest.mark.parametrize("run", FIGURES["CLASSIFIERS"])
def test_networks_predict_the_same(run):
    if run.endswith((".onnx", ".xml")):
        pytest.importorskip("onnxruntime" if run.endswith(".onnx") else "openvino")
    check(FIGURES["probabilities"](run), EXPECTED["probabilities"][run])


@pytest.mark.parametrize("file", FIGURES["EXPORTED"])
def test_exported_files_give_the_features_of_their_run(file):
    """Also layers that nobody thought of when they were written."""
    if file.endswith((".onnx", ".xml")):
        pytest.importorskip("onnxruntime" if file.endswith(".onnx") else "openvino")
    of_run, of_file = (
        {one.id: {name: values.tolist() for name, values in one.values.items()} for one in found}
        for found in (
            verydeep.features(run, FIGURES["IMAGES"], descriptor=FIGURES["DESCRIPTOR"], split="val")
            for run in ("finished_run", file)
        )
    )
    check(of_file, of_run)


@pytest.mark.parametrize(
    ("computed", "name"),
    [
        ("errors", "errors"),
        ("layer_outputs", "layer outputs"),
        ("boxes", "boxes"),
        ("scores", "scores"),
        ("difference", "difference"),
    ],
)
def test_figures_are_the_same(computed, name):
    if computed == "difference":
        pytest.importorskip("pyarrow")
    check(json.loads(json.dumps(FIGURES[computed]())), EXPECTED[name])


def test_the_commands_read_them_too():
    expected = EXPECTED["errors"]
    found = command("evaluate", "finished_run", "--data", FIGURES["IMAGES"], "--protocol", "both")["per_run"][0]
    check({name: found[name] for name in expected}, expected)


@pytest.mark.parametrize("run", ["finished_run", "boxes_run"])
def test_a_finished_training_is_left_alone(run):
    before = contents(run)
    if run == "boxes_run":
        options = FIGURES["BOX_OPTIONS"]
        splits, _ = verydeep.localisation_splits(FIGURES["IMAGES"], regression="per-class", options=options)
        verydeep.train(splits, out=run, recipe=FIGURES["BOX_RECIPE"], resume=True)
    else:
        verydeep.train(FIGURES["IMAGES"], network="A", out=run, recipe=FIGURES["RECIPE"], resume=True)
    assert contents(run) == before


def test_a_stopped_training_goes_on_to_the_weights_of_one_that_was_not_stopped():
    order = {"network": "A", "recipe": FIGURES["STOPPED_RECIPE"]}
    known, record = metrics("stopped_run"), Path("stopped_run/run.json").read_bytes()
    stood = weights(Path("stopped_run", "checkpoints", f"step-{FIGURES['STOPPED']:08}", "weights.safetensors"))
    verydeep.train(FIGURES["IMAGES"], out="stopped_run", resume=True, **order)
    verydeep.train(FIGURES["IMAGES"], out="whole_run", **order)
    assert metrics("stopped_run")[: len(known)] == known
    assert Path("stopped_run/run.json").read_bytes() == record
    names = ("epoch", "step", "learning_rate", "loss", "training_error", "validation_error", "images")
    check(*([{name: epoch[name] for name in names} for epoch in metrics(run)] for run in ("stopped_run", "whole_run")))
    resumed, whole = (weights(Path(run, "model", "model.safetensors")) for run in ("stopped_run", "whole_run"))
    assert np.linalg.norm(resumed - whole) < CLOSE * np.linalg.norm(whole - stood)


def weights(file):
    """All in one vector."""
    from safetensors.numpy import load_file

    return np.concatenate([value.ravel() for _, value in sorted(load_file(file).items())])


def test_a_training_starts_from_them():
    width = json.loads(Path("imported_without_fc/model/config.json").read_text())["width"]
    recipe = verydeep.Recipe(crop=32, width=width, batch=12, epochs=1, finetune="imported_without_fc")
    folder = verydeep.train(FIGURES["IMAGES"], out="finetuned", recipe=recipe)
    assert verydeep.load_model(folder).random_layers == ()


def test_an_experiment_is_neither_trained_nor_tested_again():
    before, results = contents("experiment"), experiment_results()
    reproduce(FIGURES["GRID"])
    after = contents("experiment")
    kept = [name for name in before if Path(name).parent != Path("experiment")]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert {name for name in after if Path(name).parent != Path("experiment")} == set(kept)
    check(experiment_results(), results)


def test_an_experiment_is_added_to():
    before = contents("experiment/runs")
    reproduce(verydeep.Grid(only=("A", "B-256", "C-256"), tables=(3,)))
    after = contents("experiment/runs")
    assert {name: after[name] for name in before} == before
    assert {Path(name).parts[3] for name in set(after) - set(before)} == {"C-256"}


def experiment_results():
    """But for what says who wrote them, and for verdicts and what tells of them: their rules are others now."""
    found = json.loads(Path("experiment/results.json").read_text())
    other = (
        "command",
        "versions",
        "state_of_the_art",
        "findings",
        "verdicts",
        "verdicts_of_trained",
        "gains",
        "limits",
    )
    return {name: value for name, value in found.items() if name not in (*other, "unfinished", "guessing", "margin")}


def reproduce(grid):
    verydeep.reproduce(FIGURES["IMAGES"], out="experiment", recipe=FIGURES["GRID_RECIPE"], grid=grid)


@pytest.mark.parametrize("file", FIGURES["FEATURES"])
def test_features_are_written_the_same(file):
    read = {".safetensors": safetensors, ".parquet": parquet}[Path(file).suffix]
    described, values = read(file)
    Path(file).unlink()
    verydeep.write_features("finished_run", FIGURES["IMAGES"], file, descriptor=FIGURES["DESCRIPTOR"], split="val")
    now_described, now_values = read(file)
    check(now_values, values)
    assert now_described == described


def safetensors(file):
    """Metadata, and values."""
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        return opened.metadata(), {name: opened.get_tensor(name).tolist() for name in opened.keys()}  # noqa: SIM118


def parquet(file):
    """Metadata, and values."""
    read = pytest.importorskip("pyarrow.parquet").read_table(file)
    return read.schema.metadata, read.to_pydict()
