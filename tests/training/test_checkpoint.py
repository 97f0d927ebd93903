"""Checkpoints come back to the bit, and damage is noticed."""

import pytest
import torch

from verydeep import vgg
from verydeep.training import checkpoint
from verydeep.training.checkpoint import Position
from verydeep.training.schedule import Plateau


def stepped(seed):
    """A tiny network and its optimiser after one step, so that there is momentum."""
    torch.manual_seed(seed)
    net = vgg("A", classes=3, crop=32, width=0.05).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    optimiser.step()
    return net, optimiser


def momentum(net, optimiser):
    return {name: optimiser.state[p]["momentum_buffer"] for name, p in net.named_parameters()}


def position(step):
    return Position(step=step, loss_sum=0.1 + 0.2, wrong=3, plateau=Plateau(best=12.5, waited=1, drops=2))


def test_weights_momentum_and_position_come_back_to_the_bit(tmp_path):
    net, optimiser = stepped(1)
    checkpoint.save(tmp_path, net, optimiser, position(7))
    other, other_optimiser = stepped(2)
    found, notes = checkpoint.load_latest(tmp_path, other, other_optimiser)
    assert found == position(7)
    assert notes == []
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    for name, value in momentum(net, optimiser).items():
        assert torch.equal(value, momentum(other, other_optimiser)[name])


def test_without_checkpoints_a_training_is_at_its_beginning(tmp_path):
    assert checkpoint.load_latest(tmp_path / "none", *stepped(1)) == (Position(), [])


def test_the_last_two_are_kept(tmp_path):
    for step in (9, 10, 11, 100):
        checkpoint.save(tmp_path, *stepped(1), position(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000011", "step-00000100"]


@pytest.mark.parametrize("file", ["weights.safetensors", "momentum.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_passed_over_and_that_is_said(tmp_path, file, damage):
    net, optimiser = stepped(1)
    checkpoint.save(tmp_path, net, optimiser, position(1))
    target = checkpoint.save(tmp_path, net, optimiser, position(2)) / file
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        target.unlink()
    else:
        target.write_bytes(content if damage == "flip" else content[:-1])
    found, notes = checkpoint.load_latest(tmp_path, net, optimiser)
    assert found == position(1)
    assert len(notes) == 1
    assert notes[0].startswith(f"passed over {tmp_path / 'step-00000002'}: ")


def test_when_all_are_damaged_nothing_is_loaded(tmp_path):
    net, optimiser = stepped(1)
    saved = checkpoint.save(tmp_path, net, optimiser, position(1))
    (saved / "state.json").write_text("{}")
    with pytest.raises(ValueError, match="no usable checkpoint"):
        checkpoint.load_latest(tmp_path, net, optimiser)


def test_nothing_is_pickled(tmp_path):
    saved = checkpoint.save(tmp_path, *stepped(1), position(1))
    assert {path.suffix for path in saved.iterdir()} == {".safetensors", ".json"}
