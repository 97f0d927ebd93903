"""Files that claim to hold 40 GiB are refused by what they claim, before memory is asked for."""

import io
import json
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from verydeep.exported_networks.exported import load_exported
from verydeep.images.decode import UnusableImageError, decode
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.networks.foreign.weight_files import read_weights
from verydeep.reproduction.stored_tests import read_outcomes, write_outcomes

SIDE = 200_000
"""Of a picture of 40 GiB, and more."""

STORED = Path(__file__).parent / "before/written_at_0046bf4/exported/network.pt2"
"""A program: to write one takes ten seconds."""


@pytest.fixture(autouse=True)
def _little_memory():
    """Of Python's and NumPy's own."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**28


def zipped(file, **arrays):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data)


def npy(claimed, data=b""):
    """Bytes of a `.npy` of a shape, which may not be that of its data."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": claimed, "descr": "|u1", "fortran_order": False})
    return header.getvalue() + data


def test_outcomes(tmp_path):
    file = tmp_path / "outcomes.npz"
    write_outcomes(file, {"A": np.array([[True, False, True]])})
    assert read_outcomes(file)["A"].tolist() == [[True, False, True]]
    zipped(file, A=npy((1, 40 * 2**30)))
    with pytest.raises(ValueError, match=r"A.npy in it claims more than its \d+ bytes"):
        read_outcomes(file)
    for count in (-1, 9, 10**15):
        np.savez(file, **{"images/A": np.array(count), "A": np.array([[1]], np.uint8)})
        with pytest.raises(ValueError, match=f"it claims {count:,} images, and has no bits for them"):
            read_outcomes(file)
    np.savez(file, **{"images/A": np.array(3), "A": np.array([1], np.uint8)})
    with pytest.raises(ValueError, match=r"A.npy in it is neither a number of images nor bits"):
        read_outcomes(file)


def safetensors(claimed):
    header = json.dumps({"x": {"dtype": "F32", "shape": [claimed], "data_offsets": [0, 4 * claimed]}}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.safetensors", safetensors(10 * 2**30)),
        ("x.safetensors", struct.pack("<Q", 40 * 2**30)),
        ("x.npy", npy((40 * 2**30,))),
    ],
)
def test_weights(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=name):
        read_weights(tmp_path / name)


def png(side):
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_images():
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
    for data in (png(SIDE), bmp):
        with pytest.raises(UnusableImageError, match="pixels"):
            decode(data, MAX_PIXELS)


def test_compressed_weights_of_an_exported_network(tmp_path):
    file = tmp_path / "net.pt2"
    with zipfile.ZipFile(STORED) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match=r"cannot be used: .* is not stored as [0-9,]+ bytes"):
        load_exported(file)
