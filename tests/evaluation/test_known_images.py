"""Warnings of a test about images that the run may know from its training."""

import tiny

from verydeep import evaluate, save, vgg
from verydeep.evaluation import known_images as known
from verydeep.evaluation.known_images import known_images
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.runs.record import Record, write_record


def record(folder, *, train="", recipe=None, imported=None):
    write_record(
        folder,
        Record(
            network="A",
            recipe=recipe or {},
            runtime={},
            source="noise",
            fingerprints={"train": train},
            images={},
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
    for remember in (True, True, False):
        assert known_images([run], images, "val", digests=None, remember=remember) == [
            "2 test images of 6 are exact copies of training images (v1, v4), so the error is too low: "
            "verydeep scan lists them all."
        ]


def test_nothing_is_said_without_copies_or_of_a_run_that_learned_from_other_images(tmp_path):
    images = splits(copies=(1, 4))
    train = images.source("train").fingerprint
    assert known_images([record(tmp_path / "a", train=train)], splits(), "val", digests=None) == []
    assert known_images([record(tmp_path / "b", train="other")], images, "val", digests=None) == []
    assert known_images([record(tmp_path / "c", train=train)], images, "train", digests=None) == []
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
