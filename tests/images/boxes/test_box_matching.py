"""Names in files of boxes and the images they mean, in folders, shards and hub data, against a naive comparison."""

import io
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep.images.annotations.annotation import Annotation
from verydeep.images.annotations.image_names import ImageNames, paths_of
from verydeep.images.boxes.matching import boxes_by_split
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.open import open_boxed, open_for_testing, open_for_training
from verydeep.images.sources.hub import _hub_source
from verydeep.images.sources.shards import _shard_source
from verydeep.images.sources.source import ImagePath, Sample, memory_source, subset
from verydeep.images.sources.splits import folder_names


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 50, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root, *names):
    """Image files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png())
    return root


def source(*names):
    """Images whose class is the folder they are in."""
    classes = tuple(dict.fromkeys(name.split("/")[0] for name in names))
    return memory_source(
        classes=classes, samples=tuple(Sample(b"", classes.index(name.split("/")[0]), name) for name in names)
    )


def annotation(image, class_name=None, x1=9, where="boxes.csv line 1"):
    return Annotation(image, (0, 0, x1, 9), class_name, where)


def boxes_of(splits, parts, file, text):
    """x1 of the box of each image of each part."""
    file.write_text(text)
    found, _ = open_boxed(splits, parts, BoxOptions(boxes=(file,), skip_bad_boxes=True))
    return {
        part: {name: place.box[2] for name, place in zip(its.ids, its.boxes, strict=True)}
        for part, its in found.items()
    }


SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
COMPONENTS = st.sampled_from(["a", "B", *SPLITS])
FILES = st.sampled_from(["1.jpg", "2.jpg", "1.png"])
PATHS = st.builds(lambda folders, file: [*folders, file], st.lists(COMPONENTS, max_size=3), FILES)


@given(
    folders=st.sampled_from([["train", "validation"], ["photos"], ["a", "B"]]),
    images=st.lists(st.tuples(st.integers(0, 1), PATHS), min_size=1, max_size=6, unique_by=str),
    name=PATHS,
)
@settings(max_examples=150)
def test_the_longer_path_ends_with_the_shorter(folders, images, name):
    """Counted from the end, component by component; the folder of another split, or of none, does not fit.

    A name may leave out what is between the folder of a split and its end.
    """
    images = [(folders[which % len(folders)], path) for which, path in images]
    known = {folder for folder, _ in images}
    known |= SPLITS.keys() if known & SPLITS.keys() else set()
    common = []
    for folder, path in images:
        pairs = list(zip(reversed(name), reversed(path), strict=False))
        same = all(one == other for one, other in pairs)
        before = name[-len(path) - 1] if len(name) > len(path) else None
        own = SPLITS.get(before, before) == SPLITS.get(folder, folder)
        if not same or (before in known and not own):
            of_split = name[0] in SPLITS and SPLITS[name[0]] == SPLITS.get(folder)  # train/1.jpg for train/cat/1.jpg
            end = name[1:] and path[-len(name[1:]) :] == name[1:]
            common.append((len(name) - 1, False) if of_split and end else (0, False))
        else:
            common.append((len(pairs), name == path))
    best = max(common)
    expected = [index for index, found in enumerate(common) if found == best != (0, False)]
    names = ImageNames(paths=[(ImagePath("/".join(path), folder_names(folder)),) for folder, path in images])
    assert names.fitting("/".join(name)) == expected
    assert names.fitting("\\".join(name).upper()) == expected
    assert names.fitting(f"./{'/'.join(name)}") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat/1", [0]),
        ("1.JPG", [0]),
        ("CAT/1.jpg", [0]),
        ("1.png", []),
        ("1.5", [2]),
        ("1.5.gif", []),
        ("/home/me/cat/1", [0]),
        ("at/1.jpg", []),
        ("dog/cat/1.jpg", [0]),
        ("bobcat/1.jpg", []),
        ("Same.jpg", [3]),
        ("same.jpg", [4]),
        ("SAME.jpg", [3, 4]),
        ("", []),
    ],
)
def test_endings_may_be_left_out_and_capitals_count_where_they_decide(name, expected):
    ids = ("cat/1.jpg", "cat/11.jpg", "cat/1.5.jpg", "cat/Same.jpg", "cat/same.jpg")
    assert ImageNames(paths=[(ImagePath(path),) for path in ids]).fitting(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train/0", [0]),
        ("train/0 (a.jpg)", [0]),
        ("a.jpg", [0, 2]),
        ("a", [0, 2]),
        ("b.jpg", [1]),
        ("train/a.jpg", [0]),
        ("/data/train/a.jpg", [0]),
        ("photos/b.jpg", [1]),
        ("test/b.jpg", []),
        ("val/0", [3]),
        ("validation/b.jpg", []),
    ],
)
def test_hub_images_are_named_by_their_file_or_their_place(name, expected):
    sources = [hub_source("train", "x/a.jpg", "y/b.jpg"), hub_source("test", "a.jpg"), hub_source("val", None)]
    assert [name for source in sources for name in source.ids] == [
        "train/0 (a.jpg)",
        "train/1 (b.jpg)",
        "test/0 (a.jpg)",
        "val/0",
    ]
    names = ImageNames(paths=[paths for source in sources for paths in paths_of(source)])
    assert names.fitting(name) == expected


def hub_source(split, *files):
    pyarrow = pytest.importorskip("pyarrow")
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": b"", "path": file} for file in files], kind)
    rows = SimpleNamespace(data=pyarrow.table({"image": images}))
    return _hub_source(rows=rows, image="image", classes=("a",), labels=(0,) * len(files), split=split)


def test_another_shard_is_another_image():
    shards = _shard_source(
        shards=(Path("0.tar"), Path("1.tar")),
        classes=("a",),
        labels=(0, 0),
        names=("p/1.png", "p/2.png"),
        extents=np.array([[0, 0, 0], [1, 0, 0]]),
    )
    names = ImageNames(paths=paths_of(shards))
    assert names.fitting("1.tar/p/1.png") == []
    assert [names.fitting(f"{start}p/2.png") for start in ("", "q/", "1.tar/", "0.tar/")] == [[1]] * 3 + [[]]


def test_hub_data_has_such_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    for part in ("train", "test"):
        rows = {"image": [{"bytes": png(), "path": f"{n}.png"} for n in "abcd"], "label": [0, 1, 0, 1]}
        place = tmp_path / "data" / f"{part}-0.parquet"
        place.parent.mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(place)
    splits = open_for_testing(f"hub:{tmp_path / 'data'}", None)
    text = "train/a.png,0,0,5,5\ntest/0,0,0,6,6\ntrain/1,0,0,7,7,dog\nx/test/b.png,0,0,8,8\n"
    assert boxes_of(splits, ["test"], tmp_path / "b.csv", text) == {"test": {"test/0 (a.png)": 6, "test/1 (b.png)": 8}}
    with pytest.raises(ValueError, match=r"b.csv line 1: a.png may be test/0 \(a.png\) or train/0 \(a.png\): write"):
        boxes_of(splits, ["test"], tmp_path / "b.csv", "a.png,0,0,5,5\n")


def test_boxes_do_not_cross_over_between_splits(tmp_path):
    names = ("flat/0.png", "flat/1.png", "tall/0.png", "tall/2.png")
    root = folder(tmp_path / "photos", *(f"{part}/{name}" for part in ("train", "validation") for name in names))
    splits, file, both = open_for_training(str(root)), tmp_path / "b.csv", ["train", "val"]
    text = "".join(
        f"{part}/{name},0,0,{x1},9\n" for part, x1 in (("train", 5), ("validation", 6)) for name in names[:3]
    )
    expected = {"train": dict.fromkeys(names[:3], 5), "val": dict.fromkeys(names[:3], 6)}
    assert boxes_of(splits, both, file, text) == expected
    assert boxes_of(splits, both, file, text.replace("train", "C:\\photos/train")) == expected
    assert boxes_of(splits, both, file, text.replace("validation", "/x/val")) == expected
    with pytest.raises(ValueError, match="no image has exactly one box"):
        boxes_of(splits, ["val"], file, "train/flat/0.png,0,0,5,5\n")
    with pytest.raises(ValueError, match="no name in"):
        boxes_of(splits, ["val"], file, "test/flat/0.png,0,0,5,5\n")
    several = r"b.csv line 2: flat/1.png may be train/flat/1.png or validation/flat/1.png: write more of its path"
    for parts in (both, ["train"], ["val"]):
        with pytest.raises(ValueError, match=several):
            boxes_of(splits, parts, file, "train/flat/0.png,0,0,5,5\nflat/1.png,0,0,5,5\n")
    missing = r"^validation/flat/0.png has no box in .*b.csv \(and 3 more images\)"
    file.write_text("".join(f"train/{name},0,0,5,5\n" for name in names))
    with pytest.raises(ValueError, match=missing):
        open_boxed(splits, both, BoxOptions(boxes=(file,)))


def test_parts_that_are_drawn_from_one_folder_share_its_images(tmp_path):
    root = folder(tmp_path / "photos", *(f"{kind}/{n}.png" for kind in ("flat", "tall") for n in range(3)))
    text = "flat/0.png,0,0,5,5\n/x/photos/flat/1.png,0,0,6,6\nelsewhere/tall/0.png,0,0,7,7\ntrain/flat/2.png,0,0,8,8\n"
    found = boxes_of(open_for_testing(str(root), None), ["all", "train", "val"], tmp_path / "b.csv", text)
    assert found["all"] == {"flat/0.png": 5, "flat/1.png": 6, "flat/2.png": 8, "tall/0.png": 7}
    assert found["train"] | found["val"] == found["all"]


def test_images_in_shards_are_named_with_or_without_their_shard(tmp_path):
    for part in ("train", "val"):
        (tmp_path / "data" / part).mkdir(parents=True)
        with tarfile.open(tmp_path / "data" / part / "0.tar", "w") as archive:
            for n in range(4):
                for ending, content in (("png", png()), ("cls", str(n % 2).encode())):
                    member = tarfile.TarInfo(f"p/{n}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    splits = open_for_training(str(tmp_path / "data"))
    assert [splits.source(split).paths(0)[0].folders[0] for split in ("train", "val")] == ["train", "val"]
    text = "train/0.tar/p/0.png,0,0,5,5\nval/p/0.png,0,0,6,6\nx/train/p/1.png,0,0,7,7\nval/0.tar/p/3.png,0,0,8,8\n"
    assert boxes_of(splits, ["train", "val"], tmp_path / "b.csv", text) == {
        "train": {"0.tar/p/0.png": 5, "0.tar/p/1.png": 7},
        "val": {"0.tar/p/0.png": 6, "0.tar/p/3.png": 8},
    }
    with pytest.raises(ValueError, match=r"p/0.png may be train/0.tar/p/0.png or val/0.tar/p/0.png"):
        boxes_of(splits, ["train"], tmp_path / "b.csv", "p/0.png,0,0,5,5\n")


def test_what_is_said_of_each_image():
    parts = {"train": source("cat/1.jpg", "dog/1.jpg", "cat/2.jpg", "dog/3.jpg")}
    boxes = [
        annotation("1.jpg", "dog", 5),
        annotation("1.jpg", "cat", 6),
        annotation("2.jpg", None, 7),
        annotation("2.jpg", "cat", 8),
        annotation("2.jpg", "cat", 7),
        annotation("3.jpg", "cat", 7, "boxes.csv line 8"),
        annotation("3.jpg", "Dog", 7),
    ]
    found = boxes_by_split({**parts, "some": subset(parts["train"], (3, 1))}, boxes, ["boxes.csv"])
    assert [its.name for its in found["train"]] == list(parts["train"].ids)
    assert [[box.box[2] for box in its.own] for its in found["train"]] == [[6], [5], [7, 8], []]
    assert [its.name for its in found["some"]] == ["dog/3.jpg", "dog/1.jpg"]
    assert found["some"][0].missing(["a.csv"]) == "dog/3.jpg has no box of class dog: boxes.csv line 8 is of cat"


def test_classes_go_by_either_of_their_names():
    parts = {"train": source("tench/1.jpg", "n01443537/1.jpg")}
    boxes = [annotation("1.jpg", "n01440764", 5), annotation("1.jpg", "goldfish", 6)]
    assert [its.own for its in boxes_by_split(parts, boxes, ["b.csv"])["train"]] == [(boxes[0],), (boxes[1],)]


def test_names_of_other_images_are_told_where_none_fits():
    with pytest.raises(
        ValueError, match=r"^no name in a.csv, b.csv \(such as x/9.jpg\) is that of an image \(such as c"
    ):
        boxes_by_split({"train": source("cat/1.jpg")}, [annotation("x/9.jpg")] * 2, ["a.csv", "b.csv"])


def test_letters_may_be_stored_in_two_ways():
    names = ImageNames(paths=[(ImagePath("cafe\u0301/1.jpg"),), (ImagePath("tea/1.jpg"),)])
    assert names.fitting("caf\u00e9/1.jpg") == [0]
