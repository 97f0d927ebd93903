"""One test of boxes as a self-contained HTML page: errors beside the paper's, examples with boxes, and its tables."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verydeep.evaluation.score_maps import data_address, fitted, positions_of
from verydeep.images.decode import decode
from verydeep.images.open import open_for_testing
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import LARGEST_MAX_PIXELS
from verydeep.localisation.box_pictures import with_boxes_drawn
from verydeep.localisation.paper import TABLE_8, TABLE_9, TABLE_10
from verydeep.localisation.results import Localisation
from verydeep.networks.architecture import DOWNSAMPLING
from verydeep.presentation.pages import shared_folder, write_page
from verydeep.presentation.report_files import LOCALISATION
from verydeep.presentation.terminal import reporting
from verydeep.presentation.translation import DEFAULT_LANGUAGE, Language
from verydeep.runs.record import command, versions

_HTML, _RESULTS = LOCALISATION

_WRONG_IMAGES, _RIGHT_IMAGES, _LISTED = 12, 12, 20
"""Numbers of examples and of left-out images on the page, at most."""

_SEED = 0
"""Seed of the random choice of right images."""


@dataclass(frozen=True, kw_only=True)
class BoxExample:
    """One image with its true and its predicted box."""

    id: str
    class_name: str
    overlap: float
    """Intersection over union, 0..1."""
    picture: str
    """A `data:` address that holds the picture itself."""


def write_localisation_report(
    localisation: Localisation, folder: str | Path, *, data: str | Path, language: Language = DEFAULT_LANGUAGE
) -> Path:
    """Write localisation.html and localisation.json into `folder`, which is made if missing; return the page's path.

    Args:
        localisation: result of `evaluate_boxes`.
        folder: where to.
        data: SOURCE that `evaluate_boxes` was given; images are read from it once more.
        language: en or ja; figures in JSON are the same.

    Raises:
        ValueError: `data` is not the source that was tested.
        UnusableImageError: an image can no longer be used.
        OSError: the files cannot be written.
    """
    source = open_for_testing(data, localisation.images.classes).source(localisation.split)
    folder_of_runs = shared_folder(localisation.runs)
    wrong, right = _examples(localisation, source)
    values = {
        "localisation": localisation,
        "wrong": wrong,
        "right": right,
        "table_8": TABLE_8,
        "table_9": TABLE_9,
        "table_10": TABLE_10,
        "left_out": list(localisation.check.left_out.items())[:_LISTED],
        "unusable": list(localisation.unusable.items())[:_LISTED],
        "folder": folder_of_runs,
        "networks": sorted({one.network for one in localisation.simplified}),
        "stride": DOWNSAMPLING,
        "command": command(),
        "versions": versions(),
    }
    return write_page(
        Path(folder),
        f"localisation/{_HTML}",
        values,
        beside={_RESULTS: localisation.to_dict()},
        language=language,
        short=lambda name: name.removeprefix(folder_of_runs),
    )


def _examples(localisation: Localisation, source: Source) -> tuple[list[BoxExample], list[BoxExample]]:
    """Draw the first run's wrong images with the least overlap, and a random choice of the right ones."""
    images = localisation.images
    order, is_wrong = np.argsort(images.overlaps[0], kind="stable"), images.wrong[0]
    wrong = order[is_wrong[order]][:_WRONG_IMAGES]
    right = np.sort(np.random.default_rng(_SEED).permutation(order[~is_wrong[order]])[:_RIGHT_IMAGES])
    positions, examples = positions_of(source, images.ids), []
    with reporting("draw boxes", total=len(wrong) + len(right)) as report:
        for index in (*wrong.tolist(), *right.tolist()):
            examples.append(_example(localisation, source, positions[index], index))
            report.advance()
    return examples[: len(wrong)], examples[len(wrong) :]


def _example(localisation: Localisation, source: Source, position: int, index: int) -> BoxExample:
    sample, images = source[position], localisation.images
    image = decode(sample.data, sample.id, max_pixels=LARGEST_MAX_PIXELS)
    small = fitted(image)
    factors = np.tile([small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]], 2)
    picture = with_boxes_drawn(
        small, predicted=[images.predicted[0, index] * factors], true=images.true[index] * factors
    )
    return BoxExample(
        id=images.ids[index],
        class_name=images.classes[images.labels[index]],
        overlap=float(images.overlaps[0, index]),
        picture=data_address(picture),
    )
