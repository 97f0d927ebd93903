"""Tests of runs of boxes on a source, by the paper's two procedures (appendix A.2)."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from verydeep.evaluation.metrics import TOP
from verydeep.evaluation.tested_runs import testing_split
from verydeep.exported_networks.run_or_file import model_on_device
from verydeep.images.boxes.geometry import CORRECT_IOU, boxes_in_image, clipped, intersection_over_union, rescaled_boxes
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.decode import Size
from verydeep.images.loader import centre_batches, to_device
from verydeep.images.open import open_boxed, open_for_testing
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import RescaledImages
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import Tolerance
from verydeep.images.views import centre_location, rescaled_size
from verydeep.localisation import results
from verydeep.localisation.full_test import CROPS_AT_ONCE, ClassBoxes, FullTest, check_finite, full_test, image_size
from verydeep.localisation.options import FullProcedure
from verydeep.machine.runtime import Runtime, in_float32
from verydeep.machine.threads import threads_kept, use_threads
from verydeep.networks.scales import middle_scale, scale_in_pixels
from verydeep.presentation.terminal import reporting
from verydeep.runs.model import Model, load_box_model, load_model, warnings_of


def full_test_of(
    full: FullProcedure, names: Sequence[str | Path], models: Sequence[Model], runtime: Runtime
) -> FullTest:
    """Return the full test of these networks of boxes: each by itself and, if there are several, all together.

    Warnings about the classification runs, such as random layers, are shown.

    Raises:
        ValueError: they do not go together.
    """
    classifiers = []
    with reporting("classification runs", total=len(full.classifiers)) as report:
        for folder in full.classifiers:
            model = model_on_device(runtime.device, load_model(folder))
            classifiers.append(model)
            for line in warnings_of(str(folder), model):
                report.say(line)
            report.advance()
    each = [[which] for which in range(len(models))]
    return FullTest(
        box_models=models,
        classifiers=classifiers,
        groups=[*each, list(range(len(models)))] if len(models) > 1 else each,
        scales=full.scales,
        windows=full.windows,
        names=[*map(str, names), *map(str, full.classifiers)],
    )


@threads_kept()
def evaluate_boxes(
    folders: Sequence[str | Path],
    *,
    data: str | Path,
    options: BoxOptions,
    split: str | None = None,
    full: FullProcedure | None = None,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
) -> results.Localisation:
    """Test runs of boxes by the paper's simplified procedure and, with `full`, by the full one; compare several runs.

    Args:
        folders: runs of boxes, with the same classes and crop.
        data: SOURCE of the images.
        options: where their boxes are.
        split: `test` if the source has one, else `val`; for a source without splits that none of the runs was trained
            on, those that classify among them, `all`.
        full: procedure for whole images, in which the predictions of several runs are also put together.
        runtime: device, and processes that decode.
        tolerance: how many images may be unusable.

    Raises:
        ValueError: unusable runs, source, boxes or scales, or a network whose boxes or scores are not finite.
        TooManyBadImagesError: more images are unusable than is tolerated.
    """
    runtime, tolerance = runtime or Runtime(), tolerance or Tolerance()
    use_threads(runtime.threads)
    models = _models(folders, runtime)
    test = full_test_of(full, folders, models, runtime) if full else None
    splits = open_for_testing(data, models[0].classes)
    classifiers = full.classifiers if full else ()
    split = split or testing_split(splits, [*folders, *classifiers])
    boxed, check = open_boxed(splits, [split], options, max_pixels=tolerance.max_pixels)
    source = replace(boxed[split], inventory=splits.inventory)
    quarantine = Quarantine(len(source), tolerance, split=split)
    boxes = _simplified(folders, models, source, quarantine, runtime)
    usable = np.flatnonzero([name not in quarantine.reasons for name in source.ids])
    if not len(usable):
        raise ValueError(f"none of the images of {split} can be used")
    images, names = _localised(source, usable, boxes), tuple(map(str, folders))
    return results.Localisation(
        runs=names,
        source=splits.name,
        split=split,
        n=len(usable),
        simplified=tuple(results.box_errors(*one) for one in zip(folders, models, images.overlaps, strict=True)),
        comparisons=results.box_comparisons(names, images),
        crop=models[0].net.architecture.crop,
        classifiers=tuple(map(str, classifiers)),
        classifier_scales=tuple(test.scales_of(model) for model in test.classifiers) if test else (),
        windows=test.windows_used if test else None,
        full=_full_errors(test, names, source, usable, quarantine, runtime) if test else (),
        per_class=results.box_class_errors(images),
        check=check,
        unusable=quarantine.reasons,
        images=images,
    )


def _models(folders: Sequence[str | Path], runtime: Runtime) -> list[Model]:
    if not folders or len(set(map(os.path.realpath, folders))) < len(folders):
        raise ValueError("name one or more runs of boxes, each once")
    models = [model_on_device(runtime.device, load_box_model(folder)) for folder in folders]
    for folder, model in zip(folders, models, strict=True):
        if model.classes != models[0].classes:
            raise ValueError(f"{folders[0]} and {folder} have different classes: test them one by one")
        if model.net.architecture.crop != models[0].net.architecture.crop:
            raise ValueError(f"{folders[0]} and {folder} have different crops: test them one by one")
    return models


def _simplified(
    folders: Sequence[str | Path], models: Sequence[Model], source: Source, quarantine: Quarantine, runtime: Runtime
) -> Float[np.ndarray, "runs N 4"]:
    with reporting("centre crops", total=len(models) * len(source)) as report:
        report.say_all(source.inventory.lines())
        quarantine.say = report.say
        return np.stack(
            [
                _centre_crop_boxes(
                    model,
                    source,
                    name=str(folder),
                    quarantine=quarantine,
                    workers=runtime.workers,
                    advance=report.advance,
                )
                for folder, model in zip(folders, models, strict=True)
            ]
        )


def _centre_crop_boxes(
    model: Model,
    source: Source,
    *,
    name: str,
    quarantine: Quarantine,
    workers: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> Float[np.ndarray, "N 4"]:
    """Return the box (x0, y0, x1, y1) of each image's true class, from its centre crop at S.

    Boxes are in pixels of the image and cut off at its borders; those of images that cannot be used are NaN. The
    source's labels are those of the model's classes.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        ValueError: the network's boxes are not finite.
        WorkerDiedError: a worker was killed, for example.
    """
    net, crop = model.net.eval(), model.net.architecture.crop
    scale = scale_in_pixels(middle_scale(model.scale), crop)
    images = RescaledImages(source, max_pixels=quarantine.tolerance.max_pixels, memory=0)
    batches = centre_batches(
        images, crop=crop, scale=scale, batch=CROPS_AT_ONCE, quarantine=quarantine, workers=workers
    )
    boxes = np.full((len(source), 4), np.nan)
    with closing(batches):
        for first, batch in zip(range(0, len(source), CROPS_AT_ONCE), batches, strict=True):
            given = to_device(batch, net.mean_rgb.device)
            with in_float32(), torch.inference_mode():
                outputs = net(given.images).float().cpu()
            check_finite([outputs], "boxes", name)
            heads = outputs.unflatten(1, (-1, 4)).numpy()  # of a batch that may be empty
            for position, head, label in zip(given.positions.tolist(), heads, given.labels.tolist(), strict=True):
                size = image_size(source, first + position, quarantine)
                if size is not None:
                    boxes[first + position] = _in_image(head[label % len(head)], size, crop, scale)
            advance(min(CROPS_AT_ONCE, len(source) - first))
    return boxes


def _in_image(box: Float[np.ndarray, "4"], size: Size, crop: int, scale: int) -> Float[np.ndarray, "4"]:
    """Turn a box of the centre crop at `scale` into pixels of the image itself, whose `size` is (height, width)."""
    whole = rescaled_size(size, scale)
    top, left = centre_location(whole, crop)
    return clipped(rescaled_boxes(boxes_in_image(box, crop, top=top, left=left), whole, size), size)


def _localised(
    source: Source, usable: Int[np.ndarray, " usable"], boxes: Float[np.ndarray, "runs N 4"]
) -> results.LocalisedImages:
    true = np.stack([source.boxes[index].box for index in usable])
    predicted = boxes[:, usable]
    return results.LocalisedImages(
        ids=tuple(source.ids[index] for index in usable),
        labels=np.asarray(source.labels)[usable],
        classes=source.classes,
        true=true,
        predicted=predicted,
        overlaps=intersection_over_union(predicted, true[None]),
    )


def _full_errors(
    test: FullTest,
    names: tuple[str, ...],
    source: Source,
    usable: Int[np.ndarray, " usable"],
    quarantine: Quarantine,
    runtime: Runtime,
) -> tuple[results.FullErrors, ...]:
    labels, wrong, counted = source.labels, [], set(usable.tolist())
    with reporting("whole images", total=len(source)) as report:
        quarantine.say = report.say
        for index, seen in full_test(test, source, quarantine=quarantine, workers=runtime.workers, wanted=labels):
            report.advance()
            if seen is not None and index in counted:
                wrong.append(_wrong(seen, labels[index], source.boxes[index].box))
    if not wrong:
        raise ValueError("none of the images can be used in the full test")
    by_group = np.stack(wrong, axis=2).transpose(1, 0, 2)  # [groups, 3, images]
    return tuple(
        results.full_errors(
            names[group[0]] if len(group) == 1 else "all together",
            its,
            scales=test.scales_of_group(group),
            classes=len(test.classes),
        )
        for group, its in zip(test.groups, by_group, strict=True)
    )


def _wrong(seen: ClassBoxes, label: int, true: Float[np.ndarray, "4"]) -> Bool[np.ndarray, "3 groups"]:
    """Return whether an image is wrong by the true class's box, by top 1 and by top 5."""
    right = intersection_over_union(seen.boxes[:, label], true) > CORRECT_IOU
    # Of classes with equal probability the right one counts as the last.
    rank = int((seen.posterior >= seen.posterior[label]).sum())
    return np.stack([~right, ~right | (rank > 1), ~right | (rank > TOP)])
