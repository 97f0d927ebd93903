"""The verbs `localise train`, `localise evaluate` and `localise predict`."""

from dataclasses import asdict
from pathlib import Path

from cyclopts import App

from verydeep.box_regression import Regression
from verydeep.commands import options
from verydeep.commands.help_pages import register
from verydeep.commands.next_options import given_options
from verydeep.commands.predictions import PredictionStream, check_test, images_asked_for, present, print_notes
from verydeep.commands.train import show_training
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.localisation.tables import box_prediction_table, localisation_tables
from verydeep.machine.runtime import Execution, Runtime
from verydeep.presentation.terminal import say_next, show, show_report
from verydeep.training.recipe import Recipe

localise = App(
    name="localise",
    help="Train, test and use networks that tell where an object is (appendix A).",
    help_epilogue="verydeep localise VERB --help lists a verb's options, with an example.",
)


def train(
    source: str,
    *,
    boxes: options.BoxFileOptions,
    regression: Regression = "per-class",
    fc_only: bool = False,
    network: str | None = None,
    run: options.RunFolderOptions,
    recipe: options.RecipeOptions = Recipe(),
    images: options.ImageOptions = Tolerance(),
    runtime: options.RuntimeOptions = Runtime(),
    execution: options.ExecutionOptions = Execution(),
) -> None:
    """Train a network to predict the box of an image's object, from one that classifies (--finetune RUN).

    All its layers are copied except the last, which predicts a box for each class, or one for all. Each class needs a
    training image with a good box.

    Args:
        source: The images (see below).
        regression: per-class: a box for each class; shared: one for all.
        fc_only: Train the fully connected layers only.
        network: A, A-LRN, B, B-5x5, C, D or E; by default the run's.
        run.resume: Continue a run that was stopped; all options must be given as before. Start it if it does not exist.
    """
    from verydeep.localisation.training import localisation_recipe, localisation_splits
    from verydeep.training.loop import train as train_network

    recipe = localisation_recipe(recipe, fc_only=fc_only)
    splits, check = localisation_splits(source, regression=regression, options=boxes, max_pixels=images.max_pixels)
    print_notes(check.lines())
    folder = train_network(
        splits,
        network=network,
        out=run.out,
        recipe=recipe,
        runtime=runtime,
        execution=execution,
        tolerance=images,
        resume=run.resume,
    )
    show_training(folder, run.json_file, **asdict(check))
    given = [*given_options(boxes), *given_options(images)]
    say_next([folder], "verydeep", "localise", "evaluate", folder, "--data", source, *given)


def evaluate(
    *runs: Path,
    data: str,
    split: str | None = None,
    boxes: options.BoxFileOptions,
    full: options.FullTestOptions | None = None,
    outputs: options.TestOutputOptions = options.TestOutputs(),
    images: options.ImageOptions = Tolerance(),
    runtime: options.RuntimeOptions = Runtime(),
) -> None:
    """Test runs of boxes by the paper's two procedures, and compare them.

    The simplified one takes the centre crop and the true class. The full one, with --classifier, applies networks to
    whole images, merges the boxes, and rates them and ranks the classes by the classification run's scores.

    Args:
        runs: Run folders of verydeep localise train; in the full test several are also put together.
        data: SOURCE of the images.
        split: train, val, test or all. By default test if the source has one, else val; or all, for a source without
            splits that none of the runs was trained on, including those of --classifier.
        outputs.predictions: Write every image's true box, and each run's box from the centre crop, to this file (.csv
            or .parquet).
        outputs.report: Write a page with pictures into this folder.
    """
    from verydeep.localisation.evaluate import evaluate_boxes
    from verydeep.localisation.results import write_box_predictions

    check_test(runs, outputs)
    localisation = evaluate_boxes(
        list(runs), data=data, options=boxes, split=split, full=full, runtime=runtime, tolerance=images
    )
    print_notes(localisation.check.lines())
    show(localisation.to_dict(), outputs.json_file, *localisation_tables(localisation))
    if outputs.predictions is not None:
        write_box_predictions(localisation, outputs.predictions)
    if outputs.report is not None:
        from verydeep.localisation.report import write_localisation_report  # needs Matplotlib

        page = write_localisation_report(localisation, outputs.report, data=data, language=outputs.language)
        show_report(page, outputs.json_file)
    given = ["--classifier", "RUN"] if full is None else given_options(full)
    given += ["--max-pixels", str(images.max_pixels)] if images.max_pixels != MAX_PIXELS else []
    written = [outputs.predictions] if outputs.predictions is not None else []
    say_next(written, "verydeep", "localise", "predict", runs[0], "picture.jpg", *given)


def predict(
    run: Path,
    *images: options.ImageArgument,
    top: int = 1,
    draw: options.OutputFolder = None,
    max_pixels: int = MAX_PIXELS,
    full: options.FullTestOptions,
    outputs: options.PredictionOutputOptions = options.PredictionOutputs(),
    runtime: options.RuntimeOptions = Runtime(),
) -> None:
    """Classify images and locate their objects: tell the most probable classes and the box of each.

    Args:
        run: A run folder of verydeep localise train.
        images: As for verydeep predict: image files, folders of them, patterns in quotes, or a hyphen.
        top: Number of classes, up to 5.
        draw: Write copies of the images with their boxes drawn in into this folder, which must have none of the images.
        max_pixels: Larger images are refused.
    """
    from verydeep.localisation.predict import BoxPrediction, predict_boxes
    from verydeep.runs.model import load_box_model

    source = images_asked_for(images, outputs)
    model = load_box_model(run)
    stream = PredictionStream(
        predictions=predict_boxes(model, source, full=full, top=top, draw=draw, runtime=runtime, max_pixels=max_pixels),
        kind=BoxPrediction,
        most_classes=min(top, len(model.classes)),
        table=box_prediction_table,
    )
    present(stream, outputs, source, draw)


for verb in (train, evaluate, predict):
    register(localise, verb)
