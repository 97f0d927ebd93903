"""Metadata of an exported file: everything that using it needs, as one JSON object."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from verydeep.exported_networks.formats import files_of
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.machine.documents import converted, parse_json
from verydeep.machine.runtime import FULL_PRECISION, multiplies_in_bfloat16
from verydeep.networks.architecture import DOWNSAMPLING, Architecture
from verydeep.networks.foreign.layouts import Triple
from verydeep.networks.scales import middle_scale, scale_in_pixels, scale_range
from verydeep.networks.vgg import ScoringNetwork
from verydeep.numbers import number
from verydeep.runs.model import Model
from verydeep.version import __version__

KEY = "verydeep"
"""Name of the entry: in ONNX's `metadata_props`, OpenVINO's `rt_info`, a line after ncnn's last layer,
and as torch.export's extra file KEY.json."""

FORMAT = 1
"""Version; raised when older versions of the package can no longer use the files."""


_OF_ARCHITECTURE = {field.name for field in fields(Architecture)} - {"classes"}


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The facts that travel with a network."""

    architecture: Architecture
    mean_rgb: Triple
    """Subtracted inside the network."""
    classes: tuple[str, ...]
    scale: str
    """S that it was trained at, for a crop of 224."""
    flip: bool
    """Whether posteriors are averaged with the mirror image's."""
    weights_sha256: str | None
    """SHA-256 of the run's weights."""
    int8: bool
    bf16: bool = False
    """Whether products are computed in bfloat16, by processors that multiply in it; older files do not say."""
    version: str = __version__
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Refuse values that no network has."""
        scale_range(self.scale)
        if self.architecture.crop**2 > MAX_PIXELS:
            raise ValueError(f"no network has crop {number(self.architecture.crop)}")
        if not all(map(math.isfinite, self.mean_rgb)):
            raise ValueError(f"no network has mean RGB {self.mean_rgb}")

    @property
    def precision(self) -> str:
        """How products are computed on this processor: fp32, bf16 or int8."""
        if self.int8:
            return "int8"
        return "bf16" if self.bf16 and multiplies_in_bfloat16() else FULL_PRECISION

    def to_json(self) -> str:
        """Return it in ASCII, with sentences for those who use the file without this package."""
        test_scale, crop = middle_scale(self.scale), self.architecture.crop
        side = scale_in_pixels(test_scale, crop)
        height, width = (f"{edge} // {DOWNSAMPLING} - crop // {DOWNSAMPLING} + 1" for edge in "HW")
        preprocessing = {
            "images": "[B, 3, H, W], RGB, float32 in 0..255; the mean is subtracted inside",
            "resize": f"shorter side to {side} pixels, bilinear with antialiasing; no side below {crop}",
            "mirror": "average the posteriors with the mirror image's" if self.flip else "none",
            "logits": "[B, classes], the score map's mean over space; soft-max gives posteriors",
            "score_map": f"[B, classes, {height}, {width}]",
        }
        facts = {**asdict(self), **self.architecture.to_json()}
        del facts["architecture"]
        return json.dumps({**facts, "test_scale": test_scale, "preprocessing": preprocessing})


def metadata_of(model: Model[ScoringNetwork], *, int8: bool, bf16: bool = False) -> Metadata:
    """Return the metadata of a run's model."""
    red, green, blue = model.net.mean_rgb.tolist()
    return Metadata(
        architecture=model.net.architecture,
        mean_rgb=(red, green, blue),
        classes=model.classes,
        scale=model.scale,
        flip=model.flip,
        weights_sha256=model.weights_sha256,
        int8=int8,
        bf16=bf16,
    )


@dataclass(frozen=True, kw_only=True)
class _Format:
    """The fields of metadata of all versions."""

    format: int


@dataclass(frozen=True, kw_only=True)
class _Classes:
    classes: tuple[str, ...]


def from_json(text: str | bytes | None) -> Metadata:
    """Read the text that `to_json` wrote.

    Raises:
        ValueError: there is none, or it is something else.
    """
    if text is None:
        raise ValueError(f"it has no metadata {KEY!r}: verydeep export did not write it")
    try:
        stored = parse_json(text, dict[str, Any])
        if converted(stored, _Format).format > FORMAT:
            raise ValueError("a newer version of verydeep wrote it")
        classes = converted(stored, _Classes).classes
        of_network = {name: value for name, value in stored.items() if name in _OF_ARCHITECTURE}
        return converted({**stored, "architecture": {**of_network, "classes": len(classes)}}, Metadata)
    except ValueError as error:
        raise ValueError(f"its metadata {KEY!r} cannot be read: {error}") from error


SHA256 = f"{KEY}_sha256"
"""Name of the entry, beside the metadata."""

UNSTATED = "0" * 64
"""Placeholder of the SHA-256 while it is computed."""


def _checksum(file: Path, stated: str) -> str:
    """Compute the SHA-256 of a file with zeros in the place of `stated`, its last occurrence: metadata come last.

    Raises:
        ValueError: `stated` is not a SHA-256, or is not in the file.
        OSError: a file cannot be read.
    """
    data = file.read_bytes()
    place = _place(data, stated)
    digest = hashlib.sha256(memoryview(data)[:place])
    digest.update(UNSTATED.encode())
    digest.update(memoryview(data)[place + len(stated) :])
    for beside in files_of(file)[1:]:
        with beside.open("rb") as weights:
            hashlib.file_digest(weights, lambda: digest)
    return digest.hexdigest()


def state_checksum(file: Path) -> None:
    """Write a file's SHA-256 over the zeros in its place."""
    place = _place(file.read_bytes(), UNSTATED)
    value = _checksum(file, UNSTATED)
    with file.open("r+b") as opened:
        opened.seek(place)
        opened.write(value.encode())


def checked_sha256(file: Path, stated: object) -> str:
    """Return the SHA-256 that an exported file states; a damaged one may state something that is not even text.

    Raises:
        ValueError: it states nothing, or another SHA-256, or its weights are not beside it.
        OSError: a file cannot be read.
    """
    for missing in (beside for beside in files_of(file)[1:] if not beside.is_file()):
        raise ValueError(f"there is no {missing.name} beside it")
    if not isinstance(stated, str) or stated != _checksum(file, stated):
        raise ValueError("it has changed since it was exported: its SHA-256 differs")
    return stated


def _place(data: bytes, stated: str) -> int:
    place = data.rfind(stated.encode()) if len(stated) == len(UNSTATED) else -1
    if place < 0:
        raise ValueError("it does not state its SHA-256")
    return place
