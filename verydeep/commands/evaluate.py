"""The verb `evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from verydeep.commands.options import TESTING, ImageOptions, RuntimeOptions, TestOutputOptions, TestOutputs
from verydeep.commands.predictions import check_test
from verydeep.evaluation.protocols import Method, Protocol, Scales
from verydeep.evaluation.tables import evaluation_tables
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import FULL_PRECISION, Runtime, TestPrecision
from verydeep.machine.torchrun import rank_of_environment
from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid
from verydeep.presentation.terminal import say_next, show, show_report


@dataclass(frozen=True, kw_only=True)
class TestMethod:
    """How runs are tested."""

    protocol: Method = Protocol.method
    """dense: whole images; crops: 50 crops of each at each scale; both: the average of the two; centre: the crop in the
    middle without its mirror image, as libraries report errors."""

    scales: Sequence[int] | Scales | None = None
    """Test scales Q for a crop of 224, such as 256,384,512; single: the training scale; paper (the default): the three
    that follow from it. For centre the default is 256."""

    grid: PoolingGrid = DEFAULT_GRID
    """Where the positions of dense evaluation lie if an image's sides are not multiples of 32: centred; floor, as
    PyTorch pools; ceil, as Caffe does, which the paper used."""

    precision: TestPrecision = FULL_PRECISION
    """fp32; or bf16: compute products in bfloat16, which is faster where the processor or device multiplies in it. Some
    images are tested in both, and the table says what differs."""

    cache: bool = True
    """Keep what is computed for every image, and use what was kept for the same weights, images and scale."""


def evaluate(
    *runs: Path,
    data: str,
    split: str | None = None,
    held_out: float | None = None,
    how: Annotated[TestMethod, Parameter(name="*", group=TESTING.group)] = TestMethod(),
    outputs: TestOutputOptions = TestOutputs(),
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
) -> None:
    """Test runs by the paper's protocols; several are also fused by averaging their posteriors, and compared.

    Args:
        runs: Run folders, or files that verydeep export wrote.
        data: SOURCE of the images (see below).
        split: train, val, test or all. By default test if the source has one, else val; or all, for a source without
            splits that the runs were not trained on.
        held_out: Share of each class's training images, as train was told: those that the learning rate followed are
            then val, to choose by, and the source's validation images are test.
        outputs.predictions: Write the five most probable classes of every image to this file (.csv or .parquet).
        outputs.report: Write a page with pictures into this folder: confusion, calibration, wrong images, score maps;
            and wrong_images.jpg, a sheet of the most confident errors.
    """
    from verydeep.evaluation.evaluate import evaluate as evaluate_runs
    from verydeep.evaluation.predictions import write_predictions
    from verydeep.evaluation.tested_runs import divided_as_in_training

    check_test(runs, outputs)
    tested = data if held_out is None else divided_as_in_training(data, held_out, runs)
    evaluation = evaluate_runs(
        list(runs),
        data=tested,
        split=split,
        protocol=how.protocol,
        scales=how.scales,
        grid=how.grid,
        precision=how.precision,
        runtime=runtime,
        tolerance=images,
        cache=how.cache,
    )
    if rank_of_environment():
        return  # the first process shows the figures
    show(evaluation.to_dict(), outputs.json_file, *evaluation_tables(evaluation))
    if outputs.predictions is not None:
        write_predictions(evaluation, outputs.predictions)
    if outputs.report is not None:
        from verydeep.evaluation.report import evaluation_report  # needs Matplotlib

        page = evaluation_report(evaluation, outputs.report, data=tested, language=outputs.language)
        show_report(page, outputs.json_file)
    if outputs.predictions is not None:
        say_next(
            [outputs.predictions], "verydeep", "compare", outputs.predictions, f"other{outputs.predictions.suffix}"
        )
    else:
        say_next([], "verydeep", "predict", runs[0], "picture.jpg")
