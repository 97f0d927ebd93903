"""What a scan counts, against files written here to be counted; and how it is printed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from several_commands import status_of
from sklearn.datasets import load_digits

from verydeep import Tolerance, scan
from verydeep.images.class_sizes import about_unequal_classes, images_per_class
from verydeep.images.open import open_for_training
from verydeep.images.scan import Duplicates, Scan, SplitScan, scan_tables
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits


def pixels(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def photos(root):
    """Twelve files: what is to be found in them is said in the tests."""
    grey = np.repeat(pixels(14, 22, 2)[..., :1], 3, axis=2)
    nearly = [grey.copy() for _ in range(3)]
    for channel, array in enumerate(nearly):
        array[13, 21, channel] ^= 1
    train, val = root / "train", root / "val"
    save(train / "cat" / "a.png", pixels(10, 20, 0))
    save(train / "cat" / "b.png", pixels(31, 12, 1))
    save(train / "cat" / "grey.jpg", grey[..., 0])
    save(train / "cat" / "grey as colour.png", grey)
    save(train / "dog" / "red.png", nearly[0])
    save(train / "dog" / "green.png", nearly[1])
    save(train / "dog" / "blue.png", nearly[2])
    (train / "dog" / "broken.jpg").write_bytes(b"broken")
    save(val / "cat" / "c.png", pixels(40, 40, 3))
    (val / "dog").mkdir()
    (train / "cat" / "again.png").write_bytes((train / "cat" / "a.png").read_bytes())  # twice in one class
    (train / "dog" / "b2.png").write_bytes((train / "cat" / "b.png").read_bytes())  # a cat and a dog
    (val / "dog" / "red.png").write_bytes((train / "dog" / "red.png").read_bytes())  # to learn from, and to be tested
    (val / "dog" / "broken.jpg").write_bytes(b"broken")  # the same, but of no use
    return root


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def found(photo_folder):
    return scan(str(photo_folder))


def test_images_of_each_class_are_counted_unusable_ones_too(found):
    assert [(part.split, part.images, part.per_class) for part in found.splits] == [
        ("train", 10, {"cat": 5, "dog": 5}),
        ("val", 3, {"cat": 1, "dog": 2}),
    ]


def test_images_that_can_be_used_are_counted_apart(found):
    assert [part.usable_per_class for part in found.splits] == [{"cat": 5, "dog": 4}, {"cat": 1, "dog": 1}]


def test_a_class_without_images_in_a_split_is_there_with_none(tmp_path):
    for place in ("train/cat/0.png", "train/cat/1.png", "train/dog/2.png", "val/dog/3.png"):
        save(tmp_path / place, pixels(9, 9, 4))
    assert [part.per_class for part in scan(str(tmp_path)).splits] == [{"cat": 2, "dog": 1}, {"cat": 0, "dog": 1}]


@pytest.mark.parametrize(("cats", "told"), [(3, False), (4, True)])
def test_classes_that_differ_twofold_are_told(cats, told):
    images = [Sample(bytes([number]), int(number >= cats), f"{number}") for number in range(cats + 2)]
    source = memory_source(classes=("cat", "dog"), samples=tuple(images))
    line = about_unequal_classes(images_per_class(source))
    assert bool(line) == told
    assert not told or line.startswith("unequal classes: cat has 4 images, dog 2; ")


def test_unusable_images_are_named_with_their_reasons(found):
    reason = "undecodable (not an image of a known format)"
    assert [part.unusable for part in found.splits] == [{"dog/broken.jpg": reason}] * 2


def test_grey_images_have_three_equal_channels_to_the_last_pixel(found):
    """`red`, `green` and `blue` differ from grey by one level of that channel, in one pixel."""
    assert [part.grey for part in found.splits] == [2, 0]


def test_sizes_are_those_of_the_usable_images(found):
    """train: 10 x 20 twice, 31 x 12 twice, 14 x 22 five times. val: 40 x 40 and 14 x 22."""
    assert [part.shorter_side for part in found.splits] == [(10, 14, 14), (14, 27, 40)]
    assert [part.longer_side for part in found.splits] == [(20, 22, 31), (22, 31, 40)]


def test_sizes_are_those_of_the_files_where_they_are_decoded_smaller(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        save(tmp_path / "train" / name / "0.jpg", pixels(101, 203, number))
        save(tmp_path / "val" / name / "0.jpg", pixels(101, 203, number + 2))
    for part in scan(str(tmp_path)).splits:
        assert (part.shorter_side, part.longer_side) == ((101, 101, 101), (203, 203, 203))


def test_bytes_are_those_of_all_files(found, photo_folder):
    for part in found.splits:
        files = [path for path in (photo_folder / part.split).rglob("*") if path.is_file()]
        assert part.bytes == sum(path.stat().st_size for path in files)


def test_a_split_without_usable_images_has_no_sizes(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / "train" / name / "0.png", pixels(9, 9, 1))
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "0.png").write_bytes(b"")
    part = scan(str(tmp_path)).splits[1]
    assert (part.shorter_side, part.longer_side, part.grey, part.bytes) == (None, None, 0, 0)


def places(duplicates):
    return {tuple(sorted("/".join(place) for place in same.images)): same.classes for same in duplicates}


def test_the_same_file_twice_is_found_wherever_it_stands(found):
    assert places(found.duplicates) == {
        ("train/cat/a.png", "train/cat/again.png"): ("cat",),
        ("train/cat/b.png", "train/dog/b2.png"): ("cat", "dog"),
        ("train/dog/red.png", "val/dog/red.png"): ("dog",),
    }


def test_images_in_training_and_validation_stand_out(found):
    assert places(found.across_splits) == {("train/dog/red.png", "val/dog/red.png"): ("dog",)}


def test_images_said_to_show_two_classes_stand_out(found):
    assert places(found.contradictions) == {("train/cat/b.png", "train/dog/b2.png"): ("cat", "dog")}


def test_three_copies_are_one_finding(tmp_path):
    for place in ("train/cat/0.png", "train/dog/1.png", "val/dog/2.png"):
        save(tmp_path / place, pixels(9, 9, 4))
    save(tmp_path / "train" / "dog" / "other.png", pixels(9, 9, 5))
    found = scan(str(tmp_path))
    assert found.duplicates == found.across_splits == found.contradictions
    assert places(found.duplicates) == {("train/cat/0.png", "train/dog/1.png", "val/dog/2.png"): ("cat", "dog")}


def test_two_workers_find_the_same(photo_folder, found):
    assert scan(str(photo_folder), workers=2) == found


def test_larger_images_than_allowed_are_unusable(photo_folder):
    found = scan(str(photo_folder), tolerance=Tolerance(max_pixels=40 * 40 - 1))
    assert found.splits[1].unusable["cat/c.png"] == "too large (40 x 40 pixels, more than the 1,599 allowed)"
    assert not scan(str(photo_folder), tolerance=Tolerance(max_pixels=40 * 40)).splits[1].unusable.keys() - {
        "dog/broken.jpg"
    }


def test_the_digits_are_as_scikit_learn_has_them():
    found, (images, targets) = scan("digits"), load_digits(return_X_y=True)
    assert [part.split for part in found.splits] == ["train", "val", "test"]
    assert sum(part.images for part in found.splits) == sum(part.grey for part in found.splits) == len(images)
    for digit in range(10):
        assert sum(part.per_class[str(digit)] for part in found.splits) == np.sum(targets == digit)
    assert {part.shorter_side for part in found.splits} == {part.longer_side for part in found.splits} == {(8, 8.0, 8)}
    copies = len(images) - len(np.unique(images, axis=0))
    assert sum(len(same.images) - 1 for same in found.duplicates) == copies


def test_json_is_the_same_as_plain_values(photo_folder, found, capsys, tmp_path):
    assert status_of("scan", photo_folder, "--json", "-") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(found.to_dict()))
    assert printed.keys() == {
        "source",
        "splits",
        "duplicates",
        "across_splits",
        "contradictions",
        "inventory",
    }
    assert printed["splits"][0]["per_class"] == {"cat": 5, "dog": 5}
    assert printed["across_splits"] == [
        {"images": [["train", "dog/red.png"], ["val", "dog/red.png"]], "classes": ["dog"]}
    ]
    assert status_of("scan", photo_folder, "--json", tmp_path / "s.json", "--workers", 2) == 0
    assert "Unusable images: 2" in capsys.readouterr().out
    assert json.loads((tmp_path / "s.json").read_text()) == printed


def test_tables_say_the_same(photo_folder, capsys):
    assert status_of("scan", photo_folder) == 0
    captured = capsys.readouterr()
    rows = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert "train 10 1 (10%) 2 (20.0%) 10 to 14, median 14 20 to 31, median 22 0.0" in rows
    assert "val 3 1 (33%) 0 (0.0%) 14 to 40, median 27 22 to 40, median 31 0.0" in rows
    assert "class train val unusable" in rows
    assert "cat 5 1 0" in rows
    assert "dog 4 1 2" in rows
    for line in (
        "Unusable images: 2",
        "train/dog/broken.jpg: undecodable (not an image of a known format)",
        "val/dog/broken.jpg: undecodable (not an image of a known format)",
        "The same file more than once (1 in more than one split, 1 in different classes): 3",
        "Over 1% of train and val cannot be used: a training would stop (--max-bad).",
    ):
        assert line in rows, line
    copies = ["train/dog/red.png = val/dog/red.png (dog)", "train/cat/b.png = train/dog/b2.png (cat, dog)"]
    assert [row for row in rows if " = " in row] == [*copies, "train/cat/a.png = train/cat/again.png (cat)"]
    assert captured.err == ""


def test_what_is_tolerated_is_not_announced_as_too_much(photo_folder, capsys):
    assert status_of("scan", photo_folder, "--max-bad", 10) == 0
    assert "Over 10% of val cannot be used" in capsys.readouterr().out
    assert status_of("scan", photo_folder, "--max-bad", 34) == 0
    assert "cannot be used:" not in capsys.readouterr().out


def test_nothing_wrong_is_two_tables_and_no_lists(tmp_path, capsys):
    for number, place in enumerate(("a/0", "a/1", "b/0", "b/1")):
        save(tmp_path / f"{place}.png", pixels(9, 9, number))
    assert status_of("scan", tmp_path) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert ":" not in captured.out.replace(str(tmp_path), "")


def test_long_lists_are_shortened(tmp_path, capsys):
    for number in range(30):
        save(tmp_path / f"class {number:02d}" / "0.png", pixels(9, 9, number))
        save(tmp_path / f"class {number:02d}" / "1.png", pixels(9, 9, 100 + number))
    save(tmp_path / "class 17" / "2.png", pixels(9, 9, 200))
    for number in range(12):
        (tmp_path / "class 03" / f"broken {number:02d}.jpg").write_bytes(b"")
    assert status_of("scan", tmp_path, "--json", tmp_path / "all.json") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("(an empty file)") == 10
    assert "Unusable images: 12" in text
    assert "and 2 more (--json FILE lists all)" in text
    assert "30 classes; the smallest 10" in text
    assert "class 00" in text
    assert "class 03" not in text.split("Unusable")[0]  # it is the largest
    assert "class 17" not in text
    listed = json.loads((tmp_path / "all.json").read_text())
    assert sum(len(part["unusable"]) for part in listed["splits"]) == 12


@pytest.mark.parametrize(("count", "more"), [(10, None), (11, "and 1 more")])
def test_ten_lines_are_no_long_list(tmp_path, capsys, count, more):
    for name in ("a", "b"):
        save(tmp_path / "train" / name / "0.png", pixels(9, 9, ord(name)))
        save(tmp_path / "val" / name / "0.png", pixels(9, 9, ord(name) + 9))
    for number in range(count):
        (tmp_path / "val" / "a" / f"broken {number:02d}.jpg").write_bytes(b"")
    assert status_of("scan", tmp_path) == 0
    text = capsys.readouterr().out
    assert text.count("(an empty file)") == 10
    assert ("more (--json" in text) == (more is not None)
    assert more is None or more in text


def test_names_are_printed_as_they_are(tmp_path, capsys):
    """Brackets are not markup, colons not emoji."""
    root = tmp_path / "[b]photos:100:"
    for number, name in enumerate(("[bold]cat", ":dog:")):
        for part in ("train", "val"):
            save(root / part / name / f"{part}.png", pixels(9, 9, 10 * number + len(part)))
    (root / "train" / "[bold]cat" / "x[red]:cat:.png").write_bytes(b"")
    assert status_of("scan", root) == 0
    captured = capsys.readouterr()
    rows = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert "train/[bold]cat/x[red]:cat:.png: undecodable (an empty file)" in rows
    assert "[bold]cat 1 1 1" in rows
    assert ":dog: 1 1 0" in rows
    assert str(root) in captured.out.replace("\n", "")


def test_a_split_of_unusable_images_only_is_a_hundred_percent(tmp_path, capsys):
    for name in ("a", "b"):
        save(tmp_path / "train" / name / "0.png", pixels(9, 9, ord(name)))
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "0.png").write_bytes(b"")
    assert status_of("scan", tmp_path) == 0
    assert "2 (100%)" in capsys.readouterr().out


def test_file_names_that_are_no_text_do_not_stop_it(tmp_path):
    """Linux allows any bytes in a name; those that are not UTF-8 are lone surrogates in Python."""
    for name in ("a", "b"):
        save(tmp_path / "photos" / "train" / name / "0.png", pixels(9, 9, ord(name)))
        save(tmp_path / "photos" / "val" / name / "0.png", pixels(9, 9, ord(name) + 9))
    with open(os.fsencode(tmp_path / "photos" / "val" / "a") + b"/\xff.png", "wb"):
        pass
    command = [sys.executable, "-m", "verydeep", "scan", "photos", "--json", "s.json"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}  # as in the locales of most people
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert list(json.loads((tmp_path / "s.json").read_text())["splits"][1]["unusable"]) == ["a/\udcff.png"]


class Compared(str):
    """A name that counts how often such names are compared."""

    times = 0

    def __eq__(self, other):
        Compared.times += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_twenty_thousand_duplicates_are_not_all_compared_with_one_another():
    """Take a set that holds each image twice."""
    names = [Compared(f"{number}.png") for number in range(40_000)]
    same = tuple(
        Duplicates(images=(("train", one), ("val", other)), classes=("a",))
        for one, other in zip(names[::2], names[1::2], strict=True)
    )
    counts = {"a": 20_000}
    sizes = {"shorter_side": None, "longer_side": None, "bytes": 0, "usable_per_class": counts}
    split = SplitScan(split="train", images=20_000, per_class=counts, unusable={}, grey=0, **sizes)
    found = Scan(source="all", splits=(split,), duplicates=same)
    lists = scan_tables(found, max_bad=1)
    assert any("The same file more than once (20,000 in more than one split): 20,000" in str(item) for item in lists)
    assert Compared.times < 10 * len(names)


def test_splits_in_memory_are_scanned_too(photo_folder, found):
    splits = open_for_training(str(photo_folder))
    in_memory = Splits(
        name=splits.name,
        inventory=splits.inventory,
        sources={
            name: memory_source(
                classes=part.classes,
                samples=tuple(Sample(*part[index]) for index in range(len(part))),
            )
            for name, part in splits.sources.items()
        },
    )
    assert scan(in_memory) == found


def test_a_source_that_is_none_is_refused(tmp_path, capsys):
    assert status_of("scan", tmp_path / "nowhere") == 2
    assert "no folder" in capsys.readouterr().err
    assert status_of("scan", "digits", "--workers", -1) == 2
    assert "workers must be from 0 to 1,024" in capsys.readouterr().err
