"""Features on other data (appendix B of the paper): linear SVMs over descriptors, on splits of a source."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np

from verydeep.descriptors.extraction import Extraction, checked_extraction
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Runtime
from verydeep.networks.vgg import VGG, LayeredNetwork
from verydeep.runs.model import Model
from verydeep.transfer_learning.classifier_folder import FeatureClassifier, check_classifier_folder, save_classifier
from verydeep.transfer_learning.compared_descriptors import Compared, common_images, compared_descriptors, svm_outcomes
from verydeep.transfer_learning.features import read_once
from verydeep.transfer_learning.labels import Labelled, Split, labelled_images, name_of_source, transfer_splits
from verydeep.transfer_learning.linear_svm import fit_choosing_c
from verydeep.transfer_learning.measures import measured
from verydeep.transfer_learning.options import TransferOptions
from verydeep.transfer_learning.results import Transfer, descriptor_differences, descriptor_results


def transfer(
    folders: str | Path | Sequence[str | Path],
    *,
    data: str | Path | Source,
    split: str | None = None,
    options: TransferOptions | None = None,
    out: str | Path | None = None,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
) -> Transfer:
    """Test how well runs' penultimate features tell the classes of other images apart, by linear SVMs.

    The measure is the mean class recall; for images with several labels it is the mean average precision. In every
    split a fifth of the training images chooses C; then all of them make the SVM that is tested.

    Args:
        folders: one or more classification runs, or files that `verydeep export` wrote; several are tested each and
            with their features stacked.
        data: SOURCE of the images, with at least two classes; with `options.labels` a folder of images.
        split: part of it that training and test images are sampled from; required for a source with splits.
        options: descriptor, labels, samples, baselines.
        out: folder for a classifier of these classes, fitted on all the images, for `classify`; it has copies of the
            networks, which only runs and `.pt2` files have.
        runtime: device, and processes that decode.
        tolerance: how many images may be unusable.

    Raises:
        ValueError: unusable runs, source, labels or scales, a class with too few images, or an unsuitable `out`.
        TooManyBadImagesError: more images are unusable than is tolerated.
        OSError: features or the classifier cannot be written.
    """
    started, options = time.perf_counter(), options or TransferOptions()
    folders = [folders] if isinstance(folders, str | Path) else folders
    if out is not None:
        check_classifier_folder(Path(out))
    if not folders or len(set(map(os.path.realpath, folders))) < len(folders):
        raise ValueError("name one or more runs, each once")
    opened, labelled = labelled_images(data, split, options)
    extractions = [
        checked_extraction(folder, opened, descriptor=options.descriptor, runtime=runtime, tolerance=tolerance)
        for folder in folders
    ]
    if out is not None:
        _refuse_without_weights(folders, extractions)
    transfer_splits(labelled, options)  # refuses too few images, before any work
    source = read_once(opened)
    compared = compared_descriptors(folders, extractions, source, options)
    ids, rows = common_images(source, [one.images for one in compared])
    labelled = labelled.subset(rows)
    splits = transfer_splits(labelled, options)
    copies = _copies([source.digests[row] for row in rows], splits)
    outcomes = svm_outcomes(compared, ids, labelled, splits, copies=copies)
    tested = np.stack([np.isin(np.arange(len(ids)), test) for _, test in splits])
    figures = measured([one.answers for one in outcomes], tested, labelled.labels)
    if out is not None:
        _save_classifier(compared, ids, labelled, extractions, Path(out))
    results = descriptor_results(compared, outcomes, figures, labelled.classes)
    train, test = splits[0]
    return Transfer(
        runs=tuple(map(str, folders)),
        source=name_of_source(data),
        labels=None if options.labels is None else str(options.labels),
        test_images=None if options.test_images is None else str(options.test_images),
        measure=figures.measure,
        classes=labelled.classes,
        n=len(ids),
        n_train=len(train),
        n_test=len(test),
        train=tuple(labelled.images_per_class(train).tolist()),
        test=tuple(labelled.images_per_class(test).tolist()),
        splits=len(splits),
        seed=options.seed,
        scales=tuple(one.scales for one in extractions),
        pool=options.pool,
        mirror=tuple(bool(one.descriptor.mirror) for one in extractions),
        chance=figures.chance,
        descriptors=results,
        differences=descriptor_differences(results, figures),
        unusable={name: why for one in compared for name, why in one.images.unusable.items()},
        copies=copies,
        seconds=time.perf_counter() - started,
    )


def _copies(digests: Sequence[bytes], splits: Sequence[Split]) -> int:
    """Count the test images with the same file, by its SHA-256, among the training images of one of their splits."""
    copies: set[int] = set()
    for train, test in splits:
        learned = {digests[row] for row in train}
        copies.update(int(row) for row in test if digests[row] in learned)
    return len(copies)


def _refuse_without_weights(names: Sequence[str | Path], extractions: Sequence[Extraction]) -> None:
    """Refuse networks that a classifier cannot have copies of."""
    without = [str(name) for name, one in zip(names, extractions, strict=True) if not _has_weights(one.model)]
    if without:
        raise ValueError(
            f"a classifier has copies of its networks, which {', '.join(without)} cannot give: name the run that it "
            "came from, or leave out --out"
        )


def _has_weights(model: Model[LayeredNetwork]) -> TypeGuard[Model]:
    return isinstance(model.net, VGG)


def _save_classifier(
    compared: Sequence[Compared], ids: Sequence[str], labelled: Labelled, extractions: Sequence[Extraction], out: Path
) -> None:
    """Fit a classifier on all images, over the features of all runs, and save it."""
    vectors = next(one for one in reversed(compared) if one.kind != "baseline").images.vectors_of(ids)
    classifier = FeatureClassifier(
        svm=fit_choosing_c(vectors, labelled.labels),
        classes=labelled.classes,
        models=tuple(one.model for one in extractions if _has_weights(one.model)),  # all, as was checked
        descriptors=tuple(one.descriptor for one in extractions),
        several_labels=labelled.multilabel,
    )
    save_classifier(classifier, out)
