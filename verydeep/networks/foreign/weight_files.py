"""Files of weights to named arrays. Nothing in a file is run, and nothing is allocated that it could not hold."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from verydeep.machine.errors import one_line
from verydeep.machine.libraries import MissingLibraryError
from verydeep.networks.foreign.caffe import from_caffe, read_caffe
from verydeep.networks.foreign.keras import from_keras, read_keras, read_numpy
from verydeep.networks.foreign.layouts import TakenWeights
from verydeep.networks.foreign.matconvnet import from_matconvnet, read_matconvnet
from verydeep.networks.foreign.named_arrays import NamedArrays, allowed_bytes
from verydeep.networks.foreign.onnx import onnx_names_beside, read_onnx
from verydeep.networks.foreign.state_dicts import SHARDS_INDEX, read_safetensors, read_shards, read_torch, shard_names
from verydeep.networks.foreign.torchvision import from_torchvision

_LONGEST_REASON = 300
"""Characters of a library's message that are passed on."""

_READERS: dict[str, Callable[[Path, TakenWeights], NamedArrays]] = {
    **dict.fromkeys((".pth", ".pt", ".ckpt", ".bin", ".tar"), read_torch),
    ".safetensors": read_safetensors,
    SHARDS_INDEX: read_shards,
    **dict.fromkeys((".h5", ".hdf5", ".keras"), read_keras),
    ".caffemodel": read_caffe,
    ".mat": read_matconvnet,
    **dict.fromkeys((".npz", ".npy"), read_numpy),
    ".onnx": read_onnx,
}

_NAMES_BESIDE: dict[str, Callable[[Path], list[str]]] = {SHARDS_INDEX: shard_names, ".onnx": onnx_names_beside}
"""Names of the files beside one of these kinds that its arrays come from."""

_STATE_DICT = "save net.state_dict() from PyTorch instead"
_WITH_NUMPY = "with numpy.savez as conv1_1_W [h, w, I, O] and, where there are biases, conv1_1_b"
_KERAS_WEIGHTS = "load it there and save it as Keras' .keras or .weights.h5"

_OTHER_KINDS = {
    ".pt2": f"an exported program: `predict` reads it if this package wrote it; else {_STATE_DICT}",
    ".ptl": f"a TorchScript program: {_STATE_DICT}",
    ".pkl": f"a pickle, as of fastai's learn.export(), which would run code: {_STATE_DICT} (learn.model.state_dict())",
    ".pickle": f"a pickle, which would run code: {_STATE_DICT}",
    ".t7": "a file of Lua's Torch: download the weights in another format",
    ".pb": f"a TensorFlow graph: {_KERAS_WEIGHTS}",
    ".index": f"a part of a TensorFlow checkpoint: {_KERAS_WEIGHTS}",
    ".tflite": f"a TensorFlow Lite program: {_KERAS_WEIGHTS}",
    ".msgpack": f"a file of Flax: {_STATE_DICT}, or write its arrays {_WITH_NUMPY}",
    ".pdparams": f"a file of Paddle: write its arrays {_WITH_NUMPY}",
    ".params": f"a file of MXNet: write its arrays {_WITH_NUMPY}",
    ".mlmodel": "a Core ML program: import the weights that it was made from",
    ".prototxt": "a description of layers without weights: name the .caffemodel beside it",
}
"""Kinds of files that are not read, and the way out."""


def read_weights(path: Path, taken: TakenWeights = TakenWeights()) -> NamedArrays:
    """Read the arrays of a file of weights; its format follows from its suffix.

    Raises:
        ValueError: not weights, damaged, cut off, or a package is missing to read it; one line that says which.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"there is no file or folder {path}")
    kind = _kind(path)
    reader = _READERS.get(kind)
    if kind in _OTHER_KINDS:
        raise ValueError(f"{path} is {_OTHER_KINDS[kind]}")
    if reader is None:
        raise ValueError(f"{path} is not a file of weights: name one that ends in {', '.join(_READERS)}")
    if taken.ema and reader not in (read_torch, read_safetensors, read_shards):
        raise ValueError(f"{path} is of a kind that holds no averaged weights (EMA): leave out --ema")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: download it again")
    try:
        read = reader(path, taken)
        _check_arrays(read.arrays, allowed_bytes(sum(file.stat().st_size for file in (path, *read.beside))))
    except Exception as error:  # readers raise almost anything at damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path} cannot be read: {_reason(error)}") from error
    return read


def files_of_weights(path: Path) -> tuple[Path, ...]:
    """Return a file of weights, then those beside it that its arrays come from, by name.

    Of one that is damaged or not there it is that file alone.

    Raises:
        ValueError: a package is missing to read it.
        OSError: the file cannot be read.
    """
    names_beside = _NAMES_BESIDE.get(_kind(path))
    if names_beside is None or not path.is_file():
        return (path,)
    try:
        return path, *map(path.with_name, names_beside(path))
    except MissingLibraryError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    except ValueError:
        return (path,)


def in_our_layout(named: NamedArrays) -> dict[str, Tensor]:
    """Return weights under this package's names and in its axes; values, channels and their order stay.

    Raises:
        ValueError: an entry that a VGG in this layout does not have, or one of another number of axes.
    """
    if named.ours:
        return named.arrays
    match named.layout:
        case "verydeep" | "onnx":
            return named.arrays
        case "torchvision" | "timm":
            return from_torchvision(named.arrays, named.layout)
        case "keras" | "numpy":
            return from_keras(named.arrays)
        case "caffe":
            return from_caffe(named.arrays)
        case "matconvnet":
            return from_matconvnet(named.arrays)


def _kind(path: Path) -> str:
    """Return the suffix that tells a file's format, in small letters."""
    return SHARDS_INDEX if path.name.lower().endswith(SHARDS_INDEX) else path.suffix.lower()


def _reason(error: Exception) -> str:
    text = one_line(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."


def _check_arrays(arrays: dict[str, Tensor], allowed: int) -> None:
    if not arrays:
        raise ValueError("it holds no weights")
    for name, value in arrays.items():
        if not name.isprintable():
            raise ValueError(f"it is damaged: it holds a name that is not text, {name!a}")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise ValueError(f"{name} is not a plain array of numbers: quantised weights are not read")
        if not value.is_floating_point() and not name.endswith("num_batches_tracked"):
            raise ValueError(f"{name} holds {value.dtype}, where weights are fractions")
    if sum(value.nbytes for value in arrays.values()) > allowed:
        raise ValueError("its arrays claim to be many times as large as the file")
