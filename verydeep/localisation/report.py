"""One test of boxes as a self-contained HTML page: errors beside the paper's, examples with boxes, and its tables."""

from pathlib import Path
from typing import Any

import numpy as np

from verydeep.evaluation.pictures import data_address, fitted, places
from verydeep.images.boxes.geometry import CORRECT_IOU
from verydeep.images.decode import decode
from verydeep.images.sources.open import open_for_testing
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import LARGEST_MAX_PIXELS
from verydeep.localisation.box_pictures import with_boxes_drawn
from verydeep.localisation.paper import TABLE_8, TABLE_9, TABLE_10
from verydeep.localisation.results import Localisation
from verydeep.networks.configurations import DOWNSAMPLING
from verydeep.presentation.pages import shared_folder, write_page
from verydeep.presentation.progress import reporting
from verydeep.runs.record import command, versions

HTML, RESULTS = "localisation.html", "localisation.json"

WRONG_IMAGES, RIGHT_IMAGES, LISTED = 12, 12, 20
"""Shown at most."""

_SEED = 0
"""Of the choice of right images."""


def write_localisation_report(found: Localisation, folder: str | Path, *, data: str) -> Path:
    """Writes localisation.html and localisation.json into `folder`, which is made if missing; returns the page's path.

    Args:
        found: what `evaluate_boxes` gave.
        folder: of the two files.
        data: what `evaluate_boxes` was given; images are read from it once more.

    Raises:
        ValueError: `data` is not what was tested.
        UnusableImageError: an image can no longer be used.
        OSError: the files cannot be written.
    """
    source = open_for_testing(data, found.images.classes).part(found.split)
    folder_of_runs = shared_folder(found.runs)
    values = {
        "found": found,
        "shown": _examples(found, source),
        "table_8": TABLE_8,
        "table_9": TABLE_9,
        "table_10": TABLE_10,
        "left_out": list(found.check.left_out.items())[:LISTED],
        "unusable": list(found.unusable.items())[:LISTED],
        "folder": folder_of_runs,
        "networks": sorted({one.network for one in found.simplified}),
        "stride": DOWNSAMPLING,
        "command": command(),
        "versions": versions(),
    }
    return write_page(
        Path(folder),
        f"localisation/{HTML}",
        values,
        beside={RESULTS: found.to_dict()},
        short=lambda name: name.removeprefix(folder_of_runs),
    )


def _examples(found: Localisation, source: Source) -> dict[str, Any]:
    """The first run's images with the least overlap, and some of the right ones."""
    overlaps = found.images.overlaps[0]
    order = np.argsort(overlaps, kind="stable")
    wrong = order[overlaps[order] <= CORRECT_IOU]
    right = np.random.default_rng(_SEED).permutation(order[overlaps[order] > CORRECT_IOU])
    chosen = {"wrong": wrong[:WRONG_IMAGES].tolist(), "right": np.sort(right[:RIGHT_IMAGES]).tolist()}
    where = places(source, found.images.ids)
    with reporting("draw boxes", total=sum(map(len, chosen.values()))) as report:
        drawn: dict[str, list[dict[str, Any]]] = {kind: [] for kind in chosen}
        for kind, indices in chosen.items():
            for index in indices:
                drawn[kind].append(_example(found, source, where[index], index))
                report.advance()
    return drawn


def _example(found: Localisation, source: Source, place: int, index: int) -> dict[str, Any]:
    sample, images = source[place], found.images
    image = decode(sample.data, sample.id, max_pixels=LARGEST_MAX_PIXELS)
    small = fitted(image)
    factors = np.tile([small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]], 2)
    boxes = images.found[0, index] * factors, images.true[index] * factors
    return {
        "id": images.ids[index],
        "class": images.classes[images.labels[index]],
        "overlap": float(images.overlaps[0, index]),
        "picture": data_address(with_boxes_drawn(small, found=boxes[:1], true=boxes[1])),
    }
