"""Steps that are not applied leave nothing behind; steps that run out of memory are divided."""

import pickle
import signal

import pytest
import torch
from ten_digits import ten_digits

from verydeep import Execution, Recipe, describe, load, train
from verydeep.machine.runtime import Stopped
from verydeep.training import learner, loop, step
from verydeep.training.step import DivergedError

TINY = {"crop": 32, "width": 0.05, "batch": 4, "epochs": 2, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def images():
    return ten_digits()


def same(one, other):
    a, b = load(one).state_dict(), load(other).state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_step_that_is_given_up_leaves_statistics_as_they_were(images, tmp_path, monkeypatch):
    """SIGTERM at the second of four pieces of the second step, with batch normalisation."""
    options = {"network": "A", "recipe": Recipe(**TINY, batch_norm=True), "execution": Execution(micro_batch=1)}
    train(images, out=tmp_path / "whole", **options)
    calls, cross_entropy = [], torch.nn.functional.cross_entropy

    def noted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGTERM)
        return cross_entropy(*arguments, **keywords)

    monkeypatch.setattr(step.F, "cross_entropy", noted)
    with pytest.raises(Stopped):
        train(images, out=tmp_path / "run", **options)
    monkeypatch.undo()
    train(images, out=tmp_path / "run", resume=True, **options)
    assert same(tmp_path / "run", tmp_path / "whole")


def test_a_step_that_diverges_leaves_statistics_as_they_were(images, monkeypatch, tmp_path):
    nets, descend = [], loop.descend

    def noted(learner, *arguments, **options):
        nets.append((learner.net, {name: value.clone() for name, value in learner.net.state_dict().items()}))
        return descend(learner, *arguments, **options)

    monkeypatch.setattr(loop, "descend", noted)
    with pytest.raises(DivergedError, match="that step was not applied"):
        train(images, network="A", out=tmp_path, recipe=Recipe(**{**TINY, "learning_rate": 1e19}, batch_norm=True))
    net, before = nets[-1]
    assert all(torch.equal(value, before[name]) or value.isnan().any() for name, value in net.state_dict().items())
    assert list(tmp_path.glob("checkpoints/*")) == []


def test_momentum_that_is_loaded_is_laid_out_as_its_weights(images, tmp_path, monkeypatch):
    """Kernels that update all weights at once know nothing but the order in memory."""
    learners, learner_of = [], learner.learner_of

    def noted(*arguments, **options):
        learners.append(learner_of(*arguments, **options))
        return learners[-1]

    monkeypatch.setattr("verydeep.training.preparation.learner_of", noted)
    monkeypatch.setattr(loop, "save_models", lambda *_, **__: None)  # so that it can be resumed
    for _ in range(2):
        train(images, network="C", out=tmp_path, recipe=Recipe(**TINY), resume=True)
    layouts = 0
    for name, value in learners[1].net.named_parameters():
        momentum = learners[1].optimiser.state[value]["momentum_buffer"]
        assert momentum.stride() == value.stride(), name
        first = learners[0].optimiser.state[learners[0].net.get_parameter(name)]
        assert torch.equal(momentum, first["momentum_buffer"])
        layouts += value.ndim == 4 and not value.is_contiguous()
    assert layouts > 5, "no weights are channels last, so this shows nothing"


def test_memory_that_runs_out_divides_the_step(images, tmp_path, monkeypatch, capsys):
    """From the third step on, one image at a time: the weights are those of a training that had the memory."""
    train(images, network="A", out=tmp_path / "whole", recipe=Recipe(**TINY))
    cross_entropy = torch.nn.functional.cross_entropy
    calls = []

    def scarce(logits, *arguments, **options):
        calls.append(len(logits))
        if len(calls) > 2 and len(logits) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return cross_entropy(logits, *arguments, **options)

    monkeypatch.setattr(step.F, "cross_entropy", scarce)
    train(images, network="A", out=tmp_path / "run", recipe=Recipe(**TINY))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("out of memory")]
    assert told == [f"out of memory at step 2: it is done again in pieces of {size}" for size in (2, 1)]
    weights = [load(tmp_path / name).state_dict().values() for name in ("run", "whole")]
    one, other = (torch.cat([value.flatten() for value in values]) for values in weights)
    assert (one - other).norm() < 1e-6 * other.norm()


@pytest.mark.parametrize(("resume", "again"), [(False, "go on with --resume"), (True, "repeat the command")])
def test_memory_that_does_not_hold_one_image_is_told(images, tmp_path, monkeypatch, resume, again):
    def none(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step.F, "cross_entropy", none)
    with pytest.raises(
        RuntimeError, match=f"at step 0; there is no checkpoint yet: {again} once there is memory for one"
    ):
        train(images, network="A", out=tmp_path / "run", recipe=Recipe(**TINY), resume=resume)


def test_looking_for_what_fits_leaves_statistics_as_they_were(images, tmp_path, monkeypatch):
    recipe = Recipe(**TINY, batch_norm=True)
    train(images, network="A", out=tmp_path / "whole", recipe=recipe)
    monkeypatch.setattr(learner, "OUT_OF_MEMORY_IS_SURVIVED", ("cpu",))
    train(images, network="A", out=tmp_path / "run", recipe=recipe)
    assert same(tmp_path / "run", tmp_path / "whole")


def test_what_would_take_more_than_half_of_the_memory_is_divided(images, tmp_path, monkeypatch, capsys):
    size = describe("A", input=32, classes=10, width=0.05).activation_bytes
    monkeypatch.setattr(learner, "memory_bytes", lambda: 6 * size)
    train(images, network="A", out=tmp_path / "run", recipe=Recipe(**TINY))
    assert "batches of 4 in 4 pieces of 1" in capsys.readouterr().err


def test_a_divergence_of_another_process_still_says_what_diverged():
    error = DivergedError("training diverged at step 3", "that step was not applied")
    sent = pickle.loads(pickle.dumps(error))
    assert str(sent) == str(error) == "training diverged at step 3; that step was not applied"
    assert sent.what == "training diverged at step 3"
