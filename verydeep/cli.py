"""The command line: one short function per verb. Whatever is heavy is imported inside the verb that needs it."""

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from cyclopts import App, Parameter

from verydeep.evaluation.protocols import Method, Scales
from verydeep.exit_status import explained
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.networks.arithmetic import describe, describe_stack
from verydeep.networks.configurations import CONFIGURATIONS, ILSVRC_CLASSES, PAPER_CROP
from verydeep.options import (
    ChangeOptions,
    ConfigFile,
    ExecutionOptions,
    ImageOptions,
    JsonFile,
    OutputFile,
    OutputFolder,
    RecipeChanges,
    RecipeOptions,
    RuntimeOptions,
    options_file,
    whole_numbers,
)
from verydeep.processes import rank_of_environment, under_torchrun
from verydeep.runtime import Device, Execution, Runtime, ended_by_sigterm
from verydeep.tables import (
    comparison_table,
    evaluation_tables,
    layer_table,
    networks_table,
    plan_table,
    prediction_table,
    scan_tables,
    show,
    stack_table,
    training_table,
)
from verydeep.training.recipe import Recipe
from verydeep.version import __version__

STACK_CHANNELS = 512

ON_SEVERAL_PROCESSES = {"train", "evaluate", "reproduce"}

app = App(
    name="verydeep",
    suppress_keyboard_interrupt=False,
    version=__version__,
    help="The VGG paper as a tool: train its networks, test them its way, repeat its experiment on your images.",
    help_epilogue="SOURCE is a folder with one folder of images per class (or train/ and val/ that hold them); tar "
    "shards, 'data/{000..099}.tar' or a folder of them; hub:NAME, a data set of the Hugging Face hub; or the word "
    "digits: 1,797 real handwritten digits that need no download.",
)


@app.command(name="describe")
def describe_verb(
    *networks: str,
    input: int = PAPER_CROP,
    classes: int = ILSVRC_CLASSES,
    batch: int = 1,
    width: float = 1.0,
    batch_norm: bool = False,
    stack: str | None = None,
    channels: int | None = None,
    json_file: JsonFile = None,
) -> None:
    """Show what networks cost and see: layers, parameters, multiply-adds, memory, receptive field.

    Args:
        networks: Names from the paper's Table 1 (A, A-LRN, B, C, D, E) or B-5x5; all, side by side, if none is named.
        input: Side of the crop in pixels, a multiple of 32.
        classes: Outputs of the last layer.
        batch: Images whose activations count as memory.
        width: Factor on the channels of every hidden layer.
        batch_norm: The variant with batch normalisation (not in the paper).
        stack: Instead: compare stacked convolutions, such as 3,3,3, with one layer that sees as much.
        channels: Channels of that stack (512 if not said).
        json_file: Write the figures to this file as well (- for standard output instead of the table).
    """
    if stack is not None:
        if networks or (input, classes, batch, width, batch_norm) != (PAPER_CROP, ILSVRC_CLASSES, 1, 1.0, False):
            raise ValueError("a --stack is described by --channels alone, without networks and their options")
        compared = describe_stack(
            whole_numbers(stack, "--stack"), channels=STACK_CHANNELS if channels is None else channels
        )
        show(compared.to_dict(), json_file, stack_table(compared))
        return
    if channels is not None:
        raise ValueError("--channels goes with --stack")
    found = [
        describe(name, input=input, classes=classes, batch=batch, width=width, batch_norm=batch_norm)
        for name in networks or CONFIGURATIONS
    ]
    described = {"networks": [network.to_dict() for network in found]}
    show(described, json_file, layer_table(found[0]) if len(found) == 1 else networks_table(found))


@app.command
def scan(
    source: str = "digits",
    *,
    json_file: JsonFile = None,
    workers: int = 0,
    images: ImageOptions = Tolerance(),
) -> None:
    """Look through all images of a source before training on it: unusable ones, classes, sizes, duplicates.

    Args:
        source: A folder, tar shards, hub:NAME or digits (see verydeep --help).
        json_file: Write everything found to this file as well (- for standard output instead of the tables).
        workers: Processes that read and decode; 0 does it in the main process.
    """
    from verydeep.images.scan import scan as scan_source

    found = scan_source(source, tolerance=images, workers=Runtime(workers=workers).workers).to_dict()
    show(found, json_file, *scan_tables(found, max_bad=images.max_bad))


@app.command
def train(
    source: str = "digits",
    *,
    network: str | None = None,
    out: Path,
    resume: bool = False,
    config: ConfigFile = None,
    json_file: JsonFile = None,
    recipe: RecipeOptions = Recipe(),
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
    execution: ExecutionOptions = Execution(),
) -> None:
    """Train a network by the paper's recipe and leave a run folder.

    Args:
        source: A folder, tar shards, hub:NAME or digits (see verydeep --help).
        network: A, A-LRN, B, B-5x5, C, D or E; with --finetune that of the run, if not said.
        out: The run folder to make.
        resume: Go on with a run that was stopped, the other options as before; begin it if it is not there.
        config: TOML file of options (learning_rate = 0.005); the command line overrides it.
        json_file: Write the last and the best epoch's figures to this file as well (- for standard output instead).
    """
    from verydeep.images.quarantine import read_quarantine
    from verydeep.runs import QUARANTINE, read_metrics, read_record
    from verydeep.training.loop import train as train_network

    folder = train_network(
        source,
        network=network,
        out=out,
        recipe=recipe,
        runtime=runtime,
        execution=execution,
        tolerance=images,
        resume=resume,
    )
    if rank_of_environment():
        return  # the first process tells
    epochs = read_metrics(folder)
    if not epochs:
        raise OSError(f"{folder} has lost its metrics; its model is good")
    bad = read_quarantine(folder / QUARANTINE)
    best = min(epochs, key=lambda epoch: epoch["validation_error"])
    figures = {
        "run": str(folder),
        "network": read_record(folder).network,
        "last": epochs[-1],
        "best": best,
        "unusable": bad,
    }
    show(figures, json_file, training_table(figures))


@app.command
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
    from verydeep.evaluation.predictions import check_kind, write_predictions

    if not runs:
        raise ValueError("name one or more run folders to evaluate")
    if predictions is not None:
        check_kind(predictions)
        if predictions == json_file:
            raise ValueError(f"{predictions} cannot hold both the predictions and the figures")
    named = next((name for name in get_args(Scales) if name == scales), None)
    found = evaluate_runs(
        list(runs),
        data=data,
        split=split,
        protocol=protocol,
        scales=named or whole_numbers(scales, "--scales"),
        runtime=runtime,
        tolerance=images,
        cache=cache,
    )
    if rank_of_environment():
        return  # the first process tells
    show(found.to_dict(), json_file, *evaluation_tables(found.to_dict()))
    if predictions is not None:
        write_predictions(found, predictions)
    if report is not None:
        from verydeep.evaluation.report import evaluation_report  # which needs Matplotlib

        page = evaluation_report(found, report, data=data)
        print(f"report: {page}", file=sys.stderr if str(json_file) == "-" else sys.stdout)


@app.command
def compare(first: Path, second: Path, *, json_file: JsonFile = None) -> None:
    """Compare two tests of the same images: the difference of their errors, and whether it may be chance.

    Args:
        first: File of predictions, as verydeep evaluate --predictions writes them.
        second: Another: of another run, protocol or choice of scales.
        json_file: Write the figures to this file as well (- for standard output instead of the table).
    """
    from verydeep.evaluation.compare import compare as compare_predictions

    found = compare_predictions(first, second).to_dict()
    show(found, json_file, comparison_table([found]))


@app.command
def reproduce(
    source: str = "digits",
    *,
    out: Path,
    quick: bool = False,
    only: str = "",
    tables: str = "3,4,5,6",
    seeds: int = 1,
    dry_run: bool = False,
    json_file: JsonFile = None,
    changes: ChangeOptions = RecipeChanges(),
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
    execution: ExecutionOptions = Execution(),
) -> None:
    """Train all networks of the paper, repeat its tables and tell which of its findings hold on your images.

    What stands in the folder already is not repeated; more seeds, tables or networks can be added later.

    Args:
        source: A folder, tar shards, hub:NAME or digits (see verydeep --help).
        out: Folder of the report, the runs and the figures.
        quick: Scaled down: every network once at S = 256, crop 32, quarter width, few epochs; about two minutes for
            the digits.
        only: Networks (D, for all of its trainings) or trainings (D-384), with commas; what they start from comes
            along.
        tables: Of the paper, 3 to 6.
        seeds: How often everything is trained; with three or more, findings are about networks, not single trainings.
        dry_run: Only tell what would be trained, and about how long and with how much memory.
        json_file: Write the report's figures to this file as well (- for standard output instead of the path).
    """
    from verydeep.experiments.grid import QUICK, Grid
    from verydeep.experiments.reproduce import quick_recipe

    recipe = changes.applied(quick_recipe(source) if quick else Recipe())
    named = tuple(name for name in only.split(",") if name) or (QUICK if quick else ())
    grid = Grid(only=named, tables=tuple(whole_numbers(tables, "--tables")), seeds=seeds)
    options: dict[str, Any] = {"recipe": recipe, "grid": grid, "runtime": runtime, "execution": execution}
    if dry_run:
        _show_plan(source, out, options, images, json_file)
        return
    from verydeep.experiments.report import RESULTS
    from verydeep.experiments.reproduce import reproduce as reproduce_paper

    report = reproduce_paper(source, out=out, tolerance=images, **options)
    if not rank_of_environment():
        show(json.loads((out / RESULTS).read_text()), json_file, f"report: {report}")


def _show_plan(source: str, out: Path, options: dict[str, Any], tolerance: Tolerance, json_file: Path | None) -> None:
    from verydeep.experiments.estimate import estimates
    from verydeep.experiments.reproduce import run_folder
    from verydeep.images.open_source import open_source

    seed, grid = options["recipe"].seed, options["grid"]
    found = estimates(open_source(source), out=run_folder(out, seed), tolerance=tolerance, **options)
    figures = {"seeds": grid.seeds, "tests": len(grid.entries), "trainings": [one.to_dict() for one in found]}
    show(figures, json_file, plan_table(figures))


@app.command
def predict(
    run: Path,
    *images: Annotated[Path, Parameter(json_list=False)],
    top: int = 5,
    device: Device = "auto",
    max_pixels: int = MAX_PIXELS,
    json_file: JsonFile = None,
) -> None:
    """Tell what images show: the most probable classes and their probabilities.

    Args:
        run: A run folder.
        images: Image files, or folders of them.
        top: How many classes.
        device: Where the network runs; auto takes CUDA, else MPS, else the CPU.
        max_pixels: Larger images are refused.
        json_file: Write the predictions to this file as well (- for standard output instead of the table).
    """
    from verydeep.deployment.predict import predict as predict_images

    if not images:
        raise ValueError("name one or more images, or folders of them")
    options: dict[str, Any] = {"top": top, "device": device, "max_pixels": max_pixels}
    found = [prediction.to_dict() for prediction in predict_images(run, images, **options)]
    show({"predictions": found}, json_file, prediction_table(found))
    failed = sum(prediction["error"] is not None for prediction in found)
    if failed:
        raise OSError(f"{failed} of {len(found)} images could not be used")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line and exits: 0 done, 2 wrong use, 1 failure, 130 or 143 stopped by a signal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no text at all
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or bool(os.environ.get("VERYDEEP_DEBUG"))
    tokens = [token for token in given if token != "--debug"]
    try:
        if under_torchrun() and not ON_SEVERAL_PROCESSES & {*tokens[:1]}:
            raise ValueError(
                "only train, evaluate and reproduce work on several processes: start this without torchrun"
            )
        with ended_by_sigterm():
            app.config = options_file(tokens)
            app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except Exception as error:
        if debug:
            raise
        sys.exit(explained(error))
    except KeyboardInterrupt:
        print("verydeep: stopped", file=sys.stderr)
        sys.exit(130)
