"""Formats that a run is exported to, each written and read in the file of its name (needs no other library)."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

from verydeep.machine.runtime import FULL_PRECISION, TestPrecision, multiplies_in_bfloat16

Format = Literal["onnx", "openvino", "ncnn", "torch"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a network is written, and on which images it is checked.

    Raises:
        ValueError: a value out of range, or INT8 and bfloat16 at once.
    """

    int8: bool = False
    """Use 8-bit weights and activations, calibrated on training images: about four times smaller, and faster."""
    precision: TestPrecision = FULL_PRECISION
    """bf16, for openvino: compute products in bfloat16, on processors that multiply in it, which is faster; its cost
    in error is measured."""
    data: str | None = None
    """SOURCE of images to calibrate and check on; by default the one that the run was trained on."""
    max_loss: float = 0.5
    """Percentage points of error that INT8 or bfloat16 may cost; if it costs more, and more than one image, nothing is
    written."""
    check_images: int | None = None
    """Validation images to check on, evenly spread; by default 100, or all of them for INT8 and bfloat16."""

    def __post_init__(self) -> None:
        """Refuse a value out of range."""
        if self.precision not in get_args(TestPrecision):
            raise ValueError(f"precision is one of {', '.join(get_args(TestPrecision))}, not {self.precision}")
        if self.precision == "bf16" and self.int8:
            raise ValueError("a file is in INT8 or in bfloat16: leave out --int8, or --precision bf16")
        if not self.max_loss >= 0:
            raise ValueError(f"max_loss is 0 or more percentage points, not {self.max_loss}")
        if self.check_images is not None and self.check_images < 1:
            raise ValueError(f"check_images must be 1 or more, not {self.check_images}")

    @property
    def reduced(self) -> bool:
        """Whether it computes in less than float32."""
        return self.int8 or self.precision == "bf16"


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """The facts about a format that are known before any work."""

    suffix: str
    libraries: tuple[str, ...] = ()
    """Libraries that writing and checking need."""
    int8_libraries: tuple[str, ...] | None = None
    """Libraries that INT8 needs in addition; None where files are in float32 only."""
    bf16: bool = False
    """Whether its runtime can be told to compute in bfloat16."""
    weights_beside: bool = False
    """Whether the weights are in a file of their own."""
    runtime: str | None = None
    """Library that computes a file; None: PyTorch."""


FORMATS: dict[Format, FileFormat] = {
    "onnx": FileFormat(suffix=".onnx", libraries=("onnx", "onnxruntime"), int8_libraries=(), runtime="onnxruntime"),
    "openvino": FileFormat(
        suffix=".xml",
        libraries=("onnx", "openvino"),
        int8_libraries=("nncf",),
        bf16=True,
        weights_beside=True,
        runtime="openvino",
    ),
    "ncnn": FileFormat(suffix=".ncnn.param", libraries=("ncnn",), weights_beside=True, runtime="ncnn"),
    "torch": FileFormat(suffix=".pt2"),
}


def format_of(file: Path) -> Format | None:
    """Return the format of a file by the end of its name, whatever the file is; None if no format has it."""
    return next((to for to, known in FORMATS.items() if _ends_in(file, known.suffix)), None)


def weights_beside(file: Path) -> Path:
    """Return where the weights of a file are whose format has them beside it."""
    return file.with_suffix(".bin")


def files_of(file: Path) -> tuple[Path, ...]:
    """Return an exported file, and that of its weights if it does not hold them itself."""
    to = format_of(file)
    return (file, weights_beside(file)) if to is not None and FORMATS[to].weights_beside else (file,)


def _ends_in(file: Path, suffix: str) -> bool:
    """Return whether a name ends in this, after something else."""
    return file.name.endswith(suffix) and file.name != suffix


def format_module(to: Format) -> Any:
    """Import the file of a format, which has three functions.

    `write(model, metadata, calibration, file)` writes a file, in INT8 if the metadata say so. `read(file)` returns the
    network, the metadata and the SHA-256 of a file that anybody may have made. `reread(file)` returns the network of a
    file just written, run as other programs run it.
    """
    return import_module(f"verydeep.exported_networks.{to}")


def check_export(to: Format, out: Path, options: ExportOptions) -> None:
    """Refuse an export that is impossible, before any work.

    Raises:
        ValueError: an unknown format, an unusable file, one whose weights would replace another file, or INT8 or
            bfloat16 where there is none.
    """
    if to not in get_args(Format):
        raise ValueError(f"a run is exported to {', '.join(get_args(Format))}, not to {to!r}")
    if not _ends_in(out, FORMATS[to].suffix):
        raise ValueError(f"name a file that ends in {FORMATS[to].suffix}, not {out}")
    if out.is_dir():
        raise ValueError(f"{out} is a folder: give a file name inside it")
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent}")
    for beside in files_of(out)[1:]:
        if beside.is_file() and not out.is_file():
            raise ValueError(f"{beside} is there without {out}, and would be replaced: remove it, or name another file")
    if options.int8 and FORMATS[to].int8_libraries is None:
        there = [name for name, known in FORMATS.items() if known.int8_libraries is not None]
        raise ValueError(f"{to} files are written in float32 only: INT8 goes to {' or '.join(there)}")
    bf16 = options.precision == "bf16"
    if bf16 and not FORMATS[to].bf16:
        there = [name for name, known in FORMATS.items() if known.bf16]
        raise ValueError(f"{to} files cannot say that they are computed in bfloat16: {' or '.join(there)} can")
    if bf16 and not multiplies_in_bfloat16():
        raise ValueError(
            "this processor does not multiply in bfloat16, so the cost in error cannot be measured here: export on one "
            "that does, or leave out --precision bf16"
        )
