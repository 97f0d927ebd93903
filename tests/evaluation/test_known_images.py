"""Warnings of a test about images that the run may know from its training."""

import io
from dataclasses import replace
from pathlib import Path

import tiny
from PIL import Image

from verydeep import evaluate, save, train, vgg
from verydeep.evaluation import known_images as known
from verydeep.evaluation.known_images import known_images
from verydeep.images.open import open_for_testing
from verydeep.images.sources.source import Sample, contents_digests, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.runs.record import Record, write_record


def record(folder, *, train="", recipe=None, imported=None, images=None, whole=None):
    write_record(
        folder,
        Record(
            network="A",
            recipe=recipe or {},
            runtime={},
            source="noise",
            fingerprints={"train": train} | ({"train_whole": whole} if whole else {}),
            images=images or {},
            classes=tiny.CLASSES,
            initialisation="",
            command="",
            versions={},
            imported=imported,
        ),
    )
    return str(folder)


def splits(copies=(), ids=None):
    """Make a source whose validation images `copies` are those of training images, in another class even."""
    train, val = tiny.splits().sources.values()
    samples = [Sample(train[at].data if at in copies else val[at].data, val[at].label, f"v{at}") for at in range(6)]
    if ids is not None:
        samples = [sample._replace(id=name) for sample, name in zip(samples, ids, strict=True)]
    return Splits(name="noise", sources={"train": train, "val": memory_source(classes=tiny.CLASSES, samples=samples)})


def test_copies_of_training_images_are_counted_and_named(tmp_path):
    images = splits(copies=(1, 4))
    run = record(tmp_path / "run", train=images.source("train").fingerprint)
    told = [
        "2 test images of 6 are exact copies of training images (v1, v4), so the error is too low: "
        "verydeep scan lists them all."
    ]
    assert known_images([run], images, "val", digests=None) == told
    assert known_images([run], images, "val", digests=contents_digests(images.source("val"))) == told


def test_copies_are_those_of_the_files_as_they_are_now(tmp_path):
    images, folder = splits(copies=(1,)), tmp_path / "photos"
    for part, source in images.sources.items():
        for at, sample in enumerate(source):
            file = folder / part / tiny.CLASSES[sample.label] / f"{at}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.open(io.BytesIO(sample.data)).save(file)
    found = open_for_testing(str(folder), None)
    run = record(tmp_path / "run", train=found.source("train").fingerprint)
    assert len(known_images([run], found, "val", digests=None)) == 1
    Image.new("RGB", (44, 40)).save(folder / "train" / tiny.CLASSES[images.source("train")[1].label] / "1.bmp")
    found = open_for_testing(str(folder), None)
    assert known_images([run], found, "val", digests=None) == []


def test_a_test_on_images_of_the_training_is_told(tmp_path):
    images = splits()
    train = images.source("train").fingerprint
    run, other = record(tmp_path / "run", train=train), record(tmp_path / "other", train="other")
    assert known_images([run, other], images, "train", digests=None) == [
        f"{run} was trained on 10 of these 10 images, so its error is too low (--split val: others)."
    ]
    (told,) = known_images([run, other], images, "all", digests=None)
    assert "10 of these 16 images" in told
    assert known_images([other], images, "all", digests=None) == []


def test_a_folder_that_has_changed_since_the_training_is_told(tmp_path, monkeypatch):
    """Which images are held out follows from all that are there: none of them can be taken for untrained."""
    monkeypatch.chdir(tmp_path)
    tiny.folder(tmp_path / "written")
    (tmp_path / "written" / "train").rename(tmp_path / "photos")
    run = train(Path("photos"), network="A", out="run", recipe=replace(tiny.RECIPE, epochs=1))
    assert "trained on" not in str(evaluate(run, data="photos").notes)
    Image.new("RGB", (44, 40)).save(tmp_path / "photos" / tiny.CLASSES[0] / "new.png")
    told, *_ = evaluate(run, data=tmp_path / "photos").notes
    assert told.startswith(
        f"run was trained on photos, but not on the training images of {tmp_path / 'photos'} as it is"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    told, *_ = evaluate(tmp_path / "run", data=tmp_path / "photos").notes
    assert "was trained on photos, but not on the training images of" in told
    monkeypatch.chdir(tmp_path)
    other = record(tmp_path / "other", train="other")  # on a source of another name
    assert known_images([other], open_for_testing("photos", None), "all", digests=None) == []


def test_nothing_is_said_without_copies_or_of_a_run_that_learned_from_other_images(tmp_path):
    images = splits(copies=(1, 4))
    train = images.source("train").fingerprint
    assert known_images([record(tmp_path / "a", train=train)], splits(), "val", digests=None) == []
    assert known_images([record(tmp_path / "b", train="other")], images, "val", digests=None) == []
    assert known_images([str(tmp_path / "no-run")], images, "val", digests=None) == []


def test_where_copies_are_not_looked_for_that_is_said(tmp_path, monkeypatch):
    images = splits(copies=(1,))
    run = record(tmp_path / "run", train=images.source("train").fingerprint)
    monkeypatch.setattr(known, "_MOST_COMPARED", tiny.IMAGES - 1)
    (told,) = known_images([run], images, "val", digests=None)
    assert told.startswith("Copies were not looked for among 10 training images")


def test_names_of_imagenet_are_told_of_runs_that_began_with_weights_of_others(tmp_path):
    ids = ["n02123045_12.JPEG", *"bcdef"]
    began = {
        "imported": record(tmp_path / "imported", imported={"layout": "torchvision"}),
        "from": record(tmp_path / "from", recipe={"weights": "vgg16.pth"}),
        "own": record(tmp_path / "own", imported={"layout": "verydeep"}),
        "random": record(tmp_path / "random", recipe={"finetune": None}),
    }
    began["later"] = record(tmp_path / "later", recipe={"finetune": began["from"]})
    began["self"] = record(tmp_path / "self", recipe={"finetune": str(tmp_path / "self")})
    warned = {name for name, run in began.items() if known_images([run], splits(ids=ids), "val", digests=None)}
    assert warned == {"imported", "from", "later"}
    assert known_images([began["imported"]], splits(ids=["n0212.JPEG", *"bcdef"]), "val", digests=None) == []


def test_runs_before_are_found_from_any_folder(tmp_path, monkeypatch):
    """Their paths are as the training was told them, in the folder above the run's."""
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "runs" / "imported", imported={"layout": "torchvision"})
    record(tmp_path / "runs" / "between", recipe={"finetune": "runs/imported"})
    last = record(tmp_path / "runs" / "last", recipe={"finetune": "runs/between"})
    images = splits(ids=["n02123045_12.JPEG", *"bcdef"])
    for folder, run in ((tmp_path, "runs/last"), (tmp_path / "runs", "last"), ("/", last), ("/", f"{last}/best")):
        monkeypatch.chdir(folder)
        (told,) = known_images([run], images, "val", digests=None)
        assert run in told


def test_an_evaluation_says_it_in_its_notes(tmp_path, capsys):
    images = splits(copies=(0,))
    run = tmp_path / "run"
    record(run, train=images.source("train").fingerprint)
    save(vgg("A", classes=2, crop=32, width=0.05), run / "model", classes=tiny.CLASSES)
    found = evaluate(run, data=images, protocol="centre")
    assert found.notes[0].startswith("1 test image of 6 is an exact copy")
    assert "an exact copy of a training image (v0)" in capsys.readouterr().err


def test_of_a_run_that_held_some_out_only_the_others_are_counted(tmp_path):
    images = splits()
    run = record(tmp_path / "run", train="those kept", images={"train": 8}, whole=images.source("train").fingerprint)
    (told,) = known_images([run], images, "train", digests=None)
    assert told.startswith(f"{run} was trained on 8 of these 10 images")
