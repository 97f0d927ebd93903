"""Norms of layers: as they are by hand, and recorded without a trace in the weights."""

import copy
import json
import signal

import pytest
import torch
import torch.nn.functional as F
from ten_digits import ten_digits

from verydeep import Execution, Recipe, load, train
from verydeep.machine.processes import Processes
from verydeep.machine.runtime import Stopped
from verydeep.networks.initialisation import layers_with_weights, vgg
from verydeep.training import loop
from verydeep.training.norms import layer_norms, read_norms, watched

TINY = {"crop": 32, "width": 0.05, "batch": 4, "epochs": 2, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def images():
    return ten_digits()


@pytest.fixture(scope="module")
def recorded(images, tmp_path_factory):
    """Train A with everything recorded: three steps in each of two epochs."""
    out = tmp_path_factory.mktemp("recorded") / "run"
    return train(images, network="A", out=out, recipe=Recipe(**TINY), execution=Execution(norms_every=1))


def weights(run):
    return torch.cat([value.flatten() for value in load(run).state_dict().values()])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_they_are_those_of_autograd_by_hand(batch_norm):
    net = vgg("B", classes=3, crop=32, width=0.05, batch_norm=batch_norm, dropout=0).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 32, 32), generator=generator).float()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    names = layers_with_weights(net)
    outputs = net.activations(images, names)
    parameters = [net.get_parameter(f"{name}.weight") for name in names]
    gradients = torch.autograd.grad(F.cross_entropy(outputs["fc8"], labels), parameters)
    pieces = [slice(0, 6)] if batch_norm else [slice(0, 4), slice(4, 6)]  # its statistics are of a piece
    with watched(net) as sums:
        for piece in pieces:
            (F.cross_entropy(net(images[piece]), labels[piece], reduction="sum") / 6).backward()
    found = layer_norms(net, sums, Processes())
    assert list(found) == list(names)
    for name, weight, gradient in zip(names, parameters, gradients, strict=True):
        assert found[name].activation == pytest.approx(outputs[name].square().mean().sqrt().item(), rel=1e-4)
        assert found[name].gradient == pytest.approx(gradient.square().sum().sqrt().item(), rel=1e-3)
        assert found[name].weight == pytest.approx(weight.square().sum().sqrt().item(), rel=1e-4)
    assert not any(module._forward_hooks for module in net.modules())


def test_frozen_layers_have_no_gradient_and_unseen_ones_no_activation():
    net = vgg("A", classes=3, crop=32, width=0.05)
    net.conv1_1.requires_grad_(False)
    with watched(net) as sums:
        pass
    net(torch.zeros(1, 3, 32, 32)).sum().backward()
    found = layer_norms(net, sums, Processes())
    assert (found["conv1_1"].gradient, found["conv1_1"].activation) == (None, None)
    assert found["fc8"].gradient > 0


def test_recording_leaves_every_bit_of_the_weights(images, recorded, tmp_path):
    plain = train(images, network="A", out=tmp_path / "plain", recipe=Recipe(**TINY))
    assert torch.equal(weights(plain), weights(recorded))
    assert not (plain / "norms.jsonl").exists()
    assert [one.step for one in read_norms(recorded)] == list(range(6))


def test_a_recorded_step_is_that_of_the_training(images, tmp_path, monkeypatch):
    """The first step once more by hand, with its weights and images, and without dropout."""
    before, descend = [], loop.descend

    def noted(learner, batch, **options):
        before.append((copy.deepcopy(learner.net), batch, options["record"]))
        return descend(learner, batch, **options)

    monkeypatch.setattr(loop, "descend", noted)
    recipe = Recipe(**TINY, dropout=0.0)
    run = train(images, network="A", out=tmp_path / "run", recipe=recipe, execution=Execution(norms_every=2))
    first, *others = read_norms(run)
    assert [one.step for one in others] == [2, 4]
    assert [record for _, _, record in before] == [True, False] * 3
    net, batch, _ = before[0]
    loss = F.cross_entropy(net(batch.images), batch.labels)
    (gradient,) = torch.autograd.grad(loss, [net.conv1_1.weight])
    assert first.loss == pytest.approx(loss.item(), rel=1e-5)
    assert first.layers["conv1_1"].gradient == pytest.approx(gradient.norm().item(), rel=1e-3)


def test_a_training_that_was_stopped_has_every_step_once(images, recorded, tmp_path, monkeypatch):
    descend = loop.descend

    def stopping(*arguments, **options):
        if options["step"] == 4:
            signal.raise_signal(signal.SIGTERM)
        return descend(*arguments, **options)

    options = {"network": "A", "recipe": Recipe(**TINY), "execution": Execution(norms_every=1)}
    monkeypatch.setattr(loop, "descend", stopping)
    with pytest.raises(Stopped):
        train(images, out=tmp_path / "run", **options)
    monkeypatch.undo()
    with (tmp_path / "run" / "norms.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # torn
    train(images, out=tmp_path / "run", resume=True, **options)
    assert read_norms(tmp_path / "run") == read_norms(recorded)
    assert torch.equal(weights(tmp_path / "run"), weights(recorded))


def test_steps_of_a_training_that_ended_before_its_first_checkpoint_are_forgotten(images, recorded, tmp_path):
    last = (recorded / "norms.jsonl").read_text().splitlines()[-1]
    (tmp_path / "norms.jsonl").write_text(json.dumps({**json.loads(last), "step": 99}) + "\n")
    (tmp_path / "run.json").write_text((recorded / "run.json").read_text())
    train(images, network="A", out=tmp_path, recipe=Recipe(**{**TINY, "epochs": 1}))
    assert read_norms(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": -1}, "step -1"),
        ({"step": "0"}, "step: a whole number expected, not text"),
        ({"loss": None}, "loss: a number expected, not null"),
        ({"loss": float("nan")}, "nan is not a number"),
        ({"layers": {}}, "none of a convolution or a fully connected layer"),
        ({"layers": {"bn1_1": {"activation": 1, "gradient": 1, "weight": 1}}}, "none of a convolution or a"),
        ({"layers": {"conv1_1": {"weight": 1}}}, "has no activation"),
        ({"layers": {"conv1_1": {"activation": -1, "gradient": 1, "weight": 1}}}, "-1.0 is not a number"),
        ({"layers": [1]}, "layers: an object expected, not a list"),
    ],
)
def test_what_is_no_norm_is_refused(recorded, tmp_path, change, said):
    line = json.loads((recorded / "norms.jsonl").read_text().splitlines()[0])
    (tmp_path / "norms.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps({**line, **change})}\n")
    with pytest.raises(ValueError, match=rf"norms.jsonl, line 2, does not hold norms \(.*{said}"):
        read_norms(tmp_path)


def test_norms_of_two_networks_are_refused(recorded, tmp_path):
    line = json.loads((recorded / "norms.jsonl").read_text().splitlines()[0])
    other = {**line, "step": 7, "layers": {"conv1_2": line["layers"]["conv1_1"]}}
    (tmp_path / "norms.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(other)}\n")
    with pytest.raises(ValueError, match=r"norms.jsonl holds norms of several networks: remove the file to go on"):
        read_norms(tmp_path)


def test_there_are_none_where_none_were_recorded(tmp_path):
    assert read_norms(tmp_path) == []


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="norms_every must be 1 or more, not 0"):
        Execution(norms_every=0)
    with pytest.raises(ValueError, match="leave out norms_every, or fc_parallel"):
        Execution(norms_every=1, fc_parallel=True)


def test_of_a_compiled_network_there_are_gradients_alone(images, tmp_path, monkeypatch):
    """Hooks that are there while it is compiled would stay in it."""
    monkeypatch.setattr(torch, "compile", lambda module: module)
    options = {"network": "A", "recipe": Recipe(**{**TINY, "epochs": 1})}
    run = train(images, out=tmp_path / "run", execution=Execution(norms_every=1, compile=True), **options)
    layers = [layer for one in read_norms(run) for layer in one.layers.values()]
    assert {layer.activation for layer in layers} == {None}
    assert all(layer.gradient > 0 for layer in layers)
