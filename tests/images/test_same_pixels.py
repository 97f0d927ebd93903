"""Files of every format hold the pixels that they are meant to; training, tests, predictions and services see those."""

from types import SimpleNamespace

import numpy as np
import pytest
import simplejpeg
import torch
from image_files import saved
from PIL import Image

from verydeep import Runtime
from verydeep.evaluation.posteriors import posteriors
from verydeep.evaluation.protocols import Protocol
from verydeep.images import rescaled
from verydeep.images.crops import TrainingView
from verydeep.images.loader import centre_batches, to_device, training_batches
from verydeep.images.rescaled import RescaledImages, rescaled_images
from verydeep.images.sources.source import Sample, memory_source
from verydeep.networks.architecture import Architecture
from verydeep.prediction.predict import predict
from verydeep.serving.options import Limits
from verydeep.serving.prepared_images import prepared

BLOCK = 16
"""Pixels along a side of a patch of one colour: no block of a JPEG reaches over its border."""

SIDE = 3 * BLOCK

CROP = 32
"""So that an S of 336 is `SIDE` pixels."""

COLOURS = np.array(
    [
        [[200, 30, 40], [250, 240, 20], [10, 20, 30]],
        [[0, 128, 255], [90, 90, 90], [60, 180, 75]],
        [[255, 255, 255], [128, 0, 128], [0, 0, 0]],
    ],
    dtype=np.uint8,
)
GREYS = np.array([[0, 40, 255], [90, 128, 200], [17, 230, 60]], dtype=np.uint8)
WORDS = np.array([[0, 10_300, 65_535], [23_119, 32_768, 51_400], [4_386, 59_000, 128]], dtype=np.uint16)
BITS = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1]], dtype=np.uint8)
INKS = np.array(
    [
        [[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0]],
        [[0, 0, 255, 0], [0, 0, 0, 255], [120, 60, 30, 0]],
        [[120, 60, 30, 100], [10, 200, 90, 20], [0, 0, 0, 128]],
    ],
    dtype=np.uint8,
)
LEFT_BY_INKS = np.array(
    [
        [[255, 255, 255], [0, 255, 255], [255, 0, 255]],
        [[255, 255, 0], [0, 0, 0], [135, 195, 225]],
        [[82, 119, 137], [226, 51, 152], [127, 127, 127]],
    ]
)
ALPHAS = np.array([[255, 0, 255], [51, 102, 255], [255, 204, 153]], dtype=np.uint8)
COLOURS_OVER_WHITE = np.array(
    [
        [[200, 30, 40], [255, 255, 255], [10, 20, 30]],
        [[204, 229.6, 255], [189, 189, 189], [60, 180, 75]],
        [[255, 255, 255], [153.4, 51, 153.4], [102, 102, 102]],
    ]
)
GREYS_OVER_WHITE = np.array([[0, 255, 255], [222, 204.2, 200], [17, 235, 138]])
HOLE = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)

UPRIGHT = {
    1: [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
    2: [[2, 1, 0], [5, 4, 3], [8, 7, 6]],
    3: [[8, 7, 6], [5, 4, 3], [2, 1, 0]],
    4: [[6, 7, 8], [3, 4, 5], [0, 1, 2]],
    5: [[0, 3, 6], [1, 4, 7], [2, 5, 8]],
    6: [[6, 3, 0], [7, 4, 1], [8, 5, 2]],
    7: [[8, 5, 2], [7, 4, 1], [6, 3, 0]],
    8: [[2, 5, 8], [1, 4, 7], [0, 3, 6]],
}
"""Which patch of the file is seen where, by the EXIF standard: at 6, its first row is the right side of the scene."""


def patches(values):
    """[3, 3, ...] to an image."""
    return values.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)


def rgb(values):
    return np.stack([values] * 3, axis=2) if values.ndim == 2 else values


def turned(orientation):
    return COLOURS.reshape(9, 3)[UPRIGHT[orientation]]


def of(values, kind, **options):
    return saved(Image.fromarray(patches(values)), kind, **options)


def photograph(**options):
    return of(COLOURS, "JPEG", **{"quality": 95, "subsampling": 0, **options})


def film(kind, **options):
    frames = [Image.fromarray(patches(values)) for values in (COLOURS, 255 - COLOURS)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)


def gif_film():
    other = palette_image()
    other.putpalette((255 - COLOURS).tobytes())
    return saved(palette_image(), "GIF", save_all=True, append_images=[other], duration=50)


def palette_image():
    image = Image.fromarray(patches(np.arange(9, dtype=np.uint8).reshape(3, 3)), "L").copy()
    image.putpalette(COLOURS.tobytes())
    return image


def cmyk():
    return Image.frombytes("CMYK", (SIDE, SIDE), patches(INKS).tobytes())


def exif(orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    return made


WITH_ALPHA = np.concatenate([COLOURS, ALPHAS[..., None]], axis=2)
GREYS_WITH_ALPHA = np.stack([GREYS, ALPHAS], axis=2)
WITH_HOLE = np.where(HOLE[..., None], 255, COLOURS)
NO_TIFF_HEADER = b"Exif\0\0 no tags at all"
WIDTH_IN_WORDS = (
    b"Exif\0\0MM\0*\0\0\0\x08\0\x02"
    b"\x01\0\0\x02\0\0\0\x023\0\0\0"  # tag 0x100, ASCII, 2 bytes: "3"
    b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"  # orientation 6
    b"\0\0\0\0"
)
TAGS_BEYOND_THE_END = b"Exif\0\0II*\0\xff\xff\xff\xff"

LOSSLESS = {
    "PNG": ("a.png", lambda: of(COLOURS, "PNG"), COLOURS),
    "BMP": ("a.bmp", lambda: of(COLOURS, "BMP"), COLOURS),
    "PPM": ("a.ppm", lambda: b"P6 48 48 255\n" + patches(COLOURS).tobytes(), COLOURS),
    "TIFF": ("a.tif", lambda: of(COLOURS, "TIFF"), COLOURS),
    "TIFF, LZW": ("a.tif", lambda: of(COLOURS, "TIFF", compression="tiff_lzw"), COLOURS),
    "lossless WebP": ("a.webp", lambda: of(COLOURS, "WEBP", lossless=True), COLOURS),
    "16-bit grey PNG": ("a.png", lambda: of(WORDS, "PNG"), WORDS / 257),
    "16-bit grey TIFF": ("a.tif", lambda: of(WORDS, "TIFF"), WORDS / 257),
    "16-bit grey PGM": ("a.pgm", lambda: b"P5 48 48 65535\n" + patches(WORDS).astype(">u2").tobytes(), WORDS / 257),
    "CMYK TIFF": ("a.tif", lambda: saved(cmyk(), "TIFF"), LEFT_BY_INKS),
    "grey PNG": ("a.png", lambda: of(GREYS, "PNG"), GREYS),
    "palette PNG": ("a.png", lambda: saved(palette_image(), "PNG"), COLOURS),
    "palette BMP": ("a.bmp", lambda: saved(palette_image(), "BMP"), COLOURS),
    "palette GIF": ("a.gif", lambda: saved(palette_image(), "GIF"), COLOURS),
    "palette PNG with a clear colour": ("a.png", lambda: saved(palette_image(), "PNG", transparency=4), WITH_HOLE),
    "palette PNG with alphas": (
        "a.png",
        lambda: saved(palette_image(), "PNG", transparency=ALPHAS.tobytes()),
        COLOURS_OVER_WHITE,
    ),
    "palette GIF with a clear colour": ("a.gif", lambda: saved(palette_image(), "GIF", transparency=4), WITH_HOLE),
    "PNG with a clear colour": ("a.png", lambda: of(COLOURS, "PNG", transparency=(90, 90, 90)), WITH_HOLE),
    "RGBA PNG": ("a.png", lambda: of(WITH_ALPHA, "PNG"), COLOURS_OVER_WHITE),
    "RGBA TIFF": ("a.tif", lambda: of(WITH_ALPHA, "TIFF"), COLOURS_OVER_WHITE),
    "RGBA WebP": ("a.webp", lambda: of(WITH_ALPHA, "WEBP", lossless=True), COLOURS_OVER_WHITE),
    "LA PNG": ("a.png", lambda: of(GREYS_WITH_ALPHA, "PNG"), GREYS_OVER_WHITE),
    "1-bit PNG": ("a.png", lambda: of(BITS.astype(bool), "PNG"), 255 * BITS),
    "1-bit TIFF": ("a.tif", lambda: of(BITS.astype(bool), "TIFF", compression="group4"), 255 * BITS),
    "1-bit BMP": ("a.bmp", lambda: of(BITS.astype(bool), "BMP"), 255 * BITS),
    "animated GIF": ("a.gif", gif_film, COLOURS),
    "animated PNG": ("a.png", lambda: film("PNG"), COLOURS),
    "animated WebP": ("a.webp", lambda: film("WEBP", lossless=True), COLOURS),
    "PNG, broken EXIF": ("a.png", lambda: of(COLOURS, "PNG", exif=TAGS_BEYOND_THE_END), COLOURS),
    "PNG, EXIF without a header": ("a.png", lambda: of(COLOURS, "PNG", exif=NO_TIFF_HEADER), COLOURS),
    "WebP, EXIF without a header": (
        "a.webp",
        lambda: of(COLOURS, "WEBP", exif=NO_TIFF_HEADER, lossless=True),
        COLOURS,
    ),
    "PNG, EXIF 6 and a wrong tag": ("a.png", lambda: of(COLOURS, "PNG", exif=WIDTH_IN_WORDS), turned(6)),
    "PNG named JPEG": ("a.jpg", lambda: of(COLOURS, "PNG"), COLOURS),
    "GIF named PNG": ("a.png", lambda: saved(palette_image(), "GIF"), COLOURS),
    **{
        f"{kind}, EXIF {number}": ("a", lambda k=kind, n=number: of(COLOURS, k, exif=exif(n)), turned(number))
        for kind in ("PNG", "TIFF")
        for number in UPRIGHT
    },
    "WebP, EXIF 6": ("a.webp", lambda: of(COLOURS, "WEBP", exif=exif(6), lossless=True), turned(6)),
}
LOSSY = {
    "JPEG, 4:4:4": ("a.jpg", photograph, COLOURS),
    "progressive JPEG": ("a.jpg", lambda: photograph(progressive=True), COLOURS),
    "RGB JPEG": ("a.jpg", lambda: photograph(keep_rgb=True), COLOURS),
    "grey JPEG": ("a.jpg", lambda: of(GREYS, "JPEG", quality=95), GREYS),
    "CMYK JPEG": ("a.jpg", lambda: saved(cmyk(), "JPEG", quality=95), LEFT_BY_INKS),
    "YCCK JPEG": (
        "a.jpg",
        lambda: simplejpeg.encode_jpeg(255 - patches(INKS), quality=95, colorspace="CMYK"),
        LEFT_BY_INKS,
    ),
    "MPO": ("a.jpg", lambda: film("MPO", quality=95, subsampling=0), COLOURS),
    "JPEG, broken EXIF": ("a.jpg", lambda: photograph(exif=TAGS_BEYOND_THE_END), COLOURS),
    "JPEG, EXIF without a header": ("a.jpg", lambda: photograph(exif=NO_TIFF_HEADER, dpi=(72, 72)), COLOURS),
    "CMYK JPEG, EXIF without a header": (
        "a.jpg",
        lambda: saved(cmyk(), "JPEG", quality=95, exif=NO_TIFF_HEADER, dpi=(72, 72)),
        LEFT_BY_INKS,
    ),
    "JPEG, EXIF 6 and a wrong tag": ("a.jpg", lambda: photograph(exif=WIDTH_IN_WORDS), turned(6)),
    "CMYK JPEG, EXIF 6 and a wrong tag": (
        "a.jpg",
        lambda: saved(cmyk(), "JPEG", quality=95, exif=WIDTH_IN_WORDS),
        LEFT_BY_INKS.reshape(9, 3)[UPRIGHT[6]],
    ),
    "JPEG with stray bytes": ("a.jpg", lambda: photograph()[:20] + b"\x07\x08" + photograph()[20:], COLOURS),
    "JPEG named PNG": ("a.png", photograph, COLOURS),
    "JPEG without a name": ("a", photograph, COLOURS),
    **{f"JPEG, EXIF {n}": ("a.jpg", lambda n=n: photograph(exif=exif(n)), turned(n)) for n in UPRIGHT},
}
FILES = LOSSLESS | LOSSY

EVERY_FILE = list(FILES)


class Watcher(torch.nn.Module):
    """In a network's place: finds everything equally probable, and keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean_rgb", torch.zeros(3))
        architecture = Architecture(network="A", classes=2, width=1 / 64)
        object.__setattr__(architecture, "crop", CROP)  # no network has this one, but its scales need no rescaling
        self.architecture, self.seen = architecture, []

    def score_map(self, images, *, grid):
        self.seen.append(images.float())
        return torch.zeros(len(images), self.architecture.classes, 2, 2)


def seen_in_training(source, side):
    choices = {"crop": side, "scale": (side, side), "flip": False, "colour_sd": 0.0, "colour_components": np.eye(3)}
    (batch,) = training_batches(source, TrainingView(**choices), batch=1, epochs=1, seed=3)
    return to_device(batch, torch.device("cpu")).images[0]


def seen_in_validation(source, side):
    (batch,) = centre_batches(RescaledImages(source), crop=side, scale=side, batch=1)
    return to_device(batch, torch.device("cpu")).images[0]


def seen_in_tests(source):
    net = Watcher()
    posteriors(net, source, Protocol(scales=(336,), mirror=False))
    return net.seen[0][0]


def seen_in_predictions(name, data, folder, monkeypatch):
    net = Watcher()
    model = SimpleNamespace(net=net, classes=("a", "b"), scale="336", flip=False)
    monkeypatch.setattr("verydeep.exported_networks.run_or_file.load_model", lambda run: model)
    (folder / name).write_bytes(data)
    (prediction,) = predict("a run", [folder / name], runtime=Runtime(device="cpu"))
    assert prediction.error is None
    return net.seen[0][0]


def seen_in_a_service(name, data, side):
    return prepared(data, [side], Limits(), name).pixels[side].float()


@pytest.fixture(scope="module")
def table(figure):
    greatest = {}
    yield greatest
    print()
    for what, difference in greatest.items():
        print(f"{what:34}{difference:6.2f}")
    lossless, lossy = (
        max((greatest[what] for what in kinds if what in greatest), default=0) for kinds in (LOSSLESS, LOSSY)
    )
    told = f"{len(greatest)} kinds of files: within {lossless:.2f} of 255, JPEG within {lossy:.2f}"
    figure(15, "formats", f"{told}; the same in training, validation, tests, predictions and a service")


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("what", EVERY_FILE)
def test_every_path_shows_the_pixels_that_a_file_is_meant_to_hold(what, kept, table, tmp_path, monkeypatch):
    if not kept:
        monkeypatch.setattr(rescaled.RescaledImages, "_has_room", lambda *_: False)
    name, make, values = FILES[what]
    data, expected = make(), patches(rgb(np.asarray(values, dtype=float)))
    source = memory_source(classes=("a", "b"), samples=(Sample(data, 0, name),))
    ((index, whole),) = rescaled_images(source, SIDE)
    assert (index, whole.dtype, whole.shape) == (0, torch.uint8, (3, SIDE, SIDE))
    table[what] = np.abs(whole.permute(1, 2, 0).numpy() - expected).max()
    assert table[what] <= (1 if what in LOSSLESS else 4)
    whole = whole.float()
    assert torch.equal(seen_in_training(source, SIDE), whole)
    assert torch.equal(seen_in_validation(source, SIDE), whole)
    assert torch.equal(seen_in_tests(source), whole)
    assert torch.equal(seen_in_predictions(name, data, tmp_path, monkeypatch), whole)
    assert torch.equal(seen_in_a_service(name, data, SIDE), whole)


@pytest.mark.parametrize("side", [12, 23, 24, 36, 60])
@pytest.mark.parametrize("what", EVERY_FILE)
def test_every_path_shows_the_same_when_images_are_rescaled(what, side, monkeypatch):
    name, make, values = FILES[what]
    data = make()
    source = memory_source(classes=("a",), samples=(Sample(data, 0, name),))
    ((_, whole),) = rescaled_images(source, side)
    assert torch.equal(seen_in_a_service(name, data, side), whole.float())
    assert torch.equal(seen_in_training(source, side), whole.float())
    assert torch.equal(seen_in_validation(source, side), whole.float())
    monkeypatch.setattr(rescaled.RescaledImages, "_has_room", lambda *_: False)
    assert torch.equal(seen_in_training(source, side), whole.float())
    assert torch.equal(seen_in_validation(source, side), whole.float())
    middles = [(2 * patch + 1) * side // 6 for patch in range(3)]
    seen = whole.permute(1, 2, 0).numpy()[np.ix_(middles, middles)]
    assert np.abs(seen - rgb(np.asarray(values, dtype=float))).max() <= (2 if what in LOSSLESS else 5)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kept", [True, False])
def test_crops_of_a_rescaled_photograph_are_cut_from_what_tests_see(orientation, kept, monkeypatch):
    """Not square, and decoded at half its size for S = 20."""
    if not kept:
        monkeypatch.setattr(rescaled.RescaledImages, "_has_room", lambda *_: False)
    stored = np.random.default_rng(0).integers(0, 256, (41, 70, 3), dtype=np.uint8)
    data = saved(Image.fromarray(stored), "JPEG", exif=exif(orientation))
    source = memory_source(classes=("a",), samples=(Sample(data, 0, "a.jpg"),))
    ((_, whole),) = rescaled_images(source, 20)
    assert whole.shape == ((3, 20, 34) if orientation < 5 else (3, 34, 20))
    axis = 2 if orientation < 5 else 1
    places = {tuple(whole.narrow(axis, start, 20).flatten().tolist()): start for start in range(15)}
    (batch,) = centre_batches(RescaledImages(source), crop=20, scale=20, batch=1)
    assert places[tuple(batch.images[0].flatten().tolist())] == 7
    view = TrainingView(crop=20, scale=(20, 20), flip=False, colour_sd=0.0, colour_components=np.eye(3))
    drawn = [
        places[tuple(batch.images[0].flatten().tolist())]
        for batch in training_batches(source, view, batch=1, epochs=40, seed=0)
    ]
    assert len(set(drawn)) > 8
