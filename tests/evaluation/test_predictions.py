"""Files of predictions as other readers see them, against sorting by hand; other files are refused."""

import csv
import io
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep import vgg
from verydeep.evaluation.evaluate import evaluate
from verydeep.evaluation.metrics import misclassified
from verydeep.evaluation.predictions import _read_predictions, check_kind, write_predictions
from verydeep.evaluation.results import TestedImages
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Runtime
from verydeep.runs.files import MODEL
from verydeep.runs.model import Model, save_model

SEVEN = tuple("abcdefg")
ODD = ['a,b "c".png', "two\nlines", "car\rriage", "\r\n", "caf\udce9.png", "猫", "=1+1", " ", "'", "a\tb", "\\udce9"]


def found(posteriors, labels, classes=SEVEN, ids=None):
    """As much of an evaluation as its predictions are."""
    posteriors = np.array(posteriors, dtype=np.float64)
    names = tuple(ids or (f"{index}.png" for index in range(len(posteriors))))
    images = TestedImages(
        ids=names,
        labels=np.array(labels),
        classes=tuple(classes),
        posteriors=posteriors,
        posteriors_of_runs=(posteriors,),
    )
    return SimpleNamespace(images=images)


def some(classes=7, images=9, **options):
    rng = np.random.default_rng(classes)
    names = [f"class {number}" for number in range(classes)]
    return found(rng.dirichlet(np.ones(classes), images), np.arange(images) % classes, names, **options)


def written(evaluation, file):
    """The header and the rows of a file, as Python's csv or pyarrow read it."""
    write_predictions(evaluation, file)
    if file.suffix == ".csv":
        with file.open(encoding="utf-8", newline="") as lines:
            header, *rows = csv.reader(lines)
        numbers = [name.startswith("probability") for name in header]
        return header, [[float(v) if n else v for v, n in zip(row, numbers, strict=True)] for row in rows]
    table = pyarrow.parquet.read_table(file)
    return table.column_names, [list(row.values()) for row in table.to_pylist()]


@pytest.fixture(params=[".csv", ".parquet"])
def file(request, tmp_path):
    return tmp_path / f"predictions{request.param}"


# what is written


def test_an_evaluations_file_has_a_row_for_each_usable_image_in_the_sources_order(tmp_path, file):
    torch.manual_seed(0)
    net = vgg("A", classes=7, crop=32, width=0.05)
    save_model(Model(net=net, classes=SEVEN, scale="256", flip=True), tmp_path / "run" / MODEL)
    rng, samples = np.random.default_rng(0), []
    for number in range(8):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (34, 40, 3)).astype(np.uint8)).save(buffer, "PNG")
        data = b"no image" if number in (2, 7) else buffer.getvalue()
        samples.append(Sample(data, (3 * number) % 7, f"z{9 - number}.png"))
    data = Splits(name="noise", sources={"test": memory_source(classes=SEVEN, samples=tuple(samples))})
    options = {"runtime": Runtime(device="cpu"), "tolerance": Tolerance(max_bad=50), "scales": [256]}
    evaluation = evaluate(tmp_path / "run", data=data, **options)
    _, rows = written(evaluation, file)
    assert [row[:2] for row in rows] == [
        [sample.id, SEVEN[sample.label]] for number, sample in enumerate(samples) if number not in (2, 7)
    ]
    assert np.array_equal([row[3] for row in rows], evaluation.images.posteriors.max(axis=1))
    assert sum(row[2] != row[1] for row in rows) == evaluation.per_run[0].top1_wrong


@pytest.mark.parametrize(("classes", "places"), [(2, 2), (4, 4), (5, 5), (6, 5), (12, 5)])
def test_up_to_five_classes_are_named_each_with_its_probability(file, classes, places):
    header, rows = written(some(classes), file)
    numbered = [f"{what}_{place}" for place in range(1, places + 1) for what in ("class", "probability")]
    assert header == ["id", "true_class", *numbered]
    assert len(rows) == 9


def test_both_kinds_of_files_say_the_same(tmp_path):
    evaluation = some(ids=ODD[:9])
    assert written(evaluation, tmp_path / "p.csv") == written(evaluation, tmp_path / "p.parquet")


@settings(max_examples=60)
@given(data=st.data(), classes=st.integers(1, 8), images=st.integers(1, 8), levels=st.integers(1, 5))
def test_the_classes_are_those_of_sorting_by_hand_with_the_right_one_last_of_its_equals(
    tmp_path_factory, data, classes, images, levels
):
    folder = tmp_path_factory.mktemp("files")
    values = data.draw(st.lists(st.integers(0, levels - 1), min_size=classes * images, max_size=classes * images))
    posteriors = np.array(values).reshape(images, classes) / levels
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images)))
    evaluation = found(posteriors, labels, SEVEN[:1] + tuple("hijklmn")[: classes - 1])
    names = evaluation.images.classes
    for kind in (".csv", ".parquet"):
        _, rows = written(evaluation, folder / f"p{kind}")
        for row, posterior, label in zip(rows, posteriors.tolist(), labels.tolist(), strict=True):
            order = sorted(range(classes), key=lambda c, p=posterior, right=label: (-p[c], c == right, c))[:5]
            assert row[1] == names[label]
            assert row[2::2] == [names[c] for c in order]
            assert row[3::2] == [posterior[c] for c in order]
        wrong = misclassified(posteriors, labels) if classes > 1 else np.zeros(images, dtype=bool)
        assert [row[2] != row[1] for row in rows] == wrong.tolist()


def test_pandas_reads_both(tmp_path):
    evaluation = some(ids=ODD[:9])
    posteriors, labels = evaluation.images.posteriors, evaluation.images.labels
    for kind, reader in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        write_predictions(evaluation, tmp_path / f"p{kind}")
        table = reader(tmp_path / f"p{kind}")
        assert table["id"].tolist() == [name.replace("\udce9", "\\udce9") for name in ODD[:9]]
        assert np.allclose(table["probability_1"], posteriors.max(axis=1), rtol=1e-14, atol=0)
        assert (table["class_1"] != table["true_class"]).sum() == misclassified(posteriors, labels).sum()


def test_any_name_is_read_back_with_what_is_no_text_escaped(file):
    labels = np.arange(len(ODD)) % 3
    evaluation = found(np.eye(3)[(labels + 1) % 3], labels, ODD[2:5], ids=ODD)
    write_predictions(evaluation, file)
    back = _read_predictions(file)
    assert back.ids == [name.replace("\udce9", "\\udce9") for name in ODD]
    classes = ["car\rriage", "\r\n", "caf\\udce9.png"]
    assert back.true_classes == [classes[label] for label in labels]
    assert back.classes == [classes[(label + 1) % 3] for label in labels]


def test_a_file_that_was_there_is_replaced(file):
    write_predictions(some(images=3), file)
    write_predictions(some(images=4), str(file))
    assert len(_read_predictions(file).ids) == 4
    assert list(file.parent.iterdir()) == [file]


# what is refused


@pytest.mark.parametrize("name", ["predictions", "p.txt", "p.csv.gz", "parquet"])
def test_files_of_other_kinds_are_refused(tmp_path, name):
    for refused in (lambda file: write_predictions(some(), file), _read_predictions, check_kind):
        with pytest.raises(ValueError, match=rf"ends in \.parquet or \.csv, unlike {name}$"):
            refused(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(file):
    with pytest.raises(OSError, match=r"cannot write .*nowhere"):
        write_predictions(some(), file.parent / "nowhere" / file.name)


def test_a_file_that_is_not_there_is_named(file):
    for missing in (file, file.parent / "nowhere" / file.name):
        with pytest.raises(ValueError, match="there is no file") as refusal:
            _read_predictions(missing)
        assert str(missing) in str(refusal.value)


def changed(change):
    return lambda file: file.write_bytes(change(file.read_bytes()))


def without(column):
    def change(file):
        if file.suffix == ".parquet":
            pd.read_parquet(file).drop(columns=column).to_parquet(file)
        else:
            pd.read_csv(file).drop(columns=column).to_csv(file, index=False)

    return change


DAMAGES = {
    "nothing in it": changed(lambda content: b""),
    "something else": changed(lambda content: bytes(range(256)) * 20),
    "another table": changed(lambda content: b"image,label\r\n0.png,class 0\r\n"),
    "the first half": changed(lambda content: content[: len(content) // 2]),
    "the last line without its last field": changed(lambda content: content[: content.rindex(b",")]),
    "a line without its first field": changed(lambda content: content.replace(b"3.png,", b"", 1)),
    "a name that does not end": changed(lambda content: content + b'"' + 200_000 * b"x"),
    "the end is missing": changed(lambda content: content[:-9]),
}
ONLY = {
    "the last line without its last field": ".csv",
    "a line without its first field": ".csv",
    "a name that does not end": ".csv",
    "the end is missing": ".parquet",
}


@pytest.mark.parametrize(
    ("kind", "damage"),
    [(kind, damage) for kind in (".csv", ".parquet") for damage in DAMAGES if ONLY.get(damage, kind) == kind],
)
def test_what_is_not_such_a_file_or_only_a_part_of_one_is_refused_and_named(tmp_path, kind, damage):
    file = tmp_path / f"p{kind}"
    write_predictions(some(), file)
    DAMAGES[damage](file)
    with pytest.raises(ValueError, match=r"holds no predictions that can be read: .+") as refusal:
        _read_predictions(file)
    assert str(refusal.value).startswith(str(file))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("column", ["id", "true_class", "class_1"])
def test_a_missing_column_is_named(file, column):
    write_predictions(some(), file)
    without(column)(file)
    with pytest.raises(ValueError, match=f"can be read: no column {column}$"):
        _read_predictions(file)


def test_in_an_empty_csv_file_every_column_is_missing(tmp_path):
    (tmp_path / "p.csv").touch()
    with pytest.raises(ValueError, match=r"can be read: no column id$"):
        _read_predictions(tmp_path / "p.csv")


def test_a_table_with_the_right_columns_from_elsewhere_is_read(file):
    columns = {"class_1": ["b", "a"], "more": [1, 2], "id": ["one", "two"], "true_class": ["a", "a"]}
    table = pd.DataFrame(columns)
    table.to_parquet(file) if file.suffix == ".parquet" else table.to_csv(file, index=False)
    assert _read_predictions(file) == (["one", "two"], ["a", "a"], ["b", "a"])


def test_without_pyarrow_there_is_csv(tmp_path, monkeypatch):
    write_predictions(some(), tmp_path / "before.parquet")
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    write_predictions(some(), tmp_path / "p.csv")
    assert len(_read_predictions(tmp_path / "p.csv").ids) == 9
    parquet = tmp_path / "p.parquet"
    for refused in (check_kind, lambda file: write_predictions(some(), file)):
        with pytest.raises(ValueError, match=r"needs the package pyarrow: pip install .* or name a \.csv file$"):
            refused(parquet)
    with pytest.raises(ValueError, match="needs the package pyarrow"):
        _read_predictions(tmp_path / "before.parquet")
    assert not parquet.exists()


def test_names_that_a_spreadsheet_would_compute_stay_text(file):
    """So do line feeds and bars in them."""
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "a\nb|c", '"', "x,y"]
    rng = np.random.default_rng(0)
    _, rows = written(found(rng.dirichlet(np.ones(7), 7), np.arange(7), names), file)
    assert [row[1] for row in rows] == names
