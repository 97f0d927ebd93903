"""The three grids of positions of dense evaluation on the same images: errors, or scores and features alone.

    python benchmarks/grids.py RUN --data SOURCE --out grids.json
    python benchmarks/grids.py RUN --photographs FOLDER --first 40 --out grids.json
    python benchmarks/grids.py --random D --photographs FOLDER --first 40 --out grids.json

With --data every run is tested at one scale and at several, on each grid; a grid is compared with the centred one image
by image. Images whose sides are multiples of 32 at every Q, as squares are at crop 224 and the paper's Q, are the same
on all grids: the count of others is printed too.

With --photographs, which need no labels, `pool5`, fc7 and the class scores are averaged over the positions of each
grid, and their distance from those of the centred grid is told in units of the median distance between two
photographs, so that 1 would take one photograph for another. A RUN may be imported. --random takes a network of Table 1
with random weights (Glorot, full width, crop 224, 1,000 classes): it shows how far positions move what is computed, and
nothing of errors.
"""

import argparse
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from scipy.spatial.distance import pdist

from verydeep import VGG, Evaluation, Runtime, compare, evaluate, load, vgg
from verydeep.evaluation.protocols import Scales
from verydeep.images.decode import decode_for
from verydeep.images.views import rescale
from verydeep.networks.grids import PoolingGrid
from verydeep.networks.scales import scale_in_pixels

_SCALES = 224, 256, 288, 384
"""Test scales: the three of S = 256, and S = 384 itself."""

_LAYERS = {"pool5": "pool5", "relu7": "fc7", "fc8": "class scores"}


def main() -> None:
    """Test or compare, print a line for each grid, and write all figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--random", action="append", default=[], metavar="NETWORK")
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--data", help="SOURCE, as for verydeep evaluate")
    images.add_argument("--photographs", type=Path, help="folder of JPEG files of any size")
    parser.add_argument("--first", type=int, help="how many of the photographs, spread over all")
    parser.add_argument("--split")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not arguments.runs and not (arguments.random and arguments.photographs):
        parser.error("name a RUN, or with --photographs a network after --random")
    found = _compared(arguments) if arguments.photographs else _tested(arguments)
    if arguments.out:
        used = str(arguments.data or arguments.photographs)
        figures = {"machine": platform.processor() or platform.machine(), "data": used, "results": found}
        arguments.out.write_text(json.dumps(figures, indent=1))


def _tested(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the errors of every run on each grid."""
    runtime = Runtime(device=arguments.device, workers=arguments.workers)
    found = []
    for run in arguments.runs:
        for scales in get_args(Scales):
            options = {"data": arguments.data, "split": arguments.split, "scales": scales, "runtime": runtime}
            tests = {grid: evaluate(run, grid=grid, **options) for grid in get_args(PoolingGrid)}
            found += [_figures(run, grid, tests) for grid in tests]
    return found


def _compared(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return for every network, Q and layer how far the grids are from the centred one."""
    files = sorted(file for file in arguments.photographs.iterdir() if file.suffix.lower() in (".jpeg", ".jpg"))
    count = min(arguments.first or len(files), len(files))
    files = [files[place] for place in np.linspace(0, len(files) - 1, count).astype(int)]
    found = []
    for name, net in _networks(arguments):
        for q in _SCALES:
            side = scale_in_pixels(q, net.architecture.crop)
            of_images = [_of_image(net, file, side) for file in files]
            for layer, words in _LAYERS.items():
                for grid in ("floor", "ceil"):
                    found.append(_distances(f"{name}, Q = {q}, {words}", [one[layer] for one in of_images], grid))
    return found


def _networks(arguments: argparse.Namespace) -> Iterator[tuple[str, VGG]]:
    for run in arguments.runs:
        yield run.name, load(run).eval()
    for name in arguments.random:
        torch.manual_seed(0)
        yield f"{name} with random weights", vgg(name).eval()


@torch.inference_mode()
def _of_image(net: VGG, file: Path, side: int) -> dict[str, dict[str, np.ndarray]]:
    """Return each layer's mean over the positions of every grid, [C]."""
    pixels = rescale(decode_for(file.read_bytes(), file.name, shorter_side=side), side)
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float()
    maps = {grid: net.activations(image, _LAYERS, dense=True, grid=grid) for grid in get_args(PoolingGrid)}
    return {
        layer: {grid: its[layer].mean(dim=(2, 3))[0].double().numpy() for grid, its in maps.items()}
        for layer in _LAYERS
    }


def _distances(what: str, of_images: Sequence[dict[str, np.ndarray]], grid: str) -> dict[str, Any]:
    """Print how far one grid is from the centred one, and return the figures."""
    centred = np.stack([one["centred"] for one in of_images])
    apart = np.linalg.norm(np.stack([one[grid] for one in of_images]) - centred, axis=1)
    apart = apart / np.median(pdist(centred))
    median, ninth, most = np.percentile(apart, [50, 90, 100])
    print(
        f"{what}, {grid}: {median:.3f} of the distance between two photographs (median; 90% below {ninth:.3f}, most "
        f"{most:.3f}); {int((apart > 0).sum())} of {len(apart)} differ",
        flush=True,
    )
    return {"what": what, "grid": grid, "apart": apart.tolist()}


def _figures(run: Path, grid: str, tests: dict[str, Evaluation]) -> dict[str, Any]:
    """Print one test beside the one on the centred grid, and return its figures."""
    test, centred = tests[grid], tests["centred"]
    other = int((test.images.posteriors != centred.images.posteriors).any(axis=1).sum())
    low, high = test.top1_error_ci95
    line = (
        f"{run.name}, Q = {', '.join(map(str, test.scales))}, {grid}: {test.top1_error:.1f}% ({low:.1f} to {high:.1f})"
    )
    if grid == "centred":
        print(f"{line} of {test.n:,} images", flush=True)
        return {"run": str(run), "grid": grid, "errors": asdict(test.fused)}
    against = compare(test, centred)
    low, high = against.difference_ci95
    print(
        f"{line}; minus centred {against.difference:+.2f} points ({low:+.2f} to {high:+.2f}), p {against.p_value:.2g}; "
        f"{other:,} images with other posteriors",
        flush=True,
    )
    return {
        "run": str(run),
        "grid": grid,
        "errors": asdict(test.fused),
        "other_posteriors": other,
        "minus_centred": against.to_dict(),
    }


if __name__ == "__main__":
    main()
