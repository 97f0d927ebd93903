"""JPEGs decoded smaller than they are, against Pillow, which decodes them whole."""

import io
import math
import pickle
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import simplejpeg
from hypothesis import example, given, settings
from hypothesis import strategies as st
from image_files import oriented
from PIL import Image, ImageOps

from verydeep.images.decode import UnusableImageError, decode, decode_for
from verydeep.images.views import rescale

BILINEAR = Image.Resampling.BILINEAR


def jpeg(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **{"quality": 95, **options})
    return buffer.getvalue()


def photograph(height, width, *, seed=0, grain=4):
    """Waves of all lengths in all directions, the longer the stronger, in three related colours, and grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.full((height, width, 3), 128, dtype=np.float32)
    for length in np.geomspace(6, 2 * max(height, width), 24):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        wave = np.sin(2 * np.pi / length * (np.cos(angle) * x + np.sin(angle) * y) + phase)
        image += 4 * length**0.3 * wave[..., None] * rng.uniform(0.4, 1.2, 3).astype(np.float32)
    return np.clip(image + rng.normal(0, grain, image.shape), 0, 255).astype(np.uint8)


def by_pillow(data):
    """The whole image, upright."""
    with Image.open(io.BytesIO(data)) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def differences(some, others):
    return np.abs(np.asarray(some).astype(int) - np.asarray(others).astype(int))


def most(height, width, needed):
    """The largest reduction that leaves the shorter side long enough, parts of pixels counted as such."""
    return max(r for r in (1, 2, 4, 8) if r == 1 or min(height, width) >= r * needed)


sides = st.integers(1, 1500)


@settings(max_examples=80)
@example(height=37, width=40, needed=19)  # 18.5 is too little
@example(height=37, width=40, needed=20)
@example(height=1500, width=1499, needed=188)
@example(height=1500, width=1499, needed=187)
@example(height=256, width=2048, needed=256)
@example(height=512, width=511, needed=256)
@example(height=5, width=250, needed=1)
@given(height=sides, width=sides, needed=sides)
def test_no_more_is_left_out_than_can_be_spared(height, width, needed):
    if height > 50 * width:
        height = 50 * width
    if width > 50 * height:
        width = 50 * height
    data = simplejpeg.encode_jpeg(np.full((height, width, 3), 90, dtype=np.uint8), quality=50)
    pixels, size, *_ = decode_for(data, shorter_side=needed)
    assert size == (height, width)
    assert min(pixels.shape[:2]) >= min(needed, height, width)
    reduction = most(height, width, needed)
    assert pixels.shape == (math.ceil(height / reduction), math.ceil(width / reduction), 3)
    assert (differences(pixels, 90) <= 2).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("needed", [None, 1, 8, 9, 16, 17, 32, 33, 64, 65])
def test_an_image_is_upright_at_every_size(orientation, needed):
    """64 x 96, brighter to the right, redder downwards, dark in one corner: no two of the eight look alike."""
    y, x = np.mgrid[0:64, 0:96]
    stored = np.stack([40 + 3 * y, 30 + 2 * x, np.where((y < 24) & (x < 32), 20, 180)], axis=2).astype(np.uint8)
    data = jpeg(stored, subsampling=0, exif=oriented(orientation))
    whole = by_pillow(data)
    pixels, size, *_ = decode_for(data, shorter_side=needed)
    assert size == (whole.height, whole.width) == ((64, 96) if orientation < 5 else (96, 64))
    reduction = most(64, 96, needed) if needed else 1
    expected = whole.reduce(reduction)
    assert pixels.shape == (expected.height, expected.width, 3)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert differences(pixels, expected).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_file_where_sides_are_odd(orientation):
    data = jpeg(photograph(75, 101), exif=oriented(orientation))
    whole = by_pillow(data)
    for needed in (None, 75, 38, 37, 19, 10, 9, 1):
        pixels, size, *_ = decode_for(data, shorter_side=needed)
        assert size == (whole.height, whole.width)
        assert pixels.shape[:2] in {tuple(math.ceil(side / r) for side in size) for r in (1, 2, 4, 8)}
        assert min(pixels.shape[:2]) >= (needed or 75)


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_smaller_pixels_are_near_averages_of_squares_in_their_own_place(reduction, subsampling):
    data = jpeg(photograph(360, 480), subsampling=subsampling)
    pixels, *_ = decode_for(data, shorter_side=360 // reduction)
    whole = np.asarray(by_pillow(data)).astype(float)
    squares = whole.reshape(360 // reduction, reduction, 480 // reduction, reduction, 3).mean(axis=(1, 3))
    assert pixels.shape == squares.shape
    here = np.abs(pixels - squares).mean()
    print(f"1/{reduction}, subsampling {subsampling}: {here:.2f} grey levels from averages of squares")
    assert here < 3
    assert abs((pixels - squares).mean()) < 0.5
    for axis in (0, 1):
        for step in (-1, 1):
            assert here < 0.6 * np.abs(pixels - np.roll(squares, step, axis=axis)).mean()


@pytest.mark.parametrize(
    ("orientation", "size"),
    [
        *((1, size) for size in ((376, 504), (640, 480), (1200, 904), (224, 1000))),
        *((1, size) for size in ((375, 500), (500, 333), (333, 251), (901, 1203))),
        *((6, size) for size in ((376, 504), (224, 1000), (375, 500), (333, 251))),
    ],
)
def test_rescaled_images_are_near_those_that_were_decoded_whole(size, orientation):
    data = jpeg(photograph(*size, seed=size[0]), quality=90, exif=oriented(orientation))
    whole = by_pillow(data)
    even = all(side % 8 == 0 for side in size)
    worst = {}
    for scale in (32, 64, 100, 224, 256, min(size) // 2, min(size), min(size) + 60):
        found = rescale(decode_for(data, shorter_side=scale), scale)
        sides = [round(side * scale / min(whole.size)) for side in whole.size]
        assert found.shape == (sides[1], sides[0], 3)
        difference = differences(found, whole.resize(sides, BILINEAR)).mean()
        print(f"{whole.height} x {whole.width} at {scale}: by 1/{most(*size, scale)}, {difference:.2f} grey levels")
        shrunk = scale < min(size)
        worst[shrunk] = max(difference, worst.get(shrunk, 0))
    assert worst[False] <= 1.5
    assert worst[True] <= (2 if even else 3.5)


@pytest.mark.parametrize("size", [(248, 328), (247, 331)])
def test_rescaled_images_have_their_contents_in_place(size):
    """A bright square in the dark, by its centre of mass."""
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[61:143, 201:263] = 250
    for scale in (30, 60, 120, 150):
        found = rescale(decode_for(jpeg(image), shorter_side=scale), scale).astype(float).sum(axis=2)
        assert found.shape == (scale, round(size[1] * scale / size[0]))
        for axis, (begin, end) in enumerate([(61, 143), (201, 263)]):
            factor = found.shape[axis] / size[axis]
            centre = (found.sum(axis=1 - axis) * (np.arange(found.shape[axis]) + 0.5)).sum() / found.sum()
            assert centre == pytest.approx((begin + end) / 2 * factor, abs=0.1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_other_formats_are_decoded_whole(kind):
    buffer = io.BytesIO()
    Image.fromarray(photograph(90, 120)).save(buffer, kind)
    pixels, size, *_ = decode_for(buffer.getvalue(), shorter_side=10)
    assert size == (90, 120)
    assert np.array_equal(pixels, by_pillow(buffer.getvalue()))


def segments_end(data):
    """Where the compressed pixels begin: after the header of the (first) scan."""
    scan = data.index(b"\xff\xda")
    return scan + 2 + int.from_bytes(data[scan + 2 : scan + 4])


ODD = {
    "bytes between two segments": lambda data: data[:20] + b"\x07\x08\x09" + data[20:],
    "a stretch is missing": lambda data: data[: data.index(b"\xff\xd0")] + data[data.index(b"\xff\xd1") :],
    "a version of JFIF from the future": lambda data: data.replace(b"JFIF\0\x01", b"JFIF\0\x09", 1),
}


@pytest.mark.parametrize("odd", sorted(ODD))
@pytest.mark.parametrize("orientation", [1, 6])
def test_odd_files_are_left_to_pillow(odd, orientation):
    whole = jpeg(photograph(80, 120), exif=oriented(orientation), restart_marker_blocks=10)
    assert decode_for(whole, shorter_side=20).pixels.shape[:2] == ((20, 30) if orientation == 1 else (30, 20))
    data = ODD[odd](whole)
    assert data != whole
    with pytest.raises(ValueError, match=r"\w"):
        simplejpeg.decode_jpeg(data)
    expected = by_pillow(data)
    for needed in (None, 20, 80):
        pixels, size, *_ = decode_for(data, shorter_side=needed)
        assert size == (expected.height, expected.width)
        assert np.array_equal(pixels, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"progressive": True, "subsampling": 2},
        {"optimize": True},
        {"keep_rgb": True},
        {"restart_marker_blocks": 3},
        {"quality": 30},
        {"grey": True},
        {"grey": True, "progressive": True},
    ],
    ids=lambda options: " ".join(f"{key}={value}" for key, value in options.items()),
)
def test_every_way_to_compress_gives_pillows_pixels(options):
    image = photograph(90, 121)
    if options.pop("grey", False):
        image = image[:, :, 0]
    data = jpeg(image, **options)
    with Image.open(io.BytesIO(data)) as opened:
        # Adobe's transform 0: the three components are red, green and blue themselves.
        assert opened.info.get("adobe_transform") == (0 if "keep_rgb" in options else None)
    whole = by_pillow(data)
    assert differences(decode(data), whole).max() <= 2
    reduced, size, *_ = decode_for(data, shorter_side=45)
    assert size == (90, 121)
    assert reduced.shape == (45, 61, 3)
    assert differences(reduced[:, :60], whole.crop((0, 0, 120, 90)).reduce(2)).mean() < 3
    if image.ndim == 2:
        assert (reduced == reduced[..., :1]).all()


def inks(height, width):
    """Four inks [H, W, 4] that grow in four directions, 0 none, 255 full."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([2 * y, 2 * x, 200 - y - x, y // 2], axis=2).astype(np.uint8)


def cmyk(stored):
    """Adobe keeps the light that an ink lets through; Pillow turns it over on its way out."""
    buffer = io.BytesIO()
    Image.frombytes("CMYK", stored.shape[1::-1], stored.tobytes()).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def ycck(stored):
    return simplejpeg.encode_jpeg(255 - stored, quality=95, colorspace="CMYK")


@pytest.mark.parametrize(("encode", "transform"), [(cmyk, 0), (ycck, 2)])
@pytest.mark.parametrize("needed", [None, 20])
def test_four_inks_are_what_they_leave_of_white(encode, transform, needed):
    stored = inks(64, 88)
    data = encode(stored)
    with Image.open(io.BytesIO(data)) as opened:
        assert (opened.mode, opened.info["adobe_transform"]) == ("CMYK", transform)
    light = 1 - stored / 255
    pixels, size, *_ = decode_for(data, shorter_side=needed)
    assert size == (64, 88)
    assert differences(pixels, 255 * light[..., :3] * light[..., 3:]).max() <= 6


def test_of_several_pictures_in_one_file_the_first_is_taken():
    first, second = photograph(80, 120), np.zeros((80, 120, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(first).save(
        buffer, "MPO", save_all=True, append_images=[Image.fromarray(second)], exif=oriented(8), quality=95
    )
    data = buffer.getvalue()
    with Image.open(io.BytesIO(data)) as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 2)
    expected = Image.fromarray(first).transpose(Image.Transpose.ROTATE_90)
    pixels, size, *_ = decode_for(data, shorter_side=40)
    assert size == (120, 80)
    assert pixels.shape == (60, 40, 3)
    assert differences(pixels, expected.reduce(2)).mean() < 3
    assert differences(decode(data), expected).mean() < 4


@pytest.mark.parametrize("name", ["cat.png", "cat", "cat.JPEG.txt", "", "猫.gif"])
def test_names_do_not_matter(name):
    data = jpeg(photograph(40, 60))
    assert np.array_equal(decode(data, name), decode(data, "cat.jpg"))
    assert decode_for(data, name, shorter_side=20).pixels.shape == (20, 30, 3)


BROKEN_EXIF = {
    "no TIFF header": b"Exif\0\0 no tags at all",
    "empty": b"Exif\0\0",
    "not EXIF": b"http://ns.example/ neither this",
    "tags beyond the end": b"Exif\0\0II*\0\xff\xff\xff\xff",
    "fewer tags than it says": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    "an orientation in words": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02\x36\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("broken", sorted(BROKEN_EXIF))
@pytest.mark.parametrize("resolution", [{}, {"dpi": (72, 72)}])  # Pillow looks for one in EXIF if there is none
def test_broken_exif_leaves_a_photograph_as_it_is_stored(broken, resolution):
    image = photograph(48, 72)
    data = jpeg(image, exif=BROKEN_EXIF[broken], subsampling=0, **resolution)
    assert BROKEN_EXIF[broken] in data
    assert np.array_equal(decode(data), decode(jpeg(image, subsampling=0)))
    pixels, size, *_ = decode_for(data, shorter_side=24)
    assert size == (48, 72)
    assert np.array_equal(pixels, decode_for(jpeg(image, subsampling=0), shorter_side=24).pixels)


def test_a_segment_that_is_longer_than_the_file_is_refused():
    data = jpeg(photograph(48, 72), exif=oriented(6))
    at = data.index(b"\xff\xe1")
    with pytest.raises(UnusableImageError, match=r"^a\.jpg: (truncated|undecodable)"):
        decode(data[: at + 2] + b"\xff\xff" + data[at + 4 :], "a.jpg")


@pytest.mark.parametrize("shorter_side", [None, 10])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_limit_on_pixels_is_that_of_the_call(kind, shorter_side):
    buffer = io.BytesIO()
    Image.fromarray(photograph(40, 50)).save(buffer, kind)
    before = PIL.Image.MAX_IMAGE_PIXELS
    for _ in range(2):
        assert decode_for(buffer.getvalue(), shorter_side=shorter_side, max_pixels=2000).size == (40, 50)
        with pytest.raises(UnusableImageError) as refusal:
            decode_for(buffer.getvalue(), "cat", shorter_side=shorter_side, max_pixels=1999)
        assert str(refusal.value) == "cat: too large (50 x 40 pixels, more than the 1,999 allowed)"
        assert decode_for(buffer.getvalue(), shorter_side=shorter_side).size == (40, 50)
    with pytest.raises(UnusableImageError, match="too large"):
        decode(buffer.getvalue(), max_pixels=1)
    assert before == PIL.Image.MAX_IMAGE_PIXELS


def test_pillows_own_limit_is_no_warning(monkeypatch):
    """Between its limit and twice that, Pillow warns."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1500)
    data = jpeg(photograph(40, 50))
    assert decode_for(data, shorter_side=20, max_pixels=2000).size == (40, 50)
    assert PIL.Image.MAX_IMAGE_PIXELS == 1500


@pytest.mark.parametrize(("height", "width"), [(2, 101), (101, 2), (1, 51)])
def test_too_elongated_images_are_named(height, width):
    with pytest.raises(UnusableImageError) as refusal:
        decode(jpeg(np.zeros((height, width, 3), dtype=np.uint8)), "dogs/dachshund.jpg")
    assert refusal.value.kind == "too elongated"
    assert str(refusal.value) == f"dogs/dachshund.jpg: too elongated ({width} x {height}, sides beyond 50 to 1)"


@pytest.mark.parametrize(("height", "width"), [(2, 100), (100, 2), (1, 50), (1, 1)])
def test_just_not_too_elongated_images_are_used(height, width):
    data = jpeg(np.zeros((height, width, 3), dtype=np.uint8))
    assert decode_for(data, shorter_side=1).size == (height, width)


def empty_png(height, width):
    """Return a PNG file that states a size and holds no pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT", b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


PHOTOGRAPH = jpeg(photograph(60, 80))
REFUSED = {
    "half a photograph": (PHOTOGRAPH[: len(PHOTOGRAPH) // 2], "truncated"),
    "a photograph without its last bytes": (PHOTOGRAPH[:-40], "truncated"),
    "the head of a photograph": (PHOTOGRAPH[: segments_end(PHOTOGRAPH)], "truncated"),
    "nothing": (b"", "undecodable"),
    "a web page": (b"<html>404</html>", "undecodable"),
    "too many pixels": (empty_png(20_000, 20_000), "too large"),
    "too many for Pillow": (empty_png(100_000, 100_000), "too large"),
    "a line": (empty_png(10, 501), "too elongated"),
}


@pytest.mark.parametrize("what", sorted(REFUSED))
@pytest.mark.parametrize("shorter_side", [None, 10])
def test_refusals_say_what_kind_they_are(what, shorter_side):
    data, kind = REFUSED[what]
    with pytest.raises(UnusableImageError) as refusal:
        decode_for(data, "cats/tom.jpg", shorter_side=shorter_side)
    error = refusal.value
    assert (error.name, error.kind) == ("cats/tom.jpg", kind)
    assert str(error) == f"cats/tom.jpg: {kind} ({error.detail})" == f"cats/tom.jpg: {error.reason}"


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_a_refusal_is_the_same_in_another_process(what):
    with pytest.raises(UnusableImageError) as refusal:
        decode(REFUSED[what][0], "cats/tom.jpg")
    sent = pickle.loads(pickle.dumps(refusal.value))
    assert type(sent) is UnusableImageError
    assert (sent.name, sent.kind, sent.detail) == (refusal.value.name, refusal.value.kind, refusal.value.detail)
    assert str(sent) == str(refusal.value)
