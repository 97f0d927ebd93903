"""Boxes as shares of an image's sides: YOLO's files, and files of other kinds, which have to say so."""

import json
import sys

import pytest
from PIL import Image

from verydeep.images.annotations.box_files import read_annotations, read_boxes
from verydeep.images.annotations.label_files import several_labels
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.open import open_boxed, open_for_testing
from verydeep.images.sources.given import given_images

PIXELS = (10, 10, 30, 20)
"""Of an image 40 wide and 20 high, which is 0.25, 0.5, 0.75, 1."""


@pytest.fixture
def photos(tmp_path):
    """Two images 40 wide and 20 high in each of two classes and two splits."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in (0, 1):
                Image.new("RGB", (40, 20)).save(tmp_path / "photos" / split / name / f"{split}{name}{number}.png")
    return tmp_path / "photos"


def names(photos):
    return sorted(file.relative_to(photos).with_suffix("") for file in photos.rglob("*.png"))


def csv_file(folder, numbers):
    lines = [f"{name}.png,{','.join(map(str, numbers))},{name.parts[1]}" for name in names(folder / "photos")]
    (folder / "boxes.csv").write_text("\n".join(lines))
    return folder / "boxes.csv"


def coco_file(folder, numbers):
    x0, y0, x1, y1 = numbers
    images = [{"id": n, "file_name": f"{name}.png"} for n, name in enumerate(names(folder / "photos"))]
    boxes = [{"image_id": image["id"], "bbox": [x0, y0, x1 - x0, y1 - y0]} for image in images]
    (folder / "boxes.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    return folder / "boxes.json"


def voc_folder(folder, numbers):
    x0, y0, x1, y1 = numbers
    one = int(x1 > 1)  # VOC counts pixels from 1
    (folder / "voc").mkdir(exist_ok=True)
    for name in names(folder / "photos"):
        (folder / "voc" / f"{name.name}.xml").write_text(
            f"<annotation><filename>{name.name}.png</filename><object><name>{name.parts[1]}</name><bndbox>"
            f"<xmin>{x0 + one}</xmin><ymin>{y0 + one}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            "</annotation>"
        )
    return folder / "voc"


def boxes(photos, file, units=None, split="train"):
    options = BoxOptions(boxes=(file,), box_units=units)
    found, check = open_boxed(open_for_testing(str(photos), None), [split], options)
    assert check.lines() == []
    return [tuple(box.box.tolist()) for box in found[split].boxes]


@pytest.mark.parametrize("write", [csv_file, coco_file, voc_folder])
def test_boxes_within_1_are_refused_or_taken_as_said(photos, write):
    file = write(photos.parent, (0.25, 0.5, 0.75, 1))
    with pytest.raises(ValueError, match=rf"^all boxes in {file} lie within 0\.\.1, as shares .*--box-units relative"):
        boxes(photos, file)
    assert boxes(photos, file, "relative") == [PIXELS] * 4
    assert boxes(photos, write(photos.parent, PIXELS)) == [PIXELS] * 4
    with pytest.raises(ValueError, match=r"with --box-units relative a box lies within 0\.\.1, not "):
        boxes(photos, file, "relative")


def test_a_box_of_one_pixel_can_be_said_to_be_one(photos):
    file = csv_file(photos.parent, (0, 0, 1, 1))
    with pytest.raises(ValueError, match="--box-units pixels"):
        boxes(photos, file)
    assert boxes(photos, file, "pixels") == [(0, 0, 1, 1)] * 4


def yolo(photos, line="{} 0.5 0.75 0.5 0.5"):
    """Labels as data sets have them: labels/train/1.txt, without the folders of classes."""
    for name in names(photos):
        file = photos.parent / "labels" / name.parts[0] / f"{name.name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(line.format(["cat", "dog"].index(name.parts[1])) + "\n\n")
    return photos.parent / "labels"


@pytest.mark.parametrize("where", [".", "labels", "labels/train"])
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "cat\ndog\n"),
        ("obj.names", "cat\ndog"),
        ("data.yaml", "train: images/train\nnames: [cat, dog]\n"),
        ("coco8.yml", "names:\n  0: cat\n  1: dog\n"),
    ],
)
def test_yolo_folders_are_boxes(photos, where, file, text):
    labels = yolo(photos)
    (photos.parent / where / file).write_text(text)
    asked = labels if where != "labels/train" else labels / "train"
    assert boxes(photos, asked) == [PIXELS] * 4


def test_yolo_classes_without_names_are_numbers(photos):
    found = list(read_annotations(yolo(photos), "boxes"))
    assert [(entry.image, getattr(entry, "class_name", "")) for entry in found[:4]] == [
        *(("train/traincat0", ""), ("train/traincat0", "0"), ("train/traincat1", ""), ("train/traincat1", "0")),
    ]
    assert all(box.relative for box in read_boxes(photos.parent / "labels"))


def test_yolo_files_say_what_images_show(tmp_path):
    (tmp_path / "labels").mkdir()
    for number, text in enumerate(("0 .5 .5 .1 .1\n1 .5 .5 .2 .2\n0 .1 .1 .1 .1", "1 .5 .5 .1 .1", "")):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
        (tmp_path / "labels" / f"{number}.txt").write_text(text)
    (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "labels" / "README.txt").write_text("words")
    read = several_labels(tmp_path / "labels", given_images([tmp_path / f"{number}.png" for number in range(3)]))
    assert (read.classes, read.labels.tolist()) == (("cat", "dog"), [[1, 1], [-1, 1], [-1, -1]])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 0.5 0.5 0.5", "YOLO's lines are class x y width height, the class a number, not 0,0.5,0.5,0.5"),
        ("cat 0.5 0.5 0.5 0.5", "YOLO's lines are class x y width height, the class a number"),
        ("0 0.5 0.5 0.5 0.5 0.9", "YOLO's lines are class x y width height"),
        ("0 12 0.5 0.5 0.5", "x, y, width and height are shares of the image's sides, 0..1, not 0,12,0.5"),
        ("0 nan 0.5 0.5 0.5", "a box is four finite numbers"),
        ("2 0.5 0.5 0.5 0.5", "class 2 has no name: there are only 2 names, from 0 on"),
        (f"{'9' * 5000} 0.5 0.5 0.5 0.5", "YOLO's lines are class x y width height, the class a number, not 999"),
    ],
)
def test_other_lines_are_refused(photos, line, told):
    labels = yolo(photos, line)
    (labels / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=r"labels/train/traincat0\.txt line 1: ") as caught:
        read_boxes(labels)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "text", ["names: 3", "names: {0: cat, 2: dog}", "names: [[cat]]", "names: [cat", "a: " + "[" * 5000]
)
def test_names_that_are_none_are_refused(photos, text):
    labels = yolo(photos)
    (labels / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"data\.yaml(: names are a list, or a name for each| is not YAML)"):
        read_boxes(labels)


def test_names_in_yaml_are_not_taken_for_its_values(photos):
    labels = yolo(photos)
    (labels / "data.yaml").write_text("names: [no, 007]")
    assert {box.class_name for box in read_boxes(labels)} == {"no", "007"}


def test_names_in_yaml_need_its_package(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (yolo(photos) / "data.yaml").write_text("names: [cat, dog]")
    with pytest.raises(
        ValueError, match=r"needs the package yaml: pip install 'verydeep\[yaml\]' or write the names into"
    ):
        read_boxes(photos.parent / "labels")


def test_all_splits_have_their_boxes_together(photos):
    labels = yolo(photos)
    (labels / "classes.txt").write_text("cat\ndog\n")
    assert boxes(photos, labels, split="all") == [PIXELS] * 8
