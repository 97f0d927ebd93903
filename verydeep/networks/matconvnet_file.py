"""MatConvNet's `.mat` of a simple network: `layers`, and what it says of the mean and the classes.

MatConvNet reads images as RGB. Its importer of Caffe networks turns the first filters, so that they take RGB, and
transposes the axes of all, so that the first is vertical (vlfeat/matconvnet, utils/import-caffe.py). The mean in the
file is in the same order; one that is ILSVRC's from blue to red tells that the filters take BGR after all.
"""

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verydeep.networks.layouts import Triple
from verydeep.networks.named_arrays import NamedArrays, allowed_bytes
from verydeep.networks.vgg import ILSVRC_MEAN_RGB

_HEADER = 128
_COMPRESSED = 15
_VERSION_7_3 = b"\x89HDF\r\n\x1a\n"
SAME_MEAN = 1.0
"""Grey levels within which a mean is ILSVRC's."""

_KNOWN = ("layers", "meta", "normalization", "classes")


def read_matconvnet(path: Path) -> NamedArrays:
    """The arrays of a `.mat`, `LAYER.weight` [h, w, I, O] and `LAYER.bias`, its mean and its classes.

    Raises:
        ValueError: not MatConvNet's, damaged, or of MATLAB's version 7.3.
    """
    from scipy.io import loadmat

    whole = io.BytesIO(_unpacked(path.read_bytes()))
    found = loadmat(whole, variable_names=_KNOWN, struct_as_record=False)
    if "layers" not in found:
        raise ValueError("it has no variable layers: only simple networks (SimpleNN) are read")
    arrays: dict[str, Tensor] = {}
    for number, element in enumerate(np.ravel(found["layers"]), 1):
        layer = _only(element)
        if getattr(layer, "type", None) is None or _text(layer.type) != "conv":
            if getattr(layer, "weights", None) is not None and _only(layer.weights).size:
                raise ValueError(f"the layer {number} is of type {_text(layer.type)}, which is none of the paper's")
            continue
        values = _pair(layer.weights) if hasattr(layer, "weights") else [layer.filters, layer.biases]
        name = _text(layer.name)
        for kind, value in zip(("weight", "bias"), values, strict=True):
            arrays[f"{name}.{kind}"] = torch.from_numpy(np.asarray(value, dtype=np.float32, order="C"))
    told = _only(found["meta"]) if "meta" in found else None
    mean = _mean(found.get("normalization", getattr(told, "normalization", None)))
    return NamedArrays(
        arrays=arrays,
        layout="matconvnet",
        mean=mean,
        channels="bgr" if mean and np.allclose(mean, ILSVRC_MEAN_RGB[::-1], rtol=0, atol=SAME_MEAN) else None,
        classes=_classes(found.get("classes", getattr(told, "classes", None))),
    )


def _unpacked(data: bytes) -> bytes:
    """The file without compression, which could otherwise stand for any size."""
    if data[:8] == _VERSION_7_3 or data[512:520] == _VERSION_7_3:
        raise ValueError("it is of MATLAB's version 7.3: save it with -v7")
    if data[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is none of MATLAB's files of version 5 to 7")
    order = "little" if data[126:128] == b"IM" else "big"
    parts, place, left = [data[:_HEADER]], _HEADER, allowed_bytes(len(data))
    while place < len(data):
        kind, size = (int.from_bytes(data[place + at : place + at + 4], order) for at in (0, 4))  # type: ignore[arg-type]
        if place + 8 + size > len(data):
            raise ValueError("it is cut off: its last variable is longer than the file")
        if kind == _COMPRESSED:
            engine = zlib.decompressobj()
            part = engine.decompress(data[place + 8 : place + 8 + size], left)
            if engine.unconsumed_tail:
                raise ValueError("a variable in it claims to be many times as large as the file")
            place += 8 + size
        else:
            part = data[place : place + 8 + size + -size % 8]
            place += 8 + size + -size % 8
        left -= len(part)
        parts.append(part)
    return b"".join(parts)


def _pair(weights: Any) -> list[Any]:
    values = list(np.ravel(weights))
    if len(values) != 2:
        raise ValueError(f"a layer has {len(values)} arrays, where weights and biases are two")
    return values


def _only(value: Any) -> Any:
    """What a 1 x 1 array of MATLAB holds."""
    while isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
        value = value.flat[0]
    return value


def _text(value: Any) -> str:
    return str(np.ravel(_only(value))[0]) if np.size(value) else ""


def _mean(normalization: Any) -> Triple | None:
    """The mean of the average image [H, W, 3]; its first channel is what the first filters' first one is for."""
    image = getattr(_only(normalization), "averageImage", None)
    if image is None:
        return None
    values = np.asarray(_only(image), dtype=np.float64)
    if values.size % 3 or not values.size:
        return None
    first, second, third = values.reshape(-1, 3).mean(axis=0)
    return float(first), float(second), float(third)


def _classes(classes: Any) -> tuple[str, ...] | None:
    """WordNet ids, or names."""
    told = getattr(_only(classes), "name", None)
    return None if told is None else tuple(_text(name) for name in np.ravel(told))
