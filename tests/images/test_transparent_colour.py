"""PNG files with a transparent colour (tRNS) at every depth, written here byte by byte from the specification."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep.images.decode import decode, upright_rgb

GREY, RGB = 0, 2


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples, depth, kind, transparent):
    """Samples [H, W] or [H, W, 3] of so many bits, rows padded to bytes."""
    rows = [
        "".join(f"{int(sample):0{depth}b}" for sample in np.ravel(row))
        for row in samples  # bit by bit, the first sample first
    ]
    packed = b"".join(b"\0" + int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8)) for row in rows)
    head = struct.pack(">IIBBBBB", len(samples[0]), len(samples), depth, kind, 0, 0, 0)
    parts = (
        (b"IHDR", head),
        (b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)),
        (b"IDAT", zlib.compress(packed)),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts) + chunk(b"IEND", b"")


def expected(samples, depth, transparent):
    """White where a pixel is the transparent colour, else its own grey or colour in 8 bits."""
    samples = np.asarray(samples, dtype=np.int64).reshape(len(samples), len(samples[0]), -1)
    eight = np.round(samples * 255 / (2**depth - 1))
    eight = np.where((samples == transparent).all(axis=-1, keepdims=True), 255, eight)
    return np.broadcast_to(eight, (*eight.shape[:2], 3))


@st.composite
def files(draw):
    kind, depth = draw(st.sampled_from([(GREY, 1), (GREY, 2), (GREY, 4), (GREY, 8), (GREY, 16), (RGB, 8), (RGB, 16)]))
    channels = 3 if kind == RGB else 1
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    top = 2**depth - 1
    few = draw(st.lists(st.integers(0, top), min_size=1, max_size=3))  # so that colours are often the transparent one
    near = st.sampled_from([*few, *(min(value + 1, top) for value in few)])
    flat = draw(st.lists(near, min_size=height * width * channels, max_size=height * width * channels))
    samples = np.array(flat).reshape((height, width, channels) if channels == 3 else (height, width))
    return samples, depth, kind, tuple(draw(near) for _ in range(channels))


@settings(max_examples=150)
@given(files())
def test_only_the_transparent_colour_becomes_white(file):
    samples, depth, _, transparent = file
    data = png(*file)
    found = decode(data)
    # Pillow cuts 16-bit colours to their first byte, which is within one level of what rounding gives.
    assert np.abs(found.astype(int) - expected(samples, depth, transparent)).max() <= (1 if depth == 16 else 0)
    assert np.array_equal(upright_rgb(Image.open(io.BytesIO(data))), found)


@pytest.mark.parametrize("colour", [(0, 0, 0), (1, 2, 3), (65535, 65534, 256)])
def test_colours_that_differ_in_the_last_bit_stay(colour):
    other = (colour[0] ^ 1, *colour[1:])
    found = decode(png([[colour, other]], 16, RGB, colour))
    assert found[0].tolist() == [[255] * 3, [value >> 8 for value in other]]
