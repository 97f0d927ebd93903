"""Gradients of a 3 x 3 convolution's weights in bfloat16 on a CPU, by oneDNN and as one product: prints JSON.

One entry for each number of channels and side of the maps, milliseconds as medians; the two alternate. A ratio above 1
says that the product is faster, which `verydeep/networks/convolution.py` chooses by side and channels.

    python benchmarks/convolutions.py [--batch 32] [--rounds 7] [--threads 1]
"""

import argparse
import json
import statistics
from collections.abc import Callable
from timeit import timeit

import torch
from torch import Tensor

from verydeep.machine.memory import freed_memory_kept
from verydeep.networks.convolution import _gradients_as_products

SHAPES = [(32, 64, 16), (64, 64, 16), (128, 128, 16), (256, 256, 16), (512, 512, 14)] + [
    (inputs, outputs, side)
    for side in (8, 4, 2)
    for inputs, outputs in ((32, 32), (64, 64), (64, 128), (128, 128), (256, 256), (512, 512))
]
"""Inputs, outputs and side of the networks' layers, at quarter to full width and crops from 32 to 224."""


def gradients(batch: int, inputs: int, outputs: int, side: int) -> dict[str, Callable[[], object]]:
    """Return what computes the gradients of weights and biases, by name."""

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape).bfloat16().contiguous(memory_format=torch.channels_last)

    x, gradient = (noise(batch, channels, side, side) for channels in (inputs, outputs))
    weight = noise(outputs, inputs, 3, 3)
    backward = torch.ops.aten.convolution_backward
    ones = [1, 1]
    return {
        "convolution": lambda: backward(
            gradient, x, weight, [outputs], ones, ones, ones, False, [0, 0], 1, (False, True, True)
        ),
        "product": lambda: _gradients_as_products(gradient, x, 3),
    }


def main() -> None:
    """Time all shapes and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    found = []
    with freed_memory_kept():
        for inputs, outputs, side in SHAPES:
            works = gradients(asked.batch, inputs, outputs, side)
            rounds = [
                {name: 1000 * timeit(work, number=1) for name, work in works.items()} for _ in range(1 + asked.rounds)
            ][1:]
            medians = {name: round(statistics.median(one[name] for one in rounds), 3) for name in works}
            ratio = statistics.median(one["convolution"] / one["product"] for one in rounds)
            found.append({"inputs": inputs, "outputs": outputs, "side": side, **medians, "ratio": round(ratio, 2)})
    print(json.dumps({**vars(asked), "shapes": found}, indent=2))


if __name__ == "__main__":
    main()
