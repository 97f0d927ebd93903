"""What a dense position sees that a crop does not: dense evaluation beside the crops of its positions, prints JSON.

A position of the score map covers the same pixels as the crop that lies there. But in the crop the convolutions see
zeros beyond its edge, as in training, and in the whole image what is there. Both are averaged before the soft-max, at
the same Q and without mirror images, so that nothing else differs; at several scales posteriors are averaged, as in
evaluation, which shows what several scales are worth without that difference. Errors are on images that an experiment
held out of its training images (`verydeep reproduce --steer held-out`), so that no test image is looked at for it.

    python benchmarks/dense_positions.py EXPERIMENT SOURCE [--seed 0] [--trainings A-256,E-384]

EXPERIMENT is the folder that `verydeep reproduce` wrote, with its runs; SOURCE is what it was trained on.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from verydeep.evaluation.dense import score_map
from verydeep.evaluation.protocols import chosen_scales
from verydeep.images.rescaled import rescaled_images
from verydeep.images.sources.source import Source
from verydeep.networks.architecture import DOWNSAMPLING
from verydeep.networks.grids import first_pixel
from verydeep.networks.scales import scale_in_pixels
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


@torch.inference_mode()
def posteriors(net: VGG, source: Source, side: int) -> tuple[dict[str, Tensor], float]:
    """Return the posteriors [N, K] of both, images with their shorter side at `side`, and the mean of the positions."""
    found: dict[str, list[Tensor]] = {"dense": [], "crops": []}
    positions = []
    for _, image in rescaled_images(source, side):
        if isinstance(image, Tensor):
            dense = score_map(net, image[None])[0]
            positions.append(dense[0].numel())
            found["dense"].append(dense.mean(dim=(1, 2)).softmax(dim=0))
            found["crops"].append(of_crops(net, image).softmax(dim=0))
    return {name: torch.stack(rows) for name, rows in found.items()}, float(np.mean(positions))


def compared(found: dict[str, Tensor], labels: Tensor) -> dict[str, object]:
    """Return the errors of both in percent, and how they differ."""
    wrong = {name: (rows.argmax(dim=1) != labels).numpy() for name, rows in found.items()}
    paired = paired_comparison("dense", "crops", wrong["dense"], wrong["crops"])
    errors = {name: 100 * float(which.mean()) for name, which in wrong.items()}
    return {**errors, "difference": paired.difference, "difference_ci95": paired.difference_ci95}


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
        one, several = (chosen_scales(word, trained=model.scale) for word in ("single", "paper"))
        crop, labels = net.architecture.crop, torch.tensor(held_out.labels)
        of_scales = {scale: posteriors(net, held_out, scale_in_pixels(scale, crop)) for scale in several}
        ((middle, positions),) = (of_scales[scale] for scale in one)
        averaged = {name: torch.stack([rows[name] for rows, _ in of_scales.values()]).mean(dim=0) for name in middle}
        found[name] = {
            "images": len(labels),
            "positions": positions,
            "one": {"scales": one, **compared(middle, labels)},
            "several": {"scales": several, **compared(averaged, labels)},
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
