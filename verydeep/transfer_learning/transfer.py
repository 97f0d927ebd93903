"""Features on other data, appendix B of the paper: linear SVMs over descriptors, on splits of a source."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verydeep.descriptors.features import Extraction, extraction
from verydeep.images.sources.derived import Unchanged
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Runtime
from verydeep.presentation.progress import reporting
from verydeep.runs.model import Model
from verydeep.transfer_learning.classifier import check_classifier_folder, save_classifier
from verydeep.transfer_learning.features import (
    DescribedImages,
    network_features,
    pixel_features,
    read_once,
    untrained,
)
from verydeep.transfer_learning.linear_svm import fit_choosing_c, stacked
from verydeep.transfer_learning.measures import measured
from verydeep.transfer_learning.options import TransferOptions
from verydeep.transfer_learning.results import Classified, Kind, Transfer, descriptor_results
from verydeep.transfer_learning.splits import (
    Labelled,
    Split,
    images_of_classes,
    images_with_labels,
    transfer_splits,
    with_test_images,
)


@dataclass(frozen=True, kw_only=True)
class _Described:
    """One descriptor of all images."""

    name: str
    kind: Kind
    networks: str
    images: DescribedImages


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
    """Tests how well runs' penultimate features tell the classes of other images, by linear SVMs.

    The measure is the mean class recall; of images with several labels the mean average precision.

    Of every split a fifth of the training images chooses C; then all of them make the SVM that is tested.

    Args:
        folders: a classification run or several; those are tested each and with their features stacked.
        data: SOURCE of the images, with at least two classes; with `options.labels` a folder of images.
        split: part of it that training and test images are drawn from; of a source with splits it must be said.
        options: descriptor, labels, draws, baselines.
        out: folder for a classifier of these classes, fitted on all the images, for `classify`.
        runtime: device, and processes that decode.
        tolerance: how many images may be unusable.

    Raises:
        ValueError: unusable runs, source, labels or scales, a class with too few images, or `out` holds something else.
        TooManyBadImagesError: more images are unusable than is tolerated.
        OSError: features or the classifier cannot be written.
    """
    started, options = time.perf_counter(), options or TransferOptions()
    folders = [folders] if isinstance(folders, str | Path) else folders
    runtime, tolerance = runtime or Runtime(), tolerance or Tolerance()
    if out is not None:
        check_classifier_folder(Path(out))
    asked, labelled = _asked(folders, data, split, options, runtime, tolerance)
    source = read_once(asked[0].source)
    described = _described(folders, asked, source, options)
    ids, rows = _common(source, [one.images for one in described])
    labelled = labelled.of(rows)
    splits = transfer_splits(labelled, options)
    copies = _copies([source.digests[row] for row in rows], splits)
    classified = _classified(described, ids, labelled, splits, copies)
    tested = np.stack([np.isin(np.arange(len(ids)), test) for _, test in splits])
    figures = measured([one.outcome for one in classified], tested, labelled.labels)
    descriptors, differences = descriptor_results(classified, figures, labelled.classes)
    if out is not None:
        _save(described, ids, labelled, asked, Path(out))
    return Transfer(
        runs=tuple(map(str, folders)),
        source=str(data) if isinstance(data, str | Path) else "the source",
        **_options_told(options, asked),
        **_images_told(labelled, splits),
        measure=figures.measure,
        chance=figures.chance,
        descriptors=descriptors,
        differences=differences,
        unusable={name: why for one in described for name, why in one.images.unusable.items()},
        copies=copies,
        seconds=time.perf_counter() - started,
    )


def _save(
    described: Sequence[_Described], ids: Sequence[str], labelled: Labelled, asked: Sequence[Extraction], out: Path
) -> None:
    """The classifier of all images, over the features of all runs."""
    vectors = next(one for one in reversed(described) if one.kind != "baseline").images.of(ids)
    svm = fit_choosing_c(vectors, labelled.labels)
    save_classifier(svm, asked, labelled.classes, out, several_labels=labelled.several)


def _options_told(options: TransferOptions, asked: Sequence[Extraction]) -> dict[str, Any]:
    """What `Transfer` says of how images were described and drawn."""
    return {
        "labels": None if options.labels is None else str(options.labels),
        "test_images": None if options.test_images is None else str(options.test_images),
        "seed": options.seed,
        "scales": tuple(one.scales for one in asked),
        "pool": options.pool,
        "mirror": tuple(one.mirror for one in asked),
    }


def _images_told(labelled: Labelled, splits: Sequence[Split]) -> dict[str, Any]:
    """What `Transfer` says of the images."""
    train, test = splits[0]
    return {
        "classes": labelled.classes,
        "n": len(labelled.labels),
        "n_train": len(train),
        "n_test": len(test),
        "train": tuple(labelled.images_of_each(train).tolist()),
        "test": tuple(labelled.images_of_each(test).tolist()),
        "splits": len(splits),
    }


def _asked(
    folders: Sequence[str | Path],
    data: str | Path | Source,
    split: str | None,
    options: TransferOptions,
    runtime: Runtime,
    tolerance: Tolerance,
) -> tuple[list[Extraction], Labelled]:
    """The runs' networks and how they describe the images, and what those show, checked; the source is opened once."""
    if not folders or len(set(map(os.path.realpath, folders))) < len(folders):
        raise ValueError("name one or more runs, each once")
    images, labelled = data, None
    if options.labels is not None:
        images, labelled = images_with_labels(data, options.labels)
    asked: list[Extraction] = []
    for folder in folders:
        where = asked[0].source if asked else images
        found = extraction(
            folder,
            where,
            descriptor=options.descriptor,
            split=None if asked else split,
            runtime=runtime,
            tolerance=tolerance,
        )
        asked.append(found)
    source = asked[0].source
    labelled = labelled or images_of_classes(source, data)
    if options.test_images is not None:
        labelled = with_test_images(labelled, options.test_images, source)
    transfer_splits(labelled, options)  # too few images are told before any work
    return asked, labelled


def _described(
    folders: Sequence[str | Path], asked: Sequence[Extraction], source: Unchanged, options: TransferOptions
) -> list[_Described]:
    """The images by each run, by all together, and by what they are to be compared with."""

    def by(model: Model, weights: str) -> DescribedImages:
        return network_features(
            model,
            source,
            options.descriptor,
            weights=weights,
            runtime=asked[0].runtime,
            tolerance=asked[0].tolerance,
        )

    found = []
    for folder, one in zip(folders, asked, strict=True):
        images = by(one.model, str(one.model.weights_sha256))
        found.append(
            _Described(name=str(folder), kind="network", networks=one.model.net.architecture.network, images=images)
        )
    if len(found) > 1:
        ids, _ = _common(source, [one.images for one in found])
        vectors = stacked([one.images.of(ids) for one in found])
        together = DescribedImages(ids=ids, vectors=vectors, unusable={})
        names = " + ".join(sorted(one.networks for one in found))
        found.append(_Described(name="all stacked", kind="stacked", networks=names, images=together))
    if options.baseline:
        for folder, one in zip(folders, asked, strict=True):
            images = by(untrained(one.model, seed=options.seed), f"seed {options.seed}, {one.model.weights_sha256}")
            found.append(_Described(name=f"{folder}, untrained", kind="baseline", networks="", images=images))
        images = pixel_features(source, asked[0].tolerance)
        found.append(_Described(name="pixels", kind="baseline", networks="", images=images))
    return found


def _common(source: Source, described: Sequence[DescribedImages]) -> tuple[tuple[str, ...], list[int]]:
    """Names of the images that all descriptors have, in the source's order, and their places in it."""
    usable = set(described[0].ids).intersection(*(one.ids for one in described))
    rows = [row for row, name in enumerate(source.ids) if name in usable]
    return tuple(source.ids[row] for row in rows), rows


def _copies(digests: Sequence[bytes], splits: Sequence[Split]) -> int:
    """How many images stand for testing in a split that has the same file, by its SHA-256, among those for training."""
    found: set[int] = set()
    for train, test in splits:
        learned = {digests[row] for row in train}
        found.update(int(row) for row in test if digests[row] in learned)
    return len(found)


def _classified(
    described: Sequence[_Described], ids: Sequence[str], labelled: Labelled, splits: Sequence[Split], copies: int
) -> list[Classified]:
    """What an SVM for each descriptor and split makes of the split's test images."""
    found, labels = [], labelled.labels
    with reporting("SVMs", total=len(described) * len(splits)) as report:
        if copies:
            report.say(f"test images that are exact copies of training images: {copies:,}; what they show was learned")
        for one in described:
            vectors, chosen = one.images.of(ids), []
            if zero := int((~vectors.any(axis=1)).sum()):
                report.say(
                    f"{one.name}: of {zero:,} of {len(ids):,} images all features are 0, so nothing tells them apart"
                )
            outcome = np.zeros((len(splits), *labels.shape), np.float32 if labelled.several else bool)
            for number, (train, test) in enumerate(splits):
                svm = fit_choosing_c(vectors[train], labels[train])
                if labelled.several:
                    outcome[number, test] = svm.scores(vectors[test])
                else:
                    outcome[number, test] = svm.classified(vectors[test]) == labels[test]
                chosen.append(svm.c)
                report.advance()
            found.append(
                Classified(
                    name=one.name,
                    kind=one.kind,
                    networks=one.networks,
                    numbers=vectors.shape[1],
                    outcome=outcome,
                    c=tuple(chosen),
                )
            )
    return found
