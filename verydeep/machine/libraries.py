"""Optional libraries, imported when they are needed, with the extra that installs each."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from verydeep.machine.errors import one_line

EXTRAS = {
    "datasets": "hub",
    "h11": "serve",
    "h5py": "keras",
    "huggingface_hub": "hub",
    "ncnn": "ncnn",
    "nncf": "openvino",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "pillow_heif": "heif",
    "prometheus_client": "serve",
    "pyarrow": "parquet",
    "python_multipart": "serve",
    "ray": "ray",
    "starlette": "serve",
    "uvicorn": "serve",
    "yaml": "yaml",
}
"""The extra that installs each package, as pyproject.toml declares them."""

_TELEMETRY = "openvino_telemetry"


class MissingLibraryError(ValueError):
    """A library that is not installed; the message names the extra."""


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'verydeep[{extra}]'"


def library(name: str, *, needed_by: str = "this", alternative: str = "") -> Any:
    """Import an optional library.

    Args:
        name: a module, such as `onnxruntime` or `onnxruntime.quantization`.
        needed_by: subject of the message, such as `hub:cifar10` or `a Parquet file`.
        alternative: a way without installing it, such as `name a .csv file`.

    Raises:
        MissingLibraryError: it is not installed, or cannot be imported.
    """
    package = name.partition(".")[0]
    try:
        with _without_telemetry():
            return importlib.import_module(name)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name in (package, name)
        reason = "" if absent else f", which cannot be imported ({one_line(error)})"
        remedy = " or ".join(filter(None, (how_to_install(EXTRAS[package]), alternative)))
        raise MissingLibraryError(f"{needed_by} needs the package {package}{reason}: {remedy}") from error


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hide the package by which OpenVINO and NNCF would tell a server that they are imported; both do without it."""
    if _TELEMETRY in sys.modules:
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
