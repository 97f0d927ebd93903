"""Tar shards read at random: the images that were packed, whichever way they were packed."""

import io
import json
import os
import random
import sys
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from equal_batches import equal
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shard_files import found, items, png, sample, samples, sizes, whole, write_shard

from verydeep.images.crops import TrainingView
from verydeep.images.image_kinds import missing_for_heif
from verydeep.images.loader import training_batches
from verydeep.images.open import open_for_training
from verydeep.images.sources.source import Sample, memory_source

# classes


def test_numbers_are_classes_in_the_order_of_their_values(tmp_path):
    labels = [10, 9, 2, 10, 2, 9]
    write_shard(tmp_path / "a.tar", samples(labels))
    splits = open_for_training(str(tmp_path / "a.tar"))
    assert splits.classes == ("2", "9", "10")
    assert found(splits) == {f"{n:03d}.png": (png(n), str(label)) for n, label in enumerate(labels)}
    assert all(isinstance(part.labels[0], int) for part in splits.sources.values())


def test_names_are_classes_in_the_order_of_the_alphabet(tmp_path):
    labels = ["dog", "cat", "ant", "cat", "ant", "dog"]
    write_shard(tmp_path / "a.tar", samples(labels))
    splits = open_for_training(str(tmp_path / "a.tar"))
    assert splits.classes == ("ant", "cat", "dog")
    assert found(splits) == {f"{n:03d}.png": (png(n), label) for n, label in enumerate(labels)}


def test_numbers_are_places_in_the_list_of_classes_beside_the_shards(tmp_path):
    (tmp_path / "classes.txt").write_text("wasp\nant\nmoth\nbee\n")
    write_shard(tmp_path / "0.tar", samples([3, 0, 1]))
    write_shard(tmp_path / "1.tar", samples([1, 3, 0], start=3))
    splits = open_for_training(str(tmp_path))
    assert splits.classes == ("wasp", "ant", "bee")  # there is no moth
    assert [found(splits)[f"{n:03d}.png"][1] for n in range(6)] == ["bee", "wasp", "ant", "ant", "bee", "wasp"]


def test_names_may_stand_beside_a_list_of_classes(tmp_path):
    (tmp_path / "classes.txt").write_text("wasp\r\nant\r\n")
    write_shard(tmp_path / "0.tar", samples(["ant", "wasp", 0, 1]))
    splits = open_for_training(str(tmp_path))
    assert splits.classes == ("wasp", "ant")
    assert [found(splits)[f"{n:03d}.png"][1] for n in range(4)] == ["ant", "wasp", "wasp", "ant"]


@settings(max_examples=60)
@given(
    fields=st.dictionaries(
        st.sampled_from(["class_name", "class", "label", "cls", "width"]),
        st.one_of(st.integers(0, 30), st.text(min_size=1, max_size=5).filter(lambda text: not text.isdecimal())),
        min_size=1,
    ).filter(lambda fields: set(fields) != {"width"})
)
def test_a_json_names_the_class_by_the_first_key_of_four(fields):
    with tempfile.TemporaryDirectory() as folder:
        other = [m for n in (1, 2) for m in sample(f"{n}", "another one", n)]
        content = json.dumps(fields).encode()
        path = write_shard(Path(folder, "a.tar"), [("0.png", png(0)), ("0.json", content), *other])
        expected = next(str(fields[key]) for key in ("class_name", "class", "label", "cls") if key in fields)
        source = whole(path, (expected, "another one"))
        assert sorted(label for _, label, _ in items(source)) == [0, 1, 1]
        assert source[list(source.labels).index(0)].data == png(0)


@settings(max_examples=60)
@given(
    name=st.text(min_size=1, max_size=8).filter(lambda text: text.strip()),
    space=st.sampled_from(["", "\n", " \r\n", "\t"]),
)
def test_a_class_is_what_its_file_holds_without_white_space_around(name, space):
    with tempfile.TemporaryDirectory() as folder:
        path = write_shard(Path(folder, "a.tar"), sample("0", space + name + space) + sample("1", "another one", 1))
        source = whole(path, ("another one", name.strip()))
        assert {source.classes[label]: data for data, label, _ in items(source)} == {
            "another one": png(1),
            name.strip(): png(0),
        }


@pytest.mark.parametrize("order", ["cls first", "json first"])
def test_the_class_file_counts_more_than_a_json(tmp_path, order):
    members = []
    for n in range(4):
        both = [(f"{n}.cls", b"bee" if n % 2 else b"ant"), (f"{n}.json", b'{"label": 7}')]
        members += [(f"{n}.png", png(n)), *(both if order == "cls first" else both[::-1])]
    write_shard(tmp_path / "a.tar", members)
    splits = open_for_training(str(tmp_path / "a.tar"))
    assert {name: label for name, (_, label) in found(splits).items()} == {
        f"{n}.png": "bee" if n % 2 else "ant" for n in range(4)
    }


# which shards


def test_a_single_shard_gives_a_fifth_of_each_class_for_validation(tmp_path):
    write_shard(tmp_path / "a.tar", samples([n % 2 for n in range(20)]))
    splits = open_for_training(str(tmp_path / "a.tar"))
    assert splits.name == str(tmp_path / "a.tar")
    assert sizes(splits) == {"train": 16, "val": 4}
    assert sorted(splits.source("val").labels) == [0, 0, 1, 1]
    assert found(splits) == {f"{n:03d}.png": (png(n), str(n % 2)) for n in range(20)}
    again = open_for_training(str(tmp_path / "a.tar"))
    assert [part.fingerprint for part in again.sources.values()] == [p.fingerprint for p in splits.sources.values()]
    assert items(again.source("val")) == items(splits.source("val"))


def test_numbers_in_braces_are_shards(tmp_path):
    for number in range(5):
        write_shard(tmp_path / f"{number:03d}.tar", samples([0, 1], start=2 * number))
    assert sorted(found(open_for_training(f"{tmp_path}/{{000..003}}.tar"))) == [f"{n:03d}.png" for n in range(8)]
    assert sorted(found(open_for_training(f"{tmp_path}/{{001,004}}.tar"))) == [
        "002.png",
        "003.png",
        "008.png",
        "009.png",
    ]


def test_names_of_splits_in_braces_are_splits(tmp_path):
    for first, split in ((0, "train"), (20, "val")):
        for number in (0, 1):
            write_shard(tmp_path / f"bugs-{split}-{number}.tar", samples([0, 1, 0], start=first + 3 * number))
    splits = open_for_training(f"{tmp_path}/bugs-{{train,val}}-{{0..1}}.tar")
    assert sizes(splits) == {"train": 6, "val": 6}
    assert sorted(name.split("/")[1] for _, _, name in items(splits.source("train"))) == [
        f"{n:03d}.png" for n in range(6)
    ]
    assert sorted(data for data, _, _ in items(splits.source("val"))) == sorted(png(n) for n in range(20, 26))
    assert sizes(open_for_training(f"{tmp_path}/bugs-train-{{0..1}}.tar")) == {"train": 4, "val": 2}


def test_a_star_stands_for_all_shards_that_fit(tmp_path):
    for number in range(4):
        write_shard(tmp_path / f"x{number}.tar", samples([0, 1], start=2 * number))
    write_shard(tmp_path / "y.tar", samples([0, 1], start=50))
    (tmp_path / "x9.txt").write_text("no shard")
    assert sorted(found(open_for_training(f"{tmp_path}/x*.tar"))) == [f"{n:03d}.png" for n in range(8)]


@pytest.mark.parametrize("names", [("0.tar", "1.tar"), ("bugs_train_0.tar", "bugs_VAL_0.tar")])
def test_a_folder_of_shards_is_all_of_them(tmp_path, names):
    for number, name in enumerate(names):
        write_shard(tmp_path / name, samples([0, 1, 0, 1], start=4 * number))
    (tmp_path / "._0.tar").write_bytes(b"left behind by macOS")
    (tmp_path / ".cache").mkdir()
    write_shard(tmp_path / ".cache" / "2.tar", samples([0, 1], start=90))
    (tmp_path / "README.md").write_text("about these shards")
    splits = open_for_training(str(tmp_path))
    assert sizes(splits) == ({"train": 4, "val": 4} if "VAL" in names[1] else {"train": 6, "val": 2})
    assert sorted(found(splits)) == [f"{n:03d}.png" for n in range(8)]


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_folders_of_shards_for_training_and_validation_and_testing(tmp_path, validation):
    for number, split in enumerate(("train", validation, "test")):
        write_shard(tmp_path / split / "0.tar", samples([0, 1], start=10 * number))
        write_shard(tmp_path / split / "1.tar", samples([1], start=10 * number + 2))
    splits = open_for_training(str(tmp_path))
    assert sizes(splits) == {"train": 3, "val": 3, "test": 3}
    for number, part in enumerate(splits.sources.values()):
        assert [data for data, _, _ in items(part)] == [png(10 * number + n) for n in range(3)]
        assert list(part.labels) == [0, 1, 1]


def test_words_that_only_contain_the_name_of_a_split_are_none(tmp_path):
    for number, name in enumerate(("strained", "valley", "latest", "trainer")):
        write_shard(tmp_path / f"{name}-0.tar", samples([0, 1], start=2 * number))
    assert sizes(open_for_training(str(tmp_path))) == {"train": 6, "val": 2}


# order and bytes


@settings(max_examples=40)
@given(data=st.data())
def test_however_samples_are_packed_they_give_the_same_source(data):
    """The order is that of the classes, and of the names within a class."""
    classes = ("ant", "bee", "cat")
    labels = data.draw(
        st.dictionaries(
            st.text("abAB01-_", min_size=1, max_size=4).map(lambda key: f"k{key}"),
            st.sampled_from(classes),
            min_size=1,
            max_size=6,
        )
    )
    images = {key: png(number, size=(8 + number, 6)) for number, key in enumerate(labels)}
    expected = sorted((classes.index(label), f"{key}.png", images[key]) for key, label in labels.items())
    fingerprints = set()
    for _ in range(2):
        shards = [[] for _ in range(data.draw(st.integers(1, 3)))]
        for key, label in labels.items():
            members = [(f"{key}.png", images[key]), (f"{key}.cls", label.encode())]
            data.draw(st.sampled_from(shards)).extend(members)
        with tempfile.TemporaryDirectory() as folder:
            for number, members in enumerate(shards):
                write_shard(Path(folder, f"{number}.tar"), data.draw(st.permutations(members)))
            source = whole(f"{folder}/*.tar", classes)
            got = [(label, name.split("/", 1)[1], content) for content, label, name in items(source)]
            assert got == expected
            assert list(source.labels) == [label for label, _, _ in expected]
            assert len(source) == len(labels)
            fingerprints.add(source.fingerprint)
    assert len(fingerprints) == 1


def test_a_fingerprint_changes_with_sizes_names_and_classes(tmp_path):
    def fingerprint(members, classes=("ant", "bee")):
        return whole(write_shard(tmp_path / f"{random.random()}.tar", members), classes).fingerprint

    base = samples(["ant", "bee"])
    others = [
        [("000.png", png(0, size=(80, 60))), *base[1:]],
        samples(["ant", "ant"]),
        samples(["ant", "bee"], start=1),
        samples(["ant", "bee", "bee"]),
    ]
    prints = {fingerprint(base), *(fingerprint(other) for other in others), fingerprint(base, ("ant", "bee", "cat"))}
    assert fingerprint(base) in prints
    assert len(prints) == 6


def test_images_are_read_at_random_as_the_very_bytes_that_were_packed(tmp_path):
    rng = random.Random(3)
    packed = {f"{n:04d}": rng.randbytes(rng.choice([0, 1, 511, 512, 513, 5000])) for n in range(40)}
    for number in range(4):
        members = []
        for key in list(packed)[number::4]:
            members += [(f"{key}.jpg", packed[key]), (f"{key}.cls", b"1" if int(key) % 3 else b"0")]
        write_shard(tmp_path / f"{number}.tar", members)
    source = whole(f"{tmp_path}/*.tar", ("0", "1"))
    for index in rng.choices(range(40), k=200):
        data, label, name = source[index]
        key = name.split("/")[1].removesuffix(".jpg")
        assert name == f"{int(key) % 4}.tar/{key}.jpg"
        assert data == packed[key]
        assert label == source.labels[index] == (1 if int(key) % 3 else 0)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_keys_may_hold_folders_long_names_and_letters_of_any_script(tmp_path, form):
    folder = "/".join(["a-rather-long-folder"] * 5)
    keys = {
        "cat/0": "cat",
        "dog/0": "dog",
        "cat/1": "cat",
        f"{folder}/7": "dog",
        **({} if form == tarfile.USTAR_FORMAT else {f"{'ж' * 90}/é": "cat"}),
    }
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for number, (key, label) in enumerate(keys.items()):
            parent = tarfile.TarInfo(key.split("/")[0])
            parent.type = tarfile.DIRTYPE
            archive.addfile(parent)
            for name, content in sample(key, label, number):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    assert found(open_for_training(str(tmp_path / "a.tar"))) == {
        f"{key}.png": (png(number), label) for number, (key, label) in enumerate(keys.items())
    }


def test_hidden_files_folders_and_other_files_in_a_shard_are_no_images(tmp_path):
    members = [
        ("._000.png", b"left behind by macOS"),
        ("cat/._001.png", b"left behind by macOS"),
        (".png", b"all suffix"),
        *samples(["cat", "dog", "cat", "dog"]),
        ("000.txt", b"a caption"),
        ("README", b"about these images"),
        ("004.cls", b"wasp"),
    ]
    path = write_shard(tmp_path / "a.tar", members)
    with tarfile.open(path, "a") as archive:
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    splits = open_for_training(str(path))
    assert splits.classes == ("cat", "dog")
    assert sorted(found(splits)) == ["000.png", "001.png", "002.png", "003.png"]


def test_suffixes_may_be_in_capitals(tmp_path):
    members = []
    for number in range(4):
        members += [(f"{number}.JPEG", png(number)), (f"{number}.CLS", b"1" if number % 2 else b"0")]
    splits = open_for_training(str(write_shard(tmp_path / "a.tar", members)))
    assert found(splits) == {f"{n}.JPEG": (png(n), str(n % 2)) for n in range(4)}


# the index


def test_an_index_is_remembered_until_its_shard_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    path = write_shard(tmp_path / "a.tar", samples(["ant", "ant", "bee", "bee"]))

    def classes():
        return [label for _, (_, label) in sorted(found(open_for_training(str(path))).items())]

    assert classes() == ["ant", "ant", "bee", "bee"]
    assert len([file for file in (tmp_path / "cache").rglob("*") if file.is_file()]) == 1
    before = path.stat()
    write_shard(path, samples(["bee", "bee", "ant", "ant"]))
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert classes() == ["ant", "ant", "bee", "bee"]  # nobody can tell
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert classes() == ["bee", "bee", "ant", "ant"]
    write_shard(path, samples(["ant", "bee", "bee", "bee", "ant"] * 20))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert classes() == ["ant", "bee", "bee", "bee", "ant"] * 20


def test_an_index_is_made_again_once_heic_can_be_read(tmp_path, monkeypatch):
    heic = [("x.heic", b"no image, but called one"), ("x.cls", b"ant")]
    path = str(write_shard(tmp_path / "a.tar", [*samples(["ant", "ant", "bee", "bee"]), *heic]))
    taken = []
    for package in (None, SimpleNamespace(register_heif_opener=lambda: None)):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "pillow_heif", package)
            missing_for_heif.cache_clear()
            taken.append("x.heic" in found(open_for_training(path)))
    missing_for_heif.cache_clear()
    assert taken == [False, True]


def test_shards_of_one_name_in_two_folders_have_an_index_each(tmp_path):
    write_shard(tmp_path / "one" / "a.tar", samples(["ant", "ant", "bee", "bee"]))
    write_shard(tmp_path / "two" / "a.tar", samples(["bee", "bee", "ant", "ant"]))
    status = (tmp_path / "one" / "a.tar").stat()
    os.utime(tmp_path / "two" / "a.tar", ns=(status.st_atime_ns, status.st_mtime_ns))
    for folder, first in (("one", "ant"), ("two", "bee")):
        assert found(open_for_training(str(tmp_path / folder / "a.tar")))["000.png"] == (png(0), first)


def test_without_a_place_for_the_index_it_is_made_each_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "file"))
    path = write_shard(tmp_path / "a.tar", samples([0, 1, 0, 1]))
    for _ in range(2):
        assert sizes(open_for_training(str(path))) == {"train": 2, "val": 2}


# the same images otherwise


IMAGES = {"train": {"ant": 5, "bee": 4, "cat": 3}, "val": {"ant": 2, "bee": 1, "cat": 2}}


@pytest.fixture(scope="module")
def same_images(tmp_path_factory):
    """SOURCE of the same images in three forms, and the training images in order as the test wrote them."""
    root = tmp_path_factory.mktemp("same")
    rng = np.random.default_rng(0)
    named, numbered, written = {}, {}, []
    for split, counts in IMAGES.items():
        named[split], numbered[split] = [], []
        for number, (label, count) in enumerate(counts.items()):
            (root / "folders" / split / label).mkdir(parents=True)
            for n in range(count):
                buffer = io.BytesIO()
                height, width = rng.integers(34, 60, 2)
                image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
                image.save(buffer, "JPEG" if n % 2 else "PNG")
                data, suffix = buffer.getvalue(), "jpg" if n % 2 else "png"
                (root / "folders" / split / label / f"{n}.{suffix}").write_bytes(data)
                named[split].append([(f"{label}/{n}.{suffix}", data), (f"{label}/{n}.cls", label.encode())])
                numbered[split].append([(f"{n}-{label}.{suffix}", data), (f"{n}-{label}.cls", b"%d" % number)])
                if split == "train":
                    written.append(Sample(data, number, f"{label}/{n}"))
    for form, packed in (("named", named), ("numbered", numbered)):
        for split, groups in packed.items():
            random.Random(1).shuffle(groups)
            for shard in range(3):
                members = [member for group in groups[shard::3] for member in group]
                if members:
                    write_shard(root / form / split / f"{shard:03d}.tar", members)
            if form == "numbered":
                (root / form / split / "classes.txt").write_text("ant\nbee\ncat\n")
    source = memory_source(classes=("ant", "bee", "cat"), samples=tuple(written))
    return {form: str(root / form) for form in ("folders", "named", "numbered")}, source


def batches(source, **changes):
    view = TrainingView(
        crop=32, scale=(36, 44), flip=True, colour_sd=0.1, colour_components=np.diag([30.0, 20.0, 10.0])
    )
    return list(training_batches(source, view, **{"batch": 5, "epochs": 2, "seed": 4, **changes}))


@pytest.mark.parametrize(("form", "workers"), [("folders", 0), ("named", 0), ("named", 2), ("numbered", 0)])
def test_shards_are_trained_on_as_class_folders_are(same_images, form, workers):
    """Images, which of them are mirrored, shifts and labels are those of the same images in memory."""
    names, written = same_images
    splits = open_for_training(names[form])
    assert splits.classes == written.classes
    assert sizes(splits) == {split: sum(counts.values()) for split, counts in IMAGES.items()}
    expected = batches(written)
    assert sorted(torch.cat([batch.labels for batch in expected]).tolist()) == [0] * 10 + [1] * 8 + [2] * 6
    assert not equal(expected, batches(written, seed=5))
    assert equal(batches(splits.source("train"), workers=workers), expected)


def test_validation_images_of_shards_and_folders_are_the_same(same_images):
    names, _ = same_images
    parts = [open_for_training(name).source("val") for name in names.values()]
    first = [(data, label) for data, label, _ in items(parts[0])]
    assert [label for _, label in first] == [0, 0, 1, 2, 2]
    for part in parts[1:]:
        assert [(data, label) for data, label, _ in items(part)] == first
