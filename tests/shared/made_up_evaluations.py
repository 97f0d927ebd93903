"""Evaluations of made-up posteriors, put together as `evaluate` does it."""

import numpy as np

from verydeep.evaluation.protocols import Protocol
from verydeep.evaluation.results import TestedImages, summarised


def evaluation(runs, posteriors_of_runs, labels, classes, *, ids=None, scales=(224, 256), mirror=True, **figures):
    """Return the evaluation of some runs, by name, with posteriors [N, classes] each."""
    images = TestedImages(
        ids=tuple(map(str, range(len(labels)))) if ids is None else tuple(ids),
        labels=np.asarray(labels),
        classes=tuple(classes),
        posteriors=np.mean(posteriors_of_runs, axis=0),
        posteriors_of_runs=tuple(posteriors_of_runs),
    )
    figures = {"protocol": "dense", "source": "photos", "unusable": {}, **figures}
    protocol = Protocol(method=figures["protocol"], scales=scales, mirror=mirror)
    timing = {"from_cache": 0.0, "seconds": 1.0, "images_per_second": 1.0}
    return summarised(images, dict.fromkeys(runs, protocol), split="test", **timing, **figures)
