"""A training goes on wherever its first weights lie now, if they are the same ones."""

import hashlib
import json
import shutil
import signal

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from several_commands import status_of

from verydeep import Recipe, train, vgg, write_weights
from verydeep.runs.model import save
from verydeep.runs.record import read_record
from verydeep.training import learner, start

OPTIONS = {"crop": 32, "width": 0.05, "batch": 4, "epochs": 1, "learning_rate": 1e-3}

FIELDS = {"--init": "init", "--finetune": "finetune", "--from": "weights"}

WORDS = {
    "--init": "weights to start from",
    "--finetune": "run to go on from",
    "--from": "weights to go on from",
}


def model(folder, seed):
    torch.manual_seed(seed)
    save(vgg("A", classes=2, crop=32, width=0.05), folder, scale="256", flip=True, classes=tiny.CLASSES)
    return folder


@pytest.fixture(params=FIELDS)
def option(request):
    return request.param


@pytest.fixture
def begun(option, tmp_path):
    """A run that began with the weights of `first`."""
    return trained(option, model(tmp_path / "first", 0), tmp_path / "run")


def trained(option, start, out, *, resume=False):
    recipe = Recipe(**OPTIONS, **{FIELDS[option]: str(start)})
    return train(tiny.splits(), network="A", out=out, recipe=recipe, resume=resume)


def test_the_same_weights_elsewhere_go_on(option, begun, tmp_path):
    (tmp_path / "first").rename(tmp_path / "moved")
    assert trained(option, tmp_path / "moved", begun, resume=True) == begun


@pytest.mark.parametrize("name", ["first", "second"])
def test_other_weights_are_refused_in_a_line(option, begun, tmp_path, name):
    """Under another name, and under the one that the run began with."""
    shutil.rmtree(tmp_path / "first")
    other = model(tmp_path / name, 1)
    with pytest.raises(ValueError, match=rf"made with other settings \({WORDS[option]}\): resume it") as refused:
        trained(option, other, begun, resume=True)
    assert "\n" not in str(refused.value)


def test_weights_that_are_gone_go_on_under_their_own_name_alone(option, begun, tmp_path):
    """Of another name nobody knows what it was; a typing error would go on without a word."""
    shutil.rmtree(tmp_path / "first")
    assert trained(option, tmp_path / "first", begun, resume=True) == begun
    with pytest.raises((ValueError, OSError), match="typo"):
        trained(option, tmp_path / "typo", begun, resume=True)


def test_the_option_that_names_them_stays(option, begun, tmp_path):
    for other in FIELDS.keys() - {option}:
        with pytest.raises(ValueError, match=f"made with other settings .*{WORDS[option]}"):
            trained(other, tmp_path / "first", begun, resume=True)


def shards(folder, seed):
    """Return the index of a model's weights in two files."""
    write_weights(model(folder / "model", seed), folder / "whole.safetensors", layout="torchvision")
    weights = load_file(folder / "whole.safetensors")
    places = {name: f"{name.partition('.')[0]}.safetensors" for name in weights}
    for file in {*places.values()}:
        save_file({name: value for name, value in weights.items() if places[name] == file}, folder / file)
    index = folder / "net.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return index


def with_other_convolutions(index):
    file = index.with_name("features.safetensors")
    save_file({name: value + 1 for name, value in load_file(file).items()}, file)


def test_other_shards_of_the_same_index_are_refused(tmp_path):
    index = shards(tmp_path / "first", 0)
    run = trained("--from", index, tmp_path / "run")
    index.parent.rename(tmp_path / "moved")
    index = tmp_path / "moved" / index.name
    assert trained("--from", index, run, resume=True) == run
    with_other_convolutions(index)
    with pytest.raises(ValueError, match=r"made with other settings \(weights to go on from\)"):
        trained("--from", index, run, resume=True)


def test_a_run_whose_version_knew_the_index_alone_goes_on(tmp_path):
    index = shards(tmp_path / "first", 0)
    run = trained("--from", index, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["fingerprints"]["from"] = hashlib.sha256(index.read_bytes()).hexdigest()
    (run / "run.json").write_text(json.dumps(record))
    assert trained("--from", index, run, resume=True) == run


def test_shards_that_change_are_read_again(tmp_path):
    index = shards(tmp_path / "first", 0)
    start.options_from_start(Recipe(weights=str(index)))
    with_other_convolutions(index)
    bias = load_file(index.with_name("features.safetensors"))["features.0.bias"]
    assert not torch.allclose(bias, load_file(tmp_path / "first" / "whole.safetensors")["features.0.bias"])
    assert torch.allclose(start.starting_model(str(index)).net.conv1_1.bias, bias, atol=1e-5)


def test_the_command_goes_on_with_a_file_that_was_moved(tmp_path, monkeypatch, capsys):
    photos, run = str(tiny.folder(tmp_path / "photos")), str(tmp_path / "run")
    write_weights(model(tmp_path / "model", 0), tmp_path / "vgg.pth", layout="torchvision")
    command = ["train", photos, "--crop", "32", "--epochs", "2", "--batch", "4", "--out", run, "--from"]
    steps, cross_entropy = [], torch.nn.functional.cross_entropy

    def stopped_once(*arguments, **options):
        steps.append(1)
        if len(steps) == tiny.STEPS + 2:
            signal.raise_signal(signal.SIGTERM)
        return cross_entropy(*arguments, **options)

    monkeypatch.setattr(learner.F, "cross_entropy", stopped_once)
    assert status_of(*command, str(tmp_path / "vgg.pth")) == 128 + signal.SIGTERM
    (tmp_path / "vgg.pth").rename(tmp_path / "moved.pth")
    capsys.readouterr()
    assert status_of(*command, str(tmp_path / "moved.pth"), "--resume") == 0
    assert "resumed at step" in capsys.readouterr().err
    assert read_record(run).recipe["weights"] == str(tmp_path / "vgg.pth")  # as it began
