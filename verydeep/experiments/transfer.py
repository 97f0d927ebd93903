"""Features on other data, appendix B of the paper: linear SVMs over descriptors, on random splits of a source."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verydeep import runs
from verydeep.deployment.feature_classifier import check_classifier_folder, save_classifier
from verydeep.deployment.features import Descriptor, Extraction, Pool, extraction
from verydeep.deployment.linear_svm import LEAST_TRAINING_IMAGES, fit_choosing_c, stacked
from verydeep.evaluation.protocols import Scales
from verydeep.experiments.transfer_features import (
    DescribedImages,
    contents_of,
    network_features,
    pixel_features,
    untrained,
)
from verydeep.experiments.transfer_results import Classified, Kind, Transfer, descriptor_recalls
from verydeep.images.sources import Source, some
from verydeep.images.tolerance import Tolerance
from verydeep.progress import reporting
from verydeep.runtime import Runtime

Split = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Indices of training and of test images."""


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """What describes an image, and which images are for training and for testing; the paper's numbers (Caltech-101)."""

    scales: Sequence[int] | Scales = "single"
    """Q for a crop of 224, or `single` (Q = S), or `paper` (the three that follow from a run's S)."""

    pool: Pool = "avg"
    """Features at several scales: `avg`, their average, or `stack`, one after the other."""

    train: int = 30
    """Training images of each class."""

    test: int = 50
    """Test images of each class, or all that are left if they are fewer."""

    splits: int = 3
    """How many times training and test images are drawn."""

    seed: int = 0
    """Of those draws, and of the untrained network's weights."""

    baseline: bool = False
    """Also plain pixels, and networks like the runs' with random weights."""

    def __post_init__(self) -> None:
        """Raises ValueError where a choice cannot be."""
        if self.pool == "none":
            raise ValueError("an SVM needs vectors: pool is avg or stack")
        for name, least in (("train", LEAST_TRAINING_IMAGES), ("test", 1), ("splits", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")

    @property
    def descriptor(self) -> Descriptor:
        """Of one network."""
        return Descriptor(scales=self.scales, pool=self.pool, normalise=True)


@dataclass(frozen=True, kw_only=True)
class _Described:
    """One descriptor of all images."""

    name: str
    kind: Kind
    networks: str
    images: DescribedImages


def transfer(
    folders: Sequence[str | Path],
    *,
    data: str | Path | Source,
    split: str | None = None,
    options: TransferOptions | None = None,
    out: str | Path | None = None,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
) -> Transfer:
    """Tests how well runs' penultimate features tell the classes of other images, by linear SVMs.

    Of every split a fifth of the training images chooses C; then all of them make the SVM that is tested.

    Args:
        folders: classification runs; several are tested each and with their features stacked.
        data: SOURCE of the images, with at least two classes.
        split: part of it that training and test images are drawn from; of a source with splits it must be said.
        options: descriptor, draws, baselines.
        out: folder for a classifier of these classes, fitted on all the images, for `classify`.
        runtime: device, and processes that decode.
        tolerance: how many images may be unusable.

    Raises:
        ValueError: unusable runs, source or scales, a class with too few images, or `out` holds something else.
        TooManyBadImagesError: more images are unusable than is tolerated.
        OSError: features or the classifier cannot be written.
    """
    started, options = time.perf_counter(), options or TransferOptions()
    runtime, tolerance = runtime or Runtime(), tolerance or Tolerance()
    if out is not None:
        check_classifier_folder(Path(out))
    asked = _asked(folders, data, split, options, runtime, tolerance)
    source = asked[0].source
    described = _described(folders, asked, options)
    ids, labels = _common(source, [one.images for one in described])
    splits = transfer_splits(labels, source.classes, options)
    tested = np.stack([np.isin(np.arange(len(ids)), test) for _, test in splits])
    classified = _classified(described, ids, labels, splits)
    descriptors, differences = descriptor_recalls(classified, tested, labels, source.classes)
    if out is not None:
        vectors = next(one for one in reversed(described) if one.kind != "baseline").images.of(ids)
        save_classifier(fit_choosing_c(vectors, labels), asked, source.classes, Path(out))
    return Transfer(
        runs=tuple(map(str, folders)),
        source=str(data) if isinstance(data, str | Path) else "the source",
        classes=source.classes,
        n=len(ids),
        train=options.train,
        test=tuple(np.bincount(labels[tested[0]], minlength=len(source.classes)).tolist()),
        splits=options.splits,
        seed=options.seed,
        scales=tuple(one.scales for one in asked),
        pool=options.pool,
        mirror=tuple(one.mirror for one in asked),
        descriptors=descriptors,
        differences=differences,
        unusable={name: why for one in described for name, why in one.images.unusable.items()},
        seconds=time.perf_counter() - started,
    )


def transfer_splits(labels: NDArray[np.int64], classes: Sequence[str], options: TransferOptions) -> list[Split]:
    """Random draws of training and test images, the same ones for the same labels and seed.

    Raises:
        ValueError: a class has no image left to test on.
    """
    members = [np.flatnonzero(labels == label) for label in range(len(classes))]
    few = [f"{name} {len(its):,}" for name, its in zip(classes, members, strict=True) if len(its) <= options.train]
    if few:
        raise ValueError(
            f"--train {options.train} needs {options.train + 1} images of each class or more, some to test on; "
            f"usable are {some(few)}: lower --train"
        )
    found = []
    for number in range(options.splits):
        rng = np.random.Generator(np.random.PCG64([options.seed, number]))
        orders = [its[rng.permutation(len(its))] for its in members]
        end = options.train + options.test
        found.append(
            (
                np.concatenate([order[: options.train] for order in orders]),
                np.concatenate([order[options.train : end] for order in orders]),
            )
        )
    return found


def _asked(
    folders: Sequence[str | Path],
    data: str | Path | Source,
    split: str | None,
    options: TransferOptions,
    runtime: Runtime,
    tolerance: Tolerance,
) -> list[Extraction]:
    """The runs' networks and how they describe the images, checked; the source is opened once."""
    if not folders or len(set(map(str, folders))) < len(folders):
        raise ValueError("name one or more runs, each once")
    asked: list[Extraction] = []
    for folder in folders:
        where = asked[0].source if asked else data
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
    if len(source.classes) < 2:
        raise ValueError(f"{data} has fewer than two classes: give a folder with a folder of images per class")
    transfer_splits(np.asarray(source.labels), source.classes, options)  # too few images are told before any work
    return asked


def _described(
    folders: Sequence[str | Path], asked: Sequence[Extraction], options: TransferOptions
) -> list[_Described]:
    """The images by each run, by all together, and by what they are to be compared with."""
    source, contents = asked[0].source, contents_of(asked[0].source)

    def by(model: runs.Model, weights: str) -> DescribedImages:
        return network_features(
            model,
            source,
            options.descriptor,
            weights=weights,
            contents=contents,
            runtime=asked[0].runtime,
            tolerance=asked[0].tolerance,
        )

    found = []
    for folder, one in zip(folders, asked, strict=True):
        images = by(one.model, str(one.model.weights_sha256))
        found.append(
            _Described(name=str(folder), kind="network", networks=one.model.net.configuration.name, images=images)
        )
    if len(found) > 1:
        ids, _ = _common(source, [one.images for one in found])
        vectors = stacked([one.images.of(ids) for one in found])
        together = DescribedImages(ids=ids, vectors=vectors, unusable={})
        names = " + ".join(sorted({one.networks for one in found}))
        found.append(_Described(name="all stacked", kind="stacked", networks=names, images=together))
    if options.baseline:
        for folder, one in zip(folders, asked, strict=True):
            images = by(untrained(one.model, seed=options.seed), f"seed {options.seed}, {one.model.weights_sha256}")
            found.append(_Described(name=f"{folder}, untrained", kind="baseline", networks="", images=images))
        images = pixel_features(source, asked[0].tolerance)
        found.append(_Described(name="pixels", kind="baseline", networks="", images=images))
    return found


def _common(source: Source, described: Sequence[DescribedImages]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names and labels of the images that all descriptors have, in the source's order."""
    usable = set(described[0].ids).intersection(*(one.ids for one in described))
    rows = [row for row, name in enumerate(source.ids) if name in usable]
    return tuple(source.ids[row] for row in rows), np.asarray(source.labels, dtype=np.int64)[rows]


def _classified(
    described: Sequence[_Described], ids: Sequence[str], labels: NDArray[np.int64], splits: Sequence[Split]
) -> list[Classified]:
    """What an SVM for each descriptor and split makes of the split's test images."""
    found = []
    with reporting("SVMs", total=len(described) * len(splits)) as report:
        for one in described:
            vectors, right, chosen = one.images.of(ids), np.zeros((len(splits), len(ids)), bool), []
            for number, (train, test) in enumerate(splits):
                svm = fit_choosing_c(vectors[train], labels[train])
                right[number, test] = svm.classified(vectors[test]) == labels[test]
                chosen.append(svm.c)
                report.advance()
            found.append(
                Classified(
                    name=one.name,
                    kind=one.kind,
                    networks=one.networks,
                    numbers=vectors.shape[1],
                    right=right,
                    c=tuple(chosen),
                )
            )
    return found
