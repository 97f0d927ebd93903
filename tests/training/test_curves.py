"""Curves and checkpoints that a training leaves."""

import os
import signal
import struct
import time
from contextlib import closing

import numpy as np
import pytest
import torch
from ten_digits import ten_digits
from tensorboardX.proto.event_pb2 import Event

from verydeep import Execution, Recipe, Runtime, load, train
from verydeep.images.sources.source import Source, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.machine.runtime import Stopped
from verydeep.runs.record import read_metrics
from verydeep.training.curves import TAGS, Curves

TINY = Recipe(crop=32, width=0.05, batch=4, epochs=4, learning_rate=1e-3, seed=5)


@pytest.fixture(scope="module")
def images():
    return ten_digits()


def points(run):
    """Return {tag: {step: value}} as TensorBoard shows them: a restarted writer takes back what came after its step."""
    found = {}
    for file in sorted((run / "tensorboard").iterdir()):
        data, place = file.read_bytes(), 0
        while place < len(data):  # length, its checksum, record, its checksum
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 12 + length + 4
            if event.session_log.status == event.session_log.START:
                for series in found.values():
                    for step in [step for step in series if step >= event.step]:
                        del series[step]
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_curves_are_the_metrics(images, tmp_path):
    run = train(images, network="A", out=tmp_path / "run", recipe=TINY)
    metrics, drawn = read_metrics(run), points(run)
    assert len(metrics) == 4
    for name, tag in TAGS.items():
        expected = {epoch.step: getattr(epoch, name) for epoch in metrics}
        assert drawn[tag] == pytest.approx(expected, rel=1e-6), name
    losses = drawn["step/loss"]
    assert sorted(losses) == list(range(1, 13))
    first_epoch = (4 * losses[1] + 4 * losses[2] + 2 * losses[3]) / 10
    assert first_epoch == pytest.approx(metrics[0].loss, rel=1e-5)
    assert list(drawn["step/learning_rate"].values()) == pytest.approx(12 * [1e-3])


def test_a_curve_that_is_resumed_forgets_steps_that_are_repeated(tmp_path):
    for first, value in ((0, 0.5), (0, 1.0), (3, 2.0)):
        with closing(Curves(tmp_path, first_step=first, on=True)) as plot:
            for step in range(first, 6):
                plot.step(step, loss=value, learning_rate=0.1)
        time.sleep(1.1)  # event files are named by the second
    assert points(tmp_path)["step/loss"] == {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2}


def test_a_training_that_was_stopped_has_every_point_once(images, tmp_path, monkeypatch):
    """Stopped in the middle of the second epoch, and once more at the end of the third."""
    from verydeep.training import loop

    whole = points(train(images, network="A", out=tmp_path / "whole", recipe=TINY))
    for stop in (5, 9):
        descend = loop.descend

        def stopping(*arguments, stop=stop, descend=descend, **options):
            if options["step"] == stop - 1:
                signal.raise_signal(signal.SIGTERM)
            return descend(*arguments, **options)

        monkeypatch.setattr(loop, "descend", stopping)
        with pytest.raises(Stopped):
            train(images, network="A", out=tmp_path / "run", recipe=TINY, resume=True)
        monkeypatch.setattr(loop, "descend", descend)
        time.sleep(1.1)
    found = points(train(images, network="A", out=tmp_path / "run", recipe=TINY, resume=True))
    for tag in ("step/loss", "loss/training", "error/validation"):
        assert found[tag] == whole[tag], tag


def test_another_process_draws_nothing(tmp_path):
    with closing(Curves(tmp_path, first_step=0, on=False)) as plot:
        plot.step(0, loss=1.0, learning_rate=0.1)
        plot.epoch({"epoch": 1})
    assert list(tmp_path.iterdir()) == []


class Slow(Source):
    """A source that takes 50 ms for each image."""

    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)


def test_the_share_of_time_without_data_is_told(images, tmp_path):
    samples = tuple(images.source("train")[index] for index in range(10))
    slow = Slow(**vars(memory_source(classes=images.classes, samples=samples)))
    parts = {"train": slow, "val": images.source("val")}
    recipe = Recipe(crop=32, width=0.05, batch=5, epochs=1)
    (metrics,) = read_metrics(train(Splits(name="slow", sources=parts), network="A", out=tmp_path / "a", recipe=recipe))
    assert 0.5 < metrics.waiting * metrics.seconds / 100 < metrics.seconds  # ten images of 50 ms
    (metrics, *_) = read_metrics(train(images, network="A", out=tmp_path / "b", recipe=TINY))
    assert metrics.waiting < 60
    assert metrics.peak_memory_bytes > 50e6


def test_the_memory_of_a_training_has_nothing_of_what_the_process_did_before(images, tmp_path):
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    np.ones(800_000_000, np.uint8)
    (metrics, *_) = read_metrics(train(images, network="A", out=tmp_path / "run", recipe=TINY))
    assert 50e6 < metrics.peak_memory_bytes < held + 700e6


def test_memory_that_is_not_known_is_left_out(images, tmp_path, monkeypatch):
    monkeypatch.setattr("verydeep.training.curves.peak_memory", lambda _: None)
    run = train(images, network="A", out=tmp_path / "run", recipe=TINY)
    assert {one.peak_memory_bytes for one in read_metrics(run)} == {None}


def test_the_best_network_is_kept_beside_the_last(images, tmp_path, monkeypatch):
    """Validation errors 40, 20, 30, 30: the second epoch's weights are those of a training of two epochs."""
    errors = iter([40.0, 20.0, 30.0, 30.0])
    monkeypatch.setattr("verydeep.training.loop._validation_errors", lambda *_: (next(errors), 50.0))
    kept = Execution(keep_checkpoints=True)
    run = train(images, network="A", out=tmp_path / "run", recipe=TINY, execution=kept)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [f"step-{step:08d}" for step in (6, 9, 12)]
    monkeypatch.undo()
    two = Recipe(**{**vars(TINY), "epochs": 2})
    short = load(train(images, network="A", out=tmp_path / "two", recipe=two)).state_dict()
    assert not (tmp_path / "two" / "checkpoints").exists()
    best, last = load(run / "best").state_dict(), load(run).state_dict()
    assert all(torch.equal(best[name], short[name]) for name in short)
    assert not torch.equal(best["fc8.weight"], last["fc8.weight"])


def test_a_checkpoint_is_written_now_and_then_within_an_epoch(images, tmp_path, monkeypatch):
    from verydeep.training import checkpoint

    steps, save = [], checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda folder, found: (steps.append(found.progress.step), save(folder, found))
    )
    train(images, network="A", out=tmp_path / "run", recipe=TINY, execution=Execution(save_minutes=1e-9))
    assert steps == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12]
    steps.clear()
    train(images, network="A", out=tmp_path / "other", recipe=TINY, runtime=Runtime(workers=1))
    assert steps == [3, 6, 9, 12]


def test_a_stop_in_the_middle_of_a_step_gives_the_step_up(images, tmp_path, monkeypatch):
    """Micro-batches of one image: SIGTERM at the third leaves the step undone, and nothing else."""
    import os
    import signal

    from verydeep.training import step

    calls, scores = [], torch.nn.functional.cross_entropy

    def noted(*arguments, **options):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return scores(*arguments, **options)

    monkeypatch.setattr(step.F, "cross_entropy", noted)
    with pytest.raises(Stopped):
        train(images, network="A", out=tmp_path / "run", recipe=TINY, execution=Execution(micro_batch=1))
    assert len(calls) == 7
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000001"]
    monkeypatch.undo()
    train(images, network="A", out=tmp_path / "run", recipe=TINY, resume=True, execution=Execution(micro_batch=1))
    train(images, network="A", out=tmp_path / "whole", recipe=TINY, execution=Execution(micro_batch=1))
    one, other = load(tmp_path / "run").state_dict(), load(tmp_path / "whole").state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
