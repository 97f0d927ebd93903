"""The verb `evaluate`."""

from pathlib import Path

from verydeep.commands.options import ImageOptions, JsonFile, OutputFile, OutputFolder, RuntimeOptions, named_scales
from verydeep.commands.predictions import check_predictions_file
from verydeep.evaluation.protocols import Method
from verydeep.evaluation.tables import evaluation_tables
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import rank_of_environment
from verydeep.machine.runtime import Runtime
from verydeep.presentation.terminal import show, show_report


def evaluate(
    *runs: Path,
    data: str,
    split: str | None = None,
    protocol: Method = "dense",
    scales: str = "paper",
    cache: bool = True,
    predictions: OutputFile = None,
    report: OutputFolder = None,
    json_file: JsonFile = None,
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
) -> None:
    """Test runs by the paper's protocols; several are also fused by averaging their posteriors, and compared.

    Args:
        runs: Run folders.
        data: SOURCE of the images: a folder, tar shards, hub:NAME or digits.
        split: train, val, test or all. If not said: test if the source has one, else val; of a source without
            splits that the runs were not trained on, all.
        protocol: dense: whole images; crops: 50 crops of each at each scale; both: the average of the two.
        scales: Test scales Q for a crop of 224, such as 256,384,512; paper: the three that follow from the training
            scale; single: the training scale.
        cache: Keep what is computed of every image, and use what was kept of the same weights, images and scale.
        predictions: Write the five most probable classes of every image to this file (.csv or .parquet).
        report: Write a page with pictures into this folder: confusion, calibration, wrong images, score maps.
        json_file: Write the figures to this file as well (- for standard output instead of the tables).
    """
    from verydeep.evaluation.evaluate import evaluate as evaluate_runs
    from verydeep.evaluation.predictions import write_predictions

    if not runs:
        raise ValueError("name one or more run folders to evaluate")
    check_predictions_file(predictions, json_file)
    found = evaluate_runs(
        list(runs),
        data=data,
        split=split,
        protocol=protocol,
        scales=named_scales(scales),
        runtime=runtime,
        tolerance=images,
        cache=cache,
    )
    if rank_of_environment():
        return  # the first process tells
    show(found.to_dict(), json_file, *evaluation_tables(found))
    if predictions is not None:
        write_predictions(found, predictions)
    if report is not None:
        from verydeep.evaluation.report import evaluation_report  # which needs Matplotlib

        page = evaluation_report(found, report, data=data)
        show_report(page, json_file)
