"""What a training leaves: checkpoints go at its end, and the process computes as before."""

import signal

import pytest
import tiny
import torch

from verydeep import Execution, Recipe, Runtime, evaluate, train, vgg
from verydeep.machine.runtime import Stopped
from verydeep.runs.files import CHECKPOINTS
from verydeep.runs.model import save
from verydeep.training import decisions, frozen_layers, learner, preparation


@pytest.mark.parametrize("kept", [False, True])
def test_checkpoints_that_a_crash_left_go_unless_they_are_kept(kept, tmp_path):
    """It was killed after its model was there and before its checkpoints were removed."""
    options = {"network": "A", "out": tmp_path / "run", "recipe": tiny.RECIPE}
    train(tiny.splits(), execution=Execution(keep_checkpoints=kept), **options)
    (tmp_path / "run" / CHECKPOINTS / "step-00000003").mkdir(parents=True, exist_ok=True)
    train(tiny.splits(), resume=True, **options)
    assert (tmp_path / "run" / CHECKPOINTS).exists() is kept


def test_checkpoints_that_are_kept_since_a_resumption_stay(tmp_path, monkeypatch):
    options = {"network": "A", "out": tmp_path / "run", "recipe": tiny.RECIPE}
    stop_in(monkeypatch, learner.F, "cross_entropy")
    with pytest.raises(Stopped):
        train(tiny.splits(), **options)
    monkeypatch.undo()
    train(tiny.splits(), execution=Execution(keep_checkpoints=True), resume=True, **options)
    train(tiny.splits(), resume=True, **options)
    assert list((tmp_path / "run" / CHECKPOINTS).glob("step-*"))


def test_a_stop_before_the_first_new_step_says_where_the_run_stays(tmp_path, monkeypatch):
    start = tmp_path / "start"
    save(vgg("A", classes=2, crop=32, width=0.05), start, scale="256", flip=True, classes=tiny.CLASSES)
    recipe = Recipe(finetune=str(start), trainable="fc", views=1, crop=32, width=0.05, batch=4, epochs=3)
    stop_in(monkeypatch, frozen_layers, "features_before")
    with pytest.raises(Stopped, match=r"stays at step 0: repeat the command with --resume"):
        train(tiny.splits(), out=tmp_path / "run", recipe=recipe)
    monkeypatch.undo()
    stop_in(monkeypatch, learner.F, "cross_entropy")
    with pytest.raises(Stopped):
        train(tiny.splits(), out=tmp_path / "run", recipe=recipe, resume=True)
    monkeypatch.undo()
    stop_in(monkeypatch, frozen_layers, "features_before")
    with pytest.raises(Stopped, match=r"stays at step 1: repeat the command with --resume"):
        train(tiny.splits(), out=tmp_path / "run", recipe=recipe, resume=True)


def stop_in(monkeypatch, module, name):
    """Let a signal come when a function is called."""
    real = getattr(module, name)

    def stopping(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, stopping)


@pytest.mark.parametrize(("workers", "share"), [(0, 10 / 16), (1, 1)])
def test_memory_is_for_images_of_processes_that_stay(workers, share, tmp_path, monkeypatch):
    """Workers that decode validation images end with each validation."""
    given = {}

    def noted(name, real):
        def call(*arguments, **options):
            given[name] = options["memory"]
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(decisions, "training_batches", noted("train", decisions.training_batches))
    monkeypatch.setattr(preparation, "RescaledImages", noted("val", preparation.RescaledImages))
    execution, runtime = Execution(image_memory=0.5), Runtime(workers=workers)
    train(tiny.splits(), network="A", out=tmp_path / "run", recipe=tiny.RECIPE, execution=execution, runtime=runtime)
    assert given == {"train": pytest.approx(0.5 * share), "val": pytest.approx(0.5 * (1 - share))}


def test_kernels_are_chosen_for_the_training_alone(tmp_path, monkeypatch):
    def flags():
        cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        return cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark

    def changing(*_):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not before[1]
        torch.backends.cudnn.benchmark = not before[2]
        return False

    before = flags()
    monkeypatch.setattr(learner, "_choose_kernels", changing)
    train(tiny.splits(), network="A", out=tmp_path / "run", recipe=tiny.RECIPE)
    assert flags() == before


def test_a_test_on_fewer_threads_leaves_the_others_to_what_comes_next(tmp_path):
    run = train(tiny.splits(), network="A", out=tmp_path / "run", recipe=tiny.RECIPE)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        evaluate(run, data=tiny.splits(), runtime=Runtime(threads=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
