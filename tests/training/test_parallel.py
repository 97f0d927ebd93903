"""Steps over several processes against steps of one, and bytes sent against those that the system counts."""

import json
import sys

import pytest
import several_processes as several
import torch

from verydeep import initialise, load, vgg
from verydeep.networks.architecture import Architecture
from verydeep.networks.vgg import VGG
from verydeep.training.learner import _largest_that_fits
from verydeep.training.norms import read_norms
from verydeep.training.parallel import bytes_sent

pytestmark = pytest.mark.usefixtures("one_thread")

FC, PLAIN = {"fc_parallel": True}, {"fc_parallel": False}
TRAININGS = {
    "A": {"network": "A"},
    "A, fc": {"network": "A", "execution": FC},
    "A, pieces": {"network": "A", "execution": {"micro_batch": 1}, "recipe": {"batch": 7}},
    "D, pieces": {"network": "D", "execution": {"micro_batch": 2}},
    "D, fc, pieces": {"network": "D", "execution": {**FC, "micro_batch": 2}, "recipe": {"batch": 7}},
    "A-LRN": {"network": "A-LRN"},
    "A-LRN, fc": {"network": "A-LRN", "execution": FC},
    "narrow, fc": {"network": "A", "execution": FC, "recipe": {"width": 0.01}},
    "dropout": {"network": "A", "recipe": {"dropout": 0.5}, "execution": {"norms_every": 2}},
    "dropout, fc": {"network": "A", "recipe": {"dropout": 0.5}, "execution": FC},
    "dropout, fc, pieces": {"network": "A", "recipe": {"dropout": 0.5}, "execution": {**FC, "micro_batch": 2}},
    "frozen, fc": {"network": "A", "recipe": {"finetune": "start", "freeze": "conv4_1"}, "execution": FC},
    "only fc learns, fc": {"network": "A", "recipe": {"finetune": "start", "freeze": "conv5_2"}, "execution": FC},
}
SENDING = {
    "plain": {"execution": PLAIN, "recipe": {"width": 0.3, "batch": 6, "epochs": 1}, "train": 12},
    "fc": {"execution": FC, "recipe": {"width": 0.3, "batch": 6, "epochs": 1}, "train": 12},
    "fc, mostly activations": {"execution": FC, "recipe": {"batch": 96, "epochs": 1}, "train": 192},
    "fc, pieces": {
        "execution": {**FC, "micro_batch": 24},
        "recipe": {"batch": 96, "epochs": 1, "dropout": 0.5},
        "train": 192,
    },
}
"""Nearly all bytes of the first two are gradients, half of those of the last two are activations."""


IN_SHORT = {
    2: tuple(TRAININGS),
    4: ("D, fc, pieces", "dropout", "frozen, fc", "narrow, fc"),
}
"""Trainings of the suite by the number of processes; `make battery` runs all with both."""
SENDING_IN_SHORT = {2: tuple(SENDING), 4: ("plain", "fc, pieces")}


def selected(of_battery, in_short):
    """Return (processes, name) of the trainings; those of the battery alone are marked."""
    return [
        pytest.param(processes, name, marks=() if name in in_short[processes] else pytest.mark.battery)
        for processes in (2, 4)
        for name in of_battery
    ]


def made(job, place, start):
    """Return a job with its run folder."""
    recipe = dict(job.get("recipe", {}))
    if "finetune" in recipe:
        recipe["finetune"] = str(start)
    return {**job, "recipe": recipe, "out": str(place)}


@pytest.fixture(scope="module")
def folder(python, tmp_path_factory, battery):
    """Run the trainings on one process (here), two and four (each in one start)."""
    folder = tmp_path_factory.mktemp("parallel")
    start = folder / "start"
    assert several.run({"out": str(start), "recipe": {"epochs": 1}})["error"] is None
    done = {}
    for name, job in TRAININGS.items():
        alike = json.dumps([job["network"], job.get("recipe")], sort_keys=True)
        if alike not in done:
            done[alike] = folder / "1" / name
            assert several.run({**made(job, done[alike], start), "execution": {"norms_every": 1}})["error"] is None
        elif not (folder / "1" / name).exists():
            (folder / "1" / name).symlink_to(done[alike])
    for processes in (2, 4):
        names, sending = (TRAININGS, SENDING) if battery else (IN_SHORT[processes], SENDING_IN_SHORT[processes])
        jobs = [made(TRAININGS[name], folder / str(processes) / name, start) for name in names]
        jobs += [{**SENDING[name], "count": True, "out": str(folder / f"sent{processes}" / name)} for name in sending]
        status, said, _ = several.forked(python, processes, jobs, folder)
        assert status == 0, said
    return folder


def first_weights(run):
    """Return the network of a run with random first weights before its first step."""
    net = load(run)
    initialise(net, "glorot", generator=torch.Generator().manual_seed(several.BASE["seed"]))
    return net


@pytest.mark.parametrize(("processes", "name"), selected(TRAININGS, IN_SHORT))
def test_several_processes_end_with_the_weights_of_one(folder, name, processes):
    met = several.runs_of({"out": folder / str(processes) / name}, processes)
    assert [one["error"] for one in met] == [None] * processes, met
    whole, largest = several.difference(folder / str(processes) / name, folder / "1" / name)
    first = folder / "start" if "finetune" in TRAININGS[name].get("recipe", {}) else first_weights(folder / "1" / name)
    moved, _ = several.difference(folder / "1" / name, first)
    print(f"{name}, {processes} processes: {whole:.1e} of all weights, {largest:.1e} of a tensor; moved by {moved:.1e}")
    assert whole <= 1e-6
    assert largest <= 1e-4
    assert moved > 1e-3, "it has learned too little to show a difference"


@pytest.mark.parametrize("processes", [2, 4])
def test_norms_of_several_processes_are_those_of_one(folder, processes):
    here = [one for one in read_norms(folder / "1" / "dropout") if one.step % 2 == 0]
    for one, other in zip(here, read_norms(folder / str(processes) / "dropout"), strict=True):
        assert (one.step, one.loss) == (other.step, pytest.approx(other.loss, rel=1e-5))
        for name, norms in one.layers.items():
            assert vars(other.layers[name]) == pytest.approx(vars(norms), rel=1e-4), name


def test_masks_of_dropout_do_change_the_weights(folder):
    """Without this the trainings with dropout would show nothing."""
    assert several.difference(folder / "1" / "dropout", folder / "1" / "A")[0] > 1e-3


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells how much a connection has sent")
@pytest.mark.parametrize(("processes", "name"), selected(SENDING, SENDING_IN_SHORT))
def test_a_step_sends_what_the_formula_says(folder, name, processes):
    job = SENDING[name]
    recipe = {**several.BASE, **job["recipe"]}
    met = several.runs_of({"out": folder / f"sent{processes}" / name}, processes)
    net = vgg("A", classes=3, crop=32, width=recipe["width"])
    formula = bytes_sent(net, processes, batch=recipe["batch"], fc_parallel=job["execution"]["fc_parallel"])
    if job["execution"]["fc_parallel"]:
        # Half of the activations are added up and dealt out, which the formula counts as one turn of a ring.
        dealt = recipe["batch"] * (net.fc6.in_features + net.fc7.out_features + net.fc8.out_features) * 4
        formula += (met[0]["scattered"][0] - 1) * dealt * (processes - 1) / processes
    steps = [sum(step) / processes for step in zip(*(one["sent"] for one in met), strict=True)]
    print(f"{name}, {processes} processes: {formula:,.0f} bytes expected, sent {[round(step) for step in steps]}")
    assert len(steps) == job["train"] // recipe["batch"]
    assert steps == pytest.approx([formula] * len(steps), rel=0.1)


@pytest.mark.parametrize("processes", [2, 4])
def test_sharing_the_fully_connected_layers_of_d_sends_a_fifth_at_most(processes):
    with torch.device("meta"):
        net = VGG(Architecture(network="D"))
    plain, shared = (bytes_sent(net, processes, batch=256, fc_parallel=fc) for fc in (False, True))
    print(f"D, batch 256, {processes} processes: {plain / 1e6:.1f} MB a step, with --fc-parallel {shared / 1e6:.1f} MB")
    # By hand: 138,357,544 weights, of which 14,714,688 are convolutions'; pool5, fc7 and fc8 of 256 images.
    share = (processes - 1) / processes
    assert plain == pytest.approx(2 * 4 * 138_357_544 * share)
    assert shared == pytest.approx(2 * 4 * (14_714_688 + 256 * (7 * 7 * 512 + 4096 + 1000)) * share)
    assert plain >= 5 * shared


@pytest.mark.parametrize(("fitting", "found"), [(20, 13), (13, 13), (12, 7), (6, 4), (3, 2), (1, 1)])
def test_pieces_are_halved_until_they_fit(fitting, found):
    tried, forgotten = [], []

    def try_out(images):
        tried.append(images)
        if images > fitting:
            raise torch.OutOfMemoryError("out of memory")

    assert _largest_that_fits(13, try_out, forget=lambda: forgotten.append(tried[-1])) == found
    assert tried == [images for images in (13, 7, 4, 2, 1) if images >= found]
    assert forgotten == tried


def test_not_even_one_image_that_fits_is_an_error_in_words():
    def try_out(images):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(ValueError, match="not even one image fits into the device's memory: take a smaller --width"):
        _largest_that_fits(5, try_out, forget=lambda: None)


def test_other_errors_of_the_trial_are_not_taken_for_a_lack_of_memory():
    def try_out(images):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        _largest_that_fits(5, try_out, forget=lambda: None)


def test_a_batch_that_does_not_fit_is_computed_in_pieces_to_the_same_end(tmp_path, monkeypatch, capsys):
    """On a device for three images, five are computed as three and two, and a line says so."""
    job = {"recipe": {"dropout": 0.5, "batch": 5}}
    assert several.run({**job, "out": str(tmp_path / "whole")})["error"] is None
    assert "pieces" not in capsys.readouterr().err
    forward, shown = VGG.forward, []

    def cramped(net, images, keep=None, **more):
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if net.training:
            shown.append(len(images))
        return forward(net, images, keep, **more)

    monkeypatch.setattr(VGG, "forward", cramped)
    monkeypatch.setattr("verydeep.training.learner.OUT_OF_MEMORY_IS_SURVIVED", ("cpu",))
    assert several.run({**job, "out": str(tmp_path / "pieces")})["error"] is None
    assert "batches of 5 in 2 pieces of 3" in capsys.readouterr().err
    assert shown == [3] + [3, 2, 3, 2, 3] * 2  # one to try it out; 13 images in batches of 5, twice
    whole, largest = several.difference(tmp_path / "pieces", tmp_path / "whole")
    print(f"in pieces: {whole:.1e} of all weights, {largest:.1e} of a tensor")
    assert 0 < whole <= 1e-6
