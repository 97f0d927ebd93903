"""Checkpoints come back to the bit, and damage is noticed."""

import hashlib
import json
import shutil

import pytest
import tiny
import torch

from verydeep import Execution, train
from verydeep.training.checkpoint import Checkpoint, Progress, load_latest, load_step, newest, save
from verydeep.training.recipe import Plateau

FILES = ["weights.safetensors", "momentum.safetensors", "state.json", "manifest.json"]


def checkpoint(step, best=None):
    """Return some weights, one of them channels last, with momentum."""
    generator = torch.Generator().manual_seed(step)
    weights = {
        "conv1_1.weight": torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last),
        "fc8.bias": torch.randn(5, generator=generator),
    }
    momentum = {name: torch.randn(value.shape, generator=generator) for name, value in weights.items()}
    plateau = Plateau(best=12.5, waited=1, drops=2)
    progress = Progress(step=step, loss_sum=0.1 + 0.2, wrong=3, seen=9, waited=0.3, plateau=plateau, best_step=best)
    return Checkpoint(weights=weights, momentum=momentum, progress=progress)


def equal(one, other):
    pairs = [(one.weights, other.weights), (one.momentum, other.momentum)]
    return one.progress == other.progress and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs
    )


def kept(folder):
    return sorted(path.name for path in folder.iterdir())


def test_weights_momentum_and_position_come_back_to_the_bit(tmp_path):
    save(tmp_path, checkpoint(7))
    found, notes = load_latest(tmp_path)
    assert equal(found, checkpoint(7))
    assert not equal(found, checkpoint(8))
    assert notes == []


def test_without_checkpoints_there_is_none(tmp_path):
    assert load_latest(tmp_path / "none") == (None, [])
    assert newest(tmp_path / "none") is None
    assert load_step(tmp_path, 3) is None


def test_the_last_two_are_kept(tmp_path):
    for step in (9, 10, 11, 100):
        save(tmp_path, checkpoint(step))
    assert kept(tmp_path) == ["step-00000011", "step-00000100"]
    assert newest(tmp_path).name == "step-00000100"


def test_the_best_is_kept_as_long_as_it_is_the_best(tmp_path):
    for step, best in [(1, 1), (2, 2), (3, 2), (4, 2), (5, 2)]:
        save(tmp_path, checkpoint(step, best))
    assert kept(tmp_path) == ["step-00000002", "step-00000004", "step-00000005"]
    assert equal(load_step(tmp_path, 2), checkpoint(2, 2))
    for step in (6, 7):
        save(tmp_path, checkpoint(step, 6))
    assert kept(tmp_path) == ["step-00000006", "step-00000007"]


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    save(tmp_path, checkpoint(3))
    save(tmp_path, checkpoint(3, best=1))
    assert load_latest(tmp_path)[0].progress.best_step == 1
    assert kept(tmp_path) == ["step-00000003"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_passed_over_and_that_is_said(tmp_path, file, damage):
    save(tmp_path, checkpoint(1))
    target = save(tmp_path, checkpoint(2)) / file
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        target.unlink()
    else:
        target.write_bytes(content if damage == "flip" else content[:-1])
    found, notes = load_latest(tmp_path)
    assert equal(found, checkpoint(1))
    assert len(notes) == 1
    assert notes[0].startswith(f"passed over {tmp_path / 'step-00000002'}: ")
    assert load_step(tmp_path, 2) is None


def test_when_all_are_damaged_nothing_is_loaded(tmp_path):
    (save(tmp_path, checkpoint(1)) / "state.json").write_text("{}")
    with pytest.raises(ValueError, match="no usable checkpoint"):
        load_latest(tmp_path)


def test_what_a_newer_version_remembers_is_not_forgotten_silently(tmp_path):
    place = save(tmp_path, checkpoint(1))
    state = json.loads((place / "state.json").read_text())
    (place / "state.json").write_text(json.dumps({**state, "ema": 1}))
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["state.json"] = hashlib.sha256((place / "state.json").read_bytes()).hexdigest()
    (place / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="has ema, which this version"):
        load_latest(tmp_path)


def test_nothing_is_pickled(tmp_path):
    assert {path.suffix for path in save(tmp_path, checkpoint(1)).iterdir()} == {".safetensors", ".json"}


def test_one_of_another_network_is_told_as_that(tmp_path):
    """Somebody may have copied it there."""
    options = {"recipe": tiny.recipe(1), "execution": Execution(keep_checkpoints=True)}
    for network in ("A", "B"):
        train(tiny.splits(), network=network, out=tmp_path / network, **options)
    for gone in ("model", "checkpoints"):
        shutil.rmtree(tmp_path / "A" / gone)
    shutil.copytree(tmp_path / "B" / "checkpoints", tmp_path / "A" / "checkpoints")
    why = r"A/checkpoints is of another training: .*conv1_2\.\w+ is float32 \[3\] in it, and missing in this one"
    with pytest.raises(ValueError, match=why):
        train(tiny.splits(), network="A", out=tmp_path / "A", resume=True, **options)
