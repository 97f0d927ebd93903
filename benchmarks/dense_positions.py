"""What a dense position sees that a crop does not: dense evaluation beside the crops of its positions, prints JSON.

A position of the score map covers the same pixels as the crop that lies there. But in the crop the convolutions see
zeros beyond its edge, as in training, and in the whole image what is there. Both are averaged before the soft-max, at
the same Q and without mirror images, so that nothing else differs. Errors are on images that an experiment held out
of its training images (`verydeep reproduce --steer held-out`), so that no test image is looked at for it.

    python benchmarks/dense_positions.py EXPERIMENT SOURCE [--seed 0] [--trainings A-256,E-384]

EXPERIMENT is the folder that `verydeep reproduce` wrote, with its runs; SOURCE is what it was trained on.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from verydeep.evaluation.dense import score_map
from verydeep.images.rescaled import rescaled_images
from verydeep.networks.architecture import DOWNSAMPLING
from verydeep.networks.grids import first_pixel
from verydeep.networks.scales import middle_scale, scale_in_pixels
from verydeep.networks.vgg import VGG
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.steering import open_for_experiment
from verydeep.runs.model import load_model
from verydeep.statistics import paired_comparison

TRAININGS = "A-256,B-256,D-256,E-256,C-384,D-384,E-384,C-256-512,D-256-512,E-256-512"


@torch.inference_mode()
def of_crops(net: VGG, image: Tensor) -> Tensor:
    """Return the mean score [K] of the crops at the positions of an image's score map."""
    crop, (height, width) = net.architecture.crop, image.shape[1:]
    rows, columns = (range(first_pixel(side, "centred"), side - crop + 1, DOWNSAMPLING) for side in (height, width))
    crops = [image[:, top : top + crop, left : left + crop] for top in rows for left in columns]
    return net(torch.stack(crops)).mean(dim=0)


def errors(net: VGG, images: Sequence[tuple[int, Tensor]], labels: Sequence[int]) -> dict[str, object]:
    """Return the errors of both on these images, and how they differ."""
    wrong: dict[str, list[bool]] = {"dense": [], "crops": []}
    positions = []
    for index, image in images:
        dense = score_map(net, image[None])[0]
        positions.append(dense[0].numel())
        for name, scores in {"dense": dense.mean(dim=(1, 2)), "crops": of_crops(net, image)}.items():
            wrong[name].append(int(scores.argmax()) != labels[index])
    paired = paired_comparison("dense", "crops", np.array(wrong["dense"]), np.array(wrong["crops"]))
    return {
        "images": paired.n,
        "positions": float(np.mean(positions)),
        **{name: 100 * float(np.mean(which)) for name, which in wrong.items()},
        "difference": paired.difference,
        "difference_ci95": paired.difference_ci95,
    }


def main() -> None:
    """Test what the options say, and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("experiment", type=Path)
    parser.add_argument("source")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trainings", default=TRAININGS)
    args = parser.parse_args()
    splits, _ = open_for_experiment(args.source, Grid(), args.experiment)
    held_out = splits.source("val")
    found = {}
    for name in args.trainings.split(","):
        model = load_model(args.experiment / "runs" / f"seed-{args.seed}" / name)
        net = model.net.eval()
        side = scale_in_pixels(middle_scale(model.scale), net.architecture.crop)
        images = [(index, image) for index, image in rescaled_images(held_out, side) if isinstance(image, Tensor)]
        found[name] = {"side": side, **errors(net, images, held_out.labels)}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
