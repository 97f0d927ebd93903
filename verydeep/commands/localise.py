"""The verbs `localise train`, `localise evaluate` and `localise predict`."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from verydeep.commands.options import (
    BoxFiles,
    ConfigFile,
    ExecutionOptions,
    ImageArgument,
    ImageOptions,
    JsonFile,
    LinesFile,
    OutputFile,
    OutputFolder,
    RecipeOptions,
    RuntimeOptions,
    whole_numbers,
)
from verydeep.commands.predictions import Told, check_predictions_file, images_asked_for, say, tell
from verydeep.commands.train import training_figures
from verydeep.evaluation.protocols import Windows
from verydeep.images.boxes.regression import Regression
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.localisation.tables import box_prediction_table, localisation_tables
from verydeep.machine.processes import rank_of_environment
from verydeep.machine.runtime import Execution, Runtime
from verydeep.presentation.terminal import show, show_report
from verydeep.training.recipe import Recipe
from verydeep.training.tables import training_table

localise = App(name="localise", help="Train, test and use networks that tell where an object is (appendix A).")


@localise.command
def train(
    source: str,
    *,
    boxes: BoxFiles,
    regression: Regression = "per-class",
    fc_only: bool = False,
    skip_bad_boxes: bool = False,
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
    """Train a network to predict the box of an image's object, from one that classifies (--finetune RUN).

    All its layers are copied but the last, which predicts a box for each class, or one for all.

    Args:
        source: A folder, tar shards or hub:NAME (see verydeep --help).
        boxes: File of boxes, in pixels of the upright image: .csv (file,x0,y0,x1,y1,class, or a first line that names
            these columns), .json (COCO), or a folder of .xml (Pascal VOC, ILSVRC). Several --boxes count as one. An
            image is named by as much of its path as tells it apart, one of hub:NAME by its file or as train/0. Images
            with several boxes of their class are left out.
        regression: per-class: a box for each class; shared: one for all.
        fc_only: Only the fully connected layers learn.
        skip_bad_boxes: Leave out images whose box has no area, is not in the image or is of an image of another size,
            or that have none, and list them. Each class needs a training image that is left.
        network: A, A-LRN, B, B-5x5, C, D or E; that of the run, if not said.
        out: The run folder to make.
        resume: Go on with a run that was stopped, the other options as before; begin it if it is not there.
        config: TOML file of options (learning_rate = 0.005); the command line overrides it.
        json_file: Write the last and the best epoch's figures to this file as well (- for standard output instead).
    """
    from dataclasses import asdict

    from verydeep.images.boxes.open import BoxOptions
    from verydeep.localisation.training import localisation_recipe, localisation_splits
    from verydeep.training.loop import train as train_network

    recipe = localisation_recipe(recipe, fc_only=fc_only)
    options = BoxOptions(boxes=tuple(boxes), skip_bad_boxes=skip_bad_boxes)
    splits, check = localisation_splits(source, regression=regression, options=options, max_pixels=images.max_pixels)
    say(check.lines())
    folder = train_network(
        splits,
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
    figures = {**training_figures(folder), "regression": regression, **asdict(check)}
    show(figures, json_file, training_table(figures))


@localise.command
def evaluate(
    *runs: Path,
    data: str,
    boxes: BoxFiles,
    skip_bad_boxes: bool = False,
    split: str | None = None,
    classifier: Annotated[list[Path] | None, Parameter(negative="", consume_multiple=False)] = None,
    scales: str | None = None,
    windows: Windows | None = None,
    predictions: OutputFile = None,
    report: OutputFolder = None,
    json_file: JsonFile = None,
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
) -> None:
    """Test runs of boxes by the paper's two procedures, and compare them.

    The simplified one takes the centre crop and the true class. The full one, with --classifier, applies networks to
    whole images, merges the boxes, and rates them and ranks the classes by the classification run's scores.

    Args:
        runs: Run folders of verydeep localise train; in the full test several are also put together.
        data: SOURCE of the images.
        boxes: Files of their boxes, as for training.
        skip_bad_boxes: Leave out images whose box cannot be used, or that have none, as in training, and list them.
        split: train, val, test or all. If not said: test if the source has one, else val; of a source without splits
            that none of the runs was trained on, those of --classifier among them, all.
        classifier: A classification run with the same classes and crop; several are averaged.
        scales: Test scales Q of the full test for a crop of 224, such as 352,384, for all runs; if not said, each run's
            own S.
        windows: Of the full test. dense: whole images through the networks, as in the paper; crops: each window cut
            out, as in training. If not said: dense for a crop of 224 or more, crops for smaller ones.
        predictions: Write every image's true box, and of each run the box from the centre crop, to this file (.csv or
            .parquet).
        report: Write a page with pictures into this folder.
        json_file: Write the figures to this file as well (- for standard output instead of the tables).
    """
    from verydeep.images.boxes.open import BoxOptions
    from verydeep.localisation.box_predictions import write_box_predictions
    from verydeep.localisation.evaluate import FullProcedure, evaluate_boxes

    if not runs:
        raise ValueError("name one or more run folders to evaluate")
    check_predictions_file(predictions, json_file)
    if (scales is not None or windows is not None) and not classifier:
        raise ValueError("--scales and --windows are for the full test, which needs a classification run: --classifier")
    full = FullProcedure(classifiers=tuple(classifier), scales=_scales(scales), windows=windows) if classifier else None
    found = evaluate_boxes(
        list(runs),
        data=data,
        options=BoxOptions(boxes=tuple(boxes), skip_bad_boxes=skip_bad_boxes),
        split=split,
        full=full,
        runtime=runtime,
        tolerance=images,
    )
    say(found.check.lines())
    show(found.to_dict(), json_file, *localisation_tables(found))
    if predictions is not None:
        write_box_predictions(found, predictions)
    if report is not None:
        from verydeep.localisation.report import write_localisation_report

        page = write_localisation_report(found, report, data=data)
        show_report(page, json_file)


@localise.command
def predict(
    run: Path,
    *images: ImageArgument,
    classifier: Path,
    top: int = 1,
    scales: str | None = None,
    windows: Windows | None = None,
    out: LinesFile = None,
    draw: OutputFolder = None,
    json_file: JsonFile = None,
    max_pixels: int = MAX_PIXELS,
    runtime: RuntimeOptions = Runtime(),
) -> None:
    """Tell what images show and where: the most probable classes and the box of each.

    Args:
        run: A run folder of verydeep localise train.
        images: As for verydeep predict: image files, folders of them, patterns in quotes, or a hyphen.
        classifier: A classification run with the same classes and crop.
        top: How many classes, up to 5.
        scales: Test scales Q for a crop of 224, such as 352,384, for both runs; if not said, each run's own S.
        windows: dense or crops, as for evaluate.
        out: Write a line for each image to this file instead of the table: .jsonl (JSON lines, as they are computed),
            .csv or .parquet; - for JSON lines on standard output.
        draw: Write copies of the images with their boxes drawn in into this folder.
        json_file: Write all predictions to this file as well (- for standard output instead of the table).
        max_pixels: Larger images are refused.
    """
    from verydeep.localisation.evaluate import FullProcedure
    from verydeep.localisation.predict import BoxPrediction, predict_boxes
    from verydeep.runs.model import load_box_model

    source = images_asked_for(images, out=out, json_file=json_file)
    full = FullProcedure(classifiers=(classifier,), scales=_scales(scales), windows=windows)
    model = load_box_model(run)
    found = predict_boxes(model, source, full=full, top=top, draw=draw, runtime=runtime, max_pixels=max_pixels)
    places = min(top, len(model.classes))
    told = Told(predictions=found, kind=BoxPrediction, places=places, table=box_prediction_table)
    tell(told, images=len(source), out=out, json_file=json_file)


def _scales(text: str | None) -> tuple[int, ...]:
    return () if text is None else tuple(whole_numbers(text, "--scales"))
