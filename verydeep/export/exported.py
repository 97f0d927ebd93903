"""Exported files back to networks that can be tested and predict: ONNX, OpenVINO and torch.export.

Nothing in such a file is run but by the runtime that is made for it. ONNX Runtime and OpenVINO know a fixed set of
operators. A `.pt2` is read otherwise: torch.export.load unpickles what the file tells it to and evaluates its
expressions as Python, so any file could do anything (PyTorch 2.13). Here only its numbers and its metadata are taken,
and the network that the metadata name is built anew.
"""

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.export.checksum import SHA256, check_checksum
from verydeep.export.metadata import KEY, Metadata, from_json
from verydeep.export.onnx import INPUT, OUTPUTS
from verydeep.machine.libraries import library
from verydeep.machine.runtime import Device, torch_device
from verydeep.networks.scoring import ScoringNetwork
from verydeep.networks.vgg import VGG, vgg_without_weights
from verydeep.runs.model import Model

LOGITS, SCORE_MAP = OUTPUTS

Compute = Callable[[NDArray[np.float32]], tuple[Tensor, Tensor]]
"""`logits` and `score_map` of images [B, 3, H, W]."""


class ExportedNet:
    """A network in a runtime of its own, under the names by which `VGG` is tested and predicts. On the CPU."""

    def __init__(self, metadata: Metadata, compute: Compute) -> None:
        self.architecture = metadata.architecture
        self.mean_rgb = torch.tensor(metadata.mean_rgb)
        self._compute = compute

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of crop-sized images [B, 3, crop, crop] in 0..255.

        Raises:
            ValueError: another shape.
        """
        crop = self.architecture.crop
        if images.ndim != 4 or images.shape[1:] != (3, crop, crop):
            raise ValueError(f"images must be [B, 3, {crop}, {crop}], not {list(images.shape)}")
        return self._compute(_array(images))[0]

    __call__ = forward

    def score_map(self, images: Tensor) -> Tensor:
        """Class scores over space, [B, classes, h, w], of images [B, 3, H, W] in 0..255 (`VGG.score_map`).

        Raises:
            ValueError: another shape, or a side smaller than the crop.
        """
        crop = self.architecture.crop
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < crop:
            raise ValueError(f"images must be [B, 3, H, W] with sides from {crop}, not {list(images.shape)}")
        return self._compute(_array(images))[1]

    def eval(self) -> "ExportedNet":
        """Itself: it knows no other mode."""
        return self

    def to(self, device: torch.device | str, **_: Any) -> "ExportedNet":
        """Itself.

        Raises:
            ValueError: another device than the CPU.
        """
        if torch.device(device).type != "cpu":
            raise ValueError(f"an exported network computes on the CPU, not on {device}: use the run, or --device cpu")
        return self


def is_exported(path: str | Path) -> bool:
    """Whether this is a file, as exported networks are, and no run folder."""
    return Path(path).is_file()


def load_exported(path: str | Path, device: Device = "cpu") -> Model[ScoringNetwork]:
    """The network of a file that `verydeep export` wrote, with what its outputs mean.

    Of a `.pt2` the net is a `VGG`, on any device. Of an `.onnx` or `.xml` it is an `ExportedNet`, computed on the CPU
    with as many threads as PyTorch has; `auto` is the CPU too.

    Raises:
        ValueError: another kind of file, a damaged one, one that `verydeep export` did not write, a library that is
            missing, or a device that cannot be.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], tuple[Any, Metadata]]] = {
        ".onnx": _from_onnx,
        ".xml": _from_openvino,
        ".pt2": _from_program,
    }
    if path.suffix not in readers:
        raise ValueError(f"{path} is neither a run folder nor an exported network ({', '.join(readers)})")
    try:
        net, metadata = readers[path.suffix](path)
        on = torch.device("cpu") if device == "auto" and path.suffix != ".pt2" else torch_device(device)
        net = net.to(on)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be used: {' '.join(str(error).split())}") from error
    return Model(
        net=net,
        classes=metadata.classes,
        scale=metadata.scale,
        flip=metadata.flip,
        weights_sha256=metadata.weights_sha256,
    )


def compute_by_onnxruntime(file: Path) -> Compute:
    """ONNX Runtime on a file that can be trusted to have no data outside of it."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # fatal: errors are raised
    with _named(file):
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"], enable_fallback=0)

    def compute(images: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        with _named(file):
            logits, score_map = session.run([LOGITS, SCORE_MAP], {INPUT: images})
            return torch.from_numpy(logits), torch.from_numpy(score_map)

    return compute


def compute_by_openvino(file: Path) -> Compute:
    """OpenVINO, in float32 where the file is not INT8: left to itself it takes bfloat16 on some processors."""
    core = library("openvino").Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    with _named(file):
        compiled = core.compile_model(core.read_model(file), "CPU", options)

    def compute(images: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        with _named(file):
            found = compiled(images)
            return torch.from_numpy(found[LOGITS]), torch.from_numpy(found[SCORE_MAP])

    return compute


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Each runtime has errors of its own, which do not say of which file."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"the runtime cannot compute {file.name}: {' '.join(str(error).split())}") from error


def _array(images: Tensor) -> NDArray[np.float32]:
    return images.float().contiguous().numpy()


def _from_onnx(path: Path) -> tuple[ExportedNet, Metadata]:
    onnx = library("onnx")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has its own
        raise ValueError(f"it is no ONNX file, or a damaged one ({error})") from error
    stated = {entry.key: entry.value for entry in model.metadata_props}
    metadata = from_json(stated.get(KEY))
    check_checksum(path, stated.get(SHA256))
    if any(map(onnx.external_data_helper.uses_external_data, onnx_tensors(model))):
        raise ValueError("its weights are in other files")
    del model
    return _tried(compute_by_onnxruntime(path), metadata)


def onnx_tensors(message: Any) -> Iterator[Any]:
    """Every `TensorProto` in an ONNX message: initializers, attributes of nodes, those of subgraphs and functions."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if hasattr(value, "DESCRIPTOR") else value:
                yield from onnx_tensors(part)


def _from_openvino(path: Path) -> tuple[ExportedNet, Metadata]:
    try:
        facts = ElementTree.parse(path).find("rt_info")
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise ValueError(f"it is no OpenVINO file, or a damaged one ({error})") from error
    stated = {} if facts is None else {entry.tag: entry.get("value") for entry in facts}
    metadata = from_json(stated.get(KEY))
    if not path.with_suffix(".bin").is_file():
        raise ValueError(f"there is no {path.with_suffix('.bin').name} beside it")
    check_checksum(path, stated.get(SHA256))
    return _tried(compute_by_openvino(path), metadata)


def _tried(compute: Compute, metadata: Metadata) -> tuple[ExportedNet, Metadata]:
    """A black crop tells whether the graph is of the crop and the classes that the metadata say."""
    crop, classes = metadata.architecture.crop, len(metadata.classes)
    logits, score_map = compute(np.zeros((1, 3, crop, crop), np.float32))
    if (logits.shape, score_map.shape) != ((1, classes), (1, classes, 1, 1)):
        raise ValueError(
            f"its metadata {KEY!r} say {classes:,} classes at crop {crop}, for which it gives scores of shapes "
            f"{tuple(logits.shape)} and {tuple(score_map.shape)}"
        )
    return ExportedNet(metadata, compute), metadata


def _from_program(path: Path) -> tuple[VGG, Metadata]:
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].partition("/")[0]
            extra = f"{root}/extra/{KEY}.json"
            metadata = from_json(archive.read(extra) if extra in archive.namelist() else None)
            net = vgg_without_weights(metadata.architecture)
            folder = f"{root}/data/weights"
            listed = json.loads(archive.read(f"{folder}/model_weights_config.json"))["config"]
            weights = {
                name: _tensor(archive, f"{folder}/{listed[f'net.{name}']['path_name']}", like)
                for name, like in net.state_dict().items()
            }
        net.load_state_dict(weights, assign=True)
    except ValueError:
        raise
    except Exception as error:  # zipfile, zlib and struct have their own
        raise ValueError(f"it is no torch.export file, or a damaged one ({error})") from error
    return net.eval(), metadata


def _tensor(archive: zipfile.ZipFile, name: str, like: Tensor) -> Tensor:
    """A contiguous tensor as torch.export stores it: its bytes, whose checksum `zipfile` compares."""
    size = math.prod(like.shape) * like.element_size()
    if archive.getinfo(name).file_size != size:
        raise ValueError(f"{name} is not of {size:,} bytes")
    with archive.open(name) as file:
        data = io.BytesIO(file.read()).getbuffer()
    return torch.frombuffer(data, dtype=like.dtype).view(like.shape)
