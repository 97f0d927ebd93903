"""SVMs over each descriptor, fitted and tested on every split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.presentation.numbers import number
from verydeep.presentation.progress import Reporter, reporting
from verydeep.transfer_learning.compared import Compared, Kind
from verydeep.transfer_learning.labels import Labelled
from verydeep.transfer_learning.linear_svm import fit_choosing_c
from verydeep.transfer_learning.splits import Split


@dataclass(frozen=True, kw_only=True)
class SVMOutcome:
    """Answers of the SVMs over one descriptor to the test images."""

    name: str
    kind: Kind
    networks: str
    """As `Compared.networks`."""
    numbers: int
    """Numbers that describe an image."""
    outcome: NDArray[Any]
    """Answers to the test images of each split, 0 for others: bool [splits, N], which are right; with several labels
    per image float32 [splits, N, classes], scores."""
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
            _report_empty_vectors(report, one.name, vectors)
            outcome, chosen = _tested(report, vectors, labelled, splits)
            outcomes.append(
                SVMOutcome(
                    name=one.name,
                    kind=one.kind,
                    networks=one.networks,
                    numbers=vectors.shape[1],
                    outcome=outcome,
                    c=chosen,
                )
            )
    return outcomes


def _report_empty_vectors(report: Reporter, name: str, vectors: NDArray[np.float32]) -> None:
    if empty := int((~vectors.any(axis=1)).sum()):
        report.say(
            f"{name}: of {number(empty)} of {number(len(vectors))} images all features are 0, so nothing tells them "
            "apart"
        )


def _tested(
    report: Reporter, vectors: NDArray[np.float32], labelled: Labelled, splits: Sequence[Split]
) -> tuple[NDArray[Any], tuple[float, ...]]:
    labels, chosen = labelled.labels, []
    outcome = np.zeros((len(splits), *labels.shape), np.float32 if labelled.multilabel else bool)
    for its_outcome, (train, test) in zip(outcome, splits, strict=True):
        svm = fit_choosing_c(vectors[train], labels[train])
        if labelled.multilabel:
            its_outcome[test] = svm.scores(vectors[test])
        else:
            its_outcome[test] = svm.predicted(vectors[test]) == labels[test]
        chosen.append(svm.c)
        report.advance()
    return outcome, tuple(chosen)
