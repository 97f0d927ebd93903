"""Splits that are disjoint, complete and always the same; folders whose classes keep their numbers."""

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from verydeep.images.decode import UnusableImageError, decode
from verydeep.images.open import open_for_testing, open_for_training, open_one_split
from verydeep.images.sources.given import given_images
from verydeep.images.sources.source import Sample, memory_source, subset
from verydeep.images.sources.splits import Splits, natural_order, stratified_split


def write_images(folder, count, *, start=0, suffix=".png"):
    """Files 000.png, 001.png, ... each of another grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        image = Image.new("RGB", (8, 6), (number, number, number))
        image.save(folder / f"{number:03d}{suffix}", {".jpg": "JPEG", ".JPEG": "JPEG"}.get(suffix))


def ids(source):
    return [source[index].id for index in range(len(source))]


def by_class(source):
    """How many images each class has, by name."""
    return Counter(source.classes[label] for label in source.labels)


# the digits


def test_digits_are_scikit_learns_and_each_is_in_one_split():
    images, targets = load_digits(return_X_y=True)
    seen = []
    for source in open_for_training("digits").sources.values():
        for index in range(len(source)):
            data, label, name = source[index]
            number = int(name.removeprefix("digit-"))
            seen.append(number)
            assert label == targets[number] == source.labels[index]
            grey = np.floor(images[number].reshape(8, 8) * 255 / 16 + 0.5)
            assert np.array_equal(decode(data), np.stack([grey] * 3, axis=2))
            assert source.classes[label] == str(targets[number])
    assert sorted(seen) == list(range(1797))


def test_every_split_of_the_digits_has_its_share_of_each_class():
    sizes = {split: by_class(source) for split, source in open_for_training("digits").sources.items()}
    assert list(sizes) == ["train", "val", "test"]
    for name in "0123456789":
        train, val, test = (sizes[split][name] for split in ("train", "val", "test"))
        whole = train + val + test
        assert abs(test - 0.2 * whole) <= 0.5
        assert abs(val - 0.125 * (train + val)) <= 0.5
    assert [sum(sizes[split].values()) for split in sizes] == [1259, 179, 359]


def test_digits_are_split_the_same_way_in_another_process(python):
    """Its strings have other hashes."""
    script = (
        "from verydeep.images.open import open_for_training; "
        "print(*(source.fingerprint for source in open_for_training('digits').sources.values()))"
    )
    other = python(f"{script}; print(hash('digits'))").ended()
    here = [source.fingerprint for source in open_for_training("digits").sources.values()]
    *there, its_hash = other.stdout.split()
    assert there == here
    assert int(its_hash) != hash("digits")
    assert len(set(here)) == 3


def test_digits_are_tested_on_their_test_split():
    assert open_for_training("digits").testing == "test"
    assert open_for_training("digits").classes == tuple("0123456789")


# stratified splits


@settings(max_examples=200)
@given(
    counts=st.dictionaries(st.integers(0, 30), st.integers(2, 40), min_size=1, max_size=8),
    share=st.floats(0.01, 0.99),
    random=st.randoms(use_true_random=False),
)
def test_a_stratified_split_is_disjoint_complete_and_proportional(counts, share, random):
    labels = [label for label, count in counts.items() for _ in range(count)]
    random.shuffle(labels)
    kept, held_out = stratified_split(labels, share)
    assert sorted(kept + held_out) == list(range(len(labels)))
    assert kept == sorted(kept)
    assert held_out == sorted(held_out)
    taken = Counter(labels[index] for index in held_out)
    for label, count in counts.items():
        assert 1 <= taken[label] <= count - 1
        if 1 <= share * count <= count - 1:
            assert abs(taken[label] - share * count) <= 0.5 + 1e-9
    assert stratified_split(labels, share) == (kept, held_out)


def test_what_is_held_out_is_spread_over_a_class():
    """Neither the first nor the last images: a folder in the order of the recordings would be split unfairly."""
    _, held_out = stratified_split([0] * 500 + [1] * 500, 0.2)
    for first in (0, 500):
        places = [index - first for index in held_out if first <= index < first + 500]
        assert len(places) == 100
        assert 200 < np.mean(places) < 300
        assert 110 < np.std(places) < 180


def test_a_class_of_one_image_cannot_be_split():
    with pytest.raises(ValueError, match="a class with a single image cannot be split"):
        stratified_split([0, 0, 0, 1], 0.2)


# folders


def test_a_folder_with_train_and_val_is_taken_as_it_is(tmp_path):
    for split, count in {"train": 3, "val": 2, "test": 1}.items():
        for name in ("cat", "ant", "bee"):
            write_images(tmp_path / split / name, count)
    splits = open_for_training(str(tmp_path))
    assert splits.name == str(tmp_path)
    assert splits.classes == ("ant", "bee", "cat")
    assert {split: len(source) for split, source in splits.sources.items()} == {"train": 9, "val": 6, "test": 3}
    assert splits.testing == "test"
    assert list(splits.source("val").labels) == [0, 0, 1, 1, 2, 2]
    assert ids(splits.source("val")) == [f"{name}/{n:03d}.png" for name in ("ant", "bee", "cat") for n in (0, 1)]


def test_the_validation_folder_has_two_names_and_serves_as_test(tmp_path):
    for split in ("train", "validation"):
        for name in ("ant", "bee"):
            write_images(tmp_path / split / name, 2)
    splits = open_for_training(str(tmp_path))
    assert list(splits.sources) == ["train", "val"]
    assert splits.testing == "val"


def test_without_a_validation_folder_a_fifth_of_each_class_is_held_out(tmp_path):
    write_images(tmp_path / "ant", 10)
    write_images(tmp_path / "bee", 25, suffix=".jpg")
    splits = open_for_training(str(tmp_path))
    train, val = splits.source("train"), splits.source("val")
    assert by_class(val) == {"ant": 2, "bee": 5}
    assert by_class(train) == {"ant": 8, "bee": 20}
    everything = [f"ant/{n:03d}.png" for n in range(10)] + [f"bee/{n:03d}.jpg" for n in range(25)]
    assert sorted(ids(train) + ids(val)) == everything
    assert ids(open_for_training(str(tmp_path)).source("val")) == ids(val)


def test_with_train_and_test_folders_validation_images_come_out_of_training(tmp_path):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            write_images(tmp_path / split / name, 5)
    splits = open_for_training(str(tmp_path))
    assert {split: len(source) for split, source in splits.sources.items()} == {"train": 8, "val": 2, "test": 10}
    assert splits.testing == "test"


def test_a_sample_is_the_bytes_of_its_own_file(tmp_path):
    write_images(tmp_path / "ant", 6)
    write_images(tmp_path / "bee", 6, start=6)
    for source in open_for_training(str(tmp_path)).sources.values():
        for index in range(len(source)):
            data, label, name = source[index]
            assert data == (tmp_path / name).read_bytes()
            assert source.classes[label] == name.split("/")[0]
            assert source.labels[index] == label


def test_a_class_that_validation_lacks_leaves_the_numbers_alone(tmp_path):
    for name in ("ant", "bee", "cat"):
        write_images(tmp_path / "train" / name, 2)
    write_images(tmp_path / "val" / "cat", 2)
    val = open_for_training(str(tmp_path)).source("val")
    assert val.classes == ("ant", "bee", "cat")
    assert list(val.labels) == [2, 2]


def test_a_class_that_training_lacks_is_refused(tmp_path):
    for name in ("ant", "bee"):
        write_images(tmp_path / "train" / name, 2)
    for name in ("ant", "wasp", "gnat"):
        write_images(tmp_path / "val" / name, 2)
    with pytest.raises(ValueError, match=r"val has classes that training lacks: gnat, wasp; it has ant, bee$"):
        open_for_training(str(tmp_path))


def test_only_images_in_class_folders_count(tmp_path):
    write_images(tmp_path / "ant", 3, suffix=".JPEG")
    write_images(tmp_path / "ant" / "summer" / "2024", 2)
    write_images(tmp_path / "bee", 5)
    write_images(tmp_path / ".cache", 2)
    write_images(tmp_path, 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "ant" / "folder.png").mkdir()
    splits = open_for_training(str(tmp_path))
    assert splits.classes == ("ant", "bee")
    assert by_class(splits.source("train")) + by_class(splits.source("val")) == {"ant": 5, "bee": 5}


def test_a_missing_folder_is_refused():
    with pytest.raises(ValueError, match=r"^no folder '/no/such/place': give a folder of images"):
        open_for_training("/no/such/place")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    with pytest.raises(ValueError, match=r"^no images in .*, which holds 1 file of other kinds: 1 \.txt: it must hold"):
        open_for_training(str(tmp_path))


def test_a_single_class_is_refused(tmp_path):
    write_images(tmp_path / "ant", 3)
    with pytest.raises(ValueError, match=r"has one class only \(ant\)"):
        open_for_training(str(tmp_path))


def test_a_split_that_is_not_there_is_refused(tmp_path):
    for name in ("ant", "bee"):
        write_images(tmp_path / name, 5)
    splits = open_for_training(str(tmp_path))
    with pytest.raises(ValueError, match=r"has no split 'test': choose one of train, val, all$"):
        splits.source("test")


# fingerprints


def test_a_fingerprint_changes_with_the_images_and_the_classes(tmp_path):
    for name in ("ant", "bee"):
        write_images(tmp_path / name, 5)

    def fingerprints():
        return tuple(source.fingerprint for source in open_for_training(str(tmp_path)).sources.values())

    first = fingerprints()
    assert fingerprints() == first
    with (tmp_path / "bee" / "000.png").open("ab") as file:
        file.write(b"\0")
    grown = fingerprints()
    write_images(tmp_path / "bee", 1, start=5)
    added = fingerprints()
    (tmp_path / "bee").rename(tmp_path / "wasp")
    renamed = fingerprints()
    for part in (0, 1):
        assert len({state[part] for state in (first, grown, added, renamed)}) == 4


def test_a_fingerprint_changes_with_classes_of_which_it_has_no_image(tmp_path):
    for name in ("ant", "bee"):
        write_images(tmp_path / "train" / name, 2)
        write_images(tmp_path / "val" / name, 2)
    before = open_for_training(str(tmp_path)).source("val")
    write_images(tmp_path / "train" / "cat", 2)
    after = open_for_training(str(tmp_path)).source("val")
    assert list(before.labels) == list(after.labels)
    assert before.fingerprint != after.fingerprint


def test_fingerprints_of_images_in_memory_change_with_every_part_of_them():
    def source(classes=("a", "b"), data=b"1", label=0, name="x", extra=()):
        return memory_source(classes=classes, samples=(Sample(data, label, name), Sample(b"2", 1, "y"), *extra))

    others = [
        source(classes=("a", "c")),
        source(data=b"3"),
        source(label=1),
        source(name="z"),
        source(extra=(Sample(b"2", 1, "y"),)),
        subset(source(), (0,)),
        subset(source(), (1, 0)),
    ]
    assert source().fingerprint == source().fingerprint
    assert len({source().fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1


def test_a_subset_is_the_chosen_images_in_the_chosen_order():
    samples = tuple(Sample(bytes([n]), n % 3, f"image {n}") for n in range(7))
    some = subset(memory_source(classes=("a", "b", "c"), samples=samples), (5, 1, 6))
    assert len(some) == 3
    assert [some[n] for n in range(3)] == [samples[5], samples[1], samples[6]]
    assert list(some.labels) == [2, 1, 0]
    assert Splits(name="x", sources={"train": some}).classes == ("a", "b", "c")


def test_digits_are_png_files_of_8_by_8():
    data = open_for_training("digits").source("test")[0].data
    assert Image.open(io.BytesIO(data)).format == "PNG"
    assert decode(data).shape == (8, 8, 3)


def test_hidden_files_are_no_images(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for file in ("0.png", "1.png", "._0.png"):
            (tmp_path / name / file).write_bytes(b"x")
    parts = open_for_training(str(tmp_path)).sources
    assert sorted(sample.id for part in parts.values() for sample in (part[i] for i in range(len(part)))) == [
        "cat/0.png",
        "cat/1.png",
        "dog/0.png",
        "dog/1.png",
    ]


def test_two_folders_for_one_split_are_refused(tmp_path):
    for split in ("train", "val", "validation"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="has both val and validation: keep one of them"):
        open_for_training(str(tmp_path))


def test_split_folders_without_a_training_one_are_not_taken_for_classes(tmp_path):
    for split in ("val", "test"):
        write_images(tmp_path / split / "ant", 2)
        write_images(tmp_path / split / "bee", 2)
    with pytest.raises(ValueError, match="has val, test but no train folder"):
        open_for_training(str(tmp_path))


def test_a_class_may_be_called_test(tmp_path):
    for name in ("exam", "test"):
        write_images(tmp_path / name, 3)
    assert open_for_training(str(tmp_path)).classes == ("exam", "test")


def test_a_class_with_a_single_image_is_named(tmp_path):
    write_images(tmp_path / "ant", 3)
    write_images(tmp_path / "bee", 1)
    with pytest.raises(ValueError, match="class bee has a single image"):
        open_for_training(str(tmp_path))


def test_a_test_folder_without_classes_is_left_out(tmp_path):
    """As in competitions, where its classes are kept secret."""
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            write_images(tmp_path / split / name, 3)
    write_images(tmp_path / "test", 4)
    assert list(open_for_training(str(tmp_path)).sources) == ["train", "val"]
    write_images(tmp_path / "validation", 1)
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"^no class folders .*validation, which holds 1 image without a class: "):
        open_for_training(str(tmp_path))


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        write_images(tmp_path / name, 5)
    assert open_for_training(str(tmp_path)).classes == ("bus", "train")


def test_a_class_whose_files_are_all_of_an_unknown_kind_is_refused(tmp_path):
    for name in ("ant", "bee"):
        write_images(tmp_path / name, 5)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.nef").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"^no images in .*cat, which holds 1 file of other kinds: 1 \.nef; convert"):
        open_for_training(str(tmp_path))


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "9", "2"):
        write_images(tmp_path / name, 5)
    assert open_for_training(str(tmp_path)).classes == ("2", "9", "10")


def test_all_splits_together(tmp_path):
    for split, count in {"train": 3, "val": 2, "test": 1}.items():
        for start, name in enumerate(("ant", "bee")):
            write_images(tmp_path / split / name, count, start=10 * start)
    splits = open_for_testing(str(tmp_path), ("bee", "ant"))
    whole = splits.source("all")
    files = sorted(tmp_path.rglob("*.png"))
    assert sorted(ids(whole)) == sorted(str(file.relative_to(tmp_path)) for file in files)
    for index in range(len(whole)):
        data, label, name = whole[index]
        assert data == (tmp_path / name).read_bytes()
        assert whole.classes[label] == name.split("/")[1]
    assert len({whole.fingerprint, *(source.fingerprint for source in splits.sources.values())}) == 4
    assert ids(open_one_split(str(tmp_path), "all")) == ids(whole)
    with pytest.raises(ValueError, match=r"has splits: say which of train, val, test, all \(--split\)"):
        open_one_split(str(tmp_path))
    (tmp_path / "val" / "bee" / "010.png").unlink()
    with pytest.raises(UnusableImageError, match=r"^val/bee/010\.png: unreadable"):
        whole[whole.ids.index("val/bee/010.png")]


def test_all_splits_of_a_source_whose_validation_images_are_held_out(tmp_path):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            write_images(tmp_path / split / name, 5)
    splits = open_for_testing(str(tmp_path), ("ant", "bee"))
    assert len(set(splits.source("all").ids)) == len(splits.source("all")) == 20
    file = tmp_path / "train" / "ant" / "000.png"
    file.unlink()
    whole = splits.source("all")
    names = [name for name in whole.ids if name.endswith("ant/000.png") and not name.startswith("test")]
    with pytest.raises(UnusableImageError, match=rf"^{names[0]}: unreadable"):
        whole[whole.ids.index(names[0])]


@pytest.mark.parametrize("name", ["", "hub:"])
def test_no_name_is_not_the_current_folder(tmp_path, monkeypatch, name):
    write_images(tmp_path / "ant", 2)
    write_images(tmp_path / "bee", 2)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^no folder '': give|^hub: names no data set: give hub:NAME"):
        open_for_training(name)
    with pytest.raises(ValueError, match=r"^no file ''$"):
        given_images("")


def test_names_of_more_digits_than_python_reads_are_sorted_as_names():
    names = ["9" * 5000, "cat", "10", "9"]
    assert sorted(names, key=natural_order) == ["9", "10", "9" * 5000, "cat"]
