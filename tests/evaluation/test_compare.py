"""Two evaluations of the same images, or their files, counted image by image."""

import base64
import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from random_networks import lively

import verydeep
from verydeep.evaluation.evaluate import evaluate
from verydeep.evaluation.predictions import compare, write_predictions
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.machine.runtime import Runtime
from verydeep.runs.files import MODEL
from verydeep.runs.model import Model, save_model
from verydeep.statistics import _mcnemar

SEVEN = tuple("abcdefg")
IDS = [f"{number}.png" for number in range(26)] + ["caf\udce9, a.png", "two\nlines"]
LABELS = [*range(7)] * 4


def pictures():
    rng, samples = np.random.default_rng(1), []
    for name, label in zip(IDS, LABELS, strict=True):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, 3) + rng.integers(-120, 120, (34, 60, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), label, name))
    return Splits(name="made up", sources={"test": memory_source(classes=SEVEN, samples=tuple(samples))})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A run tested in two ways, and the file of each."""
    folder = tmp_path_factory.mktemp("results")
    save_model(Model(net=lively(0), classes=SEVEN, scale="256", flip=True), folder / "run" / MODEL)
    options = {"data": pictures(), "runtime": Runtime(device="cpu"), "cache": False}
    dense = evaluate(folder / "run", protocol="dense", scales=[224, 288], **options)
    crops = evaluate(folder / "run", protocol="crops", scales=[256], **options)
    files = folder / "dense.csv", folder / "crops.parquet"
    for found, file in zip((dense, crops), files, strict=True):
        write_predictions(found, file)
    return (dense, crops), files


def other_images(found, **changes):
    return replace(found, tested=replace(found.images, **changes))


def wrong(found):
    """Whether each image is taken for another class, one by one."""
    pairs = zip(found.images.posteriors.tolist(), LABELS, strict=True)
    return [max(range(7), key=posterior.__getitem__) != label for posterior, label in pairs]


@pytest.mark.parametrize("first_kind", ["evaluation", "file"])
@pytest.mark.parametrize("second_kind", ["evaluation", "file"])
def test_evaluations_and_their_files_are_compared_image_by_image(results, first_kind, second_kind):
    (dense, crops), (dense_file, crops_file) = results
    first = dense_file if first_kind == "file" else dense
    second = str(crops_file) if second_kind == "file" else crops
    found = verydeep.compare(first, second)
    pairs = list(zip(wrong(dense), wrong(crops), strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    assert 0 < only_first + only_second < 28
    assert (found.n, found.only_first_wrong, found.only_second_wrong) == (28, only_first, only_second)
    assert found.difference == pytest.approx(dense.top1_error - crops.top1_error)
    assert found.p_value == _mcnemar(only_first, only_second)
    run = dense.runs[0]
    assert found.first == (str(dense_file) if first_kind == "file" else f"{run} (dense, Q = 224, 288)")
    assert found.second == (str(crops_file) if second_kind == "file" else f"{run} (crops, Q = 256)")


def test_a_fusion_is_named_by_all_its_runs(results):
    (dense, crops), _ = results
    assert verydeep.compare(replace(dense, runs=("one", "two")), crops).first == "one + two (dense, Q = 224, 288)"


def test_images_are_matched_by_name_not_by_place(results):
    (dense, crops), _ = results
    order = np.random.default_rng(0).permutation(28)
    shown = crops.images
    shuffled = other_images(
        crops,
        ids=tuple(shown.ids[index] for index in order),
        labels=shown.labels[order],
        posteriors=shown.posteriors[order],
    )
    assert verydeep.compare(dense, shuffled) == verydeep.compare(dense, crops)


def test_classes_are_matched_by_name_not_by_number(results):
    (dense, crops), _ = results
    shown = crops.images
    turned = other_images(
        crops, classes=SEVEN[::-1], labels=6 - shown.labels, posteriors=np.ascontiguousarray(shown.posteriors[:, ::-1])
    )
    assert verydeep.compare(dense, turned) == verydeep.compare(dense, crops)


def test_a_tie_counts_as_wrong_here_too(results):
    (dense, _), _ = results
    uniform = other_images(dense, posteriors=np.full((28, 7), 1 / 7))
    assert verydeep.compare(uniform, dense).difference == pytest.approx(100 - dense.top1_error)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_that_are_no_text_are_the_same_in_a_file(results, tmp_path, kind):
    (dense, _), _ = results
    odd = other_images(dense, classes=(*SEVEN[:6], "caf\udce9"))
    write_predictions(odd, tmp_path / f"p.{kind}")
    found = verydeep.compare(tmp_path / f"p.{kind}", odd)
    assert (found.n, found.only_first_wrong, found.only_second_wrong) == (28, 0, 0)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_files_that_a_spreadsheet_has_saved_are_compared_too(results, tmp_path, encoding, separator):
    (_, crops), (file, _) = results
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    with (tmp_path / "saved.csv").open("w", newline="", encoding=encoding) as lines:
        csv.writer(lines, delimiter=separator).writerows(rows)
    assert replace(verydeep.compare(tmp_path / "saved.csv", crops), first="") == replace(
        verydeep.compare(file, crops), first=""
    )


# what is refused


def file_of(found, folder):
    write_predictions(found, folder / "other.csv")
    return folder / "other.csv"


@pytest.mark.parametrize("as_file", [False, True])
def test_other_images_are_refused_and_one_is_named(results, tmp_path, as_file):
    (dense, crops), _ = results
    shown = crops.images
    fewer = other_images(crops, ids=shown.ids[1:], labels=shown.labels[1:], posteriors=shown.posteriors[1:])
    other = file_of(fewer, tmp_path) if as_file else fewer
    with pytest.raises(
        ValueError, match=r"not of the same images: 1 is in one only, such as 0\.png of class a$"
    ) as refusal:
        verydeep.compare(dense, other)
    assert str(refusal.value).startswith(f"{dense.runs[0]} (dense, Q = 224, 288) and ")
    if as_file:
        assert str(other) in str(refusal.value)
    with pytest.raises(ValueError, match=r"1 is in one only, such as 0\.png of class a$"):
        verydeep.compare(other, dense)


@pytest.mark.parametrize("as_file", [False, True])
def test_another_true_class_is_refused_and_named(results, tmp_path, as_file):
    (dense, crops), _ = results
    labels = crops.images.labels.copy()
    labels[3] = 6
    relabelled = other_images(crops, labels=labels)
    with pytest.raises(ValueError, match=r"2 are in one only, such as 3\.png of class d$"):
        verydeep.compare(dense, file_of(relabelled, tmp_path) if as_file else relabelled)


@pytest.mark.parametrize("as_file", [False, True])
def test_names_that_occur_twice_are_refused(results, tmp_path, as_file):
    (dense, crops), _ = results
    ids = ("7.png", *crops.images.ids[1:])
    twice = other_images(crops, ids=ids)
    named = str(tmp_path) if as_file else r"\(crops, Q = 256\)"
    with pytest.raises(ValueError, match=f"{named}.* has several images of the same name: they cannot be told apart"):
        verydeep.compare(dense, file_of(twice, tmp_path) if as_file else twice)


def test_what_is_no_file_of_predictions_is_refused(results, tmp_path):
    (dense, _), _ = results
    with pytest.raises(ValueError, match="there is no file"):
        verydeep.compare(dense, tmp_path / "nowhere.csv")
    (tmp_path / "p.csv").write_text("something else\n")
    with pytest.raises(ValueError, match="holds no predictions"):
        verydeep.compare(tmp_path / "p.csv", dense)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_parquet_file_that_arrow_cannot_convert_is_refused(tmp_path, damaged):
    """Its errors: an OverflowError of a time beyond Python's, a NotImplementedError of integers of 128 bits."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file, times = tmp_path / "p.parquet", arrow.array([2**63 - 1], arrow.timestamp("us"))
    column = arrow.array(["a"]).dictionary_encode() if damaged else times
    parquet.write_table(arrow.table({"id": column}), file)
    if damaged:
        stored = parquet.read_metadata(file).metadata[b"ARROW:schema"]
        schema = base64.b64decode(stored).replace(b"\x20\x00\x00\x00", b"\x80\x00\x00\x00")
        file.write_bytes(file.read_bytes().replace(stored, base64.b64encode(schema)))
    with pytest.raises(ValueError, match=r"p\.parquet holds no predictions that can be read: (date value|Integers)"):
        compare(file, file)


def test_a_parquet_file_that_claims_more_than_it_holds_is_refused_by_its_claim(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    same = arrow.repeat("a", 2_000_000)
    table = arrow.table(dict.fromkeys(("id", "true_class", "class_1"), same))
    parquet.write_table(table, tmp_path / "small.parquet")
    with pytest.raises(ValueError, match="claims 2,000,000 rows, more than a file of"):
        compare(tmp_path / "small.parquet", tmp_path / "small.parquet")
