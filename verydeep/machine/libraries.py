"""The optional libraries of exporting and of exported files, imported when they are needed."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "openvino": "openvino", "nncf": "openvino"}

TELEMETRY = "openvino_telemetry"


class MissingLibraryError(ValueError):
    """It is not installed; the message names the extra."""


def library(name: str) -> Any:
    """A module such as `onnxruntime` or `onnxruntime.quantization`.

    Raises:
        MissingLibraryError: it is not installed.
    """
    package = name.partition(".")[0]
    try:
        with _without_telemetry():
            return importlib.import_module(name)
    except ImportError as error:
        told = f"{package} is missing ({error}): pip install 'verydeep[{EXTRAS[package]}]'"
        raise MissingLibraryError(told) from error


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """OpenVINO and NNCF would tell a server that they are imported; they do without where that package is missing."""
    if TELEMETRY in sys.modules:
        yield
        return
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]
