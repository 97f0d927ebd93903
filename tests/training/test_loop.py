"""The loop against gradient descent written out here, and stopped runs against whole ones."""

import io
import json
import os
import re
import shlex
import signal
import time
from dataclasses import fields

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from verydeep import Execution, Recipe, Runtime, evaluate, initialise, load, train, vgg
from verydeep.commands.train import show_training
from verydeep.images.colour import colour_statistics, shift_components
from verydeep.images.crops import TrainingView
from verydeep.images.loader import training_batches
from verydeep.images.sources.source import Sample, Source, memory_source, subset
from verydeep.images.sources.splits import Splits, stratified_split
from verydeep.machine.runtime import Stopped
from verydeep.runs.model import load_model
from verydeep.runs.record import EpochMetrics, append_metrics, read_metrics, read_record
from verydeep.training.step import DivergedError, _dropout_masks

TINY = Recipe(crop=32, width=0.05, batch=4, epochs=3, learning_rate=1e-3, seed=5)


def pictures(count, seed, classes=("dark", "light")):
    """Make noise that is dark or light, as PNG files."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        label = index % len(classes)
        buffer = io.BytesIO()
        pixels = rng.integers(0, 100, (40, 44, 3)) + 150 * label
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), label, f"{index}.png"))
    return memory_source(classes=classes, samples=tuple(samples))


def splits():
    return Splits(name="noise", sources={"train": pictures(10, 0), "val": pictures(6, 1)})


def same_weights(one, other):
    a, b = load(one).state_dict(), load(other).state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("micro_batch", "smoothing"), [(None, 0.0), (3, 0.0), (1, 0.3)])
def test_training_is_momentum_descent_with_weight_decay(tmp_path, micro_batch, smoothing):
    """w <- w - rate v, v <- 0.9 v + gradient + decay w, on the same batches, with gradients of -log softmax.

    Smoothing puts a share of each target on all classes alike.
    """
    decay = 0.1  # far above the paper's, so that it shows
    options = {"crop": 32, "width": 0.05, "batch": 4, "dropout": 0.0, "label_smoothing": smoothing}
    recipe = Recipe(**options, epochs=2, learning_rate=1e-3, weight_decay=decay)
    execution = Execution(micro_batch=micro_batch)
    trained = load(train(splits(), network="B", out=tmp_path / "run", recipe=recipe, execution=execution))

    start = Recipe(**options, epochs=1, learning_rate=1e-30)
    net = load(train(splits(), network="B", out=tmp_path / "start", recipe=start))  # the first weights
    images = splits().sources["train"]
    colour = colour_statistics(images)
    view = TrainingView(
        crop=32, scale=(37, 37), flip=True, colour_sd=0.1, colour_components=shift_components(colour.covariance)
    )
    velocity = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for batch in training_batches(images, view, batch=4, epochs=2, seed=0):
        upright = [i.flip(-1) if turned else i for i, turned in zip(batch.images, batch.mirrored, strict=True)]
        scores = net(torch.stack(upright) + batch.shifts[:, :, None, None])
        right = scores[torch.arange(len(scores)), batch.labels]
        wanted = (1 - smoothing) * right + smoothing * scores.mean(dim=1)
        loss = (scores.exp().sum(dim=1).log() - wanted).mean()
        net.zero_grad()
        loss.backward()
        with torch.no_grad():
            for name, p in net.named_parameters():
                velocity[name] = 0.9 * velocity[name] + p.grad + decay * p
                p -= 1e-3 * velocity[name]
    for name, p in net.named_parameters():
        assert torch.allclose(p, trained.state_dict()[name], rtol=1e-4, atol=1e-7), name


def test_pieces_of_a_batch_lose_the_activations_that_the_whole_loses(tmp_path):
    """With dropout, too, micro-batches change nothing but rounding."""
    nets = []
    for micro_batch in (None, 1, 3):
        out = tmp_path / str(micro_batch)
        train(splits(), network="A", out=out, recipe=TINY, execution=Execution(micro_batch=micro_batch))
        nets.append(torch.cat([value.flatten() for value in load(out).state_dict().values()]))
    other_seed = Recipe(**{**vars(TINY), "seed": 6})
    other = load(train(splits(), network="A", out=tmp_path / "other", recipe=other_seed)).state_dict()
    assert (torch.cat([value.flatten() for value in other.values()]) - nets[0]).norm() > 0.1 * nets[0].norm()
    for net in nets[1:]:
        assert (net - nets[0]).norm() < 1e-6 * nets[0].norm()


def test_dropout_leaves_what_the_masks_say(tmp_path):
    """Against the two layers written out: masked, and divided by the share that is kept."""
    net = vgg("A", classes=3, crop=32, width=0.05, dropout=0.25).train()
    images = torch.rand(5, 3, 32, 32) * 255
    masks = _dropout_masks(net, seed=1, step=2, batch=5, device=torch.device("cpu"))
    assert {name: tuple(mask.shape) for name, mask in masks.items()} == {"drop6": (5, 205), "drop7": (5, 205)}
    pool5 = net.activations(images, ["pool5"])["pool5"].flatten(1)
    fc6 = net.fc6(pool5).clamp(min=0) * masks["drop6"] / 0.75
    fc7 = net.fc7(fc6).clamp(min=0) * masks["drop7"] / 0.75
    assert torch.allclose(net(images, masks), net.fc8(fc7), atol=1e-5)
    assert torch.equal(net.eval()(images, masks), net(images))


def test_a_run_learns_and_says_what_made_it(tmp_path):
    recipe = Recipe(crop=32, width=0.1, batch=5, epochs=12, learning_rate=2e-3, patience=12)
    out = train(splits(), network="a", out=tmp_path / "run", recipe=recipe)
    record, metrics = read_record(out), read_metrics(out)
    assert (record.network, record.source, record.classes) == ("A", "noise", ("dark", "light"))
    assert Recipe(**record.recipe) == recipe
    assert record.images == {"train": 10, "val": 6}
    assert [epoch.epoch for epoch in metrics] == list(range(1, 13))
    assert metrics[-1].validation_error == 0
    assert metrics[-1].loss < metrics[0].loss / 2
    assert load_model(out).classes == ("dark", "light")
    files = [path for path in out.rglob("*") if path.is_file() and path.parent.name != "tensorboard"]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".safetensors"}


def test_every_step_has_its_own_dropout(tmp_path, monkeypatch):
    drawn = []

    def noted(*arguments, **options):
        drawn.append(_dropout_masks(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr("verydeep.training.step._dropout_masks", noted)
    train(splits(), network="A", out=tmp_path / "run", recipe=TINY)
    masks = torch.stack([mask for step in drawn for mask in step.values()])
    assert masks.shape == (2 * 3 * 3, 4, 205)  # drop6 and drop7, three epochs of 10 images in batches of 4
    assert len(masks.flatten(1).unique(dim=0)) == len(masks)
    assert masks.double().mean().item() == pytest.approx(0.5, abs=0.02)


def test_the_mean_is_that_of_the_training_images(tmp_path):
    out = train(splits(), network="A", out=tmp_path / "run", recipe=TINY)
    pixels = [np.asarray(Image.open(io.BytesIO(s.data))) for s in splits().sources["train"]]
    assert load(out).mean_rgb.tolist() == pytest.approx(np.stack(pixels).mean(axis=(0, 1, 2)).tolist(), rel=1e-6)


def test_held_out_images_steer_and_are_not_learned(tmp_path):
    out = train(splits(), network="A", out=tmp_path / "run", recipe=TINY, held_out=0.2)
    assert read_record(out).images == {"train": 8, "val": 2}
    _, held_out = stratified_split(splits().sources["train"].labels, 0.2)
    kept = [s for place, s in enumerate(splits().sources["train"]) if place not in held_out]
    pixels = [np.asarray(Image.open(io.BytesIO(s.data))) for s in kept]
    assert load(out).mean_rgb.tolist() == pytest.approx(np.stack(pixels).mean(axis=(0, 1, 2)).tolist(), rel=1e-6)
    with pytest.raises(ValueError, match=r"other settings \(training images, validation images\)"):
        train(splits(), network="A", out=out, recipe=TINY, resume=True)


def test_the_same_seed_gives_the_same_weights_for_any_number_of_workers(tmp_path):
    for workers in (0, 2):
        train(splits(), network="A", out=tmp_path / str(workers), recipe=TINY, runtime=Runtime(workers=workers))
    assert same_weights(tmp_path / "0", tmp_path / "2")


class Interrupting(Source):
    """A source that sends a signal to its process when an image is read for the n-th time."""

    reads = 0
    at = 0
    number = signal.SIGTERM

    def __getitem__(self, index):
        Interrupting.reads += 1
        if Interrupting.reads == Interrupting.at:
            os.kill(os.getpid(), Interrupting.number)
        return super().__getitem__(index)


@pytest.mark.usefixtures("unignored_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("reads", [1, 7, 13])
def test_a_stopped_run_ends_with_the_weights_of_a_whole_one(tmp_path, number, reads):
    recipe = Recipe(crop=32, width=0.05, batch=3, epochs=2, learning_rate=1e-3, scale="256:512")
    train(splits(), network="A", out=tmp_path / "whole", recipe=recipe)
    plain = splits().sources["train"]
    stopping = Splits(
        name="noise",
        sources={"train": Interrupting(**vars(plain)), "val": splits().sources["val"]},
    )
    Interrupting.reads, Interrupting.at, Interrupting.number = -len(plain), reads, number  # each is read once before
    with pytest.raises(Stopped, match="--resume to continue") as stopped:
        train(stopping, network="A", out=tmp_path / "run", recipe=recipe, execution=Execution(image_memory=0))
    assert stopped.value.exit_code == 128 + number
    assert not (tmp_path / "run" / "model").exists()
    with pytest.raises(ValueError, match="has no model yet"):
        load(tmp_path / "run")
    train(splits(), network="A", out=tmp_path / "run", recipe=recipe, resume=True)
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    assert tiny.learning(tmp_path / "run") == tiny.learning(tmp_path / "whole")


def test_a_finished_run_is_left_alone(tmp_path):
    out = train(splits(), network="A", out=tmp_path / "run", recipe=TINY)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    train(splits(), network="A", out=out, recipe=TINY, resume=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_the_schedule_ends_a_training_before_its_last_epoch(tmp_path):
    recipe = Recipe(crop=32, width=0.05, batch=10, epochs=50, learning_rate=1e-30, patience=1, drops=1)
    out = train(splits(), network="A", out=tmp_path / "run", recipe=recipe)
    rates = [epoch.learning_rate for epoch in read_metrics(out)]
    assert rates == pytest.approx([1e-30, 1e-30, 1e-31])


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not a run: choose another folder"):
        train(splits(), network="A", out=tmp_path, recipe=TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_is_not_resumed_with_other_settings(tmp_path):
    out = train(splits(), network="A", out=tmp_path / "run", recipe=TINY)
    with pytest.raises(ValueError, match=r"was made with other settings \(batch, seed\)"):
        train(splits(), network="A", out=out, recipe=Recipe(**{**vars(TINY), "seed": 6, "batch": 5}), resume=True)
    with pytest.raises(ValueError, match=r"was made with other settings \(network\)"):
        train(splits(), network="B", out=out, recipe=TINY, resume=True)
    with pytest.raises(ValueError, match="is a finished run: choose another folder, or go on from it with --finetune"):
        train(splits(), network="A", out=out, recipe=TINY)


@pytest.mark.parametrize(
    ("begun", "goes_on"),
    [
        ("verydeep train digits --out a", "verydeep train digits --out a --resume"),
        ("verydeep train digits --resume --out a", "verydeep train digits --resume --out a"),
        ("verydeep reproduce digits --out a", "verydeep reproduce digits --out a"),
        ("verydeep reproduce digits --out 'what we train'", "verydeep reproduce digits --out 'what we train'"),
    ],
)
def test_the_command_that_goes_on_is_told_whole(tmp_path, monkeypatch, begun, goes_on):
    monkeypatch.setattr("sys.argv", shlex.split(begun))
    out = train(splits(), network="A", out=tmp_path / "run", recipe=TINY)
    with pytest.raises(ValueError, match=re.escape(f"resume it with its own ({goes_on}), or choose")):
        train(splits(), network="B", out=out, recipe=TINY, resume=True)


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path):
    recipe = Recipe(crop=32, width=0.1, batch=5, epochs=20, learning_rate=1e6)
    with pytest.raises(DivergedError, match=r"diverged at step \d+ .* that step was not applied"):
        train(splits(), network="A", out=tmp_path / "run", recipe=recipe)
    assert not (tmp_path / "run" / "model").exists()


def test_deeper_networks_start_from_a_run(tmp_path):
    a = train(splits(), network="A", out=tmp_path / "a", recipe=TINY)
    frozen = Recipe(**{**vars(TINY), "learning_rate": 1e-30, "epochs": 1, "init": str(a)})
    d = load(train(splits(), network="D", out=tmp_path / "d", recipe=frozen))
    seed = load(a)
    for name in ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8"):
        assert torch.equal(d.get_submodule(name).weight, seed.get_submodule(name).weight)
    assert read_record(tmp_path / "d").initialisation.startswith("copied: conv1_1, conv2_1, conv3_1, conv3_2, fc6")


def test_a_start_from_other_classes_is_refused_and_leaves_nothing(tmp_path):
    a = train(splits(), network="A", out=tmp_path / "a", recipe=TINY)
    other = Splits(name="noise", sources={s: pictures(6, 2, ("cats", "dogs")) for s in ("train", "val")})
    with pytest.raises(ValueError, match="was trained for other classes"):
        train(other, network="D", out=tmp_path / "d", recipe=Recipe(**{**vars(TINY), "init": str(a)}))
    assert not (tmp_path / "d").exists()


def epoch(number, **more):
    names = {field.name for field in fields(EpochMetrics)} - {
        "class_balanced_error",
        "peak_memory_bytes",
        "guessing_loss",
    }
    return EpochMetrics(**dict.fromkeys(names, 0.5) | {"epoch": number, "step": 3, "images": 12} | more)


def line(number):
    """A line of an older version, without some figures and with one that this version does not know."""
    written = {name: value for name, value in vars(epoch(number)).items() if value is not None}
    return {**written, "mood": "good"}


UNBALANCED = {**line(2), "class_balanced_error": "x"}


@pytest.mark.parametrize("odd", [{"epoch": "2"}, {"epoch": 2}, {**line(2), "loss": None}, UNBALANCED, 5, "text", [[]]])
def test_odd_lines_of_metrics_are_passed_over(tmp_path, odd):
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in (odd, line(1), odd)))
    assert read_metrics(tmp_path) == [epoch(1)]


def test_a_torn_line_of_metrics_is_ignored(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line(1)) + '\n{"epoch": 2, "lo')
    assert read_metrics(tmp_path) == [epoch(1)]


def test_a_torn_line_does_not_tear_the_next(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line(1)) + '\n{"epoch": 2, "deep": {"a": 1}')
    append_metrics(tmp_path, epoch(2))
    append_metrics(tmp_path, epoch(3))
    assert read_metrics(tmp_path) == [epoch(1), epoch(2), epoch(3)]


def test_a_gradient_that_is_not_finite_stops_too(tmp_path, monkeypatch):
    def overflowing(net, scheme="glorot", **options):
        done = initialise(net, scheme, **options)
        net.fc8.weight.register_hook(lambda gradient: gradient * float("inf"))
        return done

    monkeypatch.setattr("verydeep.training.preparation.initialise", overflowing)
    with pytest.raises(DivergedError, match=r"at step 0 \(loss \d.*gradient norm (inf|nan)\)"):
        train(splits(), network="A", out=tmp_path / "run", recipe=TINY)
    assert not (tmp_path / "run" / "model").exists()


def test_the_rate_that_acts_is_the_schedules(tmp_path):
    """Without momentum a step is a tenth as long once the rate was divided by 10."""
    options = {"crop": 32, "width": 0.05, "batch": 10, "patience": 1, "dropout": 0.0, "weight_decay": 0.1}
    moved = []
    for epochs in (1, 2, 3):
        recipe = Recipe(**options, epochs=epochs, learning_rate=1e-3, momentum=0.0, drops=3)
        out = train(unlearnable(), network="A", out=tmp_path / str(epochs), recipe=recipe)
        moved.append(load(out).fc6.weight.detach().clone())
        rates = [epoch.learning_rate for epoch in read_metrics(out)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4])
    first, second = (moved[1] - moved[0]).norm(), (moved[2] - moved[1]).norm()
    assert second < first / 5


def unlearnable():
    """Put the same validation image under both labels: the error is 50% whatever is learned."""
    data = pictures(1, 3)[0].data
    val = memory_source(classes=("dark", "light"), samples=(Sample(data, 0, "0"), Sample(data, 1, "1")))
    return Splits(name="noise", sources={"train": pictures(10, 0), "val": val})


def test_classes_of_unequal_size_have_a_class_balanced_error_beside_it(tmp_path, capsys):
    """3 images of one and 1 of the other: as `evaluate` has it with the same crops."""
    sources = {"train": pictures(10, 0), "val": subset(pictures(6, 1), (0, 2, 4, 1))}
    images, recipe = Splits(name="noise", sources=sources), Recipe(**{**vars(TINY), "epochs": 1})
    run = train(images, network="A", out=tmp_path / "run", recipe=recipe)
    found = evaluate(run, data=images, split="val", protocol="centre")
    last = read_metrics(run)[-1]
    assert last.class_balanced_error == pytest.approx(found.class_balanced_error)
    assert last.class_balanced_error != last.validation_error
    show_training(run, None)
    assert "class-balanced, %" in capsys.readouterr().out


def test_the_validation_error_is_that_of_centre_crops_at_the_middle_scale(tmp_path):
    """A light square of growing size on dark ground fills more of the crop the larger the scale."""
    recipe = Recipe(crop=32, width=0.1, batch=5, epochs=12, patience=12, learning_rate=2e-3, scale="224:512")
    samples = []
    for half in range(1, 20):
        pixels = np.full((40, 44, 3), 50, np.uint8)
        pixels[20 - half : 20 + half, 22 - half : 22 + half] = 200
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), 1, f"{half}"))
    val = memory_source(classes=("dark", "light"), samples=tuple(samples))
    data = Splits(name="noise", sources={"train": pictures(10, 0), "val": val})
    out = train(data, network="A", out=tmp_path / "run", recipe=recipe)
    net, wrong = load(out), {}
    for side in (32, 53, 73):  # 224, the middle 368, 512, at crop 32
        wrong[side] = 0
        for sample in samples:
            image = Image.open(io.BytesIO(sample.data))
            width, height = (round(edge * side / min(image.size)) for edge in image.size)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
            left, top = (width - 32) // 2, (height - 32) // 2
            crop = np.asarray(image.crop((left, top, left + 32, top + 32)))
            scores = net(torch.from_numpy(crop.copy()).permute(2, 0, 1)[None])
            wrong[side] += int(scores.argmax()) != sample.label
    assert read_metrics(out)[-1].validation_error == pytest.approx(100 * wrong[53] / 19)
    assert wrong[53] not in (wrong[32], wrong[73]), "the images do not tell the scales apart"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_process_group_is_survived_by_workers(python, tmp_path, number):
    """Send it as a terminal's Ctrl-C and a batch system's termination come."""
    options = ["--network", "A", "--crop", "32", "--width", "0.05", "--batch", "4", "--workers", "2"]
    options += ["--epochs", "2000", "--patience", "2000"]
    script = "import sys; from verydeep.cli import main; main(sys.argv[1:])"
    process = python(script, "train", tiny.folder(tmp_path / "photos"), "--out", tmp_path / "run", *options)
    until = time.monotonic() + 60
    while "epoch 1/" not in process.errors and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, number)
    status, rest = process.wait(), process.errors
    assert status == 128 + number
    assert rest.splitlines()[-1].endswith("repeat the command with --resume to continue")
    assert read_metrics(tmp_path / "run")
