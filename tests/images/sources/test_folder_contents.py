"""Whatever lies in a folder of images is an image of it, or counted and named: people's folders, built here."""

import io
import json
import os
import re
import sys

import numpy as np
import pytest
from PIL import Image

from verydeep import scan
from verydeep.images.decode import UnusableImageError, decode
from verydeep.images.image_kinds import missing_for_heif
from verydeep.images.open import open_for_training, open_one_split
from verydeep.images.scan import scan_tables
from verydeep.images.sources.given import given_images

RAW = b"II*\0\x08\0\0\0" + bytes(100)


def encoded(kind="PNG", grey=0, size=(8, 6)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (grey, grey, grey)).save(buffer, kind)
    return buffer.getvalue()


def write(path, data=None, grey=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(grey=grey) if data is None else data)


def write_images(folder, count, start=0):
    for number in range(start, start + count):
        write(folder / f"{number}.png", grey=number)


@pytest.fixture
def photos(tmp_path):
    """Two classes of three images each."""
    for start, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "photos" / name, 3, start=3 * start)
    return tmp_path / "photos"


@pytest.fixture
def no_heif(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    missing_for_heif.cache_clear()
    yield
    missing_for_heif.cache_clear()


def taken(root):
    """The names of all images, by class."""
    names = {}
    for source in open_for_training(str(root)).sources.values():
        for index in range(len(source)):
            names.setdefault(source.classes[source.labels[index]], []).append(source.ids[index])
    return {name: sorted(of_class) for name, of_class in sorted(names.items())}


def left_out(root):
    return open_for_training(str(root)).inventory.lines()


# links


def test_a_linked_folder_is_looked_through_and_reads_what_it_links_to(photos):
    write_images(photos.parent / "store" / "more", 2, start=10)
    (photos / "bird").mkdir()
    (photos / "bird" / "batch1").symlink_to(photos.parent / "store")
    (photos / "cat" / "batch1").symlink_to("../../store/more")
    assert taken(photos)["bird"] == ["bird/batch1/more/10.png", "bird/batch1/more/11.png"]
    assert taken(photos)["cat"] == [*(f"cat/{n}.png" for n in range(3)), "cat/batch1/10.png", "cat/batch1/11.png"]
    source = open_for_training(str(photos)).source("train")
    greys = {name: decode(source[index].data)[0, 0, 0] for index, name in enumerate(source.ids)}
    assert all(grey == int(os.path.basename(name).split(".")[0]) for name, grey in greys.items())
    assert left_out(photos) == []


def test_links_that_lead_back_end_there(photos):
    (photos / "cat" / "self").symlink_to(".")
    (photos / "cat" / "up").symlink_to("../..")
    (photos / "again").symlink_to(".")
    (photos / "dog" / "loop").symlink_to("loop")
    assert taken(photos) == {name: [f"{name}/{n}.png" for n in range(s, s + 3)] for s, name in ((0, "cat"), (3, "dog"))}
    assert left_out(photos) == [
        "left out 1 broken link: dog/loop",
        "left out 3 folders already taken under other paths: cat/self, cat/up, again",
    ]


def test_a_folder_that_two_links_reach_is_one_and_has_its_own_name_where_it_has_one(photos):
    write_images(photos / "cat" / "z", 2, start=10)
    (photos / "cat" / "a").symlink_to("z")
    write_images(photos.parent / "store", 1, start=20)
    for name in ("one", "two"):
        (photos / "dog" / name).symlink_to(photos.parent / "store")
    assert [name for name in taken(photos)["cat"] if "1" in name[6:]] == ["cat/z/10.png", "cat/z/11.png"]
    assert "dog/one/20.png" in taken(photos)["dog"]
    assert left_out(photos) == ["left out 2 folders already taken under other paths: cat/a, dog/two"]


def test_dangling_links_are_counted_and_named(photos):
    for number in range(7):
        (photos / "cat" / f"gone {number}.jpg").symlink_to(f"/nowhere/{number}.jpg")
    (photos / "bird").symlink_to("/nowhere")
    names = ", ".join(f"cat/gone {number}.jpg" for number in range(5))
    assert left_out(photos) == [f"left out 8 broken links: {names} and 3 others"]


def test_a_class_of_dangling_links_is_refused(photos):
    (photos / "bird").mkdir()
    for number in range(2):
        (photos / "bird" / f"{number}.jpg").symlink_to(f"/nowhere/{number}.jpg")
    told = r"^no images in .*/bird, which holds 2 broken links: bird/0\.jpg, bird/1\.jpg: if it is not a class"
    with pytest.raises(ValueError, match=told):
        open_for_training(str(photos))


# kinds


def test_other_kinds_are_counted_by_ending(photos, no_heif):
    for number in range(20):
        write(photos / "dog" / f"{number}.HEIC", b"\0\0\0\x18ftypheic" + bytes(40))
    for name in ("a.nef", "b.NEF", "c.dng", "notes", "list.txt"):
        write(photos / "cat" / name, RAW if "." in name and "txt" not in name else b"words")
    assert left_out(photos) == [
        "left out 25 files of other kinds: 20 .heic, 2 .nef, 1 without ending, 1 .dng, 1 .txt; HEIC needs the package "
        "pillow_heif: pip install 'verydeep[heif]'; convert pictures among them to JPEG or PNG"
    ]
    found = scan(str(photos)).to_dict()["inventory"]
    assert found["other_kinds"] == {".heic": 20, ".nef": 2, "": 1, ".dng": 1, ".txt": 1}
    assert (found["files"], found["images"], found["left_out"]) == (31, 6, 25)
    assert found["places"]["dog"]["other_kinds"] == {".heic": 20}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_a_file_is_known_by_its_bytes(photos, kind):
    """By whatever name: that of another format, one that means nothing, or one without ending."""
    names = ["x.jpg", "x.png", "without", "x.jpg_large", "x.v2.dat"]
    for name in names:
        write(photos / "dog" / name, encoded(kind, grey=200))
    assert taken(photos)["dog"] == sorted(f"dog/{name}" for name in ["3.png", "4.png", "5.png", *names])
    for part in open_for_training(str(photos)).sources.values():
        for index, name in enumerate(part.ids):
            if name.removeprefix("dog/") in names:
                assert np.abs(decode(part[index].data).astype(int) - 200).max() <= 2
    assert left_out(photos) == []


@pytest.mark.parametrize("data", [b"", b"BMW makes cars", b"P6 is a format", b"II*\0 and more", b"GIF", b"Python 3"])
def test_what_only_begins_like_an_image_is_none(photos, data):
    write(photos / "dog" / "words", data)
    assert left_out(photos) == ["left out 1 file of other kinds: 1 without ending"]


def test_a_page_called_jpg_is_an_unusable_image(photos):
    write(photos / "dog" / "page.jpg", b"<html>")
    unusable = [part.unusable for part in scan(str(photos)).splits if part.unusable]
    assert unusable == [{"dog/page.jpg": "undecodable (not an image of a known format)"}]


def test_heic_is_read_where_its_package_is(photos):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    for name in ("x.heic", "y.jpg", "z"):
        write(photos / "dog" / name, encoded("HEIF", grey=200, size=(64, 48)))
    assert {"dog/x.heic", "dog/y.jpg", "dog/z"} < set(taken(photos)["dog"])
    assert np.abs(decode((photos / "dog" / "z").read_bytes()).astype(int) - 200).max() <= 3


def test_heic_without_its_package_says_what_to_install(no_heif):
    told = r"^x\.jpg: undecodable \(HEIC needs the package pillow_heif: pip install 'verydeep\[heif\]'\)$"
    with pytest.raises(UnusableImageError, match=told):
        decode(b"\0\0\0\x18ftypheic" + bytes(40), "x.jpg")


def test_pipes_and_folders_that_cannot_be_read_are_named(photos, monkeypatch):
    os.mkfifo(photos / "dog" / "pipe.jpg")
    write(photos / "cat" / "closed" / "0.png")
    listed = os.scandir

    def scandir(folder):
        if str(folder).endswith("closed"):
            raise PermissionError
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert left_out(photos) == [
        "left out 1 folder that cannot be read: cat/closed",
        "left out 1 pipe, socket or device: dog/pipe.jpg",
    ]


# hidden files, and what is beside the classes

LEFTOVERS = [
    *(".ipynb_checkpoints/0-checkpoint.png", ".AppleDouble/0.png", "._0.png", ".DS_Store", ".thumbnails/0.png"),
    *("__MACOSX/cat/0.png", "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "#recycle/0.png", "lost+found/0.png", "Thumbs.db"),
    *("desktop.ini", "$RECYCLE.BIN/0.png", "0.png~", "0.png.bak", "0.jpg.part", "MVI_1.THM", ".git/objects/a/b"),
]


def test_hidden_files_and_leftovers_are_counted_wherever_they_lie(photos):
    for folder in (photos, photos / "cat", photos / "cat" / "summer"):
        for name in LEFTOVERS:
            write(folder / name)
    write(photos / "cat" / "summer" / "9.png")
    expected = "hidden files or leftovers of programs"
    assert left_out(photos) == [f"left out {3 * len(LEFTOVERS)} {expected}"]
    assert taken(photos)["cat"] == [*(f"cat/{n}.png" for n in range(3)), "cat/summer/9.png"]
    given = given_images(photos)
    assert given.inventory.lines() == left_out(photos)
    assert len(given) == 7
    pattern = given_images(str(photos / "**" / "*"))
    assert sorted(pattern.ids) == sorted(given.ids)
    assert [len(given_images(photos / "cat" / name)) for name in ("._0.png", "0.png~")] == [1, 1]  # asked for by name
    assert len(given_images(photos / "cat" / "@eaDir")) == 1


def test_images_beside_the_classes_and_empty_folders_are_named(photos):
    write(photos / "stray.png")
    write(photos / "README.md", b"words")
    (photos / "bird" / "none").mkdir(parents=True)
    write(photos / "fish" / ".DS_Store", b"x")
    assert left_out(photos) == [
        "left out 1 file of other kinds: 1 .md",
        "left out 1 hidden file or leftover of a program",
        "left out 1 image without a class: stray.png",
        "left out 2 folders without files, not taken as classes: bird, fish",
    ]


def test_splits_in_capital_letters_are_no_classes(tmp_path):
    """They would be two classes, which tell training images from test images."""
    for split in ("Train", "test"):
        for name in ("cat", "dog"):
            write_images(tmp_path / split / name, 2)
    with pytest.raises(
        ValueError, match=r"Train and test look like splits, whose folders are in small letters: rename"
    ):
        open_for_training(str(tmp_path))
    for split in ("Train", "test"):
        write_images(tmp_path / "flat" / split, 2)
    assert open_for_training(str(tmp_path / "flat")).classes == ("Train", "test")


def test_what_lies_beside_the_splits_is_named(tmp_path):
    for split in ("train", "val"):
        for number, name in enumerate(("cat", "dog")):
            write_images(tmp_path / split / name, 2, start=2 * number)
    write_images(tmp_path / "test", 2)
    write(tmp_path / "extra" / "cat" / "0.png")
    write(tmp_path / "train" / "list.txt", b"words")
    splits = open_for_training(str(tmp_path))
    assert splits.inventory.lines() == [
        "left out 1 file of other kinds: 1 .txt",
        "left out 3 images without a class: extra/cat/0.png, test/0.png, test/1.png",
    ]
    assert {place: found.images for place, found in splits.inventory.places.items() if found.images} == {
        f"{split}/{name}": 2 for split in ("train", "val") for name in ("cat", "dog")
    }


@pytest.mark.parametrize("door", [open_for_training, open_one_split, given_images])
def test_a_folder_of_other_kinds_only_is_told_as_that(tmp_path, no_heif, door):
    for number in range(123):
        write(tmp_path / "hat" / f"{number}.heic", b"x")
    told = r"^no images in .*/hat, (which holds|only) 123 files of other kinds: 123 \.heic; HEIC needs the package"
    with pytest.raises(ValueError, match=told):
        door(str(tmp_path / "hat"))


def test_a_folder_of_images_without_classes_is_told_as_that(tmp_path):
    write_images(tmp_path / "hat", 3)
    told = r"/hat, which holds 3 images without a class: 0\.png, 1\.png, 2\.png: it must hold one folder per class"
    with pytest.raises(ValueError, match=told):
        open_for_training(str(tmp_path / "hat"))


# class names in two forms of Unicode

NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize("forms", [(NFC, NFD), (NFD, NFC)])
def test_a_class_is_one_in_both_forms(tmp_path, forms):
    for split, name in zip(("train", "val"), forms, strict=True):
        write_images(tmp_path / split / name, 2)
        write_images(tmp_path / split / "tea", 2)
    splits = open_for_training(str(tmp_path))
    assert splits.classes == (NFC, "tea")
    assert list(splits.source("val").labels) == [0, 0, 1, 1]
    assert splits.source("val").ids[0] == f"{forms[1]}/0.png"


def test_a_class_in_both_forms_in_one_source_is_refused(photos):
    for number, name in enumerate((NFC, NFD)):
        write_images(photos / name, 2, start=2 * number)
    with pytest.raises(ValueError, match=r"has two folders called caf.*, whose letters .* \(NFC and NFD\): put"):
        open_for_training(str(photos))


# how it is printed


def test_a_scan_adds_up(photos):
    write(photos / "dog" / "page.jpg", b"<html>")
    write(photos / "dog" / "notes.txt", b"words")
    write(photos / "dog" / ".hidden.png")
    text = "\n".join(item for item in scan_tables(scan(str(photos)), max_bad=100) if isinstance(item, str))
    assert text.splitlines()[:3] == [
        "9 files found: 7 images, 2 left out",
        "  left out 1 file of other kinds: 1 .txt",
        "  left out 1 hidden file or leftover of a program",
    ]
    assert re.search(r"^Unusable images: 1$", text, re.MULTILINE)
    json.dumps(scan(str(photos)).to_dict())
