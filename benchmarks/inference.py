"""Classifying crops on a CPU, PyTorch against exported files: prints JSON.

All have the same random weights and see the same batch. They are timed in turn, round by round; figures are medians
over the rounds in milliseconds per image, and ratios are PyTorch's plain time over the other's within a round: above 1
the other is faster. All use as many threads as PyTorch (OMP_NUM_THREADS).

- eager: the network as it is; channels_last: with its weights so; compile: torch.compile of that.
- onnxruntime, openvino: the exported file in float32; with _int8 in 8-bit integers, calibrated on noise, which says
  nothing of accuracy: `verydeep export --int8` measures that.

A library that is missing, or a compiler for torch.compile, is named in `skipped`.

    python benchmarks/inference.py [--network D] [--crop 224] [--batches 1,8] [--rounds 9] [--width 1.0]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed

from verydeep.exported_networks.exported import load_exported, write_exported
from verydeep.machine.libraries import MissingLibraryError
from verydeep.networks.initialisation import vgg
from verydeep.networks.vgg import VGG
from verydeep.runs.model import Model

CALIBRATED = 8
"""Images of noise; speed does not depend on them."""

Classify = Callable[[Tensor], object]


def eager(net: VGG) -> Classify:
    """PyTorch, as one writes it."""
    return torch.inference_mode()(net)


def channels_last(net: VGG) -> Classify:
    """Classify with weights and images in the memory format channels_last."""
    other = net.with_weights({name: value.clone() for name, value in net.state_dict().items()}).eval()
    other = other.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.inference_mode()(lambda images: other(images.contiguous(memory_format=torch.channels_last)))


def compiled(net: VGG) -> Classify:
    """That, compiled."""
    other = net.with_weights({name: value.clone() for name, value in net.state_dict().items()}).eval()
    other = other.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fast = torch.compile(other, dynamic=False)  # each batch size by itself, as it would be used
    return torch.inference_mode()(lambda images: fast(images.contiguous(memory_format=torch.channels_last)))


def exported(net: VGG, to: Any, folder: Path, *, int8: bool) -> Classify:
    """A file of `verydeep export`."""
    model = Model(net=net, classes=tuple(map(str, range(net.architecture.classes))), scale="256", flip=True)
    crop = net.architecture.crop
    noise = [torch.randint(0, 256, (3, crop, crop), dtype=torch.uint8) for _ in range(CALIBRATED)]
    file = folder / f"{'int8' if int8 else 'float32'}{'.xml' if to == 'openvino' else '.onnx'}"
    write_exported(model, file, to=to, calibration=noise if int8 else None)
    return load_exported(file).net


def competitors(net: VGG, folder: Path) -> dict[str, Callable[[], Classify]]:
    """How each is built."""
    return {
        "eager": lambda: eager(net),
        "channels_last": lambda: channels_last(net),
        "compile": lambda: compiled(net),
        "onnxruntime": lambda: exported(net, "onnx", folder, int8=False),
        "openvino": lambda: exported(net, "openvino", folder, int8=False),
        "onnxruntime_int8": lambda: exported(net, "onnx", folder, int8=True),
        "openvino_int8": lambda: exported(net, "openvino", folder, int8=True),
    }


def milliseconds(classify: Classify, images: Tensor) -> float:
    """Per image."""
    started = time.perf_counter()
    classify(images)
    return 1000 * (time.perf_counter() - started) / len(images)


def measure(built: dict[str, Classify], images: Tensor, rounds: int) -> dict[str, dict[str, float]]:
    """All in turn; a first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in built}
    for _ in range(rounds + 1):
        for name, classify in built.items():
            times[name].append(milliseconds(classify, images))
    found = {}
    for name, values in times.items():
        ratios = [plain / other for plain, other in zip(times["eager"][1:], values[1:], strict=True)]
        found[name] = {
            "milliseconds": round(statistics.median(values[1:]), 1),
            "milliseconds_least": round(min(values[1:]), 1),
            "ratio": round(statistics.median(ratios), 2),
            "ratio_least": round(min(ratios), 2),
            "ratio_greatest": round(max(ratios), 2),
        }
    return found


def versions() -> dict[str, str | None]:
    """Return the versions of the libraries."""
    found: dict[str, str | None] = {}
    for name in ("torch", "onnxruntime", "openvino", "nncf"):
        try:
            found[name] = version(name)
        except ImportError:
            found[name] = None
    return found


def main() -> None:
    """Times what the options say, and prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--network", default="D")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.manual_seed(0)
    net = vgg(args.network, crop=args.crop, width=args.width).eval()
    sizes = [int(size) for size in args.batches.split(",")]
    built, skipped = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, build in competitors(net, Path(folder)).items():
            try:
                built[name] = build()
                built[name](torch.zeros(sizes[0], 3, args.crop, args.crop))
            except (MissingLibraryError, BackendCompilerFailed) as error:
                built.pop(name, None)
                skipped[name] = str(error).strip().splitlines()[0]
        batches = {
            str(size): measure(built, torch.rand(size, 3, args.crop, args.crop) * 255, args.rounds) for size in sizes
        }
    result = {
        "network": args.network,
        "crop": args.crop,
        "width": args.width,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "skipped": skipped,
        "batches": batches,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
