"""The verb `transfer`."""

import os
from pathlib import Path
from typing import Literal

from verydeep.commands.options import ImageOptions, JsonFile, OutputFolder, RuntimeOptions, named_scales
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Runtime
from verydeep.presentation.terminal import show, show_report
from verydeep.transfer_learning.tables import transfer_tables


def transfer(
    *runs: Path,
    data: str,
    split: str | None = None,
    labels: Path | None = None,
    scales: str = "single",
    pool: Literal["avg", "stack"] = "avg",
    test_images: Path | None = None,
    train: int | None = None,
    test: int | None = None,
    splits: int | None = None,
    seed: int = 0,
    baseline: bool = False,
    out: OutputFolder = None,
    report: OutputFolder = None,
    json_file: JsonFile = None,
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
) -> None:
    """Test how well runs' features tell the classes of other images, by linear SVMs (appendix B).

    Features are relu7 of the whole image, averaged over positions, over scales and, if the run was trained with
    mirrored images, over the mirror image, and divided by their Euclidean length. They are computed once and kept in
    the folder for caches. C is chosen on a fifth of the training images. The measure is the mean class recall; of
    images with several labels the mean average precision (mAP), by VOC's definitions of 2010 and of 2007.

    Args:
        runs: Run folders; several are tested each and with their features one after the other's.
        data: SOURCE of the images, of any classes; with --labels a folder of images, without classes.
        split: train, val, test or all: what training and test images are drawn from; of a source with splits it must be
            said.
        labels: Which classes each image shows, if several: a .csv file with a line file,class for each label (or
            file,x0,y0,x1,y1,class; a line with an empty class is an image that shows none), a folder of Pascal VOC's
            .xml files, or a COCO .json file.
        scales: Test scales Q for a crop of 224, such as 256,384,512; single: the training scale; paper: the three that
            follow from it.
        pool: avg: the average over scales; stack: the scales one after the other.
        test_images: File with the names of the images to test on, one a line, as VOC's ImageSets/Main/test.txt; all
            others are for training. Without it they are drawn at random.
        train: Training images of each class that are drawn. [default: 30]
        test: Test images of each class that are drawn, or all that are left if they are fewer. [default: 50]
        splits: How many times training and test images are drawn. [default: 3]
        seed: Of those draws, and of the untrained networks' weights.
        baseline: Also test plain pixels (32 x 32), and networks like the runs' with random weights.
        out: Write a classifier of these classes into this folder, for verydeep predict. It is fitted on all
            the images, to the features of all the runs. A classifier that is there is replaced; the folder may hold
            nothing else.
        report: Write a page into this folder.
        json_file: Write the figures to this file as well (- for standard output instead of the tables).
    """
    from verydeep.transfer_learning.transfer import TransferOptions
    from verydeep.transfer_learning.transfer import transfer as transfer_features

    options = TransferOptions(
        labels=labels,
        scales=named_scales(scales),
        pool=pool,
        test_images=test_images,
        train=train,
        test=test,
        splits=splits,
        seed=seed,
        baseline=baseline,
    )
    _check_apart(out, {"--report": report, "--json": json_file})
    found = transfer_features(
        list(runs), data=data, split=split, options=options, out=out, runtime=runtime, tolerance=images
    )
    figures = found.to_dict()
    show(figures, json_file, *transfer_tables(figures))
    if report is not None:
        from verydeep.transfer_learning.report import write_transfer_report

        page = write_transfer_report(found, report)
        show_report(page, json_file)


def _check_apart(out: Path | None, places: dict[str, Path | None]) -> None:
    """Refuses what would be written into the folder of a classifier, which holds nothing else."""
    for option, place in places.items():
        if out is None or place is None or str(place) == "-":
            continue
        one, other = Path(os.path.realpath(out)), Path(os.path.realpath(place))
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise ValueError(f"--out {out} and {option} {place} need places of their own, neither inside the other")
