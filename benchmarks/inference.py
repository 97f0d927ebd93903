"""Classifying crops on a CPU, PyTorch against exported files: prints JSON.

All have the same random weights and see the same batch. They are timed in turn, round by round; figures are medians
over the rounds in milliseconds per image, and ratios are PyTorch's plain time over the other's within a round: above 1
the other is faster. All use as many threads as PyTorch (OMP_NUM_THREADS).

- eager: the network as it is; channels_last: with its weights in that memory format; compile: the same by
  torch.compile.
- eager_bf16: channels_last under autocast in bfloat16.
- onnxruntime, openvino, ncnn: the exported file in float32; with _int8 in 8-bit integers, calibrated on noise, and with
  _bf16 in bfloat16, which says nothing of accuracy: `verydeep export --int8` and `--precision bf16` measure that.
- pnnx: the network as ncnn's own converter writes it, with ncnn's own options, by which fc6 to fc8 have weights of 16
  bits on some processors; mnn: in float32, as MNN converts it.

bfloat16 only where the processor multiplies in it. A library that is missing, or a compiler for torch.compile, is named
in `skipped`.

    python benchmarks/inference.py [--network D] [--crop 224] [--batches 1,8] [--rounds 9] [--width 1.0]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed

from verydeep.exported_networks.exported import load_exported, write_exported
from verydeep.exported_networks.formats import FORMATS
from verydeep.machine.libraries import MissingLibraryError
from verydeep.machine.runtime import multiplies_in_bfloat16
from verydeep.networks.initialisation import vgg
from verydeep.networks.vgg import VGG
from verydeep.runs.model import Model

CALIBRATED = 8
"""Images of noise; speed does not depend on them."""

ALIKE = 0.5
"""Share of the largest score that scores may be off: INT8 calibrated on noise is far off, another network farther."""

Classify = Callable[[Tensor], object]


def eager(net: VGG) -> Classify:
    """Classify as one writes it in PyTorch."""
    return torch.inference_mode()(net)


def channels_last(net: VGG) -> Classify:
    """Classify with weights and images in the memory format channels_last."""
    other = net.with_weights({name: value.clone() for name, value in net.state_dict().items()}).eval()
    other = other.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.inference_mode()(lambda images: other(images.contiguous(memory_format=torch.channels_last)))


def bfloat16(net: VGG) -> Classify:
    """Classify as `channels_last` does, with products in bfloat16."""
    return torch.autocast("cpu", torch.bfloat16)(channels_last(net))


def by_pnnx(net: VGG, folder: Path) -> Classify:
    """Classify by ncnn as its own converter and options have it, one image after the other: it takes no batches."""
    ncnn, pnnx = import_module("ncnn"), import_module("pnnx")
    crop = net.architecture.crop
    with redirect_stdout(sys.stderr):
        pnnx.export(net, str(folder / "net.pt"), torch.zeros(1, 3, crop, crop), fp16=False)
    network = ncnn.Net()
    network.opt.num_threads = torch.get_num_threads()
    network.load_param(str(folder / "net.ncnn.param"))
    network.load_model(str(folder / "net.ncnn.bin"))

    def classify(images: Tensor) -> Tensor:
        scores = []
        for image in images.numpy():
            with network.create_extractor() as extractor:
                extractor.input("in0", ncnn.Mat(image).clone())
                scores.append(torch.from_numpy(np.array(extractor.extract("out0")[1])))
        return torch.stack(scores)

    return classify


def by_mnn(net: VGG, folder: Path) -> Classify:
    """Classify by MNN, from the exported ONNX file by its own converter."""
    mnn = import_module("MNN")
    exported(net, "onnx", folder)
    command = [sys.executable, "-m", "MNN.tools.mnnconvert", "-f", "ONNX", "--modelFile", folder / "fp32.onnx"]
    # It would install a package, with older versions of others that are here, and report its use by it.
    (folder / "aliyun" / "log").mkdir(parents=True)
    (folder / "aliyun" / "log" / "__init__.py").write_text("LogClient = PutLogsRequest = None")
    (folder / "aliyun" / "log" / "logitem.py").write_text("LogItem = None")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    unreported = {**os.environ, "PYTHONPATH": path, "https_proxy": "http://127.0.0.1:9"}
    subprocess.run([*command, "--MNNModel", folder / "net.mnn"], check=True, stdout=sys.stderr, env=unreported)
    runtime = mnn.nn.create_runtime_manager(({"backend": "CPU", "numThread": torch.get_num_threads()},))
    module = mnn.nn.load_module_from_file(str(folder / "net.mnn"), ["images"], ["logits"], runtime_manager=runtime)

    def classify(images: Tensor) -> Tensor:
        given = mnn.expr.const(images.numpy(), list(images.shape), mnn.expr.NCHW)
        return torch.from_numpy(module.forward(given).read().copy())

    return classify


def compiled(net: VGG) -> Classify:
    """Classify as `channels_last` does, compiled."""
    other = net.with_weights({name: value.clone() for name, value in net.state_dict().items()}).eval()
    other = other.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fast = torch.compile(other, dynamic=False)  # compiled for each batch size, as it would be used
    return torch.inference_mode()(lambda images: fast(images.contiguous(memory_format=torch.channels_last)))


def exported(net: VGG, to: Any, folder: Path, kind: str = "fp32") -> Classify:
    """Classify by a file of `verydeep export`."""
    model = Model(net=net, classes=tuple(map(str, range(net.architecture.classes))), scale="256", flip=True)
    crop = net.architecture.crop
    noise = [torch.randint(0, 256, (3, crop, crop), dtype=torch.uint8) for _ in range(CALIBRATED)]
    file = folder / f"{kind}{FORMATS[to].suffix}"
    write_exported(model, file, to=to, calibration=noise if kind == "int8" else None, bf16=kind == "bf16")
    return load_exported(file).net


def competitors(net: VGG, folder: Path) -> dict[str, Callable[[], Classify]]:
    """Return the competitors, each with a function that builds it."""
    found: dict[str, Callable[[], Classify]] = {
        "eager": lambda: eager(net),
        "channels_last": lambda: channels_last(net),
        "compile": lambda: compiled(net),
        "onnxruntime": lambda: exported(net, "onnx", folder),
        "openvino": lambda: exported(net, "openvino", folder),
        "onnxruntime_int8": lambda: exported(net, "onnx", folder, "int8"),
        "openvino_int8": lambda: exported(net, "openvino", folder, "int8"),
        "ncnn": lambda: exported(net, "ncnn", folder),
        "pnnx": lambda: by_pnnx(net, folder),
        "mnn": lambda: by_mnn(net, folder),
    }
    if multiplies_in_bfloat16():
        found["eager_bf16"] = lambda: bfloat16(net)
        found["openvino_bf16"] = lambda: exported(net, "openvino", folder, "bf16")
    return found


def checked(name: str, classify: Classify, expected: Tensor, images: Tensor) -> None:
    """Refuse a competitor that computes something else."""
    scores = torch.as_tensor(classify(images)).float().reshape(expected.shape)
    if not (scores - expected).abs().max() < ALIKE * expected.abs().max():
        raise SystemExit(f"the scores of {name} differ from PyTorch's")


def milliseconds(classify: Classify, images: Tensor) -> float:
    """Return the milliseconds that an image takes."""
    started = time.perf_counter()
    classify(images)
    return 1000 * (time.perf_counter() - started) / len(images)


def measure(built: dict[str, Classify], images: Tensor, rounds: int) -> dict[str, dict[str, float]]:
    """Time all in turn; a first round is not counted."""
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
    for name in ("torch", "onnxruntime", "openvino", "nncf", "ncnn", "pnnx", "MNN"):
        try:
            found[name] = version(name)
        except ImportError:
            found[name] = None
    return found


def main() -> None:
    """Time what the options say, and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--network", default="D")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.manual_seed(0)
    net = vgg(args.network, crop=args.crop, width=args.width).eval()
    images = torch.rand(2, 3, args.crop, args.crop) * 255
    with torch.inference_mode():
        expected = net(images)
    sizes = [int(size) for size in args.batches.split(",")]
    built, skipped = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, build in competitors(net, Path(folder)).items():
            try:
                built[name] = build()
                checked(name, built[name], expected, images)
            except (MissingLibraryError, ModuleNotFoundError, BackendCompilerFailed) as error:
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
