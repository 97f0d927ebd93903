"""Decoding against files whose bytes are put together here, without Pillow where that is possible."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import oriented, saved
from PIL import Image

from verydeep.images.decode import UnusableImageError, decode

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # colour types of the PNG specification


def png(rows, *, width, depth, colour_type, extra=()):
    """A PNG file by the specification; `rows` are the packed bytes of each row."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    chunks = [(b"IHDR", header), *extra, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height, width):
    """Red grows downwards, green to the right, blue is least in one corner: no symmetry at all."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 4 * y, 30 + 5 * x, 220 - 2 * y - 3 * x], axis=2).astype(np.uint8)


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),  # row 0 of the file is the right side of the scene: turn clockwise
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: lambda a: np.rot90(a, 1),
}


def test_rgb_is_left_as_it_is():
    pixels = noise(5, 7, 3)
    found = decode(png(pixels.reshape(5, -1), width=7, depth=8, colour_type=RGB))
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixels)


def test_grey_fills_all_three_channels():
    pixels = noise(5, 7)
    found = decode(png(pixels, width=7, depth=8, colour_type=GREY))
    assert np.array_equal(found, np.stack([pixels] * 3, axis=2))


def test_one_bit_is_black_and_white():
    bits = noise(5, 11) % 2
    found = decode(png(np.packbits(bits, axis=1), width=11, depth=1, colour_type=GREY))
    assert np.array_equal(found, np.stack([bits * 255] * 3, axis=2))


def test_sixteen_bit_grey_keeps_its_full_range():
    values = np.array([[0, 128, 129, 256, 257], [32767, 32768, 40000, 65406, 65535]], dtype=">u2")
    found = decode(png([row.tobytes() for row in values], width=5, depth=16, colour_type=GREY))
    # 65535 / 255 = 257 steps to a grey level, to the nearest.
    expected = np.array([[0, 0, 1, 1, 1], [127, 128, 156, 254, 255]], dtype=np.uint8)
    assert np.array_equal(found, np.stack([expected] * 3, axis=2))


def test_sixteen_bit_grey_of_a_tiff_is_the_same_and_turned_upright():
    values = np.arange(15, dtype=np.uint16).reshape(3, 5) * 257
    found = decode(saved(Image.fromarray(values), "TIFF", exif=oriented(6)))
    assert np.array_equal(found, np.stack([np.rot90(values // 257, -1)] * 3, axis=2))


def test_sixteen_bit_rgb_is_within_a_grey_level():
    values = np.random.default_rng(0).integers(0, 65536, (4, 6, 3)).astype(">u2")
    found = decode(png([row.tobytes() for row in values], width=6, depth=16, colour_type=RGB))
    assert np.abs(found - values / 257).max() <= 1


def test_a_palette_becomes_its_colours():
    colours, indices = noise(4, 3, seed=1), noise(5, 7) % 4
    extra = [(b"PLTE", colours.tobytes())]
    found = decode(png(indices, width=7, depth=8, colour_type=PALETTE, extra=extra))
    assert np.array_equal(found, colours[indices])


def test_a_transparent_palette_lies_over_white():
    colours, indices = noise(4, 3, seed=1), noise(5, 7) % 4
    alphas = np.array([255, 0, 128, 255], dtype=np.uint8)
    extra = [(b"PLTE", colours.tobytes()), (b"tRNS", alphas.tobytes())]
    found = decode(png(indices, width=7, depth=8, colour_type=PALETTE, extra=extra))
    expected = over_white(colours[indices], alphas[indices])
    assert np.abs(found - expected).max() <= 1
    assert np.array_equal(found[indices == 1], np.full((np.sum(indices == 1), 3), 255))


def test_alpha_lies_over_white():
    pixels = noise(6, 9, 4)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    found = decode(png(pixels.reshape(6, -1), width=9, depth=8, colour_type=RGBA))
    assert np.abs(found - over_white(pixels[..., :3], pixels[..., 3])).max() <= 1
    assert (found[0] == 255).all()
    assert np.array_equal(found[1], pixels[1, :, :3])


def test_grey_with_alpha_lies_over_white():
    pixels = noise(6, 9, 2)
    found = decode(png(pixels.reshape(6, -1), width=9, depth=8, colour_type=GREY_ALPHA))
    expected = over_white(np.stack([pixels[..., 0]] * 3, axis=2), pixels[..., 1])
    assert np.abs(found - expected).max() <= 1


def over_white(colours, alpha):
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def test_cmyk_is_what_the_inks_leave_of_white():
    inks = noise(5, 7, 4)
    found = decode(saved(Image.frombytes("CMYK", (7, 5), inks.tobytes()), "TIFF"))
    left = 1 - inks / 255.0
    assert np.abs(found - 255 * left[..., :3] * left[..., 3:]).max() <= 1.5


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_undone(orientation):
    stored = noise(5, 8, 3)
    found = decode(saved(Image.fromarray(stored), "PNG", exif=oriented(orientation)))
    assert np.array_equal(found, UPRIGHT[orientation](stored))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_of_a_photograph_is_undone(orientation):
    stored = smooth(24, 32)
    data = saved(Image.fromarray(stored), "JPEG", quality=100, subsampling=0, exif=oriented(orientation))
    expected = UPRIGHT[orientation](stored)
    found = decode(data)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 3


def test_nonsense_in_the_exif_does_no_harm():
    pixels = smooth(8, 12)
    for exif in (oriented(77), b"Exif\0\0 no tags at all"):
        found = decode(saved(Image.fromarray(pixels), "JPEG", quality=100, subsampling=0, exif=exif))
        assert np.abs(found.astype(int) - pixels).max() <= 3


def test_of_a_film_the_first_frame_is_taken():
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    found = decode(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (found == [255, 0, 0]).all()
    assert found.shape == (4, 6, 3)


@pytest.mark.parametrize("data", [b"", b"\0" * 500, b"<html>404</html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_refused_by_name(data):
    with pytest.raises(
        UnusableImageError, match=r"^cats/tom\.jpg: undecodable \((not an image of a known format|an empty file)\)$"
    ):
        decode(data, "cats/tom.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_half_a_file_is_refused_by_name(kind):
    whole = saved(Image.fromarray(noise(40, 50, 3)), kind)
    assert decode(whole).shape == (40, 50, 3)
    with pytest.raises(UnusableImageError, match=re.escape("dogs/rex")):
        decode(whole[: len(whole) // 2], "dogs/rex")


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_001), (40_000, 40_000)])
def test_too_many_pixels_are_refused_before_they_are_unpacked(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, RGB, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(UnusableImageError, match=r"^huge\.png: .*pixels"):
        decode(data, "huge.png")


def test_the_limit_on_pixels_is_told():
    header = struct.pack(">IIBBBBB", 10_001, 10_000, 8, RGB, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    message = "huge.png: too large (10001 x 10000 pixels, more than the 100,000,000 allowed)"
    with pytest.raises(UnusableImageError, match=f"^{re.escape(message)}$"):
        decode(data, "huge.png")


WHOLE = {kind: saved(Image.fromarray(smooth(12, 16)), kind) for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP")}


@settings(max_examples=150)
@given(kind=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_broken_files_give_pixels_or_the_one_error(kind, data):
    broken = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, min(len(broken), 200) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = decode(bytes(broken[: data.draw(st.integers(1, len(broken)))]), "odd one")
    except UnusableImageError as error:
        assert str(error).startswith("odd one: ")  # noqa: PT017 (either outcome is right)
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((3, 4), 0.5, np.float32), "in an unknown range"),
        (np.full((3, 4), 70_000, np.int32), "more than 16 bits"),
    ],
)
def test_pixels_of_no_known_range_are_refused(pixels, reason):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    with pytest.raises(UnusableImageError, match=f"scan.tif: .*{reason}"):
        decode(buffer.getvalue(), "scan.tif")


def test_programs_disguised_as_pictures_are_not_run():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(UnusableImageError, match=r"photo\.jpg: undecodable \(not an image of a known format\)"):
        decode(postscript, "photo.jpg")


def test_want_of_memory_is_not_the_image_s_fault(monkeypatch):
    def out_of_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", out_of_memory)
    with pytest.raises(MemoryError):
        decode(png([b"\0"], width=1, depth=8, colour_type=GREY))
