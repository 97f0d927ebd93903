"""From JPEG bytes to training crops on one core, against plain Pillow: prints JSON.

Plain Pillow decodes the whole image, resizes it (bilinear, antialiased) to shorter side S and crops 224 x 224 at
random. Both see the same bytes in memory and are timed in turn, pass by pass; figures are medians over the passes. Also
measured: how far the pixels are from those of plain Pillow, for the same S and place, in grey levels; and batches of
crops of 64 x 64 as a training has them, in its first epoch and in the later ones, whose images are kept decoded.

    python benchmarks/loading.py IMAGES [PASSES]

IMAGES is a folder of photographs, or a tar file of them.
"""

import io
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import torch
from photographs import photographs_in  # beside this file
from PIL import Image

from verydeep.images.crops import TrainingView, training_crop
from verydeep.images.decode import Pixels, decode_for
from verydeep.images.loader import training_batches
from verydeep.images.rescaled import RescaledImages
from verydeep.images.sources.source import Source
from verydeep.images.views import random_location, random_scale, rescaled_crop
from verydeep.networks.scales import scale_in_pixels

CROP = 224
SCALES = {"S = 256": (256, 256), "S in [256;512]": (256, 512)}
SMALL_CROP, BATCH = 64, 32
PASSES = 15


def plain(data: bytes, scale: int, place: Callable[[tuple[int, int]], tuple[int, int]]) -> Pixels:
    """Rescale and crop with Pillow alone."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = (round(side * scale / min(image.size)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    top, left = place((height, width))
    return np.asarray(image.crop((left, top, left + CROP, top + CROP)))


def seconds(work: Callable[[int], object], images: int) -> float:
    """Return the seconds that one pass over all images takes."""
    started = time.perf_counter()
    for index in range(images):
        work(index)
    return time.perf_counter() - started


def speed(source: Source, scale: tuple[int, int], passes: int) -> dict[str, float]:
    """Return the images per second of both, and how many times as fast as plain Pillow ours is."""
    components = np.diag([20.0, 5.0, 1.0])
    view = TrainingView(crop=CROP, scale=scale, flip=True, colour_sd=0.1, colour_components=components)
    images = RescaledImages(source, memory=0)  # an image that is remembered says nothing about decoding
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for epoch in range(passes):
        rng = np.random.default_rng(epoch)

        def pillow(index: int, rng: np.random.Generator = rng) -> Pixels:
            return plain(source[index].data, random_scale(*scale, rng), lambda size: random_location(size, CROP, rng))

        times["plain"].append(seconds(pillow, len(source)))
        times["ours"].append(seconds(lambda i, e=epoch: training_crop(images, i, view, seed=0, epoch=e), len(source)))
    ratios = [slow / fast for slow, fast in zip(times["plain"], times["ours"], strict=True)]
    return {
        "plain_images_per_second": round(len(source) / statistics.median(times["plain"]), 1),
        "ours_images_per_second": round(len(source) / statistics.median(times["ours"]), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_least": round(min(ratios), 2),
        "ratio_greatest": round(max(ratios), 2),
    }


def epochs(source: Source, scale: tuple[int, int], passes: int) -> dict[str, float]:
    """Return the images per second of the loader alone, in the first epoch and, by their median, in the later ones."""
    low, high = (scale_in_pixels(side, SMALL_CROP) for side in scale)
    view = TrainingView(crop=SMALL_CROP, scale=(low, high), flip=True, colour_sd=0.1, colour_components=np.eye(3))
    batches = training_batches(source, view, batch=BATCH, epochs=passes, seed=0)
    taken = []
    for _ in range(passes):
        started = time.perf_counter()
        for _ in itertools.islice(batches, math.ceil(len(source) / BATCH)):
            pass
        taken.append(time.perf_counter() - started)
    return {
        "first_images_per_second": round(len(source) / taken[0], 1),
        "later_images_per_second": round(len(source) / statistics.median(taken[1:]), 1),
    }


def difference(source: Source, scale: tuple[int, int]) -> dict[str, float | int | None]:
    """Return how far the pixels are from plain Pillow's, and how many images were decoded too small (none)."""
    everything, unshrunk, too_small, reduced = [], [], 0, 0
    rng = np.random.default_rng(0)
    for data, _, name in source:
        side = random_scale(*scale, rng)
        decoded = decode_for(data, name, shorter_side=side)
        too_small += min(decoded.size) / decoded.reduction < min(side, min(decoded.size))
        reduced += decoded.reduction > 1
        places: list[tuple[int, int]] = []

        def place(size: tuple[int, int], places: list[tuple[int, int]] = places) -> tuple[int, int]:
            places.append(random_location(size, CROP, rng))
            return places[-1]

        exact = plain(data, side, place)
        found = rescaled_crop(decoded, side, CROP, top=places[0][0], left=places[0][1])
        everything.append(float(np.abs(found.astype(int) - exact).mean()))
        if min(decoded.size) <= side:
            unshrunk.append(everything[-1])
    return {
        "images": len(everything),
        "mean_grey_levels": round(statistics.mean(everything), 3),
        "greatest_of_an_image": round(max(everything), 3),
        "not_shrunk_images": len(unshrunk),
        "not_shrunk_mean_grey_levels": round(statistics.mean(unshrunk), 3) if unshrunk else None,
        "decoded_at_a_half_or_less": reduced,
        "decoded_below_the_size_needed": too_small,
    }


def main() -> None:
    """Time both, compare their pixels, and print the result."""
    source, passes = photographs_in(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else PASSES
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    result = {
        "images": len(source),
        "crop": CROP,
        "passes": passes,
        "pillow": PIL.__version__,
        "torch": torch.__version__,
        "speed": {name: speed(source, scale, passes) for name, scale in SCALES.items()},
        "small_crops": {name: epochs(source, scale, passes) for name, scale in SCALES.items()},
        "difference": {name: difference(source, scale) for name, scale in SCALES.items()},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
