"""Trainings side by side give the weights of trainings one after the other, after a stop and a lost process too."""

import multiprocessing
import os
import re
import runpy
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from side_by_side_tasks import CPU, tasks, weights

from verydeep import reproduce
from verydeep.images.sources.source import subset
from verydeep.machine.processes import LostProcessError
from verydeep.machine.runtime import Runtime, Stopped
from verydeep.reproduction import ray_pool, side_by_side, training_task
from verydeep.reproduction.side_by_side import in_order, jobs_to_use, longest_way_first
from verydeep.reproduction.study_runs import why_diverged
from verydeep.reproduction.training_task import train_task
from verydeep.runs.files import CHECKPOINTS, MODEL, NORMS, WEIGHTS
from verydeep.training.step import DivergedError


@pytest.fixture(scope="module")
def one_after_the_other(tmp_path_factory):
    def trained(epochs):
        folder = tmp_path_factory.mktemp("one")
        for task in tasks(folder, epochs=epochs):
            train_task(task)
        return weights(folder)

    return trained


def test_they_end_with_the_weights_of_trainings_one_after_the_other(one_after_the_other, tmp_path, capfd):
    side_by_side.side_by_side("train", in_order(tasks(tmp_path)), jobs=2, device=CPU)
    assert weights(tmp_path) == one_after_the_other(1)
    said = capfd.readouterr().err
    assert all(re.search(rf"^\[{name}\] train {name} +100%  epoch 1/1 ", said, flags=re.MULTILINE) for name in "ACD")


def test_what_most_work_waits_for_comes_first_and_one_seed_after_the_other(tmp_path, monkeypatch):
    """In the paper's grid the longest way is A, E, E at S = 384, E at S in [256;512]."""
    work = {"A": 3, "LRN": 9, "B": 4, "E": 8, "E-384": 8, "free": 1}
    starts = {"A": None, "LRN": None, "B": "A", "E": "A", "E-384": "E", "free": "gone"}
    assert longest_way_first(work, starts) == ["A", "E", "LRN", "E-384", "B", "free"]
    begun = []
    monkeypatch.setattr(side_by_side, "_do", lambda work: begun.extend(work.waiting))
    seeds = [
        replace(task, out=tmp_path / str(seed) / task.name, recipe=replace(task.recipe, seed=seed))
        for seed in (0, 1)
        for task in tasks(tmp_path / str(seed))
    ]
    side_by_side.side_by_side("train", in_order(seeds), jobs=2, device=CPU)
    order = "ADC"
    assert [(task.recipe.seed, task.network) for task in begun] == [(seed, name) for seed in (0, 1) for name in order]


def once_there(path, act):
    """Act as soon as a file is there, or longer than now."""
    before = path.stat().st_size if path.exists() else 0

    def wait():
        while not path.exists() or path.stat().st_size <= before:
            time.sleep(0.01)
        act()

    threading.Thread(target=wait, daemon=True).start()


def processes():
    """Processes that train."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_after_a_lost_process_and_a_signal_they_go_on(one_after_the_other, tmp_path, battery):
    if not battery:
        pytest.skip("starts many processes: make battery")

    def kill_one():
        os.kill(processes()[0], signal.SIGKILL)

    once_there(tmp_path / "A" / "run.json", kill_one)
    with pytest.raises(LostProcessError, match="a process of --jobs died"):
        side_by_side.side_by_side("train", in_order(tasks(tmp_path, epochs=12)), jobs=2, device=CPU)
    once_there(tmp_path / "C" / "metrics.jsonl", lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match="repeat the command to continue"):
        side_by_side.side_by_side("train", in_order(tasks(tmp_path, epochs=12)), jobs=2, device=CPU)
    side_by_side.side_by_side(
        "train",
        in_order([task for task in tasks(tmp_path, epochs=12) if not (task.out / MODEL).exists()]),
        jobs=2,
        device=CPU,
    )
    found, expected = weights(tmp_path), one_after_the_other(12)
    assert [name for name in found if found[name] != expected[name]] == []


def seconds_used(pid):
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[11:13]))


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Stopped), (signal.SIGKILL, LostProcessError)])
def test_the_others_save_when_one_dies_that_has_nothing_to_do(number, error, tmp_path):
    """It dies with the lock of the queue of tasks, for which the others would wait after saving."""
    long, short = (task for task in tasks(tmp_path) if task.network in "AC")
    sources = long.splits.sources  # an epoch that takes longer than the other training
    train = subset(sources["train"], [*range(len(sources["train"]))] * 400)
    splits = replace(long.splits, sources={**sources, "train": train})
    noting = replace(long.execution, norms_every=1000)  # of the first step
    long = replace(long, splits=splits, recipe=replace(long.recipe, width=0.5), execution=noting)

    def act():
        while not (long.out / NORMS).exists():  # on a busy machine the other training may end before this one begins
            time.sleep(0.01)
        before = {pid: seconds_used(pid) for pid in processes()}
        time.sleep(2)
        idle = min(before, key=lambda pid: seconds_used(pid) - before[pid])
        os.kill(idle if number == signal.SIGKILL else os.getpid(), number)

    once_there(short.out / MODEL / WEIGHTS, act)
    with pytest.raises(error, match="repeat the command to continue"):
        side_by_side.side_by_side("train", [long, short], jobs=2, device=CPU)
    assert processes() == []
    assert list((long.out / CHECKPOINTS).iterdir()) != []  # saved when asked to stop, not after an epoch


def test_what_cannot_start_is_an_error_in_words(tmp_path):
    *_, last = tasks(tmp_path)
    with pytest.raises(ValueError, match=r"D cannot start: .*A was not trained"):
        side_by_side.side_by_side("train", in_order([last]), jobs=2, device=CPU)


@pytest.mark.parametrize(("jobs", "message"), [(0, "jobs must be 1 or more"), (2, "under torchrun all processes work")])
def test_impossible_numbers_of_jobs_are_refused(jobs, message, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=message):
        reproduce("digits", out=tmp_path, jobs=jobs)


def test_a_script_that_its_own_processes_run_again_is_told_how_to_be_written(tmp_path, monkeypatch):
    """As a process runs it that has just been started (spawn)."""
    script = tmp_path / "script.py"
    script.write_text(f"import verydeep\nverydeep.reproduce('digits', out={str(tmp_path)!r})")
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit, match="put the call below if __name__ == '__main__': "):
        runpy.run_path(str(script), run_name="__mp_main__")
    assert [*tmp_path.iterdir()] == [script]


def test_more_trainings_than_cuda_devices_are_refused(monkeypatch):
    """Those without a device would train on the CPU."""
    monkeypatch.setattr(side_by_side, "torch_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert jobs_to_use(None, Runtime()) == jobs_to_use(1, Runtime()) == 1
    with pytest.raises(ValueError, match=r"--jobs 2 needs a CUDA device for each training, and .* has 1 CUDA device$"):
        jobs_to_use(2, Runtime())


@pytest.mark.parametrize("jobs", [None, 4])
def test_threads_of_one_training_leave_the_other_cores_to_others(jobs, tmp_path, monkeypatch):
    used, begun = [8], []
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: used[-1])
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr("verydeep.reproduction.reproduce._do", begun.append)
    reproduce("digits", out=tmp_path / "out", runtime=Runtime(device="cpu", threads=2), jobs=jobs)
    assert ([one.jobs for one in begun], used) == ([4], [8, 2])
    used.append(8)
    with pytest.raises(ValueError, match="--jobs 5 of --threads 2 each are more than the 8 cores"):
        reproduce("digits", out=tmp_path / "out", runtime=Runtime(device="cpu", threads=2), jobs=5)


def test_cores_of_several_machines_of_a_cluster_are_not_those_of_one(monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": True, "Resources": {"CPU": 3.0}}]
    nodes += [{"Alive": True, "Resources": {}}, {"Alive": False, "Resources": {"CPU": 8.0}}]
    cluster = SimpleNamespace(cluster_resources=lambda: {"CPU": 7.0}, nodes=lambda: nodes)
    monkeypatch.setattr(ray_pool, "_connected", lambda: cluster)
    found = {threads: jobs_to_use("ray", Runtime(device="cpu", threads=threads)) for threads in (None, 1, 2, 3, 4)}
    assert found == {None: 7, 1: 7, 2: 3, 3: 2, 4: 1}
    with pytest.raises(ValueError, match="no machine with so many cores"):
        jobs_to_use("ray", Runtime(device="cpu", threads=5))


def test_every_process_notes_a_divergence_since_none_waits_for_the_first(tmp_path, monkeypatch):
    def diverging(*_, **__):
        raise DivergedError("training diverged at step 3", "that step was not applied")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(training_task, "train", diverging)
    task = replace(tasks(tmp_path)[0], may_diverge=True)
    task.out.mkdir()
    train_task(task)
    assert why_diverged(task.out) == "training diverged at step 3"
