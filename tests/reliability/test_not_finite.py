"""Numbers that are no longer finite end a training before they reach the weights."""

import os
import signal
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from verydeep import Execution, train
from verydeep.cli import main
from verydeep.machine.runtime import Stopped
from verydeep.networks.vgg import VGG
from verydeep.runs.record import read_metrics
from verydeep.training.checkpoint import load_latest, load_step
from verydeep.training.step import DivergedError

INJECTED = {
    "a loss of NaN": lambda loss, logits: loss * float("nan"),
    "an infinite loss": lambda loss, logits: loss + float("inf"),
    "a gradient of NaN": lambda loss, logits: (logits.register_hook(lambda grad: grad * float("nan")), loss)[1],
    "an infinite gradient": lambda loss, logits: (logits.register_hook(lambda grad: grad * float("inf")), loss)[1],
}


def injected(monkeypatch, what, step):
    """Inject it into the loss of one step; with micro-batches, into that of its last one."""
    cross_entropy, calls = F.cross_entropy, []

    def changed(logits, *arguments, **options):
        calls.append(logits)
        loss = cross_entropy(logits, *arguments, **options)
        return INJECTED[what](loss, logits) if len(calls) == step + 1 else loss

    monkeypatch.setattr(F, "cross_entropy", changed)


def stopped_after(step, tiny, out):
    """Return the checkpoint of a training that was stopped after so many steps."""
    done = []

    def count(*_):
        done.append(1)
        if len(done) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    hook = register_optimizer_step_post_hook(count)
    with pytest.raises(Stopped):
        train(tiny.splits(), network="A", out=out, recipe=tiny.RECIPE)
    hook.remove()
    return load_step(out / "checkpoints", step)


def finite(checkpoint):
    return all(value.isfinite().all() for value in [*checkpoint.weights.values(), *checkpoint.momentum.values()])


@pytest.fixture(scope="module")
def noted(figure):
    """Count what was injected."""
    found = Counter()
    yield found
    told = ", ".join(f"{what} ({count})" for what, count in found.items())
    figure(12, "not finite", f"{told}: stopped, that step not applied, last and best checkpoint finite")


@pytest.mark.parametrize("what", INJECTED)
@pytest.mark.parametrize("step", [2, 4])
def test_a_step_that_is_not_finite_is_not_applied_and_named(tiny, noted, tmp_path, monkeypatch, what, step):
    before = stopped_after(step, tiny, tmp_path / "before")
    injected(monkeypatch, what, step)
    run, nets = tmp_path / "run", []
    hook = register_module_forward_hook(lambda module, *_: nets.append(module) if isinstance(module, VGG) else None)
    with pytest.raises(DivergedError) as diverged:
        train(tiny.splits(), network="A", out=run, recipe=tiny.RECIPE)
    hook.remove()
    weights = nets[-1].state_dict()
    assert weights.keys() == before.weights.keys()
    assert all(torch.equal(value, before.weights[name]) for name, value in weights.items())
    assert f"diverged at step {step} " in str(diverged.value)
    found, passed_over = load_latest(run / "checkpoints")
    assert passed_over == []
    if step > tiny.STEPS:
        place = run / "checkpoints" / f"step-{tiny.STEPS:08d}"
        assert f"not applied, the last checkpoint is {place}: " in str(diverged.value)
        assert (found.progress.step, found.progress.best_step) == (tiny.STEPS, tiny.STEPS)
        assert finite(found)
    else:
        assert "not applied, there is no checkpoint yet: " in str(diverged.value)
        assert found is None
    assert not (run / "model").exists()
    noted[what] += 1


def test_with_micro_batches_the_last_one_is_enough(tiny, tmp_path, monkeypatch):
    injected(monkeypatch, "an infinite gradient", 1)
    with pytest.raises(DivergedError, match="at step 0 "):
        train(tiny.splits(), network="A", out=tmp_path, recipe=tiny.RECIPE, execution=Execution(micro_batch=2))
    assert load_latest(tmp_path / "checkpoints") == (None, [])


@pytest.mark.parametrize("epoch", [1, 2])
def test_scores_of_validation_images_that_are_not_finite_never_become_the_best(tiny, noted, tmp_path, epoch):
    tests = []

    def changed(module, _arguments, logits):
        if isinstance(module, VGG) and not module.training:
            tests.append(1)
            return logits * float("nan") if len(tests) > 2 * (epoch - 1) else logits
        return None

    hook = register_module_forward_hook(changed)
    with pytest.raises(DivergedError, match="scores of validation images are not finite") as diverged:
        train(tiny.splits(), network="A", out=tmp_path, recipe=tiny.RECIPE)
    hook.remove()
    assert len(read_metrics(tmp_path)) == epoch - 1
    assert not (tmp_path / "best").exists()
    if epoch == 1:
        assert "there is no checkpoint yet" in str(diverged.value)
        return
    found, _ = load_latest(tmp_path / "checkpoints")
    assert f"the last checkpoint is {tmp_path / 'checkpoints' / 'step-00000003'}" in str(diverged.value)
    assert (found.progress.step, found.progress.best_step) == (3, 3)
    assert finite(found)
    noted["NaN in the validation"] += 1


def test_the_command_line_says_so_in_one_line(tiny, tmp_path, monkeypatch, capsys):
    injected(monkeypatch, "a loss of NaN", 1)
    options = ["--network", "A", "--crop", "32", "--width", "0.05", "--batch", "4", "--epochs", "2"]
    source = str(tiny.folder(tmp_path / "source"))
    with pytest.raises(SystemExit) as left:
        main(["train", source, "--out", str(tmp_path / "run"), *options])
    assert left.value.code == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("verydeep: training diverged at step 1 (loss nan, ")
    assert "that step was not applied, there is no checkpoint yet: train again in another folder" in line
