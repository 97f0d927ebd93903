"""MatConvNet's `.mat` of a simple network: `layers`, and what it says of the mean and the classes.

MatConvNet reads images as RGB. Its importer of Caffe networks turns the first filters, so that they take RGB, and
transposes the axes of all, so that the first is vertical (vlfeat/matconvnet, utils/import-caffe.py). The mean in the
file is in the same order; one that is ILSVRC's from blue to red tells that the filters take BGR after all.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verydeep.networks.foreign.layouts import Triple
from verydeep.networks.foreign.mat_file import variables
from verydeep.networks.foreign.named_arrays import NamedArrays, allowed_bytes
from verydeep.networks.vgg import ILSVRC_MEAN_RGB

SAME_MEAN = 1.0
"""Grey levels within which a mean is ILSVRC's."""


def read_matconvnet(path: Path) -> NamedArrays:
    """The arrays of a `.mat`, `LAYER.weight` [h, w, I, O] and `LAYER.bias`, its mean and its classes.

    Raises:
        ValueError: not MatConvNet's, damaged, or of MATLAB's version 7.3.
    """
    wanted = ("layers", "meta", "normalization", "classes")  # older networks have the last two beside the layers
    found = variables(path.read_bytes(), wanted, allowed=allowed_bytes(path.stat().st_size))
    layers = found.get("layers")
    if isinstance(layers, list) and any(isinstance(layer, dict) for layer in layers):
        raise ValueError("it is a DagNN network: only simple ones (SimpleNN) are read")
    if not isinstance(layers, list):
        raise ValueError("it has no cells called layers: only simple networks (SimpleNN) are read")
    arrays: dict[str, Tensor] = {}
    for number, element in enumerate(layers, 1):
        layer = _structure(element)
        name, kind, values = layer.get("name"), layer.get("type"), layer.get("weights")
        if not isinstance(values, list):  # an older network's; or an empty array, of a layer without weights
            values = [layer[key] for key in ("filters", "biases") if key in layer]
        if kind != "conv" and len(values) == 0:
            continue
        if kind != "conv" or len(values) != 2 or not isinstance(name, str):
            raise ValueError(f"the layer {number} ({name}) is a {kind} with {len(values)} arrays, none of the paper's")
        for role, value in zip(("weight", "bias"), values, strict=True):
            arrays[f"{name}.{role}"] = _tensor(f"{name}.{role}", value)
    told = {**_structure(found.get("meta")), **found}
    mean, notes = _mean(_structure(told.get("normalization")).get("averageImage"))
    reversed_mean = mean is not None and np.allclose(mean, ILSVRC_MEAN_RGB[::-1], rtol=0, atol=SAME_MEAN)
    return NamedArrays(
        arrays=arrays,
        layout="matconvnet",
        mean=mean,
        channels="bgr" if reversed_mean else None,
        classes=_classes(_structure(told.get("classes")).get("name")),
        notes=notes,
    )


def _structure(value: Any) -> dict[str, Any]:
    """A structure of one element; nothing of anything else."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else None
    return one if isinstance(one, dict) else {}


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} is no array of numbers")
    return torch.from_numpy(np.asarray(value, dtype=np.float32, order="C").copy())


def _mean(image: Any) -> tuple[Triple | None, tuple[str, ...]]:
    """The mean of the average image [H, W, 3], and what is to be said of it.

    Its first channel is what the first filters' first one is for. Three numbers in a row or a column are a mean, too.
    """
    if not isinstance(image, np.ndarray) or not image.size or (image.shape[-1] != 3 and image.size != 3):
        what = "has no average image" if image is None else "has an average image that is none"
        return None, (f"it {what}: ILSVRC's mean is taken if no other is said",)
    pixels = image.astype(np.float64).reshape(-1, 3)
    first, second, third = pixels.mean(axis=0)
    varies = float(np.ptp(pixels, axis=0).max())
    notes = (f"the mean image varies by {varies:.1f} grey levels: its average is used",) if varies >= 0.05 else ()
    return (float(first), float(second), float(third)), notes


def _classes(names: Any) -> tuple[str, ...] | None:
    """WordNet ids, or names."""
    return tuple(map(str, names)) if isinstance(names, list) else None
