"""Five hundred image files, forty of them unusable in twelve ways: those are left out and listed, and no others."""

import json
import os
import signal
import struct
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_files import saved
from PIL import Image
from several_commands import status_of

from verydeep import Recipe, Runtime, Tolerance, evaluate, load, scan, train
from verydeep.cli import WRONG_USE
from verydeep.images.open import open_for_training
from verydeep.images.quarantine import Quarantine, TooManyBadImagesError
from verydeep.images.sources.source import Sample, memory_source, subset
from verydeep.images.sources.splits import Splits
from verydeep.machine.runtime import Stopped
from verydeep.runs.record import read_metrics
from verydeep.training import preparation

IMAGES, BAD = 500, 40
RECIPE = Recipe(crop=32, width=0.05, batch=64, epochs=1, learning_rate=1e-3)
OPTIONS = ["--network", "A", "--crop", "32", "--width", "0.05", "--batch", "64", "--learning-rate", "1e-3"]
OPTIONS += ["--epochs", "1"]
TOLERANT = Tolerance(max_bad=10)


def noise(rng, height, width, brightness=0):
    return Image.fromarray((rng.integers(0, 150, (height, width, 3)) + brightness).astype(np.uint8))


def png_of_zeros(width, height):
    """A PNG file that says it is this large, and has a hundred bytes of pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def unreadable(path):
    """A file whose bytes the system will not give; root may read what has no permissions, but not this."""
    if os.geteuid() == 0:
        path.symlink_to("/proc/self/mem")
    else:
        path.touch(mode=0)


def ways_to_be_bad(rng):
    """Suffix, content (None: unreadable) and reason; every call gives other pixels."""
    image = noise(rng, 30, 36)
    jpeg, png = saved(image, "JPEG"), saved(image, "PNG")
    fractions = Image.fromarray(rng.random((20, 20)).astype(np.float32))
    return [
        (".jpg", b"", "undecodable (an empty file)"),
        (".jpg", jpeg[: len(jpeg) // 2], "truncated (the file ends before the image does)"),
        (".png", png[: len(png) // 2], "truncated (the file ends before the image does)"),
        (".jpg", b"<!DOCTYPE html><html>404 Not Found</html>", "undecodable (not an image of a known format)"),
        (".png", png_of_zeros(20_000, 20_000), "too large ("),
        (".png", png_of_zeros(12_000, 9_000), "too large (12000 x 9000 pixels, more than the 100,000,000 allowed)"),
        (".png", saved(noise(rng, 2, 101), "PNG"), "too elongated (101 x 2, sides beyond 50 to 1)"),
        (".png", b"a note, not a picture\n", "undecodable (not an image of a known format)"),
        (".jpg", None, "unreadable ("),
        (".jpg", rng.bytes(500), "undecodable (not an image of a known format)"),
        (".jpg", jpeg[:-2], "truncated (the file ends before the image does)"),
        (".tif", saved(fractions, "TIFF"), "undecodable (pixels are fractions in an unknown range"),
    ]


def write_dirty(root, images=IMAGES, bad=BAD):
    """Two class folders; returns the reason for every bad file. Bad files lie anywhere among the good ones."""
    rng = np.random.default_rng(0)
    reasons = {}
    for name in ("dark", "light"):
        (root / name).mkdir(parents=True)
    chosen = set(rng.choice(images, bad, replace=False).tolist())
    for number in range(images):
        name = ("dark", "light")[number % 2]
        if number in chosen:
            suffix, data, reason = ways_to_be_bad(rng)[len(reasons) % 12]
            path = root / name / f"{number:04d}{suffix}"
            reasons[f"{name}/{path.name}"] = reason
            unreadable(path) if data is None else path.write_bytes(data)
        else:
            kind = ("JPEG", "PNG")[number // 2 % 2]
            image = noise(rng, *rng.integers(12, 41, 2), brightness=100 * (number % 2))
            (root / name / f"{number:04d}.{kind.lower()}").write_bytes(saved(image, kind))
    return reasons


def by_split(source):
    """The names of each split's images, in order."""
    parts = open_for_training(str(source)).sources
    return {split: list(part.ids) for split, part in parts.items()}


def listed(run):
    lines = (run / "quarantine.jsonl").read_text().split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def told(entries):
    return sorted((entry["split"], entry["image"], entry["reason"]) for entry in entries)


def same_weights(one, other):
    a, b = load(one).state_dict(), load(other).state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def dirty(tmp_path_factory):
    """The folder, and why each bad image in it is bad."""
    root = tmp_path_factory.mktemp("dirty")
    reasons = write_dirty(root)
    assert len(reasons) == BAD
    return root, reasons


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """A cache that knows the colours of the dirty folder, and one that does not."""
    return tmp_path_factory.mktemp("knowing"), tmp_path_factory.mktemp("ignorant")


@pytest.fixture(scope="module")
def whole(dirty, caches, tmp_path_factory):
    """A run on the dirty folder that nothing stopped."""
    started = time.perf_counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERYDEEP_CACHE", str(caches[0]))
        out = tmp_path_factory.mktemp("runs") / "whole"
        run = train(str(dirty[0]), network="A", out=out, recipe=RECIPE, tolerance=TOLERANT)
    print(f"{IMAGES} images, {BAD} of them bad: an epoch in {time.perf_counter() - started:.1f} s")
    return run


@pytest.fixture
def known_colours(caches, whole, monkeypatch):
    """Bad training images are met in the first epoch only, as the mean colour is known."""
    monkeypatch.setenv("VERYDEEP_CACHE", str(caches[0]))


@pytest.fixture
def unknown_colours(tmp_path, monkeypatch):
    """Bad training images are met before the first step."""
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))


def test_a_training_lists_exactly_the_bad_images_each_once_with_its_reason(dirty, whole, figure):
    root, reasons = dirty
    entries = listed(whole)
    assert len(entries) == BAD
    assert {entry["image"] for entry in entries} == reasons.keys()
    for entry in entries:
        assert entry.keys() == {"split", "image", "reason"}
        assert entry["reason"].startswith(reasons[entry["image"]]), entry
        assert entry["image"] in by_split(root)[entry["split"]]
    figure(16, "dirty data", f"{IMAGES} images, {BAD} of them bad: those are listed with their reasons, and no others")


def test_a_training_tells_every_image_that_it_leaves_out(dirty, tmp_path, capsys, unknown_colours):
    """One by one, or how many they are and where they are listed."""
    out = train(str(dirty[0]), network="A", out=tmp_path / "run", recipe=RECIPE, tolerance=TOLERANT)
    said = capsys.readouterr().err
    for split in ("train", "val"):
        bad = [entry for entry in listed(out) if entry["split"] == split]
        one_by_one = all(f"left out {split} image {entry['image']}: {entry['reason']}" in said for entry in bad)
        summed_up = f"{len(bad)} images of {split} cannot be used" in said and str(out / "quarantine.jsonl") in said
        assert one_by_one or summed_up, split


@pytest.mark.parametrize("colours", ["known_colours", "unknown_colours"])
def test_two_workers_give_the_same_list_and_the_same_weights(dirty, whole, tmp_path, colours, request):
    request.getfixturevalue(colours)
    run = train(
        str(dirty[0]),
        network="A",
        out=tmp_path / "run",
        recipe=RECIPE,
        tolerance=TOLERANT,
        runtime=Runtime(workers=2),
    )
    assert told(listed(run)) == told(listed(whole))
    if colours == "unknown_colours":
        assert listed(run) == listed(whole)
    assert same_weights(run, whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_scan_finds_the_same_images_beforehand(dirty, whole, workers):
    found = scan(str(dirty[0]), workers=workers)
    unusable = [
        {"split": part.split, "image": image, "reason": reason}
        for part in found.splits
        for image, reason in part.unusable.items()
    ]
    assert told(unusable) == told(listed(whole))
    assert sum(part.images for part in found.splits) == IMAGES


def test_errors_are_shares_of_the_usable_images(dirty, whole):
    bad = dirty[1].keys()
    usable = {split: sum(name not in bad for name in names) for split, names in by_split(dirty[0]).items()}
    metrics = read_metrics(whole)[-1]
    for split, name in (("train", "training_error"), ("val", "validation_error")):
        wrong = getattr(metrics, name) * usable[split] / 100
        assert wrong == pytest.approx(round(wrong), abs=1e-6)
        assert 0 < wrong < usable[split]


def test_validation_without_its_bad_images_is_that_of_the_good_ones(dirty, whole, tmp_path, known_colours):
    splits, names = open_for_training(str(dirty[0])), by_split(dirty[0])["val"]
    good = tuple(index for index, name in enumerate(names) if name not in dirty[1])
    cleaned = Splits(name="cleaned", sources={**splits.sources, "val": subset(splits.source("val"), good)})
    run = train(cleaned, network="A", out=tmp_path / "run", recipe=RECIPE, tolerance=TOLERANT)
    assert read_metrics(run)[-1].validation_error == read_metrics(whole)[-1].validation_error
    assert same_weights(run, whole)
    assert {entry["split"] for entry in listed(run)} == {"train"}


def test_more_than_one_percent_is_too_much_and_more_is_allowed_with_the_same_command(
    dirty, whole, tmp_path, capsys, unknown_colours
):
    command = ["train", dirty[0], *OPTIONS, "--out", tmp_path / "run"]
    assert status_of(*command) == 1
    captured = capsys.readouterr()
    problem = captured.err.splitlines()[-1]
    assert captured.out == ""
    assert problem.startswith("verydeep: 5 of 400 train images cannot be used so far, more than 1%")
    assert str(tmp_path / "run" / "quarantine.jsonl") in problem
    assert "--max-bad" in problem
    assert "Traceback" not in captured.err
    assert captured.err.count("verydeep: ") == 1
    assert len(listed(tmp_path / "run")) == 5
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert status_of(*command, "--max-bad", 10) == 0  # nothing was begun, so nothing is resumed
    assert told(listed(tmp_path / "run")) == told(listed(whole))
    assert same_weights(tmp_path / "run", whole)


def test_too_many_in_the_middle_of_an_epoch_leave_a_checkpoint_to_resume_from(
    dirty, whole, tmp_path, capsys, monkeypatch
):
    real = preparation.colour_statistics
    everything = Tolerance(max_bad=100)
    # So that they are met one by one in the first epoch, as they are where only a sample was looked at.
    monkeypatch.setattr(
        preparation,
        "colour_statistics",
        lambda images, **_: real(images, quarantine=Quarantine(len(images), everything, split="train")),
    )
    monkeypatch.setattr(preparation, "check_images", lambda *_, **__: None)
    command = ["train", dirty[0], *OPTIONS, "--out", tmp_path / "run"]
    assert status_of(*command) == 1
    problem = capsys.readouterr().err.splitlines()[-1]
    assert problem.startswith("verydeep: 5 of 400 train images cannot be used so far, more than 1%")
    assert problem.endswith("can be resumed")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] > ["step-00000000"]
    assert status_of(*command, "--max-bad", 10) == WRONG_USE
    assert "add --resume to go on with it" in capsys.readouterr().err
    assert status_of(*command, "--resume") == 1  # it is still too many
    assert "more than 1%" in capsys.readouterr().err
    assert status_of(*command, "--max-bad", 10, "--resume") == 0
    assert told(listed(tmp_path / "run")) == told(listed(whole))
    assert same_weights(tmp_path / "run", whole)


def test_too_many_bad_validation_images_stop_a_training_too(dirty, tmp_path, known_colours):
    splits, names = open_for_training(str(dirty[0])), by_split(dirty[0])["train"]
    good = tuple(index for index, name in enumerate(names) if name not in dirty[1])[:100]
    part = Splits(name="part", sources={**splits.sources, "train": subset(splits.source("train"), good)})
    undisturbed = train(part, network="A", out=tmp_path / "whole", recipe=RECIPE, tolerance=TOLERANT)
    with pytest.raises(TooManyBadImagesError, match="2 of 100 val images cannot be used so far"):
        train(part, network="A", out=tmp_path / "run", recipe=RECIPE)
    assert read_metrics(tmp_path / "run") == []
    run = train(part, network="A", out=tmp_path / "run", recipe=RECIPE, tolerance=TOLERANT, resume=True)
    assert told(listed(run)) == told(listed(undisturbed))
    assert [epoch.validation_error for epoch in read_metrics(run)] == [
        epoch.validation_error for epoch in read_metrics(undisturbed)
    ]
    assert same_weights(run, undisturbed)


def test_an_evaluation_leaves_them_out_and_says_so(dirty, whole):
    root, reasons = dirty
    val = by_split(root)["val"]
    bad = [name for name in val if name in reasons]
    found = evaluate(whole, data=str(root), scales=(224, 256), tolerance=TOLERANT)
    assert found.split == "val"
    assert found.unusable.keys() == set(bad)
    assert all(reason.startswith(reasons[name]) for name, reason in found.unusable.items())
    assert found.n == found.per_run[0].n == len(val) - len(bad)
    good = tuple(index for index, name in enumerate(val) if name not in reasons)
    cleaned = Splits(name="cleaned", sources={"val": subset(open_for_training(str(root)).source("val"), good)})
    clean = evaluate(whole, data=cleaned, scales=(224, 256), tolerance=Tolerance(max_bad=0))
    assert (clean.n, clean.unusable) == (found.n, {})
    assert clean.per_run[0].top1_wrong == found.per_run[0].top1_wrong
    print(f"{found.n} of {len(val)} validation images tested, {len(bad)} left out; error {found.top1_error:.1f}%")


def test_an_evaluation_stops_at_more_than_one_percent(dirty, whole, capsys):
    with pytest.raises(TooManyBadImagesError, match="2 of 100 val images cannot be used so far, more than 1%"):
        evaluate(whole, data=str(dirty[0]), scales="single")
    capsys.readouterr()
    assert status_of("evaluate", whole, "--data", dirty[0], "--scales", "single") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("verydeep: 2 of 100 val images cannot be used")
    assert status_of("evaluate", whole, "--data", dirty[0], "--scales", "single", "--max-bad", 10) == 0
    captured = capsys.readouterr()
    bad = sum(name in dirty[1] for name in by_split(dirty[0])["val"])
    assert f"{100 - bad} images, dense evaluation, without {bad} that cannot be used" in " ".join(captured.out.split())


class Interrupting:
    """Another source, which stops the training when an image is read for the n-th time."""

    def __init__(self, source, at):
        self.source, self.at, self.reads = source, at, -len(source)  # each is read once before
        self.classes, self.labels, self.boxes = source.classes, source.labels, source.boxes
        self.fingerprint, self.paths, self.ids = source.fingerprint, source.paths, source.ids

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        self.reads += 1
        if self.reads == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.source[index]


@pytest.mark.parametrize("reads", [150, 410])
def test_a_stopped_training_goes_on_to_the_same_list_and_weights(dirty, tmp_path, reads, known_colours):
    """In the first epoch and in the second, in which only bad images are read again."""
    recipe = Recipe(**{**vars(RECIPE), "epochs": 2})
    options = {"network": "A", "recipe": recipe, "tolerance": TOLERANT}
    splits = open_for_training(str(dirty[0]))
    undisturbed = train(splits, out=tmp_path / "whole", **options)
    stopping = Splits(
        name=splits.name, sources={**splits.sources, "train": Interrupting(splits.source("train"), reads)}
    )
    with pytest.raises(Stopped):
        train(stopping, out=tmp_path / "run", **options)
    before = len(listed(tmp_path / "run"))
    run = train(splits, out=tmp_path / "run", resume=True, **options)
    assert 0 < before <= BAD
    assert told(listed(run)) == told(listed(undisturbed))
    assert len(listed(run)) == BAD
    assert same_weights(run, undisturbed)


def source_of(count, bad=(), broken=b"broken"):
    rng = np.random.default_rng(1)
    data = [saved(noise(rng, 34, 36, 100 * (index % 2)), "PNG") for index in range(count)]
    return memory_source(
        classes=("dark", "light"),
        samples=tuple(
            Sample(broken if index in bad else file, index % 2, f"{index}.png") for index, file in enumerate(data)
        ),
    )


def test_a_batch_without_any_usable_image_changes_nothing(tmp_path):
    """With one image a batch, the bad ones make steps that leave weights and momentum as they are."""
    recipe = Recipe(crop=32, width=0.05, batch=1, epochs=1, learning_rate=1e-3, dropout=0.0, weight_decay=0.1)
    images = Splits(name="some", sources={"train": source_of(8, bad=range(1, 8)), "val": source_of(4)})
    run = train(images, network="A", out=tmp_path / "run", recipe=recipe, tolerance=Tolerance(max_bad=90))
    again = Splits(name="one", sources={"train": source_of(1), "val": source_of(4)})
    # Crops and colours follow from the image's index, which is 0 in both.
    one = train(again, network="A", out=tmp_path / "one", recipe=recipe)
    assert [metrics.step for metrics in read_metrics(run)] == [8]
    assert read_metrics(run)[0].loss == read_metrics(one)[0].loss
    assert same_weights(run, one)


def test_no_usable_image_at_all_is_an_error_in_words(tmp_path, unknown_colours):
    options = {"network": "A", "recipe": RECIPE, "tolerance": Tolerance(max_bad=100)}
    bad_training = Splits(name="bad", sources={"train": source_of(6, bad=range(6)), "val": source_of(4)})
    with pytest.raises(ValueError, match="none of the 6 images looked at can be used"):
        train(bad_training, out=tmp_path / "a", **options)
    bad_validation = Splits(name="bad", sources={"train": source_of(6), "val": source_of(4, bad=range(4))})
    with pytest.raises(ValueError, match="none of the validation images can be used"):
        train(bad_validation, out=tmp_path / "b", **options)


def test_images_that_went_bad_after_their_colours_were_known_are_an_error_in_words(tmp_path, unknown_colours):
    good, reads = source_of(6), []

    def read(index):
        reads.append(index)
        return good.read(index) if len(reads) <= 2 * len(good) else b"broken"

    options = {"network": "A", "recipe": RECIPE, "tolerance": Tolerance(max_bad=100)}
    spoilt = replace(good, read=read, fingerprint_of=lambda _: "spoilt")
    with pytest.raises(ValueError, match=r"none of the .*images can be used"):
        train(Splits(name="spoilt", sources={"train": spoilt, "val": source_of(4)}), out=tmp_path / "spoilt", **options)
    assert len(reads) > 2 * len(good)
