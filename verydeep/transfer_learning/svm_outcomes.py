"""SVMs over each descriptor, fitted and tested on every split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.presentation.numbers import number
from verydeep.presentation.progress import Reporter, reporting
from verydeep.transfer_learning.compared_descriptors import Compared
from verydeep.transfer_learning.labels import Labelled
from verydeep.transfer_learning.linear_svm import fit_choosing_c
from verydeep.transfer_learning.splits import Split


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
        labelled: what they show.
        splits: rows of training and test images.
        copies: how many test images are copies of training images, which is reported.
    """
    outcomes = []
    with reporting("SVMs", total=len(compared) * len(splits)) as report:
        if copies:
            report.say(
                f"test images that are exact copies of training images: {number(copies)}; what they show was learned"
            )
        for one in compared:
            vectors = one.images.vectors_of(ids)
            if empty := int((~vectors.any(axis=1)).sum()):
                report.say(
                    f"{one.name}: of {number(empty)} of {number(len(ids))} images all features are 0, so nothing tells "
                    "them apart"
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
