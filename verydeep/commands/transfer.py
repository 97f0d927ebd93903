"""The verb `transfer`."""

from pathlib import Path

from verydeep.commands.options import ImageOptions, JsonFile, OutputFolder, RuntimeOptions, TransferTestOptions
from verydeep.images.tolerance import Tolerance
from verydeep.machine.atomic import followed
from verydeep.machine.lock import locked
from verydeep.machine.runtime import Runtime
from verydeep.presentation.terminal import say_next, show, show_report
from verydeep.presentation.translation import DEFAULT_LANGUAGE, Language
from verydeep.transfer_learning.options import TransferOptions
from verydeep.transfer_learning.tables import transfer_tables


def transfer(
    *runs: Path,
    data: str,
    split: str | None = None,
    out: OutputFolder = None,
    report: OutputFolder = None,
    language: Language = DEFAULT_LANGUAGE,
    json_file: JsonFile = None,
    options: TransferTestOptions = TransferOptions(),
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
) -> None:
    """Test how well runs' features tell the classes of other images apart, by linear SVMs (appendix B).

    Features are relu7 of the whole image, averaged over positions, over scales and, if the run was trained with
    mirrored images, over the mirror image, and divided by their Euclidean length. They are computed once and kept in
    the folder for caches. C is chosen on a fifth of the training images. The measure is the mean class recall; for
    images with several labels it is the mean average precision (mAP), by VOC's definitions of 2010 and of 2007.

    Args:
        runs: Run folders, or files that verydeep export wrote; of several, each is tested alone, and all with their
            features stacked.
        data: SOURCE of the images, of any classes; with --labels a folder of images, without classes.
        split: train, val, test or all: the images that training and test images are sampled from; required for a source
            with splits.
        out: Write a classifier of these classes into this folder, for verydeep predict. It is fitted on all images, to
            the features of all runs, and has copies of them, which other files than .pt2 cannot give. A classifier in
            it is replaced; the folder may hold nothing else.
        report: Write a page into this folder.
        language: Language of that page: en or ja.
        json_file: Write the figures to this file as well (- for standard output instead of the tables).
    """
    from verydeep.transfer_learning.transfer import transfer as transfer_features

    _check_apart(out, {"--report": report, "--json": json_file})
    with locked(out):
        result = transfer_features(
            list(runs), data=data, split=split, options=options, out=out, runtime=runtime, tolerance=images
        )
    show(result.to_dict(), json_file, *transfer_tables(result))
    if report is not None:
        from verydeep.transfer_learning.report import write_transfer_report  # needs Matplotlib

        show_report(write_transfer_report(result, report, language=language), json_file)
    if out is not None:
        say_next([out], "verydeep", "predict", out, "picture.jpg")


def _check_apart(out: Path | None, others: dict[str, Path | None]) -> None:
    """Refuse paths inside the folder of a classifier, which holds nothing else, or around it."""
    for option, other in others.items():
        if out is None or other is None or str(other) == "-":
            continue
        one, two = followed(out), followed(other)
        if one.is_relative_to(two) or two.is_relative_to(one):
            raise ValueError(f"--out {out} and {option} {other} must be apart, neither inside the other")
