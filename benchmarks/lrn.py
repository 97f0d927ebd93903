"""Local response normalisation, forward and backward, against PyTorch's layer: prints JSON.

Both are timed in turn in one run; the figures are medians in milliseconds.

    python benchmarks/lrn.py
"""

import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from verydeep.networks.vgg import LocalResponseNorm

SHAPE = (32, 16, 32, 32)
REPETITIONS = 30


def milliseconds(layer: Callable[[Tensor], Tensor], activations: Tensor) -> float:
    """Return the milliseconds that a forward and a backward pass take."""
    leaf = activations.clone().requires_grad_()
    started = time.perf_counter()
    layer(leaf).sum().backward()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    """Time both layers and print the result."""
    activations = (torch.rand(SHAPE) * 50).to(memory_format=torch.channels_last)
    layers: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": LocalResponseNorm(),
        "library": lambda a: F.local_response_norm(a, 5, alpha=5e-4, beta=0.75, k=2.0),
    }
    times: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(REPETITIONS):
        for name, layer in layers.items():
            times[name].append(milliseconds(layer, activations))
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "shape": SHAPE,
        "repetitions": REPETITIONS,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "milliseconds": medians,
        "ratio": medians["library"] / medians["ours"],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
