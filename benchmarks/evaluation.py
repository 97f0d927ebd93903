"""Speed of the protocols: prints JSON.

- dense_against_crops: one photograph at Q by 50 crops and densely, both with their mirror images; how many times as
  long the crops take, per image. Timed in turn, image by image; the median over the images.
- photographs: from bytes to posteriors, densely at Q, against the loop that one would write in PyTorch: open with
  Pillow, rescale, image and mirror through the network with its fully connected layers as convolutions, average,
  soft-max. The photographs are dealt out to the passes; in each pass both have the same ones, in turn. A ratio above 1
  says that ours is faster. Ours in bfloat16 too, and on CUDA with processes that decode (`--workers`).

    python benchmarks/evaluation.py PHOTOGRAPHS [--network D] [--crop 224] [--scale 256] [--device cuda] [--passes 5]

PHOTOGRAPHS is a folder, or a tar file. Weights are random; networks have 1,000 classes.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photographs import photographs_in, source_of  # beside this file, as `training` is
from PIL import Image
from torch import Tensor, nn
from training import plain_layer

from verydeep.evaluation.bfloat16 import BFloat16Network
from verydeep.evaluation.crops import crop_posteriors
from verydeep.evaluation.dense import dense_posteriors
from verydeep.evaluation.pixel_limits import pixel_limits
from verydeep.evaluation.posteriors import posteriors
from verydeep.evaluation.protocols import Protocol
from verydeep.images.rescaled import rescaled_images
from verydeep.images.sources.source import Source
from verydeep.machine.runtime import torch_device
from verydeep.networks.initialisation import vgg
from verydeep.networks.scales import scale_in_pixels
from verydeep.networks.vgg import VGG

CROPPED = 5
"""Photographs that are also tested by crops; each takes many seconds on a CPU."""


def convolutional_network(net: VGG) -> nn.Sequential:
    """Return PyTorch's layers with the weights of `net`, the fully connected ones as convolutions."""
    modules = [
        nn.Conv2d(layer.inputs, layer.outputs, layer.kernel) if layer.kind == "linear" else plain_layer(layer)
        for layer in net.architecture.layers()
    ]
    plain = nn.Sequential(*modules).eval()
    with torch.inference_mode():
        for theirs, ours in zip(plain.parameters(), net.parameters(), strict=True):
            theirs.copy_(ours.view_as(theirs))
        images = torch.randint(0, 256, (1, 3, net.architecture.crop + 32, net.architecture.crop + 64)).float()
        expected, found = net.score_map(images), plain(images - net.mean_rgb[:, None, None])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    return plain


def plain_loop(net: nn.Module, mean: Tensor, source: Source, side: int) -> Tensor:
    """Return posteriors [N, classes] as a plain loop computes them."""
    found = []
    with torch.inference_mode():
        for data, _, _ in source:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            width, height = (round(length * side / min(image.size)) for length in image.size)
            pixels = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(mean.device).float() - mean
            scores = net(torch.cat([x, x.flip(-1)])).mean(dim=(2, 3))
            found.append(scores.softmax(dim=1).mean(dim=0).cpu())
    return torch.stack(found)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes; it ends with its result on the CPU."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def dense_against_crops(net: VGG, source: Source, side: int, device: torch.device) -> dict[str, float]:
    """Return the milliseconds that both take for an image, and the ratio."""
    limits = pixel_limits([net])
    dense, crops = [], []
    for turn, (_, image) in enumerate(rescaled_images(source, side)):
        if not isinstance(image, Tensor):
            continue
        if not turn:
            dense_posteriors(net, image[None], mirror=True, limits=limits)  # the first call of all is slower
        images = image[None].to(device)
        dense.append(seconds(lambda images=images: dense_posteriors(net, images, mirror=True, limits=limits)))
        crops.append(seconds(lambda images=images: crop_posteriors(net, images, mirror=True, limits=limits)))
    return {
        "images": len(dense),
        "dense_ms": round(1000 * statistics.median(dense), 1),
        "crops_ms": round(1000 * statistics.median(crops), 1),
        **ratios([slow / fast for slow, fast in zip(crops, dense, strict=True)]),
    }


def photographs(net: VGG, plain: nn.Module, source: Source, args: argparse.Namespace) -> dict[str, Any]:
    """Return the images per second of both, and the ratio; `--workers` is for ours alone."""
    protocol, side = Protocol(scales=(args.scale,)), scale_in_pixels(args.scale, net.architecture.crop)
    mean = net.mean_rgb[:, None, None]
    samples = list(source)
    shares = [source_of(samples[turn :: args.passes]) for turn in range(args.passes)]
    first = source_of(samples[:2])
    rounded = BFloat16Network(net)
    plain_loop(plain, mean, first, side), posteriors(net, first, protocol), posteriors(rounded, first, protocol)
    times: dict[str, list[float]] = {
        "plain": [],
        "ours": [],
        "ours_in_bfloat16": [],
        **({"ours_with_workers": []} if args.workers else {}),
    }
    for share in shares:
        times["plain"].append(seconds(lambda share=share: plain_loop(plain, mean, share, side)) / len(share))
        times["ours"].append(seconds(lambda share=share: posteriors(net, share, protocol)) / len(share))
        times["ours_in_bfloat16"].append(seconds(lambda share=share: posteriors(rounded, share, protocol)) / len(share))
        if args.workers:
            work = lambda share=share: posteriors(net, share, protocol, workers=args.workers)  # noqa: E731
            times["ours_with_workers"].append(seconds(work) / len(share))
    found: dict[str, Any] = {"images": len(source), "passes": len(shares)}
    for name, values in times.items():
        found[f"{name}_images_per_second"] = round(1 / statistics.median(values), 2)
    for name in list(times)[1:]:
        found[name] = ratios([slow / fast for slow, fast in zip(times["plain"], times[name], strict=True)])
    return found


def ratios(values: Sequence[float]) -> dict[str, float]:
    """Return the median of some ratios, the least and the greatest."""
    return {
        "ratio": round(statistics.median(values), 2),
        "ratio_least": round(min(values), 2),
        "ratio_greatest": round(max(values), 2),
    }


def main() -> None:
    """Time what the options say, and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--network", default="D")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--scale", type=int, default=256, help="Q, for a crop of 224")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--passes", type=int, default=5)
    args = parser.parse_args()
    source, device = photographs_in(args.photographs), torch_device(args.device)
    torch.manual_seed(0)
    net = vgg(args.network, crop=args.crop).eval()
    plain = convolutional_network(net).to(device)
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = scale_in_pixels(args.scale, args.crop)
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "network": args.network,
        "crop": args.crop,
        "scale": args.scale,
        "dense_against_crops": dense_against_crops(net, source_of(list(source)[:CROPPED]), side, device),
        "photographs": photographs(net, plain, source, args),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
