"""Files of labels and lists of images, written here by hand."""

import json

import pytest

from verydeep.images.annotations.image_names import read_image_list
from verydeep.images.annotations.label_files import several_labels
from verydeep.images.sources.source import Sample, memory_source

IDS = ("p/a.jpg", "p/b.jpg", "p/q/c.png")


def images(ids=IDS):
    return memory_source(classes=(), samples=tuple(Sample(b"", -1, name) for name in ids))


def shown(file, text, ids=IDS):
    file.write_text(text)
    found = several_labels(file, images(ids))
    return {
        name: dict(zip(found.classes, row, strict=True)) for name, row in zip(ids, found.labels.tolist(), strict=True)
    }


@pytest.mark.parametrize("header", ["", "file,class\n", "\nimage,label\n"])
def test_a_line_for_each_label(tmp_path, header):
    found = shown(tmp_path / "l.csv", f"{header}a.jpg,dog\n\nq/c.png , cat\n./a.jpg,cat\nb.jpg,\n")
    assert found == {
        "p/a.jpg": {"cat": 1, "dog": 1},
        "p/b.jpg": {"cat": -1, "dog": -1},
        "p/q/c.png": {"cat": 1, "dog": -1},
    }


def test_boxes_are_labels_too_and_there_may_be_several_of_a_class(tmp_path):
    text = "file,x0,y0,x1,y1,class\na.jpg,0,0,5,5,10\na.jpg,1,1,5,5,10\nb.jpg,0,0,5,5,9\nc.png,\n"
    assert shown(tmp_path / "l.csv", text) == {
        "p/a.jpg": {"9": -1, "10": 1},
        "p/b.jpg": {"9": 1, "10": -1},
        "p/q/c.png": {"9": -1, "10": -1},
    }


def test_columns_of_boxes_may_come_in_another_order(tmp_path):
    text = "class,file,xmin,xmax,ymin,ymax\ndog,a.jpg,0,5,0,5\ncat,b.jpg,1,5,1,5\nc.png,\n"
    found = shown(tmp_path / "l.csv", text)
    assert [tuple(row.values()) for row in found.values()] == [(-1, 1), (1, -1), (-1, -1)]


def test_a_name_without_ending_in_the_first_line_is_no_header(tmp_path):
    found = shown(tmp_path / "l.csv", "a,dog\nb.jpg,cat\n/elsewhere/p/q/c,\n")
    assert [tuple(row.values()) for row in found.values()] == [(-1, 1), (1, -1), (-1, -1)]


def test_what_is_difficult_alone_does_not_count(tmp_path):
    def xml(name, *objects):
        parts = [
            f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>5</xmax><ymax>5</ymax></bndbox></object>"
            for kind, difficult in objects
        ]
        text = f"<annotation><filename>{name}</filename>{''.join(parts)}</annotation>"
        (tmp_path / name).with_suffix(".xml").write_text(text)

    xml("a.jpg", ("dog", 1), ("cat", 0), ("cat", 1))
    xml("b.jpg", ("cat", 1), ("cat", 1), ("dog", 0))
    xml("c.png")
    found = several_labels(tmp_path, images())
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [[1, 0], [0, 1], [-1, -1]]


def test_coco_lists_images_without_objects(tmp_path):
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}, {"id": 5, "file_name": "c.png"}]
    categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 4, "name": "never"}]
    annotations = [{"image_id": image, "category_id": kind, "bbox": [0, 0, 2, 2]} for image, kind in ((1, 7), (5, 3))]
    text = json.dumps({"images": images, "categories": categories, "annotations": annotations})
    assert [tuple(row.values()) for row in shown(tmp_path / "l.json", text).values()] == [(1, -1), (-1, -1), (-1, 1)]


GOOD = "a.jpg,dog\nb.jpg,cat\nc.png,\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{GOOD}d.jpg,dog\n", r"labels of images that are not there: .*l.csv line 4 \(d.jpg\); images are p/a.jpg"),
        ("a.jgp,dog\n" + GOOD, r"not there: .*l.csv line 1 \(a.jgp\)"),
        ("a.jpg,dog\nc.png,cat\n", r"l.csv does not say what p/b.jpg shows: a line `name,`"),
        ("a.jpg,dog\n", r"does not say what p/b.jpg, p/q/c.png show: a line"),
        (f"{GOOD}p/a.jpg,dog\n", r"line 4: p/a.jpg,dog is already listed in .*line 1"),
        (f"{GOOD}c.png,\n", r"line 4: c.png, is already listed in .*line 3"),
        (f"{GOOD}c.png,dog\n", r"line 3: c.png shows none of the classes, but dog by .*line 4"),
        ("a.jpg,dog\nb.jpg,dog\nc.png,\n", r"has fewer than two classes: dog"),
        ("a.jpg,\nb.jpg,\nc.png,\n", r"has fewer than two classes: none"),
        (f"{GOOD}a.jpg,cat,mouse\n", r"line 4: a line is file,class, one for each label, not a.jpg,cat,mouse"),
        (f"{GOOD},cat\n", r"line 4: a line is file,class, one"),
        (f"{GOOD}a.jpg\n", r"line 4: a line is file,class, one"),
        (f"{GOOD}a.jpg,0,0,1,1\n", r"line 4: a box without a class does not say what a.jpg shows"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        shown(tmp_path / "l.csv", text)


def test_other_files_and_names_of_two_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"l.csv line 1: a.jpg may be x/a.jpg or y/a.jpg: write more of its path"):
        shown(tmp_path / "l.csv", "a.jpg,dog\n", ids=("x/a.jpg", "y/a.jpg"))
    with pytest.raises(ValueError, match=r"labels are a .csv, .tsv, .xml or .json file"):
        shown(tmp_path / "l.txt", "a.jpg,dog\n")
    with pytest.raises(ValueError, match=r"no file '.*m.csv'"):
        several_labels(tmp_path / "m.csv", images())


@pytest.mark.parametrize("text", ["c\na\n", "p/a.jpg\r\n\r\n q/c.png \r\n", "q/c\np/a", "\ufeffc.png\n./p/a\n"])
def test_images_are_named_with_or_without_ending_and_path(tmp_path, text):
    (tmp_path / "test.txt").write_text(text, newline="")
    assert read_image_list(tmp_path / "test.txt", images()) == [0, 2]


def test_a_dot_in_a_name_is_not_always_an_ending(tmp_path):
    (tmp_path / "test.txt").write_text("1.5\n1.5.2\n")
    assert read_image_list(tmp_path / "test.txt", images(("1.5.jpg", "1.5.1.jpg", "x/1.5.2"))) == [0, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nx\ny.jpg\n", r"names images that are not there: line 2 \(x\), line 3 \(y.jpg\); others are p/a.jpg"),
        ("a\nb\np/a.jpg\n", r"test.txt line 3: p/a.jpg is already listed on line 1"),
        ("\n", r"test.txt names no images"),
    ],
)
def test_lists_that_cannot_be_are_refused(tmp_path, text, message):
    (tmp_path / "test.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_image_list(tmp_path / "test.txt", images())


def test_lists_that_are_not_there_or_of_two_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        read_image_list(tmp_path / "test.txt", images())
    (tmp_path / "test.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"line 1: a may be x/a.jpg or y/a.png: write more"):
        read_image_list(tmp_path / "test.txt", images(("x/a.jpg", "y/a.png")))
