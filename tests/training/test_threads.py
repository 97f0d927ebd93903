"""Threads that compute: as asked for, as begun, or the fewest that are as fast as more; never more than cores."""

import os
from dataclasses import replace

import joblib
import numpy as np
import pytest
import torch
from ten_digits import ten_digits

import verydeep
from verydeep import Recipe, Runtime, train
from verydeep.evaluation.posteriors import averages
from verydeep.machine.threads import threads_each, threads_kept, use_threads, wait_asleep
from verydeep.networks.initialisation import vgg
from verydeep.reproduction.side_by_side import jobs_to_use
from verydeep.runs.record import read_record
from verydeep.training import loop, precision, threads

TINY = Recipe(crop=32, width=0.05, batch=4, epochs=1, learning_rate=1e-3)


@pytest.fixture(scope="module")
def images():
    return ten_digits()


@pytest.fixture
def four_cores(monkeypatch):
    """A process that may use four cores and computes with as many threads; what was before comes back."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    with threads_kept():
        torch.set_num_threads(4)
        yield


@pytest.fixture
def seen(monkeypatch):
    """The numbers of threads that steps are computed with."""
    counts = []

    def descend(*arguments, descend=loop.descend, **options):
        counts.append(torch.get_num_threads())
        return descend(*arguments, **options)

    monkeypatch.setattr(loop, "descend", descend)
    return counts


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("seconds", "fewest"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.4}, 4),
        ({1: 1.0, 2: 0.95, 4: 0.93}, 1),
        ({1: 1.0, 2: 0.5, 4: 0.48}, 2),
        ({1: 1.0, 2: 3.0, 4: 9.0}, 1),
    ],
)
def test_a_training_takes_the_fewest_threads_that_are_as_fast(images, tmp_path, monkeypatch, seen, seconds, fewest):
    monkeypatch.setattr(threads, "_seconds", lambda _, counts, **__: {count: seconds[count] for count in counts})
    train(images, network="A", out=tmp_path / "run", recipe=TINY)
    assert set(seen) == {fewest}
    assert read_record(tmp_path / "run").runtime["threads"] == fewest
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_cores")
def test_a_run_goes_on_with_the_threads_that_it_was_begun_with(images, tmp_path, monkeypatch, seen):
    def stopped(*arguments, save=loop.save_checkpoint):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(threads, "_seconds", lambda *_, **__: {1: 2.0, 2: 1.0, 4: 2.0})
    recipe = replace(TINY, epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(images, network="A", out=tmp_path / "run", recipe=recipe)
    first = len(seen)
    monkeypatch.setattr(threads, "_seconds", None)
    train(images, network="A", out=tmp_path / "run", recipe=recipe, resume=True)
    assert len(seen) == 2 * first
    assert set(seen) == {2}


@pytest.mark.usefixtures("four_cores")
def test_what_is_asked_for_is_taken_unmeasured(images, tmp_path, monkeypatch, seen):
    monkeypatch.setattr(threads, "_seconds", None)
    train(images, network="A", out=tmp_path / "run", recipe=TINY, runtime=Runtime(threads=3))
    assert set(seen) == {3}
    assert torch.get_num_threads() == 4
    with pytest.raises(ValueError, match="--threads 5 is more than the 4 cores"):
        train(images, network="A", out=tmp_path / "other", recipe=TINY, runtime=Runtime(threads=5))


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(("asked", "most_macs", "computed"), [(None, 3e10, 1), (3, 3e10, 3), (None, 1.0, 4)])
def test_precision_is_measured_on_one_thread_where_threads_are_decided_next(
    images, tmp_path, monkeypatch, asked, most_macs, computed
):
    measured = []
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(threads, "_MOST_MACS", most_macs)
    monkeypatch.setattr(threads, "_seconds", lambda _, counts, **__: dict.fromkeys(counts, 1.0))
    monkeypatch.setattr(precision, "_LEAST_MACS", 0)
    monkeypatch.setattr(precision, "multiplies_in_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "_times_as_fast", lambda *_: measured.append(torch.get_num_threads()) or 1.0)
    train(images, network="A", out=tmp_path / "run", recipe=TINY, runtime=Runtime(threads=asked))
    assert measured == [computed]
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_cores")
def test_a_large_step_takes_all_threads_unmeasured(images, tmp_path, monkeypatch, seen):
    monkeypatch.setattr(threads, "_MOST_MACS", 1.0)
    monkeypatch.setattr(threads, "_seconds", None)
    train(images, network="A", out=tmp_path / "run", recipe=TINY)
    assert set(seen) == {4}


@pytest.mark.usefixtures("four_cores")
def test_measuring_changes_neither_network_nor_threads():
    net = vgg("A", classes=10, crop=32, width=0.05)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert set(threads._seconds(net, [1, 2], images=2, bf16=False)) == {1, 2}
    assert torch.get_num_threads() == 4
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.usefixtures("four_cores")
def test_verbs_that_test_compute_with_what_is_asked_for(images, tmp_path, monkeypatch):
    run = train(images, network="A", out=tmp_path / "run", recipe=TINY)
    before, counts = torch.get_num_threads(), []

    def noted(*arguments, **options):
        counts.append(torch.get_num_threads())
        return averages(*arguments, **options)

    monkeypatch.setattr("verydeep.evaluation.evaluate.averages", noted)
    verydeep.evaluate(run, data=images, runtime=Runtime(threads=2))
    assert (counts, torch.get_num_threads()) == ([2], before)
    next(iter(verydeep.features(run, "digits", split="val", runtime=Runtime(threads=3))))
    assert torch.get_num_threads() == 3
    verydeep.predict(run, [np.zeros((40, 40, 3), np.uint8)], runtime=Runtime(threads=1))
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("four_cores")
def test_trainings_at_once_have_together_no_more_threads_than_cores():
    assert (jobs_to_use(None, Runtime(device="cpu")), threads_each(4)) == (4, 1)
    assert jobs_to_use(None, Runtime(device="cpu", threads=2)) == 2
    assert jobs_to_use(8, Runtime(device="cpu")) == 8  # a thread each, as was asked for
    with pytest.raises(ValueError, match="--jobs 3 of --threads 2 each are more than the 4 cores"):
        jobs_to_use(3, Runtime(device="cpu", threads=2))


def test_no_more_threads_than_a_control_group_allows(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    with threads_kept():
        torch.set_num_threads(4)
        use_threads(None)
        assert torch.get_num_threads() == 2


def test_threads_sleep_unless_the_user_chose(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_asleep()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_asleep()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
