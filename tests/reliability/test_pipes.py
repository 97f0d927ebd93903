"""A pipe in place of a file that is read is refused: nobody writes to it, so reading it would wait for ever."""

import os

import pytest
from in_time import in_time

from verydeep import import_weights, predict, save, vgg
from verydeep.images.annotations.box_files import read_boxes
from verydeep.images.sources.given import given_images
from verydeep.runs.model import load_model

ENDINGS = ("pth", "safetensors", "h5", "keras", "caffemodel", "mat", "npz", "npy", "onnx", "safetensors.index.json")


@pytest.mark.parametrize("ending", ENDINGS)
def test_weights(tmp_path, ending):
    os.mkfifo(tmp_path / f"net.{ending}")
    with in_time(), pytest.raises((ValueError, OSError), match=r"is a pipe, not a file|no file or folder"):
        import_weights(tmp_path / f"net.{ending}", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def run(tmp_path):
    return save(vgg("A", classes=2, crop=32, width=0.05), tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    with in_time(), pytest.raises(ValueError, match=r"is a pipe, not a file|is not a run"):
        load_model(run)


def test_an_image(tmp_path, run):
    os.mkfifo(tmp_path / "ff.png")
    by_list = given_images("-", standard_input=f"{tmp_path}/ff.png".encode)
    for images in (tmp_path / "ff.png", by_list):
        with in_time():
            (told,) = predict(run, images)
        assert "is a pipe, not a file" in told.error


@pytest.mark.parametrize("name", ["boxes.csv", "coco.json", "voc/a.xml", "yolo/a.txt"])
def test_boxes(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    place = tmp_path / name if "/" not in name else (tmp_path / name).parent
    with in_time(), pytest.raises((ValueError, OSError), match=r"is a pipe, not a file|is not a file|no \.xml"):
        read_boxes(place)
