"""Two evaluations of the same images against each other, now or from their files of predictions."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verydeep.evaluation.metrics import predicted
from verydeep.evaluation.paired import Comparison, paired_comparison
from verydeep.evaluation.predictions import as_text, read_predictions
from verydeep.evaluation.results import Evaluation


def compare(first: Evaluation | str | Path, second: Evaluation | str | Path) -> Comparison:
    """Compares the top-1 errors of two evaluations, or files of predictions, image by image.

    So two protocols, choices of scales, runs or fusions are told apart on the images that both were tested on.

    Raises:
        ValueError: they are not of the same images and true classes, or a file holds no predictions.
    """
    (name, images), (other_name, others) = _named(first), _named(second)
    differing = sorted(images.keys() ^ others.keys())
    if differing:
        image, true = differing[0]
        raise ValueError(
            f"{name} and {other_name} are not of the same images: {len(differing):,} are in one only, such as {image} "
            f"of class {true}"
        )
    wrong, other = _wrong(images, list(images)), _wrong(others, list(images))
    return paired_comparison(name, other_name, wrong, other)


Taken = dict[tuple[str, str], str]
"""By id and true class: the most probable class."""


def _named(result: Evaluation | str | Path) -> tuple[str, Taken]:
    if not isinstance(result, Evaluation):
        found = read_predictions(Path(result))
        return str(result), _by_image(str(result), found.ids, found.true_classes, found.classes)
    shown = result.images
    true, taken = (
        [as_text(shown.classes[label]) for label in labels]
        for labels in (shown.labels, predicted(shown.posteriors, shown.labels))
    )
    scales = ", ".join(map(str, result.scales))
    name = f"{' + '.join(result.runs)} ({result.protocol}, Q = {scales})"
    return name, _by_image(name, map(as_text, shown.ids), true, taken)


def _by_image(name: str, ids: Iterable[str], true: Iterable[str], taken: Iterable[str]) -> Taken:
    rows = list(zip(ids, true, taken, strict=True))
    images = {(image, its_class): predicted_class for image, its_class, predicted_class in rows}
    if len(images) < len(rows):
        raise ValueError(f"{name} has several images of the same name: they cannot be told apart")
    return images


def _wrong(images: Taken, order: Iterable[tuple[str, str]]) -> NDArray[np.bool_]:
    return np.array([images[key] != key[1] for key in order], dtype=np.bool_)
