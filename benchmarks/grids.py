"""Errors of dense evaluation on the three grids of positions, on the same images, and how they differ.

    python benchmarks/grids.py RUN --data SOURCE --out grids.json

Every run is tested at one scale and at several, on each grid; a grid is compared with the centred one image by image.
Images whose sides are multiples of 32 at every Q, as squares are at crop 224 and the paper's Q, are the same on all
grids: the count of others is printed too.
"""

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from verydeep import Evaluation, Runtime, compare, evaluate
from verydeep.evaluation.protocols import Scales
from verydeep.networks.grids import PoolingGrid


def main() -> None:
    """Test, print a line for each grid, and write all figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", required=True, help="SOURCE, as for verydeep evaluate")
    parser.add_argument("--split")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runtime = Runtime(device=arguments.device, workers=arguments.workers)
    found = []
    for run in arguments.runs:
        for scales in get_args(Scales):
            options = {"data": arguments.data, "split": arguments.split, "scales": scales, "runtime": runtime}
            tests = {grid: evaluate(run, grid=grid, **options) for grid in get_args(PoolingGrid)}
            found += [_figures(run, grid, tests) for grid in tests]
    if arguments.out:
        figures = {"machine": platform.processor() or platform.machine(), "data": arguments.data, "results": found}
        arguments.out.write_text(json.dumps(figures, indent=1))


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
