"""The command line as people and machines use it."""

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import foreign_weights as foreign
import numpy as np
import pytest
import several_commands as commands
import torch
from PIL import Image

import verydeep
from verydeep.cli import app, main
from verydeep.commands.options import refuse_fractions, split_lists
from verydeep.commands.predictions import print_notes
from verydeep.machine.runtime import torch_device

BEFORE = Path(__file__).parent / "before" / "written_at_0046bf4"
QUICKEST = ["--crop", "32", "--width", "0.05", "--epochs", "1", "--batch", "64"]


run = commands.status_of


def refusal(capsys, *arguments):
    """Return the text of the single line that refuses wrong use."""
    return commands.refusal(capsys, *arguments).removeprefix("verydeep: ").strip()


def picture_folder(root, classes=("cat", "dog"), count=5):
    rng = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 100, (40, 50, 3)) + 150 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index}.png")
    return root


def test_wrong_use_is_answered_in_one_line(capsys, tmp_path):
    out = tmp_path / "run"
    empty = tmp_path / "empty"
    (empty / "cat").mkdir(parents=True)
    one = picture_folder(tmp_path / "one", classes=("cat",))
    taken = picture_folder(tmp_path / "taken")
    train = ("train", "digits", "--out", out, "--network")
    assert "unknown network 'F': choose one of A, A-LRN" in refusal(capsys, *train, "F")
    assert "crop 100 is not a multiple of 32 (five poolings halve it): try 96" in refusal(
        capsys, *train, "A", "--crop", 100
    )
    assert "no folder 'nowhere'" in refusal(capsys, "train", "nowhere", "--network", "A", "--out", out)
    assert "no images in" in refusal(capsys, "train", empty, "--network", "A", "--out", out)
    assert "has one class only (cat)" in refusal(capsys, "train", one, "--network", "A", "--out", out)
    assert "exists and is not a run" in refusal(capsys, "train", "digits", "--network", "A", "--out", taken, *QUICKEST)
    assert "wide" in refusal(capsys, *train, "A", "--crop", "wide")
    assert "name a file, or -" in refusal(capsys, "describe", "A", "--json", "--batch", "2")
    assert "--colour" in refusal(capsys, *train, "A", "--colour", "red")
    assert "--network" in refusal(capsys, "train", "digits", "--out", out)
    assert "unknown network" in refusal(capsys, "describe", "Z")
    assert "odd kernel sizes" in refusal(capsys, "describe", "--stack", "2,2")
    assert "whole numbers" in refusal(capsys, "describe", "--stack", "three")
    assert "is not a run" in refusal(capsys, "evaluate", taken, "--data", "digits")
    assert "name one or more run folders" in refusal(capsys, "evaluate", "--data", "digits")
    assert f"evaluate needs --data; did you mean --data {taken}? (see" in refusal(capsys, "evaluate", "run", taken)
    assert "write --device cuda (mps on a Mac), or auto" in refusal(
        capsys, "evaluate", taken, "--data", "digits", "--device", "gpu"
    )
    tested = ("evaluate", taken, "--data", "digits")
    assert "--protocol" in refusal(capsys, *tested, "--protocol", "cropped")
    assert "whole numbers" in refusal(capsys, *tested, "--scales", "all")
    assert "ends in .parquet or .csv, unlike" in refusal(capsys, *tested, "--predictions", tmp_path / "p.txt")
    assert "there is no folder" in refusal(capsys, *tested, "--predictions", tmp_path / "nowhere" / "p.csv")
    (tmp_path / "note").write_text("")
    for page in (tmp_path / "note", tmp_path / "note" / "page"):
        assert "is a file: name a folder" in refusal(capsys, *tested, "--report", page)
    both = ("--json", tmp_path / "p.csv", "--predictions", tmp_path / "p.csv")
    assert "cannot hold both" in refusal(capsys, *tested, *both)
    assert "there is no file" in refusal(capsys, "compare", tmp_path / "a.csv", tmp_path / "b.csv")
    assert "contains something other than an experiment" in refusal(capsys, "reproduce", "--quick", "--out", taken)
    assert "is not a run" in refusal(capsys, "predict", taken, taken)
    assert "without networks" in refusal(capsys, "describe", "D", "--stack", "3,3")
    assert "without networks" in refusal(capsys, "describe", "--stack", "3,3", "--width", "0.5")
    assert "goes with --stack" in refusal(capsys, "describe", "D", "--channels", "3")
    assert "is a folder" in refusal(capsys, "describe", "A", "--json", tmp_path)
    assert "is not a run that can be resumed" in refusal(
        capsys, *train[:-2], taken, "--network", "A", "--crop", 32, "--resume"
    )
    assert "width must be" in refusal(capsys, *train, "A", "--width", "inf")
    assert "is a file" in refusal(capsys, "train", "--network", "A", "--out", taken / "cat" / "0.png", "--crop", 32)
    assert "say which --network: A, A-LRN" in refusal(capsys, "train", "digits", "--out", out)
    assert "say which --network: A, A-LRN" in refusal(capsys, "train", "digits", "--out", out, "--quick=no")
    assert "start several with torchrun" in refusal(capsys, *train, "A", "--fc-parallel")
    assert "it needs finetune" in refusal(capsys, *train, "A", "--freeze", "conv1_1")
    assert "--batch is a whole number, not 2.5" in refusal(capsys, *train, "A", "--batch", 2.5)
    assert "--epochs is a whole number, not 1.5" in refusal(capsys, *train, "A", "--epochs=1.5")
    assert "--epochs is a whole number, not 1e3" in refusal(capsys, *train, "A", "--epochs=1e3")
    assert "--max-bad is a number, not 5% (see" in refusal(capsys, *train, "A", "--max-bad=5%")
    assert "there is no file" in refusal(capsys, *train, "A", "--config", tmp_path / "nowhere.toml")
    assert "there is no folder" in refusal(capsys, "describe", "A", "--json", tmp_path / "nowhere" / "d.json")
    assert not out.exists()


def test_describe_prints_for_people(capsys):
    assert run("describe", "D") == 0
    text = capsys.readouterr().out
    assert "138,357,544" in text
    assert "15,470.3 M" in text
    assert run("describe") == 0
    text = capsys.readouterr().out
    assert "A-LRN" in text
    both_ways = (
        "81% more weights than the stack, the stack 45% fewer than the one layer; texts that say '81% fewer' have "
        "it the wrong way round."
    )
    assert both_ways in " ".join(text.split())
    assert run("describe", "--stack", "3,3,3") == 0
    text = capsys.readouterr().out
    assert "27 C^2" in text
    assert "49 C^2" in text
    assert both_ways in " ".join(text.split())


def test_describe_writes_json(capsys, tmp_path):
    file = tmp_path / "d.json"
    assert run("describe", "D", "E", "--json", file) == 0
    assert [n["parameters"] for n in json.loads(file.read_text())["networks"]] == [138_357_544, 143_667_240]
    capsys.readouterr()
    assert run("describe", "A", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["networks"][0]["network"] == "A"


def test_help_describe_and_early_refusals_import_nothing_heavy():
    """PyTorch alone would take over a second."""
    code = """
import sys
from verydeep.cli import app, main
from verydeep.commands.options import refuse_fractions, split_lists
for arguments in (["--help"], ["train", "--help"], ["describe", "D"]):
    main(arguments)
heavy = {"torch", "numpy", "scipy", "sklearn", "matplotlib", "PIL", "jinja2"} & sys.modules.keys()
for arguments in (["train", "--network", "Z", "--out", "z"], ["findings", "nowhere"]):
    try:
        main(arguments)
    except SystemExit:
        heavy |= {"torch"} & sys.modules.keys()
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("unignored_signals")
@pytest.mark.parametrize("command", [("-m", "verydeep"), ("-c", "from verydeep.__main__ import main; main()")])
def test_ctrl_c_while_libraries_are_imported_is_one_line(tmp_path, command):
    (tmp_path / "cyclopts.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path[1:]])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "verydeep: stopped\n")


def test_the_installed_command_is_the_one_that_ctrl_c_stops_at_once():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"verydeep": "verydeep.__main__:main"}


def test_evaluate_tests_on_the_images_that_steered_when_told_the_share_held_out(capsys, tmp_path):
    for split, count in (("train", 8), ("val", 3)):
        images = picture_folder(tmp_path / "images" / split, count=count).parent
    out, held_out = tmp_path / "run", ("--held-out", "0.25")
    assert run("train", images, "--network", "A", "--out", out, *QUICKEST, *held_out) == 0
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    found = {}
    for split in ("val", "test"):
        chosen = ["--split", split] if split == "val" else []
        how = ["--protocol", "centre", "--scales", "single", "--json", tmp_path / "e.json"]
        assert run("evaluate", out, "--data", images, *held_out, *chosen, *how, "--report", tmp_path / split) == 0
        found[split] = json.loads((tmp_path / "e.json").read_text())
        assert found[split]["source"] == f"{images}, 25% held out"
    assert [(one["split"], one["n"]) for one in found.values()] == [("val", 4), ("test", 6)]
    assert found["val"]["top1_error"] == last["validation_error"]
    capsys.readouterr()
    assert "held_out is a share" in refusal(capsys, "evaluate", out, "--data", images, "--held-out", 2)
    assert f"{out} was not trained on the images of {images} that remain when 50% are held out" in refusal(
        capsys, "evaluate", out, "--data", images, "--held-out", 0.5
    )


def test_train_evaluate_predict_on_a_folder(capsys, tmp_path):
    images, out = picture_folder(tmp_path / "images"), tmp_path / "run"
    recipe = ["--crop", "32", "--width", "0.1", "--epochs", "12", "--patience", "12", "--batch", "4"]
    assert run("train", images, "--network", "A", "--out", out, *recipe, "--learning-rate", "2e-3") == 0
    assert run("evaluate", out, "--data", images, "--json", tmp_path / "e.json") == 0
    found = json.loads((tmp_path / "e.json").read_text())
    assert (found["n"], found["split"], found["top1_error"], found["top5_error"]) == (2, "val", 0, None)
    files = [tmp_path / f"{protocol}.csv" for protocol in ("dense", "both")]
    for file in files:
        options = ["--protocol", file.stem, "--scales", "256,300", "--predictions", file, "--report", tmp_path / "page"]
        assert run("evaluate", out, "--data", images, *options) == 0
    text, notes = capsys.readouterr()
    assert f"wrote {out}; next: verydeep evaluate {out} --data {images}" in notes
    assert f"next: verydeep predict {out} picture.jpg" in notes
    assert f"wrote {files[0]}; next: verydeep compare {files[0]} other.csv" in notes
    assert f"report: {tmp_path / 'page' / 'evaluation.html'}" in text
    text = " ".join(text.split())  # however the table breaks its lines
    assert "multi-crop & dense evaluation" in text
    assert "with 5 classes or fewer" in text
    assert "".join(file.read_text().splitlines()[0] for file in files) == 2 * (
        "id,true_class,class_1,probability_1,class_2,probability_2"
    )
    photo, predictions, maps = images / "cat" / "0.png", tmp_path / "p.jsonl", tmp_path / "maps"
    assert run("predict", out, photo, "--out", predictions, "--map", maps) == 0
    notes = capsys.readouterr().err
    assert f"wrote {predictions}, {maps}" in notes
    assert "has 1 position at Q = 256: --scales 672, or --method grad-cam, shows more" in notes
    assert "is a folder: compare takes files of verydeep evaluate" in refusal(capsys, "compare", out, files[0])
    assert run("compare", *files, "--json", tmp_path / "c.json") == 0
    compared = json.loads((tmp_path / "c.json").read_text())
    assert (compared["n"], compared["difference"], compared["p_value"]) == (2, 0, 1)
    assert "Exact McNemar test" in capsys.readouterr().out
    (images / "dog" / "broken.png").write_bytes(b"not a picture")
    assert run("predict", out, images / "dog", "--json", "-") == 1
    captured = capsys.readouterr()
    predictions = json.loads(captured.out)["predictions"]
    assert [p["classes"][:1] for p in predictions] == [["dog"]] * 5 + [[]]
    assert all(sum(p["probabilities"]) == pytest.approx(1) for p in predictions[:5])
    assert "not an image" in predictions[5]["error"]
    *progress, last = captured.err.splitlines()  # where the machine is busy, lines of progress come before it
    assert last == "verydeep: 1 of 6 images could not be used"
    assert not any(line.startswith("verydeep: ") for line in progress)


def test_verbs_that_write_say_what_and_which_command_follows(capsys, tmp_path, monkeypatch):
    """`train` and `evaluate` do above; each command here but the one for Python ends with a picture of the user's."""
    images = shutil.copytree(BEFORE / "images", tmp_path / "images")
    finished, net, vectors = BEFORE / "finished_run", tmp_path / "net.onnx", tmp_path / "vectors.safetensors"
    weights, imported, svms = tmp_path / "net.pth", tmp_path / "imported", tmp_path / "classifier"
    table = tmp_path / "the vectors.parquet"
    torch.save(foreign.state_dict(foreign.plain("A", window=1, classes=3), "torchvision"), weights)
    lines = {
        ("export", finished, "--to", "onnx", "--data", images, "--out", net): (net, f"verydeep predict {net}"),
        ("features", finished, images, "--split", "all", "--out", vectors): (vectors, "python -c"),
        ("features", finished, images, "--split", "all", "--out", table): (table, "python -c"),
        ("import", weights, "--out", imported): (imported, f"verydeep predict {imported}"),
        ("transfer", finished, "--data", images, "--split", "all", "--train", "2", "--out", svms): (
            svms,
            f"verydeep predict {svms}",
        ),
    }
    for line, (written, follows) in lines.items():
        assert run(*line) == 0, capsys.readouterr().err
        told = capsys.readouterr().err
        assert f"wrote {shlex.quote(str(written))}; next: {follows}" in told
        assert written.exists()
        if follows == "python -c":
            with monkeypatch.context() as patch:
                patch.setitem(sys.modules, "pandas", None)  # which the extra for Parquet does not bring
                exec(shlex.split(told.rsplit("next: ", 1)[1])[2])
            assert "relu7" in capsys.readouterr().out


def test_a_toml_file_chooses_and_the_command_line_overrides(capsys, tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('network = "B"\ncrop = 32\nwidth = 0.05\nepochs = 1\nbatch = 64\nflip = false\nworkers = 1\n')
    images = picture_folder(tmp_path / "images")
    assert (
        run("train", images, "--config", file, "--out", tmp_path / "run", "--batch", 100, "--learning-rate", "0.02")
        == 0
    )
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["network"], record["runtime"]["workers"]) == ("B", 1)
    chosen = {"crop": 32, "width": 0.05, "epochs": 1, "batch": 100, "flip": False, "learning_rate": 0.02}
    assert {name: record["recipe"][name] for name in chosen} == chosen
    assert run("train", images, f"--config={file}", "--out", tmp_path / "other", "--flip", "--workers", 0) == 0
    assert json.loads((tmp_path / "other" / "run.json").read_text())["recipe"]["flip"] is True
    capsys.readouterr()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("laerning_rate = 0.1", "Did you mean --learning-rate?"),
        ("[recipe]\ncrop = 32", "has a table [recipe]: write options without one"),
        ("[train]\ncrop = 32", "has a table [train]"),  # as if the verb's options stood in it
        ("lr = 0.1", "recipe.toml: there is no --lr: it is called --learning-rate"),
        ("floppy_disk = 1", "recipe.toml: there is no option floppy-disk"),
        ("crop = ", "is not TOML"),
        ('crop = "wide"', "recipe.toml is a whole number, not wide"),
        ("crop = 100", "not a multiple of 32"),
        ('config = "other.toml"', "names another file of options"),
    ],
)
def test_a_toml_file_with_mistakes_is_refused(capsys, tmp_path, text, message):
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    assert message in refusal(capsys, "train", "--network", "A", "--out", tmp_path / "run", "--config", file)
    assert not (tmp_path / "run").exists()


def whole_number_options(verbs=app, words=()):
    """Yield every verb's options that take whole numbers: verb, option, refusal, whether it reads files of options."""
    if verbs.default_command is not None:
        arguments = verbs.assemble_argument_collection()
        reads_files = "--config" in {argument.name for argument in arguments}
        for argument in arguments:
            hint = str(argument.hint)
            if re.search(r"\bint\b", hint):
                refusal = (
                    "takes whole numbers separated by commas"
                    if re.search(r"(Sequence|tuple|list)\[int", hint)
                    else "is a whole number"
                )
                yield words, argument.name, f"{argument.name} {refusal}, not ", reads_files
    for word in verbs:
        if not word.startswith("-"):
            yield from whole_number_options(verbs[word], (*words, word))


def test_whole_numbers_are_never_fractions(capsys, tmp_path):
    found = list(whole_number_options())
    assert {("predict",), ("localise", "predict"), ("transfer",), ("describe",)} <= {words for words, *_ in found}
    assert len(found) > 50
    file = tmp_path / "options.toml"
    first_of_verb = {words: option for words, option, *_ in reversed(found)}
    for words, option, message, reads_files in found:
        assert message in refusal(capsys, *words, option, "2.5")
        if first_of_verb[words] == option:
            assert message in refusal(capsys, *words, f"{option}=2.0")
        if reads_files and first_of_verb[words] == option:
            file.write_text(f"{option[2:].replace('-', '_')} = 2.0")
            assert message in refusal(capsys, *words, "--config", file)


def parsed(*words, option):
    """Return the value of an option, `group.option`, that a verb's function is given."""
    app.config = (split_lists, refuse_fractions)
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    return attrgetter(option)(SimpleNamespace(**bound.arguments))


def test_lists_are_given_with_commas():
    features = ("features", "run", "digits", "--out", "f.parquet")
    assert list(parsed(*features, "--layers", "pool5,relu7", option="descriptor.layers")) == ["pool5", "relu7"]
    assert list(parsed(*features, "--scales", "256, 384", option="descriptor.scales")) == [256, 384]
    assert parsed(*features, "--scales=paper", option="descriptor.scales") == "paper"
    assert list(parsed("describe", "--stack", "3,5", option="stack")) == [3, 5]
    assert parsed("describe", "A,B", option="networks") == ("A,B",)
    studies = ("reproduce", "--out", "experiment", "--study", "images,gradients", "--study", "regularisation")
    assert parsed(*studies, option="grid.studies") == ("images", "gradients", "regularisation")
    weights = ("import", "net.pth", "--out", "run")
    assert parsed(*weights, "--std", "1/255, .5,2", option="trained.std") == (1 / 255, 0.5, 2.0)
    boxes = ("localise", "evaluate", "run", "--data", "images", "--boxes", "a,b.csv", "--boxes", "c.csv")
    assert parsed(*boxes, option="boxes.boxes") == (Path("a,b.csv"), Path("c.csv"))
    both = ("--classifier", "runs/d", "--classifier", "runs/e", "--scales", "352,384")
    full = parsed(*boxes, *both, option="full")
    assert (full.classifiers, list(full.scales)) == ((Path("runs/d"), Path("runs/e")), [352, 384])


def test_defaults_are_shown_as_they_are_given(capsys):
    for verb, default in (("features", "relu7"), ("reproduce", "3,4,5,6"), ("transfer", "30"), ("evaluate", "centred")):
        assert run(verb, "--help") == 0
        text = " ".join(re.sub("[│╭╮─╰╯]", "", capsys.readouterr().out).split())
        assert f"[default: {default}]" in text
        assert "None]" not in text


@pytest.mark.parametrize("arguments", [("describe", "D"), ("export", "run", "--to", "onnx", "--out", "net.onnx")])
def test_some_verbs_refuse_several_processes(capsys, monkeypatch, arguments):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith(
        "verydeep: process 1: only train, evaluate, reproduce, predict, features and localise train work on several "
    )


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "two"}, "the variable WORLD_SIZE is 'two', not a whole number from 1 up"),
        ({"WORLD_SIZE": "0"}, "the variable WORLD_SIZE is '0', not a whole number from 1 up"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "the variable RANK is '-1', not a whole number from 0 up"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "the variable RANK is 'x', not a whole number from 0 up"),
        ({"WORLD_SIZE": "2"}, "process 0: the variable WORLD_SIZE is 2, but RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "process 2: the variable WORLD_SIZE is 2, but RANK is 2"),
        (
            {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "x"},
            "process 1: the variable LOCAL_RANK is 'x', not a whole number from 0 up",
        ),
    ],
)
def test_a_variable_of_torchrun_that_is_no_number_is_named(capsys, monkeypatch, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert refusal(capsys, "evaluate", "nowhere", "--data", "digits").startswith(f"{said}: torchrun sets ")


@pytest.mark.parametrize(
    "variables", [{"WORLD_SIZE": "", "RANK": ""}, {"RANK": "1"}, {"RANK": "x"}, {"LOCAL_RANK": "x"}]
)
def test_one_process_alone_is_the_first_whatever_its_rank(capsys, monkeypatch, variables):
    """A variable that a job of several processes has left in a shell does not silence the command."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run("describe", "A") == 0
    assert torch_device("cpu") == torch.device("cpu")
    print_notes(["heard"])
    assert capsys.readouterr().err == "heard\n"


def test_names_with_brackets_are_printed_as_they_are(capsys, tmp_path):
    images, out = picture_folder(tmp_path / "w[/x]"), tmp_path / "a[b]"
    assert run("train", images, "--network", "A", "--out", out, *QUICKEST) == 0
    assert run("evaluate", out, "--data", images) == 0
    text = capsys.readouterr().out.replace("\n", "")
    assert str(out) in text
    assert str(images) in text


def test_progress_goes_to_standard_error_as_plain_lines(capfd, tmp_path):
    images = picture_folder(tmp_path / "images")
    assert run("train", images, "--network", "A", "--out", tmp_path / "run", *QUICKEST) == 0
    out, err = capfd.readouterr()
    assert "\x1b" not in err + out
    assert any("epoch 1/1" in line and "images/s" in line for line in err.splitlines())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "there is not enough memory: MemoryError"),
        (MemoryError("Unable to allocate 3 TiB"), "there is not enough memory: Unable to allocate 3 TiB"),
        (RuntimeError("could not create a primitive"), "there is not enough memory: could not create a primitive"),
        (RuntimeError("can't start new thread"), "the system gives no more threads: a larger ulimit -u (can't start"),
    ],
)
def test_what_the_system_has_no_more_of_is_said(capsys, monkeypatch, tmp_path, error, said):
    monkeypatch.setattr("verydeep.evaluation.evaluate.evaluate", Mock(side_effect=error))
    assert run("evaluate", tmp_path, "--data", "digits") == 1
    assert capsys.readouterr().err.startswith(f"verydeep: {said}")


@pytest.mark.parametrize(
    ("path", "status"), [("photos", 2), ("./photos/a.jpg", 2), ("photos2/a.jpg", 1), ("elsewhere", 1)]
)
def test_an_error_of_the_system_is_wrong_use_where_the_line_names_its_path(capsys, monkeypatch, tmp_path, path, status):
    error = PermissionError(errno.EACCES, "Permission denied", path)
    monkeypatch.setattr("verydeep.evaluation.evaluate.evaluate", Mock(side_effect=error))
    assert run("evaluate", tmp_path, "--data=photos") == status
    assert capsys.readouterr().err == f"verydeep: {path} cannot be used: Permission denied\n"


def test_an_unexpected_error_is_one_line_unless_debugging(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("verydeep.evaluation.evaluate.evaluate", lambda *_, **__: {}["gone"])
    assert run("evaluate", tmp_path, "--data", "digits") == 1
    assert capsys.readouterr().err == "verydeep: KeyError: 'gone' (--debug shows where)\n"
    with pytest.raises(KeyError):
        main(["evaluate", str(tmp_path), "--data", "digits", "--debug"])


def test_public_names_are_those_listed():
    assert all(hasattr(verydeep, name) for name in verydeep.__all__)
    with pytest.raises(AttributeError, match="No verydeep attribute nothing"):
        verydeep.nothing  # noqa: B018


def test_the_command_after_a_training_allows_as_many_bad_images(capsys, tmp_path):
    images, out = picture_folder(tmp_path / "images", count=20), tmp_path / "run"
    (images / "cat" / "0.png").write_bytes(b"no image")
    recipe = ["--crop", "32", "--width", "0.05", "--epochs", "1", "--batch", "4", "--max-bad", "50"]
    assert run("train", images, "--network", "A", "--out", out, *recipe) == 0
    *_, last = capsys.readouterr().err.splitlines()
    assert last.endswith(f"next: verydeep evaluate {out} --data {images} --max-bad 50.0")
