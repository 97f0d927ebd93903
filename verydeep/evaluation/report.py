"""One evaluation as a self-contained HTML page: errors, confusions, calibration, wrong images and score maps."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.evaluation.charts import NUMBERED, confusion_chart, reliability_chart, shade
from verydeep.evaluation.metrics import confusion_matrix, misclassified, predicted
from verydeep.evaluation.pictures import data_address, fitted, image_at_scale, positions_of, thumbnail
from verydeep.evaluation.protocols import PROTOCOLS
from verydeep.evaluation.results import Evaluation, TestedImages
from verydeep.evaluation.score_maps import colours, overlay, posterior_map
from verydeep.images.sources.open import open_for_testing
from verydeep.images.sources.source import Source, Splits
from verydeep.networks.scales import scale_in_pixels
from verydeep.presentation.pages import write_page
from verydeep.presentation.progress import reporting
from verydeep.runs.model import Model, load_model
from verydeep.runs.record import command, versions

HTML, RESULTS = "evaluation.html", "evaluation.json"

ALL_CLASSES, WORST_CLASSES = 40, 20
"""Up to so many have their line in the table; of more the worst."""

DRAWN_CLASSES, MOST_CONFUSED = 40, 30
"""Up to so many are drawn; of more those that are confused most often."""

CONFUSIONS, WRONG_IMAGES, UNUSABLE = 12, 12, 20
"""Shown at most."""

MAPS_OF_EACH = 4
"""Score maps of so many wrong images, and of as many right ones."""

_SEED = 0
"""Of the choice of right images."""

_LEGEND_SHARES = (0.01, 0.05, 0.25, 0.5, 1.0)
_LEGEND_STEPS = 9


def evaluation_report(found: Evaluation, folder: str | Path, *, data: str | Splits) -> Path:
    """Writes evaluation.html and evaluation.json into `folder`, which is made if missing; returns the page's path.

    Args:
        found: what `evaluate` gave.
        folder: of the two files.
        data: what `evaluate` was given; images are read from it once more.

    Raises:
        ValueError: the first run is gone, or `data` is not what was tested.
        UnusableImageError: an image can no longer be used.
        OSError: the files cannot be written.
    """
    model = load_model(found.runs[0])
    splits = open_for_testing(data, model.classes) if isinstance(data, str) else data
    return write_evaluation_report(found, Path(folder), source=splits.part(found.split), model=model)


def write_evaluation_report(found: Evaluation, folder: Path, *, source: Source, model: Model) -> Path:
    """The same, given the split that was tested and the model of the first run, whose network draws the score maps."""
    taken = predicted(found.images.posteriors, found.images.labels)
    values = {
        "found": found,
        "shown": _header(found, model),
        "errors": [*found.per_run, *([found.fused] if len(found.runs) > 1 else [])],
        "classes": _classes(found),
        "confusion": confusion(found, taken),
        "reliability": _reliability(found),
        **pictures(found, taken, source, model),
        "command": command(),
        "versions": versions(),
        "unusable": list(found.unusable.items())[:UNUSABLE],
    }
    return write_page(folder, f"evaluation/{HTML}", values, beside={RESULTS: found.to_dict()})


def _header(found: Evaluation, model: Model) -> dict[str, Any]:
    mirrored = [run.mirror for run in found.per_run]
    averaged = {"runs": len(found.runs) > 1, "scales": len(found.scales) > 1, "crops": found.protocol == "crops"}
    return {
        "protocol": PROTOCOLS[found.protocol],
        "fused": averaged["runs"],
        "crop": model.net.architecture.crop,
        "pixels": [scale_in_pixels(q, model.net.architecture.crop) for q in found.scales],
        "averaged": [over for over, is_so in averaged.items() if is_so],
        "mirror": "all" if all(mirrored) else "some" if any(mirrored) else "none",
    }


def _classes(found: Evaluation) -> dict[str, Any]:
    """The errors of single classes, the worst first."""
    worst = sorted(found.per_class, key=lambda one: -one.top1_error)
    few = len(worst) <= ALL_CLASSES
    return {"all": few, "count": len(worst), "rows": worst if few else worst[:WORST_CLASSES]}


def confusion(found: Evaluation, taken: NDArray[np.int64]) -> dict[str, Any]:
    """The confusion matrix as a picture, and its most frequent pairs; `taken` [N] are the predicted classes."""
    images = found.images
    counts = confusion_matrix(taken, images.labels, classes=len(images.classes))
    totals = counts.sum(axis=1)
    wrong = counts - np.diag(counts.diagonal())
    confused = wrong.sum(axis=0) + wrong.sum(axis=1)
    # Others are neither among the images nor among the predictions.
    shown = np.flatnonzero(totals + counts.sum(axis=0))
    involved = len(shown)
    if involved > DRAWN_CLASSES:
        shown = np.sort(np.argsort(-confused, kind="stable")[:MOST_CONFUSED])
    of_class = {one.name: one.n for one in found.per_class}
    pairs = [(true, other, n) for true, other, n in found.confusions if true != other]
    return {
        "chart": confusion_chart(counts[np.ix_(shown, shown)], totals[shown], [images.classes[i] for i in shown]),
        "classes": involved,
        "drawn": len(shown),
        "numbered": len(shown) <= NUMBERED,
        "legend": [(f"{100 * share:.0f}%", f"{shade(share):.2f}") for share in _LEGEND_SHARES],
        "pairs": len(pairs),
        "rows": [
            {"true": true, "predicted": other, "images": n, "share": 100 * n / of_class[true]}
            for true, other, n in pairs[:CONFUSIONS]
        ],
    }


def _reliability(found: Evaluation) -> dict[str, Any]:
    confidence = 100 * float(found.images.posteriors.max(axis=1).mean())
    accuracy = 100 - found.top1_error
    low, high = (100 - error for error in reversed(found.top1_error_ci95))
    gap = confidence - accuracy
    return {
        "chart": reliability_chart(found.calibration),
        "confidence": confidence,
        "accuracy": accuracy,
        "interval": (low, high),
        "verdict": f"{'over' if gap > 0 else 'under'}confident, by {abs(gap):.2f} points"
        if gap
        else "neither over- nor underconfident",
        "chance": low <= confidence <= high,
    }


def pictures(found: Evaluation, taken: NDArray[np.int64], source: Source, model: Model) -> dict[str, Any]:
    """The wrong images, and the score maps of some of them and of some right ones."""
    images = found.images
    is_wrong = misclassified(images.posteriors, images.labels)
    confidence = images.posteriors[np.arange(len(taken)), taken]
    wrong, right = np.flatnonzero(is_wrong), np.flatnonzero(~is_wrong)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:WRONG_IMAGES]
    chosen = np.random.default_rng(_SEED).permutation(right)[:MAPS_OF_EACH]
    mapped = [*wrong[:MAPS_OF_EACH].tolist(), *np.sort(chosen).tolist()]
    where = positions_of(source, images.ids)
    scale = max(found.per_run[0].scales)
    side = scale_in_pixels(scale, model.net.architecture.crop)
    with reporting("draw score maps", total=len(mapped)) as report:
        maps = []
        for index in mapped:
            image = image_at_scale(source, where[index], side)
            maps.append({**_told(images, taken, index), **_map(model, image, images.labels[index], taken[index])})
            report.advance()
    return {
        "wrong_images": [
            {**_told(images, taken, index), "picture": data_address(thumbnail(source, where[index]))}
            for index in wrong.tolist()
        ],
        "maps": maps,
        "map_scale": (scale, side),
        "map_legend": _legend(),
    }


def _told(images: TestedImages, taken: NDArray[np.int64], index: int) -> dict[str, Any]:
    """What an image is called, what it shows, and what it was taken for."""
    true, other = int(images.labels[index]), int(taken[index])
    return {
        "id": images.ids[index],
        "true": images.classes[true],
        "predicted": images.classes[other],
        "wrong": true != other,
        "probability": 100 * float(images.posteriors[index, other]),
    }


def _map(model: Model, image: NDArray[np.uint8], true: int, other: int) -> dict[str, Any]:
    """The image as it was tested, and over it where the predicted class is seen and, if that is wrong, the true one."""
    found = posterior_map(model.net, image)
    drawn = dict.fromkeys((other, true))
    return {
        "picture": data_address(fitted(image)),
        "positions": found.shape[1:],
        "layers": [
            {
                "class": model.classes[label],
                "picture": data_address(fitted(overlay(image, found[label], crop=model.net.architecture.crop))),
                "least": float(found[label].min()),
                "greatest": float(found[label].max()),
            }
            for label in drawn
        ],
    }


def _legend() -> str:
    """The colours from 0 to 1, as CSS wants them."""
    stops = colours(np.linspace(0, 1, _LEGEND_STEPS))
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops.tolist())
