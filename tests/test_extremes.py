"""The smallest, the longest and the largest images, through everything: a defined result or a named error."""

import numpy as np
import pytest
from PIL import Image

from verydeep import Recipe, Tolerance, evaluate, predict, train, vgg
from verydeep.evaluation.posteriors import posteriors
from verydeep.evaluation.protocols import Protocol
from verydeep.images.crops import TrainingView
from verydeep.images.decode import UnusableImageError, decode, decode_for
from verydeep.images.loader import centre_batches, training_batches
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import RescaledImages
from verydeep.images.sources.folders import _folder_source
from verydeep.images.sources.splits import Splits

COLOUR = (200, 30, 90)
GREY = 117
"""Of 30,000 in 65,535: 116.7 in 255."""

FILES = {  # height, width
    "1x1.jpg": (1, 1),
    "1x1.png": (1, 1),
    "1x500.jpg": (1, 500),
    "1x500.png": (1, 500),
    "500x1.png": (500, 1),
    "1x50.png": (1, 50),
    "31x31.jpg": (31, 31),
    "31x31.png": (31, 31),
    "32x32.jpg": (32, 32),
    "32x32.png": (32, 32),
    "8000x8000.jpg": (8000, 8000),
    "8000x8000.png": (8000, 8000),
    "8000x8000 grey 16.png": (8000, 8000),
}
LARGEST = 8000 * 8000
TOO_LONG = {name for name in FILES if "500" in name}
REASON = "too elongated ({} x {}, sides beyond 50 to 1)"
MANY = Tolerance(max_bad=50)

MEGABYTES = 2000
"""At most, of a process that trains or predicts; its libraries take about 300 of them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The images in two classes; the small ones among them are for validation too."""
    root = tmp_path_factory.mktemp("extremes")
    for number, (name, (height, width)) in enumerate(FILES.items()):
        path = root / "train" / ("a", "b")[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "16" in name:
            Image.fromarray(np.full((height, width), 30_000, np.uint16)).save(path, compress_level=1)
        else:
            options = {"compress_level": 1} if name.endswith("png") else {"quality": 95}
            Image.new("RGB", (width, height), COLOUR).save(path, **options)
        if height < 8000 or name.endswith("jpg"):
            (root / "val" / path.parent.name).mkdir(parents=True, exist_ok=True)
            (root / "val" / path.parent.name / name).symlink_to(path)
    return root


@pytest.fixture(scope="module")
def source(folder):
    """The images in the order of FILES."""
    paths = tuple(f"{('a', 'b')[number % 2]}/{name}" for number, name in enumerate(FILES))
    labels = tuple(number % 2 for number in range(len(paths)))
    return _folder_source(root=folder / "train", classes=("a", "b"), ids=paths, labels=labels)


def flat(name):
    return (GREY,) * 3 if "16" in name else COLOUR


@pytest.mark.parametrize("shorter_side", [None, 37])
def test_they_are_decoded_or_refused_by_name(source, shorter_side):
    for index, (name, size) in enumerate(FILES.items()):
        if shorter_side and size == (8000, 8000) and name.endswith("png"):
            continue  # decoded as if it were for nothing
        data = source[index].data
        if name in TOO_LONG:
            with pytest.raises(UnusableImageError) as refusal:
                decode_for(data, name, shorter_side=shorter_side)
            assert refusal.value.kind == "too elongated"
            assert refusal.value.reason == REASON.format(*size[::-1])
            continue
        found = decode_for(data, name, shorter_side=shorter_side, max_pixels=LARGEST)
        assert found.size == size
        expected = (1000, 1000) if shorter_side and size == (8000, 8000) else size
        assert found.pixels.shape == (*expected, 3)
        for corner in (found.pixels[0, 0], found.pixels[-1, -1]):
            assert np.abs(corner - np.array(flat(name), float)).max() <= 2


def test_a_limit_refuses_the_largest_before_they_are_unpacked(source):
    """As many pixels as they have are allowed above."""
    for index, (_name, size) in enumerate(FILES.items()):
        if size == (8000, 8000):
            with pytest.raises(UnusableImageError, match="8000 x 8000 pixels, more than the 63,999,999 allowed"):
                decode(source[index].data, max_pixels=LARGEST - 1)


def test_they_are_rescaled_to_s_cropped_and_batched(source):
    """All of them flat: whatever is made of them has their colour."""
    images = RescaledImages(source)
    for index, (name, (height, width)) in enumerate(FILES.items()):
        if name in TOO_LONG:
            with pytest.raises(UnusableImageError, match="too elongated"):
                images.whole(index, 37)
            continue
        found = images.whole(index, 37)
        expected = (37 * height // min(height, width), 37 * width // min(height, width), 3)
        assert found.shape == expected
        assert np.abs(found - np.array(flat(name), float)).max() <= 2
    # What was rescaled is kept, so the largest are not decoded again.
    quarantine = Quarantine(len(source), MANY)
    batches = list(centre_batches(images, crop=32, scale=37, batch=4, quarantine=quarantine))
    assert {name.partition("/")[2] for name in quarantine.reasons} == TOO_LONG
    assert all(batch.images.shape[1:] == (3, 32, 32) for batch in batches)
    expected = [flat(name) for name in FILES if name not in TOO_LONG]
    colours = np.concatenate([batch.images.permute(0, 2, 3, 1).numpy() for batch in batches]).astype(float)
    assert len(colours) == len(expected)
    assert np.abs(colours - np.array(expected)[:, None, None]).max() <= 2


def test_training_batches_are_of_all_but_the_elongated(source):
    view = TrainingView(crop=32, scale=(32, 73), flip=True, colour_sd=0.1, colour_components=np.zeros((3, 3)))
    quarantine = Quarantine(len(source), MANY)
    batches = list(training_batches(source, view, batch=5, epochs=1, seed=0, quarantine=quarantine))
    assert {name.partition("/")[2] for name in quarantine.reasons} == TOO_LONG
    assert all(batch.images.shape[1:] == (3, 32, 32) for batch in batches)
    colours = np.concatenate([batch.images.permute(0, 2, 3, 1).numpy() for batch in batches]).astype(float)
    assert len(colours) == len(FILES) - len(TOO_LONG)
    known = np.array([COLOUR, (GREY,) * 3], float)
    distance = np.abs(colours[:, :, :, None] - known).max(axis=-1).min(axis=-1)
    assert distance.max() <= 2


def test_posteriors_are_those_of_flat_images_or_nothing(source):
    """A flat image of whatever size is nearly the same to the network; those that are refused have no posterior."""
    net = vgg("A", classes=2, crop=32, width=0.05)
    quarantine = Quarantine(len(source), MANY)
    found = posteriors(net, source, Protocol(scales=(256,)), quarantine=quarantine)
    assert {name.partition("/")[2] for name in quarantine.reasons} == TOO_LONG
    for row, name in zip(found, FILES, strict=True):
        if name in TOO_LONG:
            assert np.isnan(row).all()
        else:
            assert row.sum() == pytest.approx(1)
            assert (row >= 0).all()
    squares = [row for row, (name, (h, w)) in zip(found, FILES.items(), strict=True) if h == w and "16" not in name]
    assert np.ptp(squares, axis=0).max() < 0.02


def resident(python, folder, *arguments):
    """Standard output and error of a command line, and the most memory that it had, MB.

    From /proc and not from `getrusage`, whose maximum begins with that of the parent process.
    """
    script = """
import re, sys
from verydeep.cli import main
try:
    main(sys.argv[1:])
except SystemExit as left:
    print("exit status", left.code, file=sys.stderr)
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)
"""
    done = python(script, *arguments, cwd=folder).ended(120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    *said, kilobytes = done.stderr.splitlines()
    return done.stdout, said, int(kilobytes) / 1000


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A net that is trained on the small ones, its memory aside."""
    recipe = Recipe(crop=32, width=0.05, batch=8, epochs=1)
    small = _folder_source(
        root=folder / "train",
        classes=("a", "b"),
        ids=("a/1x1.jpg", "b/1x1.png", "a/31x31.jpg", "b/31x31.png"),
        labels=(0, 1, 0, 1),
    )
    out = tmp_path_factory.mktemp("runs") / "run"
    return train(Splits(name="small", sources={"train": small, "val": small}), network="A", out=out, recipe=recipe)


def test_a_training_on_them_stays_below_two_gigabytes(python, folder, tmp_path, figure):
    options = ["--network", "A", "--crop", "32", "--width", "0.05", "--batch", "8", "--epochs", "1", "--max-bad", "50"]
    _, said, megabytes = resident(python, folder, "train", folder, *options, "--out", tmp_path / "run")
    figure(17, "memory, training", f"{megabytes:.0f} MB")
    assert not any("exit status" in line for line in said), said
    entries = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    assert len(entries) == 2 * len(TOO_LONG)
    assert all("too elongated" in entry for entry in entries)
    assert megabytes < MEGABYTES


def test_a_prediction_of_them_stays_below_two_gigabytes(python, folder, run, figure):
    text, said, megabytes = resident(python, folder, "predict", run, folder / "train", "--json", "-")
    figure(17, "memory, predicting", f"{megabytes:.0f} MB")
    assert said == ["verydeep: 3 of 13 images could not be used", "exit status 1"]
    assert text.count('"error": null') == 10
    assert megabytes < MEGABYTES


def test_predictions_are_probabilities_or_name_the_reason(folder, run):
    for found in predict(run, [folder / "val"]):
        name = found.image.rpartition("/")[2]
        if name in TOO_LONG:
            assert found.error == REASON.format(*FILES[name][::-1])
            assert (found.classes, found.probabilities) == ((), ())
        else:
            assert found.error is None
            assert set(found.classes) == {"a", "b"}
            assert sum(found.probabilities) == pytest.approx(1)


@pytest.mark.parametrize("protocol", ["dense", "crops", "both"])
def test_an_evaluation_counts_those_that_can_be_used(folder, run, protocol):
    found = evaluate(run, data=str(folder), split="val", protocol=protocol, scales="single", tolerance=MANY)
    assert found.n == 11 - 3
    assert {name.partition("/")[2] for name in found.unusable} == TOO_LONG
    assert np.allclose(found.images.posteriors.sum(axis=1), 1)


def test_an_evaluation_at_thousands_of_pixels_stays_below_two_gigabytes(python, folder, run, tmp_path, figure):
    """Q = 28,000 for a crop of 224 is 4,000 pixels for one of 32; the image goes through in tiles."""
    one = tmp_path / "one" / "a"
    one.mkdir(parents=True)
    (one / "large.jpg").symlink_to(folder / "train" / "a" / "8000x8000.jpg")
    _, said, megabytes = resident(
        python, folder, "evaluate", run, "--data", one.parent, "--scales", "28000", "--no-cache"
    )
    figure(17, "memory, evaluating at 4,000 x 4,000", f"{megabytes:.0f} MB")
    assert not any("exit status" in line for line in said), said
    assert megabytes < MEGABYTES
