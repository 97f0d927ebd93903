"""Predictions of image files against the network applied by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from verydeep import predict, vgg
from verydeep.runs import Model, save_model

CLASSES = ("ant", "bee", "cow", "dog", "elk", "fox", "gnu")


def tiny_run(folder, flip=True):
    torch.manual_seed(3)
    net = vgg("A", classes=7, crop=32, width=0.1).eval()
    save_model(Model(net=net, classes=CLASSES, scale="256", flip=flip), folder / "model")
    return net


def picture(path, seed, size=(37, 37)):
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("flip", [True, False])
def test_probabilities_are_the_networks(tmp_path, flip):
    net = tiny_run(tmp_path / "run", flip=flip)
    image = picture(tmp_path / "one.png", 0)  # already at Q = 256, which is 37 pixels at crop 32
    views = [image, image.flip(3)] if flip else [image]
    expected = sum(net.score_map(view)[0, :, 0, 0].softmax(0) for view in views) / len(views)
    (found,) = predict(tmp_path / "run", [tmp_path / "one.png"], top=3)
    assert found.classes == tuple(CLASSES[i] for i in expected.argsort(descending=True)[:3])
    assert found.probabilities == pytest.approx(expected.sort(descending=True).values[:3].tolist(), rel=1e-5)


def test_folders_stand_for_their_images_and_a_bad_one_does_not_stop_the_others(tmp_path):
    tiny_run(tmp_path / "run")
    for index in range(3):
        picture(tmp_path / "images" / f"{index}.png", index, size=(40, 50))
    (tmp_path / "images" / "1.png").write_bytes(b"broken")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    found = list(predict(tmp_path / "run", [tmp_path / "images"]))
    assert [prediction.image[-5:] for prediction in found] == ["0.png", "1.png", "2.png"]
    assert [len(prediction.classes) for prediction in found] == [5, 0, 5]
    assert found[1].error is not None
    assert "not an image" in found[1].error


def test_what_is_not_there_is_refused_before_anything_is_done(tmp_path):
    tiny_run(tmp_path / "run")
    with pytest.raises(ValueError, match="no file"):
        predict(tmp_path / "run", [tmp_path / "nothing.png"])
    with pytest.raises(ValueError, match="top must be 1 or more"):
        predict(tmp_path / "run", [tmp_path], top=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in"):
        predict(tmp_path / "run", [tmp_path / "empty"])
