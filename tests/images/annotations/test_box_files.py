"""Files of boxes, written here by hand or by Python's own writers."""

import csv
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verydeep.images.annotations.annotation import Annotation, Listed
from verydeep.images.annotations.box_files import read_annotations, read_boxes

VOC = """<annotation><filename>a.jpg</filename><size><width>60</width><height>50.0</height></size>
<object><name>cat</name><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>
<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>50</ymax></bndbox></object>
<object><name>dog</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5.5</xmax><ymax>6</ymax></bndbox></object>
</annotation>"""

VOC_BOX = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"


def read(file, text):
    """Return what is read of a file with this text."""
    file.write_text(text, newline="")
    return read_boxes(file)


@pytest.mark.parametrize("header", ["", "file,x0,y0,x1,y1,class\n", "name,left,top,right,bottom,label\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n \n"])
def test_csv_with_and_without_a_header(tmp_path, start, header):
    file = tmp_path / "boxes.csv"
    first = 1 + f"{start}{header}".count("\n")
    assert read(file, f"{start}{header}cat/1.jpg,1,2,30,40,cat\n\n2.jpg, 0.5 ,0,9,9\n") == [
        Annotation("cat/1.jpg", (1, 2, 30, 40), "cat", f"{file} line {first}"),
        Annotation("2.jpg", (0.5, 0, 9, 9), None, f"{file} line {first + 2}"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "file,x0,x1,y0,y1,class\n1.jpg,1,20,3,40,cat\n",
        "class,X0,Y0,X1,Y1,Image_Path\ncat,1,3,20,40,1.jpg\n",
        "x1,y1,x2,y2,name,file name\n1,3,20,40,cat,1.jpg\n",
        'file, "ymax", xmin, ymin, xmax, category\n1.jpg, 40, 1, 3, 20, "cat"\n',
    ],
)
def test_columns_that_are_named_come_in_any_order(tmp_path, text):
    file = tmp_path / "boxes.csv"
    assert read(file, text) == [Annotation("1.jpg", (1, 3, 20, 40), "cat", f"{file} line 2")]


def test_columns_may_tell_the_size_of_the_image(tmp_path):
    text = "filename,width,height,class,xmin,ymin,xmax,ymax\n1.jpg,60,50,cat,1,3,20,40\n2.jpg,,,cat,1,3,20,40\n"
    assert [found.size for found in read(tmp_path / "boxes.csv", text)] == [(50, 60), None]


NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=9)
EDGE = st.floats(-1e6, 1e6)


@given(
    rows=st.lists(st.tuples(NAMES, EDGE, EDGE, EDGE, EDGE, NAMES), min_size=1, max_size=5),
    order=st.none() | st.permutations(range(6)),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
)
@settings(max_examples=100)
def test_what_is_written_is_read(tmp_path_factory, rows, order, quoting, ends):
    """By Python's writer, whatever is in names: commas, quotation marks, numbers."""
    file = tmp_path_factory.mktemp("csv") / "boxes.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, quoting=quoting, lineterminator=ends)
        for row in rows if order is None else [("file", "x0", "y0", "x1", "y1", "class"), *rows]:
            writer.writerow([row[place] for place in order or range(6)])
    first = 1 if order is None else 2
    assert read_boxes(file, "pixels") == [
        Annotation(name, tuple(box), kind, f"{file} line {number}")
        for number, (name, *box, kind) in enumerate(rows, first)
    ]


def test_voc_counts_pixels_from_one_and_includes_the_last(tmp_path):
    (tmp_path / "a.xml").write_text(VOC)
    expected = [
        Annotation("a.jpg", (10, 20, 40, 50), "cat", f"{tmp_path / 'a.xml'} object 1", size=(50, 60)),
        Annotation("a.jpg", (0, 0, 5.5, 6), "dog", f"{tmp_path / 'a.xml'} object 2", difficult=True, size=(50, 60)),
    ]
    assert read_boxes(tmp_path) == expected
    assert read_boxes(tmp_path / "a.xml") == expected


def test_all_xml_files_of_a_folder_and_below_are_read(tmp_path):
    """ILSVRC has a folder for each class, and names without ending."""
    for name in ("n01/b_1.xml", "n01/b_2.XML", "n02/c_1.xml", "a.xml", "n02/._c_1.xml", "n02/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image = "" if name == "a.xml" else f"<filename>{name[4:7]}</filename>"
        text = f"<annotation>{image}<object>{VOC_BOX}</object></annotation>" if "._" not in name else "\0"
        (tmp_path / name).write_text(text)
    assert [(found.image, found.size) for found in read_boxes(tmp_path)] == [
        ("a", None),
        ("b_1", None),
        ("b_2", None),
        ("c_1", None),
    ]


def test_hidden_files_and_copies_that_programs_leave_are_not_read(tmp_path):
    for name in ("a.xml", "._a.xml", ".ipynb_checkpoints/a-checkpoint.xml", "__MACOSX/a.xml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(VOC if name == "a.xml" else "damaged")
    assert [box.class_name for box in read_boxes(tmp_path)] == ["cat", "dog"]


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>", "<size><width/></size>"])
def test_namespaces_make_no_difference_and_sizes_may_be_unsaid(tmp_path, size):
    text = f"<annotation xmlns='http://x'>{size}<object><name>cat</name>{VOC_BOX}</object></annotation>"
    assert read(tmp_path / "a.xml", text) == [
        Annotation("a", (1, 1, 3, 4), "cat", f"{tmp_path / 'a.xml'} object 1"),
    ]


IMAGES = [{"id": 7, "file_name": "x/a.jpg", "width": 60, "height": 50}, {"id": "8", "file_name": "b.jpg"}]
CATEGORIES = [{"id": 3, "name": "cat"}]


def coco(*annotations, **others):
    """The text of a file."""
    return json.dumps({"images": IMAGES, "categories": CATEGORIES, "annotations": annotations, **others})


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_coco_has_corner_and_sides(tmp_path, start):
    file = tmp_path / "boxes.json"
    annotations = [
        {"image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20], "iscrowd": 0},
        {"image_id": "8", "bbox": [0, 0, 1, 1.5]},
        {"image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20], "iscrowd": 1},
    ]
    file.write_text(start + coco(*annotations))
    boxes = [
        Annotation("x/a.jpg", (1, 2, 11, 22), "cat", f"{file} annotation 1", size=(50, 60)),
        Annotation("b.jpg", (0, 0, 1, 1.5), None, f"{file} annotation 2"),
        Annotation("x/a.jpg", (1, 2, 11, 22), "cat", f"{file} annotation 3", size=(50, 60), crowd=True),
    ]
    images = [Listed("x/a.jpg", f"{file} image 1"), Listed("b.jpg", f"{file} image 2")]
    assert list(read_annotations(file, "boxes")) == [*images, *boxes]


LONG = "x" * 1000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("csv", "1.jpg,1,2,3,4,cat\n2.jpg,1,2,3\n", r" line 2: a line is file,x0,y0,x1,y1,class, not 2.jpg,1,2,3$"),
        ("csv", "1.jpg,1,2,3,4\n2.jpg,1,two,3,4\n", r" line 2: a box is four numbers, not 1,two,3,4$"),
        ("csv", "1.jpg,a,b,c,d,cat\n2.jpg,1,2,3,4,cat\n", r" line 1: a box is four numbers, not a,b,c,d$"),
        ("csv", "1.jpg:1:2:3:4:cat\n", r" line 1: a line is file,x0,y0,x1,y1,class, not 1.jpg:1:2:3:4:cat$"),
        ("csv", "1.jpg,1,2,3,inf\n", r" line 1: a box is four finite numbers, not 1,2,3,inf$"),
        ("csv", ",1,2,3,4\n", r" line 1: a line is"),
        ("csv", f"{LONG},1,2,3,4,cat,{LONG},\n", r" line 1: a line is .{30,125}\.\.\.$"),
        (
            "csv",
            '1.jpg,1,2,3,4\n"2.jpg,1,2,3,4\n3.jpg,1,2,3,4\n',
            r" line 2: .{1,30}: are all quotation marks closed\?$",
        ),
        ("csv", '"1\n.jpg",1,2,3,4\n2.jpg,1,2\n', r" line 3: a line is"),
        ("csv", '"1\n.jpg",1,2\n', r" line 1: .* not 1\?.jpg,1,2$"),
        (
            "csv",
            "file,x,y,width,height,class\n",
            r" line 1: columns are file,x0,y0,x1,y1,class in any order, not file,x,y",
        ),
        ("csv", "\nfile,x0,y0,x1,class\n", r" line 2: columns are"),
        ("csv", "x0,y0,x1,y1,class\n", r" line 1: columns are"),
        ("csv", "file,x0,y0,x1,y1,class,score\n", r" line 1: columns are"),
        ("csv", "file,image,x0,y0,x1,y1\n", r" line 1: columns are"),
        (
            "csv",
            "class,x0,y0,x1,y1,file\ncat,1,2,3,4\n",
            r" line 2: a line is class,x0,y0,x1,y1,file, not cat,1,2,3,4$",
        ),
        (
            "csv",
            "file,x0,y0,x1,y1,width,height\n1.jpg,1,2,3,4,5,?\n",
            r" line 2: the size of an image is two numbers, not 5,\?",
        ),
        ("xml", "<annotation><object>", r" is not valid XML"),
        ("xml", "<?xml version='1.0' encoding='klingon'?><a/>", r" is not valid XML: unknown encoding"),
        ("xml", "<?xml version='1.0' encoding='gb2312'?><a/>", r" is not valid XML: multi-byte"),
        (
            "xml",
            "<a><object><bndbox><xmin>1</xmin></bndbox></object></a>",
            r" object 1 has no ymin, xmax, ymax in its bndbox$",
        ),
        (
            "xml",
            f"<a><object>{VOC_BOX.replace('3', 'w')}</object></a>",
            r" object 1: a box is four numbers, not 2,2,w,4$",
        ),
        ("json", "{}", r" is not in COCO's format: it has no images$"),
        ("json", "[1", r" is not in COCO's format: it is not JSON"),
        ("json", "[" * 100_000, r" is not in COCO's format: its lists and objects are nested 100 levels deep"),
        ("json", '{"images": [[]]}', r" is not in COCO's format"),
        (
            "json",
            coco(images=[*IMAGES, {"id": 7, "file_name": "b.jpg"}]),
            r" image 3: its id, 7, is that of another image$",
        ),
        ("json", coco(categories=CATEGORIES * 2), r" category 2: its id, 3, is that of another category$"),
        (
            "json",
            coco(images=[{"id": 7, "file_name": None}]),
            r" is not in COCO's format: images\[0\].file_name: text expected, not null$",
        ),
        (
            "json",
            coco(images=[{"id": 7, "file_name": "a", "width": "w"}]),
            r" image 1: the size of an image is two numbers",
        ),
        ("json", coco("text"), r" is not in COCO's format: annotations\[0\]: an object expected, not text$"),
        ("json", coco({"bbox": [1, 2, 3, 4]}), r" annotation 1: the file has no image with its image_id, None$"),
        ("json", coco({"image_id": "7"}), r" annotation 1: the file has no image with its image_id, '7'$"),
        (
            "json",
            coco({"image_id": 7, "category_id": 4}),
            r" annotation 1: the file has no category with its category_id, 4",
        ),
        (
            "json",
            coco({"image_id": 7, "category_id": "3"}),
            r" annotation 1: the file has no category with its category_id, '3'",
        ),
        (
            "json",
            coco({"image_id": 7, "category_id": [3]}),
            r" is not in COCO's format: annotations\[0\].category_id: .* expected, not a list$",
        ),
        (
            "json",
            coco({"image_id": 7, "bbox": "1234"}),
            r" is not in COCO's format: annotations\[0\].bbox: a list or null expected, not text$",
        ),
        ("json", coco({"image_id": 7}), r" annotation 1 has no bbox, a list of x, y, width, height$"),
        ("json", coco({"image_id": 7, "bbox": [1, 2, 3]}), r" annotation 1: a box is four numbers, not 1,2,3$"),
        (
            "json",
            coco({"image_id": 7, "bbox": [1, 2, 3, 10**400]}),
            r" is not in COCO's format: it has a number of 401 digits$",
        ),
        ("json", coco({"image_id": 7, "bbox": [1e308, 2, 1e308, 4]}), r" annotation 1: a box is four finite numbers"),
    ],
)
def test_damage_is_told_with_its_place(tmp_path, name, text, message):
    file = tmp_path / f"a.{name}"
    with pytest.raises(ValueError, match=re.escape(str(file)) + message) as refusal:
        read(file, text)
    assert len(str(refusal.value).splitlines()) == 1


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"no file '.*a.csv'"):
        read_boxes(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"no \.xml or \.txt files in"):
        read_boxes(tmp_path)
    with pytest.raises(ValueError, match=r"boxes are a .csv, .tsv, .xml or .json file"):
        read(tmp_path / "a.txt", "")
