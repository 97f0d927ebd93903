"""The descriptors that are compared (each run's features, all of them stacked, baselines), and SVMs over them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from verydeep.descriptors.extraction import Extraction
from verydeep.images.rescaled import SharedImages
from verydeep.images.sources.source import Source
from verydeep.numbers import counted, number
from verydeep.presentation.terminal import Reporter, reporting
from verydeep.transfer_learning.features import (
    DescribedImages,
    DescribingNetwork,
    describing_network,
    network_features,
    pixel_features,
)
from verydeep.transfer_learning.labels import Labelled, Split
from verydeep.transfer_learning.linear_svm import fit_choosing_c, stacked
from verydeep.transfer_learning.options import TransferOptions

DescriptorKind = Literal["network", "stacked", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """All images by one descriptor."""

    name: str
    kind: DescriptorKind
    networks: str
    """Names of its networks as the paper's tables write them, `D + E`; empty for baselines."""
    images: DescribedImages


def compared_descriptors(
    folders: Sequence[str | Path], extractions: Sequence[Extraction], source: Source, options: TransferOptions
) -> list[Compared]:
    """Compute, or read from the cache, the images by each run, by all together, and by the baselines if wanted.

    Args:
        folders: the runs.
        extractions: one for each run.
        source: the images, which `read_once` returned.
        options: whether there are baselines, and their seed.

    Raises:
        TooManyBadImagesError: more images are unusable than is tolerated.
        OSError: features cannot be written.
    """
    seeds = (None, options.seed) if options.baseline else (None,)
    networks = [describing_network(one, source, seed=seed) for seed in seeds for one in extractions]
    described = _described(networks, source)
    compared = []
    for folder, one, images in zip(folders, extractions, described[: len(folders)], strict=True):
        name = one.model.net.architecture.network
        compared.append(Compared(name=str(folder), kind="network", networks=name, images=images))
    if len(compared) > 1:
        compared.append(_stacked(compared, source))
    if options.baseline:
        for folder, images in zip(folders, described[len(folders) :], strict=True):
            compared.append(Compared(name=f"{folder}, untrained", kind="baseline", networks="", images=images))
        pixels = pixel_features(source, extractions[0].tolerance)
        compared.append(Compared(name="pixels", kind="baseline", networks="", images=pixels))
    return compared


def _described(networks: Sequence[DescribingNetwork], source: Source) -> list[DescribedImages]:
    """Return the images by each network; those that several networks look at are decoded once, as memory allows."""
    tolerance, runtime = networks[0].extraction.tolerance, networks[0].extraction.runtime
    images = SharedImages(source, max_pixels=tolerance.max_pixels, workers=runtime.workers)
    described = []
    for place, network in enumerate(networks, start=1):
        computed_later = (one for one in networks[place:] if one.file != network.file and not os.path.exists(one.file))
        later = {side for one in computed_later for side in one.extraction.sides}
        described.append(network_features(network, source, images.decoder(later=later)))
    return described


def common_images(source: Source, described: Sequence[DescribedImages]) -> tuple[tuple[str, ...], list[int]]:
    """Return the images that all descriptors have, in the source's order: their names, and their rows in it."""
    usable = set(described[0].ids).intersection(*(one.ids for one in described))
    rows = [row for row, name in enumerate(source.ids) if name in usable]
    return tuple(source.ids[row] for row in rows), rows


def _stacked(networks: Sequence[Compared], source: Source) -> Compared:
    ids, _ = common_images(source, [one.images for one in networks])
    vectors = stacked([one.images.vectors_of(ids) for one in networks])
    return Compared(
        name="all stacked",
        kind="stacked",
        networks=" + ".join(sorted(one.networks for one in networks)),
        images=DescribedImages(ids=ids, vectors=vectors, unusable={}),
    )


@dataclass(frozen=True, kw_only=True)
class SVMOutcome:
    """Answers of the SVMs over one descriptor to the test images of each split."""

    answers: NDArray[Any]
    """bool [splits, N], which are right; with several labels per image float32 [splits, N, classes], scores. 0 for
    images that a split does not test on."""
    c: tuple[float, ...]
    """C chosen in each split."""


def svm_outcomes(
    compared: Sequence[Compared], ids: Sequence[str], labelled: Labelled, splits: Sequence[Split], *, copies: int
) -> list[SVMOutcome]:
    """Fit an SVM for each descriptor and split, and return their answers to the split's test images.

    Args:
        compared: the descriptors.
        ids: the images [N], which all descriptors have.
        labelled: the classes that they show.
        splits: rows of training and test images.
        copies: how many test images are copies of training images, which is reported.
    """
    outcomes = []
    with reporting("SVMs", total=len(compared) * len(splits)) as report:
        if copies:
            report.say(
                f"test images that are exact copies of training images: {number(copies)}; their classes were learned"
            )
        for one in compared:
            vectors = one.images.vectors_of(ids)
            if empty := int((~vectors.any(axis=1)).sum()):
                report.say(
                    f"{one.name}: all features of {number(empty)} of {counted(len(ids), 'image')} are 0, so nothing "
                    "tells them apart"
                )
            outcomes.append(_outcome(vectors, labelled, splits, report))
    return outcomes


def _outcome(vectors: NDArray[np.float32], labelled: Labelled, splits: Sequence[Split], report: Reporter) -> SVMOutcome:
    labels, chosen = labelled.labels, []
    answers = np.zeros((len(splits), *labels.shape), np.float32 if labelled.multilabel else bool)
    for of_split, (train, test) in zip(answers, splits, strict=True):
        svm = fit_choosing_c(vectors[train], labels[train])
        tested = vectors[test]
        of_split[test] = svm.scores(tested) if labelled.multilabel else svm.predicted(tested) == labels[test]
        chosen.append(svm.c)
        report.advance()
    return SVMOutcome(answers=answers, c=tuple(chosen))
