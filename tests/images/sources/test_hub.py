"""Data sets by Hugging Face `datasets` on this machine: the very bytes and classes that were written, in order."""

import errno
import gc
import importlib
import io
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
from equal_batches import equal
from PIL import Image
from shard_files import png

from verydeep.images.crops import TrainingView
from verydeep.images.decode import UnusableImageError
from verydeep.images.loader import training_batches
from verydeep.images.open import open_for_testing, open_for_training
from verydeep.images.sources.source import Sample, memory_source


@pytest.fixture(scope="module")
def hf():
    """Imported when the caches have their places."""
    datasets = importlib.import_module("datasets")
    datasets.disable_progress_bars()
    return datasets


@pytest.fixture(scope="module")
def dataset(hf):
    """Builds a data set of rows: image n of the greys `first`, `first` + 1, ..., and its label."""

    def build(labels, feature=None, *, names=("dog", "cat"), first=0, images=None, column="label", paths=True, **more):
        feature = feature or hf.ClassLabel(names=list(names))
        images = images or [png(first + n) for n in range(len(labels))]
        columns = {
            "image": [
                image and {"bytes": image, "path": f"{first + n}.png" if paths else None}
                for n, image in enumerate(images)
            ],
            column: labels,
            **{name: values for name, (values, _) in more.items()},
        }
        features = {"image": hf.Image(), column: feature, **{name: feature for name, (_, feature) in more.items()}}
        return hf.Dataset.from_dict(columns, features=hf.Features(features))

    return build


LABELS = {"train": [1, 0, 0, 1, 1, 0, 1], "validation": [1, 1, 0], "test": [0, 1]}
FIRST = {"train": 0, "validation": 100, "test": 200}
OURS = {"train": "train", "validation": "val", "test": "test"}


@pytest.fixture(scope="module")
def forms(hf, dataset, tmp_path_factory):
    """SOURCE of one data set in all forms that keep a split's rows in the order in which they were written."""
    root = tmp_path_factory.mktemp("forms")
    sets = {split: dataset(labels, first=FIRST[split]) for split, labels in LABELS.items()}
    (root / "parquet").mkdir()
    for split, rows in sets.items():
        rows.select(range(1)).to_parquet(root / "parquet" / f"{split}-00000-of-00002.parquet")
        rows.select(range(1, len(rows))).to_parquet(root / "parquet" / f"{split}-00001-of-00002.parquet")
    hf.DatasetDict(sets).save_to_disk(root / "arrow")
    for split, labels in LABELS.items():
        for n, label in enumerate(labels):
            folder = root / "images" / split / ("dog", "cat")[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{FIRST[split] + n:03d}.png").write_bytes(png(FIRST[split] + n))
    return {form: f"hub:{root / form}" for form in ("parquet", "arrow", "images")}


@pytest.fixture(scope="module")
def single(dataset, tmp_path_factory):
    """SOURCE of one data set without splits, in three forms, and its rows: bytes and class."""
    root = tmp_path_factory.mktemp("single")
    labels = ["wasp", "ant", "ant", "wasp", "wasp", "ant"]
    from_names = dataset(labels, importlib.import_module("datasets").Value("string"))
    from_names.to_parquet(root / "bugs.parquet")
    from_names.save_to_disk(root / "saved")
    (arrow,) = (root / "saved").glob("*.arrow")
    names = {"parquet file": root / "bugs.parquet", "saved": root / "saved", "arrow file": arrow}
    return {form: f"hub:{path}" for form, path in names.items()}, [(png(n), label) for n, label in enumerate(labels)]


def rows(source):
    """Bytes and class of every image, in order."""
    items = [source[index] for index in range(len(source))]
    assert [item.label for item in items] == list(source.labels)
    return [(item.data, source.classes[item.label]) for item in items]


def saved(rows, path):
    rows.save_to_disk(path)
    return f"hub:{path}"


def refused(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_for_training(name)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, UnicodeError)


# forms


@pytest.mark.parametrize("form", ["parquet", "arrow", "images"])
def test_every_form_of_a_data_set_gives_the_bytes_and_classes_that_were_written(forms, form):
    splits = open_for_training(forms[form])
    assert splits.name == forms[form]
    assert list(splits.sources) == ["train", "val", "test"]
    for split, labels in LABELS.items():
        written = [(png(FIRST[split] + n), ("dog", "cat")[label]) for n, label in enumerate(labels)]
        part = splits.source(OURS[split])
        assert len(part) == len(labels)
        if form == "images":  # classes as the folders' names say, in the order of the files
            assert part.classes == ("cat", "dog")
            assert rows(part) == sorted(written, key=lambda row: (row[1], written.index(row)))
        else:
            assert part.classes == ("dog", "cat")
            assert rows(part) == written


@pytest.mark.parametrize("form", ["parquet file", "saved", "arrow file"])
def test_of_a_data_set_without_splits_a_fifth_of_each_class_is_held_out(single, form):
    names, written = single
    splits = open_for_training(names[form])
    assert splits.classes == ("ant", "wasp")
    assert {split: len(part) for split, part in splits.sources.items()} == {"train": 4, "val": 2}
    assert sorted(rows(splits.source("train")) + rows(splits.source("val"))) == sorted(written)
    assert rows(open_for_training(names[form]).source("val")) == rows(splits.source("val"))
    assert rows(open_for_testing(names[form], ("wasp", "ant")).source("all")) == written


def test_images_are_named_by_split_row_and_file(forms):
    splits = open_for_training(forms["parquet"])
    assert [splits.source("val")[index].id for index in (2, 0)] == ["validation/2 (102.png)", "validation/0 (100.png)"]
    assert open_for_training(forms["images"]).source("val")[0].id == "validation/0 (100.png)"


def test_rows_without_a_file_name_are_named_by_number(dataset, tmp_path):
    source = open_for_testing(saved(dataset([0, 1], paths=False), tmp_path / "set"), ("dog", "cat")).source("all")
    assert [source[index].id for index in (0, 1)] == ["train/0", "train/1"]
    assert rows(source) == [(png(0), "dog"), (png(1), "cat")]


# classes


def test_a_list_of_classes_keeps_its_order_less_those_without_images(dataset, tmp_path):
    names = ("wasp", "moth", "ant", "bee")
    splits = open_for_training(saved(dataset([3, 2, 0, 2, 3, 0], names=names), tmp_path / "set"))
    assert splits.classes == ("wasp", "ant", "bee")
    everything = rows(splits.source("train")) + rows(splits.source("val"))
    assert sorted(everything) == sorted((png(n), names[label]) for n, label in enumerate([3, 2, 0, 2, 3, 0]))


def test_numbers_without_names_are_classes_in_the_order_of_their_values(hf, dataset, tmp_path):
    labels = [10, 9, 2, 10, 9, 2]
    splits = open_for_training(saved(dataset(labels, hf.Value("int64")), tmp_path / "set"))
    assert splits.classes == ("2", "9", "10")
    everything = rows(splits.source("train")) + rows(splits.source("val"))
    assert sorted(everything) == sorted((png(n), str(label)) for n, label in enumerate(labels))


@pytest.mark.parametrize("column", ["label", "labels", "class", "class_name", "cls", "category"])
def test_a_column_of_a_usual_name_holds_the_classes(hf, dataset, tmp_path, column):
    built = dataset(["a", "b", "b", "a"], hf.Value("string"), column=column, caption=(["x"] * 4, hf.Value("string")))
    source = open_for_testing(saved(built, tmp_path / "set"), ("a", "b")).source("all")
    assert rows(source) == [(png(0), "a"), (png(1), "b"), (png(2), "b"), (png(3), "a")]


def test_a_column_that_lists_its_classes_comes_before_one_of_a_usual_name(hf, dataset, tmp_path):
    built = dataset([0, 1, 1, 0], column="kind", label=([5, 6, 7, 8], hf.Value("int64")))
    assert open_for_training(saved(built, tmp_path / "set")).classes == ("dog", "cat")


def test_with_two_columns_of_images_or_of_classes_one_must_be_chosen(hf, dataset, tmp_path):
    built = dataset(
        [0, 1, 1, 0],
        column="fine",
        coarse=([1, 1, 0, 0], hf.ClassLabel(names=["animal", "plant"])),
        mask=([{"bytes": png(50 + n), "path": None} for n in range(4)], hf.Image()),
    )
    name = saved(built, tmp_path / "set")
    columns = "there are image, fine, coarse, mask$"
    refused(name, f"say which column holds the image, as in hub:NAME.image=COLUMN; {columns}")
    refused(f"{name}?image=mask", f"say which column holds the label, as in hub:NAME.label=COLUMN; {columns}")
    refused(f"{name}?label=fine", "say which column holds the image")
    refused(f"{name}?image=mask&label=colour", f"no column 'colour'; {columns}")
    refused(f"{name}?image=picture&label=fine", f"no column 'picture'; {columns}")
    refused(f"{name}?image=coarse&label=fine", "column coarse holds no images$")
    masks = open_for_testing(f"{name}?image=mask&label=coarse", ("animal", "plant")).source("all")
    assert rows(masks) == [(png(50), "plant"), (png(51), "plant"), (png(52), "animal"), (png(53), "animal")]
    images = open_for_testing(f"{name}?label=fine&image=image", ("dog", "cat")).source("all")
    assert rows(images) == [(png(0), "dog"), (png(1), "cat"), (png(2), "cat"), (png(3), "dog")]


@pytest.mark.parametrize("query", ["imge=image", "image=image&split=train"])
def test_unknown_names_after_the_question_mark_are_refused(forms, query):
    unknown = "imge" if "imge" in query else "split"
    refused(f"{forms['arrow']}?{query}", f"after the question mark give image= or label=, not {unknown}$")


def test_a_split_whose_classes_are_kept_secret_is_left_out(hf, dataset, tmp_path):
    sets = {"train": dataset([0, 1, 1, 0, 0]), "test": dataset([-1, -1, -1], first=50)}
    splits = open_for_training(saved(hf.DatasetDict(sets), tmp_path / "set"))
    assert {split: len(part) for split, part in splits.sources.items()} == {"train": 3, "val": 2}
    assert sorted(rows(splits.source("train")) + rows(splits.source("val"))) == sorted(
        (png(n), "cat" if n in (1, 2) else "dog") for n in range(5)
    )


@pytest.mark.parametrize("missing", [-1, None])
@pytest.mark.parametrize("kind", ["listed", "numbers"])
def test_a_split_where_some_classes_are_not_told_is_refused(hf, dataset, tmp_path, missing, kind):
    feature = None if kind == "listed" else hf.Value("int64")
    sets = {"train": dataset([0, 1, 1, 0], feature), "validation": dataset([0, missing, 1, missing, 0], feature)}
    refused(saved(hf.DatasetDict(sets), tmp_path / "set"), "set: 2 of 5 images in validation have no label$")


def test_a_class_that_is_not_there_is_refused(hf, dataset, tmp_path):
    """Python would take -2 for the last class but one."""
    numbers = dataset([0, 1, -2], hf.Value("int64"))
    sets = {
        "train": dataset([0, 1, 1, 0]),
        "validation": numbers.cast_column("label", hf.ClassLabel(names=["dog", "cat"])),
    }
    message = "set: column label of validation has -2, which is not the number of any of its 2 classes$"
    refused(saved(hf.DatasetDict(sets), tmp_path / "set"), message)


def test_two_names_for_validation_are_refused(hf, dataset, tmp_path):
    sets = {split: dataset([0, 1]) for split in ("train", "val", "validation")}
    refused(saved(hf.DatasetDict(sets), tmp_path / "set"), "set has both val and validation: keep one of them$")


def test_data_without_training_images_are_refused(hf, dataset, tmp_path):
    sets = {"train": dataset([-1, -1]), "test": dataset([0, 1])}
    refused(saved(hf.DatasetDict(sets), tmp_path / "set"), "has test but no train split$")


# images that are not there


def test_a_row_without_an_image_cannot_be_used(dataset, tmp_path):
    name = saved(dataset([0, 1, 1], images=[png(0), None, png(2)]), tmp_path / "set")
    source = open_for_testing(name, ("dog", "cat")).source("all")
    assert source[2].data == png(2)
    assert source.fingerprint == source.fingerprint
    with pytest.raises(UnusableImageError, match=r"^train/1: unreadable \(the row has no image\)$") as caught:
        source[1]
    assert caught.value.kind == "unreadable"


def test_an_image_file_that_is_gone_cannot_be_used(tmp_path):
    for n, label in enumerate(("ant", "bee", "ant", "bee")):
        (tmp_path / "train" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / label / f"{n}.png").write_bytes(png(n))
    source = open_for_testing(f"hub:{tmp_path}", ("ant", "bee")).source("all")
    (tmp_path / "train" / "ant" / "2.png").unlink()
    assert source[0].data == png(0)
    with pytest.raises(UnusableImageError, match=r"^train/1 \(2\.png\): unreadable \(No such file or directory\)$"):
        source[1]


# data sets that are not there


def test_a_data_set_that_cannot_be_had_is_named(tmp_path):
    refused(f"hub:{tmp_path}/nowhere", r"nowhere cannot be loaded: \S")
    refused(f"hub:{tmp_path}", r"cannot be loaded: \S")
    (tmp_path / "list.csv").write_text("image,label\n")
    refused(f"hub:{tmp_path}/list.csv", r"list\.csv cannot be loaded: a file must be one of \.parquet, \.arrow$")
    (tmp_path / "broken.parquet").write_text("no table at all")
    refused(f"hub:{tmp_path}/broken.parquet", r"broken\.parquet cannot be loaded: \S")


def of_several(*messages, by):
    """Return the outermost of exceptions as Python keeps them where each is raised while the next is on its way."""
    for message in reversed(messages):
        error = FileNotFoundError(message)
        error.__context__, by = by, error
    return by


def answered(hub, status):
    answer = SimpleNamespace(status_code=status, headers={}, request=None)
    return hub.HfHubHTTPError(f"{status}", response=answer)


FULL = OSError(errno.ENOSPC, "No space left on device", "/cache")


@pytest.mark.parametrize(
    ("failure", "kind", "says"),
    [
        (lambda hub: ConnectionError("Couldn't reach\nit"), OSError, "Couldn't reach it: check the network"),
        (lambda hub: httpx.ReadError("broken off"), OSError, "broken off: check the network"),
        (lambda hub: answered(hub, 503), OSError, "503: check the network"),
        (lambda hub: of_several("no file", "not kept", by=hub.LocalEntryNotFoundError("no")), OSError, "no: check the"),
        (lambda hub: of_several("tables", by=FULL), OSError, "No space left on device: check the network"),
        (lambda hub: OSError("Not enough disk space"), OSError, "Not enough disk space: check the network and the "),
        (lambda hub: of_several("none", by=answered(hub, 404)), ValueError, "none$"),
        (lambda hub: FileNotFoundError("no data file"), ValueError, "no data file$"),
        (lambda hub: ValueError("no such configuration"), ValueError, "no such configuration$"),
    ],
)
def test_an_outage_of_network_or_disk_is_not_wrong_use(monkeypatch, failure, kind, says):
    error = failure(importlib.import_module("huggingface_hub.errors"))
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=Mock(side_effect=error)))
    with pytest.raises((OSError, ValueError), match=rf"^hub:cats/dogs cannot be loaded: {says}") as caught:
        open_for_training("hub:cats/dogs")
    assert type(caught.value) is kind


@pytest.mark.parametrize("name", ["hub:nobody/has-made-this", "hub:nobody/has-made-this:tiny"])
def test_a_hub_that_cannot_be_asked_is_an_outage(name):
    with pytest.raises(OSError, match=rf"^{name} cannot be loaded: Couldn't reach .*: check the network"):
        open_for_training(name)


@pytest.mark.parametrize(("error", "kind"), [(FULL, OSError), (OSError("Invalid flatbuffers message"), ValueError)])
def test_a_damaged_file_here_is_not_an_outage_and_a_full_disk_is(tmp_path, monkeypatch, error, kind):
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=Mock(side_effect=error)))
    (tmp_path / "rows.arrow").touch()
    with pytest.raises((OSError, ValueError), match=r"rows\.arrow cannot be loaded: \S") as caught:
        open_for_training(f"hub:{tmp_path}/rows.arrow")
    assert type(caught.value) is kind


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused("hub:cifar10", r"^hub:cifar10 needs the package datasets: pip install 'verydeep\[hub\]'$")


# fingerprints


def test_a_fingerprint_changes_with_images_labels_and_classes(dataset, tmp_path):
    labels = [0, 1, 1]
    sets = {
        "base": dataset(labels),
        "larger image": dataset(labels, images=[png(0, size=(80, 60)), png(1), png(2)]),
        "missing image": dataset(labels, images=[None, png(1), png(2)]),
        "other names of files": dataset(labels, first=1, images=[png(n) for n in range(3)]),
        "other labels": dataset([0, 1, 0]),
        "other classes": dataset(labels, names=("fox", "cat")),
        "one image more": dataset([*labels, 1]),
    }
    prints = {}
    for number, (what, built) in enumerate(sets.items()):
        name = saved(built, tmp_path / str(number))
        classes = ("fox", "cat") if what == "other classes" else ("dog", "cat")
        prints[what] = open_for_testing(name, classes).source("all").fingerprint
    assert len(set(prints.values())) == len(sets)
    again = saved(dataset(labels), tmp_path / "again")
    assert open_for_testing(again, ("dog", "cat")).source("all").fingerprint == prints["base"]


# batches


def test_batches_are_those_of_the_same_images_in_memory_whatever_the_workers(dataset, tmp_path):
    rng = np.random.default_rng(0)
    labels = [0, 1, 1, 0, 1, 0, 0]
    images = []
    for height, width in rng.integers(34, 60, (len(labels), 2)):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "PNG")
        images.append(buffer.getvalue())
    name = saved(dataset(labels, images=images), tmp_path / "set")
    source = open_for_testing(name, ("dog", "cat")).source("all")
    memory = memory_source(
        classes=("dog", "cat"),
        samples=tuple(Sample(data, label, "") for data, label in zip(images, labels, strict=True)),
    )
    view = TrainingView(
        crop=32, scale=(36, 44), flip=True, colour_sd=0.1, colour_components=np.diag([30.0, 20.0, 10.0])
    )

    def batches(source, workers):
        return list(training_batches(source, view, batch=3, epochs=2, seed=4, workers=workers))

    expected = batches(memory, 0)
    for workers in (0, 2):
        got = batches(source, workers)
        assert len(got) == 6
        assert equal(got, expected)


# what should be refused, or noticed


def test_a_fingerprint_changes_with_the_files_of_an_image_folder(tmp_path):
    for n, label in enumerate(("ant", "bee", "ant", "bee")):
        (tmp_path / "train" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / label / f"{n}.png").write_bytes(png(n))
    before = open_for_testing(f"hub:{tmp_path}", ("ant", "bee")).source("all")
    first = before.fingerprint
    (tmp_path / "train" / "ant" / "0.png").write_bytes(png(0, size=(80, 60)))
    after = open_for_testing(f"hub:{tmp_path}", ("ant", "bee")).source("all")
    assert after[0].data == png(0, size=(80, 60))
    assert after.fingerprint != first


def test_a_row_with_neither_bytes_nor_a_file_cannot_be_used(dataset, tmp_path):
    pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    dataset([0, 1]).to_parquet(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    images = pa.array([{"bytes": None, "path": None}, {"bytes": png(1), "path": None}], table.schema.field(0).type)
    pq.write_table(table.set_column(0, table.schema.field(0), images), tmp_path / "a.parquet")
    source = open_for_testing(f"hub:{tmp_path}/a.parquet", ("dog", "cat")).source("all")
    assert source[1].data == png(1)
    with pytest.raises(UnusableImageError, match=r"^train/0: unreadable"):
        source[0]


def test_labels_that_are_lists_are_refused(hf, dataset, tmp_path):
    several = dataset([[0], [1], [0, 1], [0], [1], [0, 1]], hf.List(hf.ClassLabel(names=["dog", "cat"])))
    refused(saved(several, tmp_path / "set"), "label")


def test_data_whose_classes_are_all_kept_secret_are_refused_with_the_reason(dataset, tmp_path):
    with pytest.raises(ValueError, match="set") as caught:
        open_for_training(saved(dataset([-1, -1]), tmp_path / "set"))
    assert "no label" in str(caught.value)


def test_an_empty_choice_of_a_column_is_refused(forms):
    refused(f"{forms['arrow']}?image=", "image")


# folders of images


def test_words_in_file_names_make_no_splits(tmp_path):
    """The library would take `crash test 1.png` for a test image, and drop all images without such a word."""
    names = [f"cat/crash test {n}.png" for n in range(8)] + [f"dog/{n}.png" for n in range(8)]
    names += [f"dog/train {n}.png" for n in range(4)]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(number))
    hub, plain = (open_for_testing(name, ("cat", "dog")).source("all") for name in (f"hub:{tmp_path}", str(tmp_path)))
    assert sorted(rows(hub)) == sorted(rows(plain))
    assert len(hub) == len(names)


def test_folders_inside_class_folders_are_refused(tmp_path):
    """The library would take them for the classes."""
    for number, name in enumerate(("cat/2019/0.png", "cat/2020/1.png", "dog/2019/2.png", "dog/2020/3.png")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(png(number))
    refused(f"hub:{tmp_path}", r"cat/2019 is a folder inside a class folder, .*: name it without hub:$")


def test_a_picture_beside_rows_of_plain_bytes_is_named(hf, tmp_path):
    labels = ["cat", "dog", "cat", "dog"]
    name = saved(hf.Dataset.from_dict({"image": [png(n) for n in range(4)], "label": labels}), tmp_path / "saved")
    (tmp_path / "saved" / "preview.png").write_bytes(png(9))
    opened = open_for_testing(name, ("cat", "dog"))
    assert len(opened.source("all")) == 4
    assert opened.inventory.lines() == ["left out 1 image without a class: preview.png"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves metadata.csv open
def test_what_the_library_does_not_take_is_told(tmp_path):
    for number, name in enumerate(("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(number))
    (tmp_path / "metadata.csv").write_text("file_name,label\ncat/0.png,cat\ncat/1.png,cat\ndog/0.png,dog\n")
    (tmp_path / "dog" / "2.nef").write_bytes(b"x")
    inventory = open_for_testing(f"hub:{tmp_path}", ("cat", "dog")).inventory
    assert inventory.lines() == [
        "left out 1 file of other kinds: 1 .nef; convert pictures among them to JPEG or PNG",
        "left out 1 image without a class: dog/1.png",
    ]
    assert (inventory.total.files, inventory.total.images) == (6, 3)
    gc.collect()


def test_a_split_without_labels_is_told(dataset, hf, tmp_path):
    sets = {"train": dataset([0, 1, 0, 1]), "test": dataset([-1, -1], first=9)}
    inventory = open_for_training(saved(hf.DatasetDict(sets), tmp_path / "set")).inventory
    assert inventory.lines() == ["left out 2 images without a class: test/0, test/1"]
