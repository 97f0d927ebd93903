"""Pictures of where in an image a class is seen: the right place, in the image's own size, with a legend."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from verydeep import predict, vgg
from verydeep.evaluation.score_maps import overlay, placed_score_map, posterior_map
from verydeep.images.sources.given import given_images
from verydeep.images.sources.source import Source
from verydeep.images.views import rescale
from verydeep.machine.runtime import kernels_kept
from verydeep.prediction import map_pictures
from verydeep.runs.model import Model


def red_net():
    """Return a network whose class 1 answers to red, and class 0 to nothing."""
    net = vgg("A", classes=2, crop=32, width=1 / 64, mean_rgb=(128.0, 128.0, 128.0)).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.zero_()
            if name.endswith("weight") and name != "fc8.weight":
                middle = (0, 0, 1, 1) if parameter.ndim == 4 else (0, 0)
                parameter[middle] = 1
        net.conv1_1.weight[0, :, 1, 1] = torch.tensor([1.0, -0.5, -0.5])
        net.fc8.weight[1, 0], net.fc8.bias[0] = 1, 10
    return net


@pytest.mark.parametrize("method", ["score-map", "grad-cam"])
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_map_shows_the_right_place(tmp_path, corner, method):
    """Red is in one corner; the picture is yellow there and violet everywhere else."""
    model = Model(net=red_net(), classes=("none", "red"), scale="896", flip=False)
    image = np.full((256, 384, 3), 128, np.uint8)
    rows, columns = (
        slice(0, size) if end == 0 else slice(-size, None) for end, size in zip(corner, (64, 128), strict=True)
    )
    image[rows, columns] = (250, 0, 0)
    (found,) = predict(model, image, maps=tmp_path / "maps", method=method)
    assert Path(found.score_map) == tmp_path / "maps" / "0-image 0.jpg"
    assert found.classes[0] == "red"
    with_legend = np.asarray(Image.open(found.score_map)).astype(int)
    assert with_legend.shape[1] == 384
    assert 40 < with_legend.shape[0] - 256 < 120
    assert with_legend[256:].mean() > 200  # dark letters on white
    assert with_legend[256:].min() < 60
    drawn = with_legend[:256]
    yellow = drawn[:, :, 0] - drawn[:, :, 2]
    inside = np.zeros(image.shape[:2], bool)
    inside[rows, columns] = True
    far = np.ones(image.shape[:2], bool)
    far[
        slice(0, 128) if corner[0] == 0 else slice(-128, None), slice(0, 192) if corner[1] == 0 else slice(-192, None)
    ] = False
    assert yellow[inside].mean() > 30
    assert yellow[far].max() < 0


def test_a_picture_is_the_map_over_the_image_in_its_own_size(model, tmp_path):
    """Also where it was tested at another size; small images are enlarged, so that the legend can be read."""
    image = np.random.default_rng(0).integers(0, 256, (330, 400, 3), dtype=np.uint8)
    (found,) = predict(model, image, maps=tmp_path, scales=[600])
    label = model.classes.index(found.classes[0])
    tested = rescale(image, round(600 * 32 / 224))
    placed = placed_score_map(posterior_map(model.net, tested)[label], tested.shape[:2], crop=32)
    drawn = np.asarray(Image.open(found.score_map)).astype(int)
    assert abs(drawn[:330] - overlay(image, placed)).mean() < 3
    (found,) = predict(model, image[:50, :60], maps=tmp_path)
    with Image.open(found.score_map) as opened:
        assert opened.width == 300
    (found,) = predict(model, image[:, :40], maps=tmp_path, method="grad-cam")
    drawn = np.asarray(Image.open(io.BytesIO(Path(found.score_map).read_bytes())))
    assert drawn.shape[1] == 160
    assert (drawn[:320, 60:] > 250).all()


def test_a_legend_tells_class_probability_and_what_the_colours_mean(model, tmp_path, monkeypatch):
    written = []
    text = map_pictures._text
    monkeypatch.setattr(
        map_pictures,
        "_text",
        lambda width, line, *rest, **more: written.append(line) or text(width, line, *rest, **more),
    )
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    (found,) = predict(model, image, maps=tmp_path, scales=[448, 672, 896])
    assert written[0] == f"{100 * found.probabilities[0]:.1f}% {found.classes[0]}"
    assert re.fullmatch(r"score map, 3 x 4 positions, Q = 672: \d+\.\d% to \d+\.\d%", written[1])
    list(predict(model, image, maps=tmp_path, scales=[672], method="grad-cam"))
    assert written[3] == "Grad-CAM of relu5_2, 6 x 8 positions, Q = 672"


def test_pictures_of_files_of_the_same_name_are_kept_apart(model, photos, tmp_path):
    other = tmp_path / "other" / "0.png"
    other.parent.mkdir()
    shutil.copy(photos / "bee" / "1.png", other)
    given = [photos / "ant" / "0.png", other, photos / "ant" / "0.png"]
    found = list(predict(model, given, maps=tmp_path / "maps"))
    assert [Path(p.score_map).name for p in found] == ["0-0.jpg", "1-0.jpg", "2-0.jpg"]
    first, second, third = (Path(p.score_map).read_bytes() for p in found)
    assert first == third != second


class Vanishing(Source):
    """Images of which each can be read once, except the first."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        if index:
            Path(self.ids[index]).unlink()
        return sample


def test_an_image_that_is_gone_when_its_map_is_drawn_loses_only_the_map(model, photos, tmp_path):
    files = [shutil.copy(photos / "ant" / "0.png", tmp_path / f"{n}.png") for n in range(3)]
    found = list(predict(model, Vanishing(**vars(given_images(files))), maps=tmp_path / "maps"))
    assert [p.error for p in found] == [None, *2 * ["unreadable (No such file or directory)"]]
    assert [p.score_map is None for p in found] == [False, True, True]
    assert found[0].classes == found[1].classes == found[2].classes


@pytest.mark.parametrize("method", ["score-map", "grad-cam"])
def test_maps_are_computed_in_all_digits_of_float32(model, photos, tmp_path, monkeypatch, method):
    """CUDA devices would drop some by themselves."""
    flags = []
    for name in ("posterior_map", "grad_cam"):
        real = getattr(map_pictures, name)

        def noted(*arguments, real=real, **options):
            flags.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
            return real(*arguments, **options)

        monkeypatch.setattr(map_pictures, name, noted)
    with kernels_kept():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        list(predict(model, photos / "ant" / "0.png", maps=tmp_path / "maps", method=method))
    assert flags == [(False, False)]
