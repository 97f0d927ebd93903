"""Tables of labels as people's programs write them: read as they mean it, or refused by what is wrong."""

import codecs

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verydeep.images.annotations.label_files import several_labels
from verydeep.images.annotations.label_tables import csv_labels
from verydeep.images.sources.source import Sample, memory_source

IMAGES = ("1.jpg", "2.jpg", "3.jpg")
WRONG = "line 1: a line is file,class, one for each label, not"
SHOWN = {"1.jpg": {"cat", "dog"}, "2.jpg": {"dog"}, "3.jpg": set()}


def shown(path, separator=None):
    """Return what every image shows, by a file."""
    source = memory_source(classes=(), samples=[Sample(b"", -1, name) for name in IMAGES])
    read = several_labels(path, source, separator=separator)
    return {
        name: {read.classes[column] for column in np.flatnonzero(row == 1)}
        for name, row in zip(IMAGES, read.labels, strict=True)
    }


def refused(path, text, separator=None):
    path.write_text(text)
    with pytest.raises(ValueError, match=r"labels\.csv") as caught:
        list(csv_labels(path, separator))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path.parent) + "/")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.csv"


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("1.jpg,cat|dog\n2.jpg,dog\n3.jpg,\n", "|"),
        ("file,labels\n1.jpg, cat | dog\n2.jpg,dog|\n3.jpg,|\n", "|"),
        ("1.jpg,cat dog\n2.jpg,dog\n3.jpg,\n", " "),
        ('1.jpg,"cat,dog"\n2.jpg,dog\n3.jpg,\n', ","),
        ("1.jpg,cat,dog\n2.jpg,dog\n3.jpg,\n", ","),
        ("1.jpg;cat,dog\n2.jpg;dog\n3.jpg;\n", ","),
        ("1.jpg,cat;dog\n2.jpg,dog\n3.jpg,\n", ";"),
    ],
)
def test_several_labels_in_a_cell(path, text, separator):
    path.write_text(text)
    assert shown(path, separator) == SHOWN


@pytest.mark.parametrize(
    ("ones", "zero"), [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("1", "-1")], ids=["01", "float", "bool", "minus"]
)
def test_a_column_for_each_class(path, ones, zero):
    path.write_text(f"filename,cat,dog\n1.jpg,{ones},{ones}\n2.jpg,{zero},{ones}\n3.jpg,{zero},{zero}\n")
    assert shown(path) == SHOWN


@pytest.mark.parametrize(
    ("cell", "separator"),
    [("cat|dog", "|"), ("cat;dog", ";"), ('"cat,dog"', ","), ("cat dog", " "), ("dog/cat", "/"), ("cat & dog", "&")],
)
def test_a_cell_that_may_hold_several_labels_is_refused(path, cell, separator):
    text = f"1.jpg,{cell}\n2.jpg,dog\n3.jpg,cat\n"
    told = (
        f"labels.csv line 1: {cell.strip(chr(34))} looks like several labels: say --label-separator '{separator}', or"
    )
    assert refused(path, text).startswith(told)
    assert {label.class_name for label in csv_labels(path, "none")} == {cell.strip('"'), "dog", "cat"}


def test_names_of_several_words_are_no_lists(path):
    path.write_text('1.jpg,sea lion\n2.jpg,sea urchin\n3.jpg,"tench, Tinca tinca"\n4.jpg,lion fish\n5.jpg,dog\n')
    assert [label.class_name for label in csv_labels(path)][:3] == ["sea lion", "sea urchin", "tench, Tinca tinca"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1.jpg,\"['cat', 'dog']\"\n", "line 1: ['cat', 'dog'] is a list as Python writes it: write cat|dog and say"),
        ("file,class,split\n1.jpg,cat,train\n", "line 1: columns of labels are file,class: leave out split (--test-im"),
        ("file,split,cat\n1.jpg,train,1\n", "line 2: column split holds train, where 1 is shown and 0 is not"),
        ("file,cat,dog\n1.jpg,1,0\n2.jpg,1,\n", "line 3: column dog holds , where 1 is shown"),
        ("file,cat,dog\n1.jpg,1,0\n2.jpg,-1,1\n", "line 3: 0 and -1 both occur, and their meaning differs"),
        ("file,cat,dog\n1.jpg,1,0\n2.jpg,1\n", "line 3: there are 3 columns, but here 2.jpg,1"),
        ("file,cat,dog,hen\n1.jpg,1,0,1\n", "line 1: no image shows dog: leave the column out"),
        (
            "1.jpg,1,0\n2.jpg,0,1\n",
            "line 1: a line is file,class, one for each label, not 1.jpg,1,0 (with a first line",
        ),
        (
            "1.jpg,cat,dog\n",
            "line 1: a line is file,class, one for each label, not 1.jpg,cat,dog (--label-separator , if",
        ),
    ],
)
def test_other_tables_are_refused_in_words_of_labels(path, text, told):
    assert refused(path, text).startswith(f"labels.csv {told}")


ENCODINGS = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 with mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 BE": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_marks_semicolons_and_utf_16(path, encoding, separator):
    for first in ("", "sep=;\r\n" if separator == ";" else ""):
        text = f"{first}file,class\r\n1.jpg,caté\r\n1.jpg,dog\r\n2.jpg,dog\r\n3.jpg,\r\n".replace(",", separator)
        path.write_bytes(ENCODINGS[encoding](text))
        assert shown(path) == {"1.jpg": {"caté", "dog"}, "2.jpg": {"dog"}, "3.jpg": set()}


LABELS = st.lists(st.sampled_from("abcdef"), max_size=4, unique=True)


@settings(max_examples=25)
@given(st.dictionaries(st.from_regex(r"[a-z]{3}\.jpg", fullmatch=True), LABELS, min_size=2, max_size=6))
def test_all_forms_of_a_table_say_the_same(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("table") / "labels.csv"
    classes = sorted({name for of_image in labels.values() for name in of_image})
    forms = {None: "\n".join(f"{image},{name}" for image, its_own in labels.items() for name in its_own or [""])}
    forms |= {each: "\n".join(f"{image},{each.join(its_own)}" for image, its_own in labels.items()) for each in "|+"}
    if len(classes) > 1:
        rows = [
            f"{image},{','.join(str(int(name in its_own)) for name in classes)}" for image, its_own in labels.items()
        ]
        forms["none"] = "\n".join([f"file,{','.join(classes)}", *rows])
    for separator, text in forms.items():
        path.write_text(text)
        read = {image: [] for image in labels}
        for label in csv_labels(path, separator):
            read[label.image] += [label.class_name] if label.class_name else []
        assert {image: sorted(its_own) for image, its_own in read.items()} == {
            image: sorted(its_own) for image, its_own in labels.items()
        }
