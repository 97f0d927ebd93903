"""Outputs over what is read are refused before any work, in one line."""

import io
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import several_commands as commands

BEFORE = Path(__file__).parent / "before" / "written_at_0046bf4"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with a run, a model, an experiment, images with and without splits, and files of predictions."""
    place = tmp_path_factory.mktemp("overwriting")
    for name in ("finished_run", "boxes_run", "images", "model", "experiment"):
        shutil.copytree(BEFORE / name, place / name)
    shutil.copytree(BEFORE / "images" / "train", place / "photos")
    for name in ("a.csv", "b.csv"):
        shutil.copy(BEFORE / "predictions_dense.csv", place / name)
    for name in ("vgg16.bin", "vgg16.ncnn.bin"):
        (place / name).write_bytes(b"weights of another library")
    (place / "link.csv").symlink_to("a.csv")
    return place


TEST = "evaluate finished_run --data images"
REFUSED = {
    "compare a.csv b.csv --json a.csv": "a.csv would replace an input",
    "compare a.csv b.csv --json ./../{}/b.csv": "b.csv would replace an input",
    "compare link.csv b.csv --json a.csv": "would replace an input",
    f"{TEST} --json finished_run/run.json": "is one of finished_run's own files",
    f"{TEST} --predictions finished_run/model/a.csv": "is one of finished_run's own files",
    f"{TEST} --report finished_run/model": "is one of finished_run's own files",
    f"{TEST} --report page --json page/evaluation.html": "is one of page's own files",
    f"{TEST} --report images/../page --predictions page/evaluation.json": "is one of images/../page's own files",
    f"{TEST} --json x.csv --predictions ./x.csv": "cannot hold both",
    "export finished_run --to onnx --out finished_run/best/x.onnx": "is one of finished_run's own files",
    "export finished_run --to openvino --out x.xml --json x.bin": "x.bin cannot hold both",
    "export finished_run --to openvino --out vgg16.xml": "vgg16.bin is there without vgg16.xml, and would be replaced",
    "export finished_run --to ncnn --out vgg16.ncnn.param": "vgg16.ncnn.bin is there without vgg16.ncnn.param",
    "findings experiment --json experiment/results.json": "is one of experiment's own files",
    "findings experiment --json experiment/report.html": "is one of experiment's own files",
    "findings experiment --json experiment/evaluations/seed-0/x.json": "is one of experiment's own files",
    "findings experiment --json experiment/studies/gradients.html": "is one of experiment's own files",
    "reproduce digits --out new --json new/report.html": "is one of new's own files",
    "reproduce digits --out new --json new/report.md": "is one of new's own files",
    "transfer finished_run --data photos --report page --json page/transfer.html": "is one of page's own files",
    "scan images --json images/train/x.json": "would lie among the images of images",
    "train photos --network A --out photos/run": "would lie among the images of photos",
    "train digits --network A --out new --json new/run.json": "is one of new's own files",
    "train digits --network A --finetune finished_run --out finished_run": "would replace an input",
    "train digits --network B --init model --out new --json model/config.json": "is one of model's own files",
    "describe D --plot x.svg --json x.svg": "cannot hold both",
    "import finished_run --out finished_run": "would replace an input",
    "predict finished_run photos --map photos": "would replace an input",
    "predict finished_run a.jpg --json a.jpg": "would replace an input",
    "localise predict boxes_run a.jpg --classifier finished_run --draw .": ". has one of the images, a.jpg",
    "features finished_run images --out images/val/f.parquet": "would lie among the images of images",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_would_be_lost_is_named(capsys, monkeypatch, place, line):
    monkeypatch.chdir(place)
    image = next((place / "photos").rglob("*.*"))
    shutil.copy(image, place / "a.jpg")
    before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    told = commands.refusal(capsys, *line.format(place.name).split())
    assert REFUSED[line] in told
    assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("named", ["one by one", "by a pattern", "on standard input", "by links"])
def test_no_picture_replaces_an_image_or_lies_among_them(capsys, monkeypatch, place, tmp_path, named):
    """The picture of the second image would have the name of the first."""
    for name in ("1-b.jpg", "b.jpg"):
        shutil.copy(next((place / "photos").rglob("*.*")), tmp_path / name)
    (tmp_path / "links").mkdir()
    monkeypatch.chdir(tmp_path / "links")
    for name in ("1-b.jpg", "b.jpg"):
        Path(name).symlink_to(tmp_path / name)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"../1-b.jpg\n../b.jpg\n")))
    images = {
        "one by one": ["../1-b.jpg", "../b.jpg"],
        "by a pattern": ["../*.jpg"],
        "on standard input": ["-"],
        "by links": ["1-b.jpg", "b.jpg"],
    }[named]
    before = {file: file.read_bytes() for file in tmp_path.glob("*.*")}
    told = commands.refusal(capsys, "predict", place / "finished_run", *images, "--map", tmp_path)
    assert f"{tmp_path} has one of the images, {'' if named == 'by links' else '../'}b.jpg: name another" in told
    assert {file: file.read_bytes() for file in tmp_path.glob("*.*")} == before


def test_what_replaces_nothing_is_written(capsys, monkeypatch, place):
    """Beside the files of a run, beside the splits of a source, twice to the same place."""
    monkeypatch.chdir(place)
    for _ in range(2):
        assert commands.status_of("scan", "images", "--json", "images/scan.json") == 0
        assert commands.status_of("compare", "a.csv", "b.csv", "--json", "finished_run/compared.json") == 0
    assert Path("images/scan.json").is_file()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("to", "name"), [("openvino", "net.xml"), ("ncnn", "net.ncnn.param")])
def test_an_export_among_the_images_is_made_again(capsys, monkeypatch, place, to, name):
    """The weights beside it are its own; those that lie alone may be of another library."""
    monkeypatch.chdir(place)
    line = ["export", "finished_run", "--to", to, "--data", "images", "--out", f"images/{name}", "--check-images", "1"]
    for _ in range(2):
        assert commands.status_of(*line) == 0
    (place / "images" / name).unlink()
    capsys.readouterr()
    assert "would replace a file of images" in commands.refusal(capsys, *line)


def test_a_result_that_is_replaced_is_named(capsys, monkeypatch, place):
    """An export, features, predictions and posteriors take work; of figures in --json there is a table too."""
    monkeypatch.chdir(place)
    image = next((place / "photos").rglob("*.*"))
    for out, command in {
        "old.pth": "export finished_run --to torchvision --out",
        "old.csv": f"predict finished_run {image} --out",
    }.items():
        for there in (False, True):
            assert commands.status_of(*command.split(), out) == 0
            assert (f"{out} already exists and will be replaced" in capsys.readouterr().err) == there


NOT_WRITTEN = {
    "export run --to torchvision --out old.onnx": "old.onnx: weights are written as .safetensors",
    "export nowhere --to torchvision --out old.pth": "nowhere does not exist",
    "export nowhere --to onnx --out old.onnx": "nowhere does not exist",
    "export nowhere --to onnx --out old.txt": "name a file that ends in .onnx, not old.txt",
    "features nowhere images --out old.txt": "a file of features ends in .safetensors or .parquet, unlike old.txt",
}


@pytest.mark.parametrize("line", NOT_WRITTEN)
def test_what_cannot_be_written_is_not_said_to_be_replaced(capsys, monkeypatch, tmp_path, line):
    monkeypatch.chdir(tmp_path)
    out = Path(line.split()[-1])
    out.write_bytes(b"kept")
    assert commands.refusal(capsys, *line.split()).startswith(f"verydeep: {NOT_WRITTEN[line]}")
    assert out.read_bytes() == b"kept"


UNWRITABLE = (
    f"{TEST} --json out/x.json",
    f"{TEST} --predictions out/x.csv",
    f"{TEST} --report out/page",
    "export finished_run --to onnx --out out/x.onnx",
    "features finished_run images --out out/x.parquet",
    "import model/model.safetensors --out out/run",
    "predict finished_run photos --out out/x.jsonl",
    "predict finished_run photos --map out/maps",
    "reproduce digits --out out/all",
    "train photos --network A --out out/run",
    "transfer finished_run --data photos --out out/svm",
)


@pytest.mark.parametrize("line", UNWRITABLE)
def test_where_nothing_can_be_written_is_said_before_any_work(capsys, monkeypatch, place, line):
    monkeypatch.chdir(place)
    (place / "out").mkdir(exist_ok=True)
    access = os.access  # which says yes to root
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "out" and access(path, mode))
    assert re.search(r"nothing can be written in (\S*/)?out ", commands.refusal(capsys, *line.split()))
    assert not any((place / "out").iterdir())
