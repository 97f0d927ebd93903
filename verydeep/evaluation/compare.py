"""Comparison of two evaluations of the same images, now or from their files of predictions."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from verydeep.evaluation.predictions import as_text, read_predictions
from verydeep.evaluation.results import Evaluation
from verydeep.statistics import Comparison, paired_comparison

_Predicted = dict[tuple[str, str], str]
"""The most probable class of each image, by its id and true class."""


def compare(first: Evaluation | str | Path, second: Evaluation | str | Path) -> Comparison:
    """Compare the top-1 errors of two evaluations, or files of predictions, image by image.

    So two protocols, choices of scales, runs or fusions are told apart on the images that both were tested on.

    Raises:
        ValueError: they are not of the same images and true classes, or a file holds no predictions.
    """
    (name, predictions), (other_name, others) = _named(first), _named(second)
    differing = sorted(predictions.keys() ^ others.keys())
    if differing:
        image, true = differing[0]
        raise ValueError(
            f"{name} and {other_name} are not of the same images: {len(differing):,} are in one only, such as {image} "
            f"of class {true}"
        )
    wrong, other = (np.array([each[key] != key[1] for key in predictions]) for each in (predictions, others))
    return paired_comparison(name, other_name, wrong.astype(bool), other.astype(bool))


def _named(result: Evaluation | str | Path) -> tuple[str, _Predicted]:
    if not isinstance(result, Evaluation):
        stored = read_predictions(Path(result))
        return str(result), _by_image(str(result), stored.ids, stored.true_classes, stored.classes)
    images = result.images
    true, classes = (
        [as_text(images.classes[label]) for label in labels] for labels in (images.labels, images.predicted)
    )
    scales = ", ".join(map(str, result.scales))
    name = f"{' + '.join(result.runs)} ({result.protocol}, Q = {scales})"
    return name, _by_image(name, map(as_text, images.ids), true, classes)


def _by_image(name: str, ids: Iterable[str], true: Iterable[str], classes: Iterable[str]) -> _Predicted:
    rows = list(zip(ids, true, classes, strict=True))
    by_image = {(image, true_class): predicted_class for image, true_class, predicted_class in rows}
    if len(by_image) < len(rows):
        raise ValueError(f"{name} has several images of the same name: they cannot be told apart")
    return by_image
