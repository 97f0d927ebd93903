"""Several processes: the order and weights of one, no size that hangs, no process that is lost unnoticed."""

import json
import math
import random
import shutil
import sys
import time
from pathlib import Path

import pytest
import several_processes as several

from verydeep.images.quarantine import read_quarantine
from verydeep.runs.record import read_metrics
from verydeep.training.checkpoint import load_latest

COUNTS = (2, 4)
FC = {"fc_parallel": True}
BATCH = several.BASE["batch"]
EXACT = 1e-6
"""Largest difference, relative, of all weights together."""

ORDERED = {
    "plain": {},
    "fc": {"execution": FC},
    "dropout": {"recipe": {"dropout": 0.5}},
    "dropout, fc, pieces": {"recipe": {"dropout": 0.5}, "execution": {**FC, "micro_batch": 1}},
}
ORDERED_IN_SHORT = {2: tuple(ORDERED), 4: ("plain", "dropout, fc, pieces")}
"""Trainings of the suite by the number of processes; `make battery` runs all with both."""
STOPPED = {
    "plain": {"execution": {}},
    "fc": {"execution": FC},
}
"""Trainings that are stopped on two processes."""
SIGNALLED = {"where": "reading", "rank": 1, "at": 5, "what": "SIGTERM"}
BAD = {"bad_train": [1, 4, 6, 11], "tolerance": {"max_bad": 50}}
BAD_VAL = {"bad_val": [2, 3], "tolerance": {"max_bad": 50}}
TOO_BAD = {"bad_train": [1, 4, 6, 11], "tolerance": {"max_bad": 20}}
SIZES = [(n, batch) for n in (12, 13, 14, 15, 16, 97) for batch in range(1, 7)]


def sizes(processes, battery):
    """Return (images, batch, with fully connected layers shared) for check 11."""
    if battery:
        return [(n, batch, fc) for n, batch in SIZES for fc in (False, True)]
    draw = random.Random(processes)
    small = draw.sample([size for size in SIZES if size[0] < 97], 6 if processes == 2 else 3)
    return [(n, batch, number % 2 == 0) for number, (n, batch) in enumerate([*small, (97, 6)])]


def ordered(processes, battery):
    """Return the names of trainings for check 9."""
    return ORDERED if battery else ORDERED_IN_SHORT[processes]


def resumed(battery):
    """Return (which stopped training, how it goes on) with four processes."""
    return [(name, then) for name in STOPPED for then in STOPPED if battery or name != then]


def sized(n, batch, fc):
    """Return a job of one epoch, with an error that is neither 0 nor 100%."""
    return {
        "train": n,
        "val": n,
        "execution": FC if fc else {},
        "recipe": {"batch": batch, "epochs": 1, "learning_rate": 1e-3},
    }


def copied(run, place):
    shutil.copytree(run, place)
    return str(place)


@pytest.fixture(scope="module")
def folder(python, tmp_path_factory, battery):
    """Run many trainings on two processes, then four, each in one start."""
    folder = tmp_path_factory.mktemp("processes")
    for processes in COUNTS:
        at = folder / str(processes)
        jobs = [{**ORDERED[name], "out": str(at / "ordered" / name)} for name in ordered(processes, battery)]
        jobs += [{**sized(*size), "out": str(at / "sizes" / str(size))} for size in sizes(processes, battery)]
        jobs += [{**BAD, "out": str(at / "bad")}, {**TOO_BAD, "out": str(at / "too bad")}]
        jobs += [{**BAD_VAL, "out": str(at / "bad val")}]
        jobs += [{**BAD, "out": str(at / "bad, fc"), "execution": FC}]
        if processes == 2:
            jobs += [{**job, "out": str(at / "stopped" / n), "fault": SIGNALLED} for n, job in STOPPED.items()]
            dying = {**SIGNALLED, "what": "SIGKILL", "whom": "worker"}
            jobs += [{"out": str(at / "worker"), "runtime": {"workers": 1}, "fault": dying}]
        else:
            for name, then in resumed(battery):
                run = copied(folder / "2" / "stopped" / name, at / "resumed" / f"{name}, then {then}")
                jobs.append({**STOPPED[then], "out": run, "resume": True})
        status, said, living = several.forked(python, processes, jobs, folder, seconds=600 if battery else 100)
        assert status == 0, said
        assert living() == []
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Run the same training on this process, once."""
    done = {}

    def trained(job):
        job = {key: value for key, value in job.items() if key in ("train", "val", "bad_train", "bad_val", "recipe")}
        key = json.dumps(job, sort_keys=True)
        if key not in done:
            out = tmp_path_factory.mktemp("one") / "run"
            met = several.run({**job, "out": str(out), "tolerance": {"max_bad": 50}})
            assert met["error"] is None
            done[key] = out, met
        return done[key]

    return trained


def met_by_all(out, processes):
    return several.runs_of({"out": out}, processes)


def batches(asked, n, batch):
    """Cut the images that one process asked for into the batches of every epoch."""
    cut, start = [], 0
    while start < len(asked):
        size = min(batch, n - sum(map(len, cut)) % n)
        cut.append(asked[start : start + size])
        start += size
    return cut


def interleaved(asked, n, batch):
    """Put the batches together of which each process asked for every n-th image."""
    queues, found = [iter(ids) for ids in asked], []
    while True:
        size = min(batch, n - sum(map(len, found)) % n)
        row = [next(queues[place % len(queues)], None) for place in range(size)]
        if None in row:
            assert set(row) == {None}, "a part of a batch is missing"
            assert all(next(queue, None) is None for queue in queues), "more was asked for than the batches hold"
            return found
        found.append(row)


def learning(run):
    """Return the metrics that must be the same, the loss except for its last digits."""
    return [
        (epoch.step, epoch.training_error, epoch.validation_error, pytest.approx(epoch.loss, rel=1e-5))
        for epoch in read_metrics(run)
    ]


def worst(pairs):
    return max(several.difference(run, other)[0] for run, other in pairs)


# Check 9


@pytest.mark.parametrize("processes", COUNTS)
def test_several_processes_go_through_the_images_of_one_in_its_order(folder, one, figure, processes, battery):
    found = []
    for name in ordered(processes, battery):
        _, alone = one(ORDERED[name])
        expected = batches(alone["asked"], 13, BATCH)
        met = met_by_all(folder / str(processes) / "ordered" / name, processes)
        assert interleaved([m["asked"] for m in met], 13, BATCH) == expected
        assert len(expected) == 2 * math.ceil(13 / BATCH)
        assert expected[:3] != expected[3:]
        for m in met:  # shares of the validation images: every n-th
            assert sorted(m["validated"]) == sorted(2 * list(range(met.index(m), 7, processes)))
        found += expected
    figure(9, f"order, {processes} processes", f"{len(found)} batches as one process has them")


@pytest.mark.parametrize(
    ("processes", "name"),
    [
        pytest.param(count, name, marks=() if name in ORDERED_IN_SHORT[count] else pytest.mark.battery)
        for count in COUNTS
        for name in ORDERED
    ],
)
def test_several_processes_end_with_the_weights_and_metrics_of_one(folder, one, figure, processes, name):
    run, (alone, _) = folder / str(processes) / "ordered" / name, one(ORDERED[name])
    whole, largest = several.difference(run, alone)
    figure(9, f"weights, {name}, {processes} processes", f"{whole:.1e} of all, {largest:.1e} of a tensor")
    assert whole <= EXACT
    assert learning(run) == learning(alone)


# A run that was stopped, on other numbers of processes


@pytest.mark.parametrize("name", STOPPED)
def test_a_signal_to_one_stops_all_at_the_same_step(folder, one, name):
    met = met_by_all(folder / "2" / "stopped" / name, 2)
    assert [m["error"] for m in met] == ["Stopped", "Stopped"]
    assert [m["status"] for m in met] == [143, 143]
    done = interleaved([m["asked"] for m in met], 13, BATCH)
    saved, _ = load_latest(folder / "2" / "stopped" / name / "checkpoints")
    assert saved.progress.step == len(done) - 1  # the last batch was not descended on
    assert 0 < saved.progress.step < 2 * math.ceil(13 / BATCH)


@pytest.mark.parametrize("name", STOPPED)
def test_what_two_processes_began_others_end(folder, one, figure, name, tmp_path, battery):
    alone, _ = one({})
    runs = [folder / "4" / "resumed" / f"{begun}, then {then}" for begun, then in resumed(battery) if begun == name]
    on_one = copied(folder / "2" / "stopped" / name, tmp_path / "run")
    assert several.run({"out": on_one, "resume": True})["error"] is None
    found = worst((run, alone) for run in [*runs, on_one])
    figure(9, f"begun on 2 ({name}), ended on 4 ({len(runs)} ways) and 1", f"{found:.1e} of all weights")
    assert found <= EXACT
    assert all(learning(run) == learning(alone) for run in [*runs, on_one])


# Check 11


@pytest.mark.parametrize("processes", COUNTS)
def test_any_size_ends_and_every_validation_image_counts_once(folder, one, figure, processes, battery):
    errors = set()
    for n, batch, fc in sizes(processes, battery):
        run, job = folder / str(processes) / "sizes" / str((n, batch, fc)), sized(n, batch, fc)
        alone, _ = one(job)
        met = met_by_all(run, processes)
        assert [m["error"] for m in met] == [None] * processes
        assert sorted(index for m in met for index in m["validated"]) == list(range(n))
        assert sorted(index for m in met for index in m["asked"]) == list(range(n))
        (mine,), (theirs,) = read_metrics(run), read_metrics(alone)
        assert mine.step == theirs.step == math.ceil(n / batch)
        assert mine.validation_error == theirs.validation_error, (n, batch, fc)
        assert mine.training_error == theirs.training_error, (n, batch, fc)
        assert several.difference(run, alone)[0] <= EXACT, (n, batch, fc)
        wrong = mine.validation_error * n / 100
        assert wrong == pytest.approx(round(wrong), abs=1e-9)
        errors.add(mine.validation_error)
    assert len(errors) > 2, "the errors are too much alike to show a difference"
    figure(11, f"sizes, {processes} processes", f"{len(sizes(processes, battery))} end, all count as one process does")


# Images that cannot be used, and workers


def listed(run):
    return sorted((entry["split"], entry["image"]) for entry in read_quarantine(run / "quarantine.jsonl"))


@pytest.mark.parametrize("processes", COUNTS)
@pytest.mark.parametrize("name", ["bad", "bad, fc"])
def test_a_bad_image_that_one_process_meets_is_listed_once(folder, one, figure, processes, name):
    run, (alone, _) = folder / str(processes) / name, one(BAD)
    meeting = [set(m["asked"]) & set(BAD["bad_train"]) for m in met_by_all(run, processes)]
    assert any(index not in other for other in meeting for index in BAD["bad_train"])
    assert listed(run) == [("train", f"{index}.png") for index in sorted(BAD["bad_train"], key=str)] == listed(alone)
    assert learning(run) == learning(alone)
    whole, _ = several.difference(run, alone)
    figure(9, f"weights, 4 images {name}, {processes} processes", f"{whole:.1e} of all; each listed once")
    assert whole <= EXACT


@pytest.mark.parametrize("processes", COUNTS)
def test_a_validation_image_that_goes_bad_is_listed_once(folder, one, processes):
    run, (alone, _) = folder / str(processes) / "bad val", one(BAD_VAL)
    assert learning(run) == learning(alone)
    assert listed(run) == [("val", "2.png"), ("val", "3.png")] == listed(alone)


@pytest.mark.parametrize("processes", COUNTS)
def test_too_many_bad_images_stop_all_alike(folder, processes):
    run = folder / str(processes) / "too bad"
    met = met_by_all(run, processes)
    assert [m["error"] for m in met] == ["TooManyBadImagesError"] * processes
    assert all("3 of 13 train images cannot be used so far, more than 20%" in m["message"] for m in met)
    assert len(listed(run)) == len(set(listed(run))) == 3
    done = interleaved([m["asked"] for m in met], 13, BATCH)
    assert load_latest(run / "checkpoints")[0].progress.step == len(done) - 1


def test_a_loader_worker_that_dies_stops_all_and_is_named(folder, one, tmp_path):
    run = folder / "2" / "worker"
    other, its = met_by_all(run, 2)
    pid = json.loads(Path(f"{run}.fault.json").read_text())["pid"]
    assert its["error"] == "WorkerDiedError"
    assert f"loader worker {pid} was killed by SIGKILL" in its["message"]
    assert other["error"] == "LostProcessError"
    assert "process 1" in other["message"]
    assert load_latest(run / "checkpoints")[0] is not None
    on_one = copied(run, tmp_path / "run")
    assert several.run({"out": on_one, "resume": True})["error"] is None
    assert several.difference(on_one, one({})[0])[0] <= EXACT


# Check 10

LOST_AFTER = 8.0
"""Seconds; all cases run at once, so that a busy machine may keep a process waiting for a while."""
LONG = {"recipe": {"epochs": 400, "patience": 400}, "lost_after": LOST_AFTER}
LOSSES = {
    "killed in a step": (2, {"where": "forward", "rank": 1, "at": 4, "what": "SIGKILL"}, {}),
    "the first killed": (2, {"where": "forward", "rank": 0, "at": 4, "what": "SIGKILL"}, {}),
    "killed in preparation": (2, {"where": "preparation", "rank": 1, "in": 0, "at": 3, "what": "SIGKILL"}, {}),
    "stopped in a step": (2, {"where": "forward", "rank": 1, "at": 4, "what": "SIGSTOP"}, {}),
    "killed, with layers shared and loader workers": (
        2,
        {"where": "forward", "rank": 1, "at": 4, "what": "SIGKILL"},
        {"execution": FC, "runtime": {"workers": 1}},
    ),
    "one of four killed": (4, {"where": "forward", "rank": 2, "at": 4, "what": "SIGKILL"}, {}),
    "one of four stopped": (4, {"where": "forward", "rank": 1, "at": 4, "what": "SIGSTOP"}, {}),
}


LOSSES_IN_SHORT = (
    "the first killed",
    "killed in preparation",
    "killed, with layers shared and loader workers",
    "one of four stopped",
)
"""Those of the suite; the others, which `make battery` has too, differ in the number of processes or their rank."""


@pytest.fixture(scope="module")
def lost(python, tmp_path_factory, battery):
    """Lose a process of trainings without torchrun; return how the others ended, and which processes still live."""
    folder = tmp_path_factory.mktemp("lost")
    cases = []
    losses = tuple(LOSSES) if battery else LOSSES_IN_SHORT
    for number, name in enumerate(losses):
        processes, fault, options = LOSSES[name]
        job = {**LONG, **options, "out": str(folder / name), "fault": fault, "images": 10 + 2 * number}
        cases.append({"job": job, "processes": processes})
    stopping = {**LONG, "out": str(folder / "terminated"), "fault": {**SIGNALLED, "rank": 0}}
    cases.append({"job": stopping, "processes": 2})
    ended, living = several.by_hand(python, cases, folder)
    until = time.monotonic() + 15  # loader workers check every few seconds that their process lives
    while living() and time.monotonic() < until:
        time.sleep(0.2)
    return folder, dict(zip([*losses, "terminated"], ended, strict=True)), living()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in LOSSES_IN_SHORT else pytest.mark.battery) for name in LOSSES]
)
def test_the_loss_of_a_process_ends_the_others_with_its_name(lost, figure, name):
    folder, ended, _ = lost
    _, fault, _ = LOSSES[name]
    pid = json.loads((folder / f"{name}.fault.json").read_text())["pid"]
    others = [process for rank, process in enumerate(ended[name]) if rank != fault["rank"]]
    assert {process["status"] for process in others} == {1}
    seconds = max(process["seconds"] for process in others)
    for process in others:
        assert f"process {fault['rank']} (pid {pid} on " in process["said"], process["said"]
    figure(10, f"{name}, by hand", f"the others end after {seconds:.0f} s and name it (lost after {LOST_AFTER:.0f} s)")
    assert seconds < 30


def test_a_stopped_process_that_goes_on_finds_itself_alone_and_ends(lost):
    for name in {"stopped in a step", "one of four stopped"} & lost[1].keys():
        process = lost[1][name][1]
        assert process["status"] == 1
        assert process["seconds"] < 30
        assert "has not answered" in process["said"] or "LostProcessError" in process["said"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which processes live")
def test_the_loss_of_a_process_leaves_no_orphans(lost, figure):
    assert lost[2] == []
    figure(10, "orphans", f"none after {len(lost[1]) - 1} losses, loader workers neither")


def test_a_signal_to_one_that_was_started_by_hand_ends_all_with_its_status(lost):
    folder, ended, _ = lost
    assert [process["status"] for process in ended["terminated"]] == [143, 143]
    met = met_by_all(folder / "terminated", 2)
    saved, _ = load_latest(folder / "terminated" / "checkpoints")
    assert saved.progress.step == len(interleaved([m["asked"] for m in met], 13, BATCH)) - 1


@pytest.fixture
def torchrun(python, battery):
    """Run jobs by torchrun in `make battery`, in the suite by the agent that it starts, without its imports."""

    def run(job, folder, *, restarts=0):
        if battery:
            return several.torchrun(2, [job], folder, "--max-restarts", str(restarts))
        return several.forked(python, 2, [job], folder, restarts=restarts)

    return run


def test_torchrun_restarts_a_training_that_lost_a_process_where_it_was(torchrun, tmp_path, one, figure):
    fault = {"where": "forward", "rank": 1, "at": 5, "what": "SIGKILL"}  # in the second of two epochs of three steps
    job = {"out": str(tmp_path / "run"), "fault": fault, "lost_after": LOST_AFTER, "last": True}
    status, said, living = torchrun(job, tmp_path, restarts=2)
    assert status == 0, said
    pid = json.loads(Path(f"{job['out']}.fault.json").read_text())["pid"]
    assert f"process 1 (pid {pid} on " in said
    assert "resumed at step 3" in said
    assert living() == []
    whole, _ = several.difference(job["out"], one({})[0])
    figure(10, "killed once, --max-restarts 2", f"named, restarted at its checkpoint; {whole:.1e} of all weights")
    assert whole <= EXACT
    assert learning(job["out"]) == learning(one({})[0])


def test_sigterm_to_torchrun_stops_all_at_the_same_step_and_is_resumed(torchrun, tmp_path, one, figure):
    fault = {"where": "reading", "rank": 1, "at": 12, "what": "SIGTERM", "whom": "launcher"}
    recipe = {"epochs": 8, "learning_rate": 1e-3}
    job = {"out": str(tmp_path / "run"), "fault": fault, "recipe": recipe, "slow": 0.1, "last": True}
    status, said, living = torchrun(job, tmp_path)
    assert status != 0
    assert living() == []
    met = met_by_all(job["out"], 2)
    assert [m["error"] for m in met] == ["Stopped", "Stopped"], said
    assert [m["status"] for m in met] == [143, 143]
    done = len(interleaved([m["asked"] for m in met], 13, BATCH)) - 1
    assert load_latest(tmp_path / "run" / "checkpoints")[0].progress.step == done
    assert 0 < done < 8 * 3
    assert several.run({**job, "slow": 0, "resume": True})["error"] is None
    whole, _ = several.difference(job["out"], one({"recipe": recipe})[0])
    figure(10, "SIGTERM to torchrun", f"both save after {done} steps and leave with 143; resumed, {whole:.1e} of all")
    assert whole <= EXACT
