"""Files of boxes, written here by hand."""

import json

import pytest

from verydeep.images.box_files import read_boxes

VOC = """<annotation><filename>a.jpg</filename>
<object><name>cat</name><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>
<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>50</ymax></bndbox></object>
<object><name>dog</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5.5</xmax><ymax>6</ymax></bndbox></object>
</annotation>"""


@pytest.mark.parametrize("header", ["", "file,x0,y0,x1,y1,class\n", "name,left,top,right,bottom,label\n"])
def test_csv_with_and_without_a_header(tmp_path, header):
    file = tmp_path / "boxes.csv"
    file.write_text(f"{header}cat/1.jpg,1,2,30,40,cat\n\n2.jpg, 0.5 ,0,9,9\n")
    first = 2 if header else 1
    assert [tuple(found) for found in read_boxes(file)] == [
        ("cat/1.jpg", (1, 2, 30, 40), "cat", f"{file} line {first}", False),
        ("2.jpg", (0.5, 0, 9, 9), None, f"{file} line {first + 2}", False),
    ]


def test_voc_counts_pixels_from_one_and_includes_the_last(tmp_path):
    (tmp_path / "a.xml").write_text(VOC)
    expected = [
        ("a.jpg", (10, 20, 40, 50), "cat", f"{tmp_path / 'a.xml'} object 1", False),
        ("a.jpg", (0, 0, 5.5, 6), "dog", f"{tmp_path / 'a.xml'} object 2", True),
    ]
    assert [tuple(found) for found in read_boxes(tmp_path)] == expected
    assert [tuple(found) for found in read_boxes(tmp_path / "a.xml")] == expected


def test_coco_has_corner_and_sides(tmp_path):
    file = tmp_path / "boxes.json"
    images, categories = [{"id": 7, "file_name": "x/a.jpg"}], [{"id": 3, "name": "cat"}]
    annotations = [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20]}, {"image_id": 7, "bbox": [0, 0, 1, 1.5]}]
    file.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    assert [tuple(found) for found in read_boxes(file)] == [
        ("x/a.jpg", (1, 2, 11, 22), "cat", f"{file} annotation 1", False),
        ("x/a.jpg", (0, 0, 1, 1.5), None, f"{file} annotation 2", False),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "1.jpg,1,2,3,4,cat\n2.jpg,1,2,3\n",
            r"a.csv line 2: a line is file,x0,y0,x1,y1,class, not 2.jpg,1,2,3",
        ),
        ("a.csv", "1.jpg,1,2,3,4\n2.jpg,1,two,3,4\n", r"a.csv line 2: a box is four numbers"),
        ("a.csv", "1.jpg,1,2,3,inf\n", r"a.csv line 1: a box is four finite numbers"),
        ("a.csv", ",1,2,3,4\n", r"a.csv line 1: a line is"),
        ("a.xml", "<annotation><object>", r"a.xml is not XML"),
        ("a.xml", "<a><object><bndbox><xmin>1</xmin></bndbox></object></a>", r"a.xml object 1: a box is four numbers"),
        ("a.json", "{}", r"a.json is not in COCO's format"),
        ("a.json", "[1", r"a.json is not in COCO's format"),
        (
            "a.json",
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 2, "bbox": [1, 2, 3, 4]}]}',
            r"a.json annotation 1 has no box of a listed image",
        ),
        ("a.json", '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": [1]}]}', "four"),
        ("a.txt", "", r"boxes are a .csv, .xml or .json file"),
    ],
)
def test_damage_is_told_with_its_place(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_boxes(tmp_path / name)


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"no file '.*a.csv'"):
        read_boxes(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="no XML files in"):
        read_boxes(tmp_path)
