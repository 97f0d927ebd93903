"""The training loop: `train` is the paper's recipe on one page, the rest are the steps that it names."""

import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F

from verydeep import runs
from verydeep.images.colour import SAMPLE, colour_statistics, shift_components
from verydeep.images.loader import RescaledImages, TrainingView, batches_per_epoch, centre_batches, training_batches
from verydeep.images.on_device import DeviceBatch, on_device
from verydeep.images.open_source import open_source
from verydeep.images.quarantine import Quarantine
from verydeep.images.scan import check_images
from verydeep.images.sources import Source, Splits
from verydeep.images.tolerance import Tolerance, TooManyBadImagesError
from verydeep.images.workers import WorkerDiedError
from verydeep.networks.configurations import InitialisationScheme, configuration
from verydeep.networks.initialisation import Initialisation, initialise
from verydeep.networks.scales import middle_scale, scale_in_pixels, scale_range
from verydeep.networks.vgg import VGG
from verydeep.progress import Reporter, reporting
from verydeep.runtime import Runtime, Stopped, StopRequest, stop_request, torch_device
from verydeep.training import checkpoint
from verydeep.training.checkpoint import Position
from verydeep.training.recipe import Recipe, recipe_from
from verydeep.training.schedule import after_epoch, learning_rate


class DivergedError(RuntimeError):
    """Loss, gradients or scores are no longer finite numbers."""


@dataclass(kw_only=True)
class _Training:
    """What the steps of a training work on; `position` and `net` change."""

    net: VGG
    optimiser: torch.optim.SGD
    position: Position
    recipe: Recipe
    device: torch.device
    workers: int
    images: Source
    validation: RescaledImages
    bad_images: Quarantine
    bad_validation: Quarantine
    out: Path


def train(
    source: str | Splits,
    *,
    network: str,
    out: str | Path,
    recipe: Recipe | None = None,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
    resume: bool = False,
) -> Path:
    """Trains a network on a source's training images and leaves a run folder (see `verydeep.runs`).

    The learning rate follows the error on the validation images, as centre crops at S. With `resume`, a run
    that was stopped goes on from its last checkpoint and ends with the same weights, to the bit, as one that
    was not (on a CPU; CUDA kernels may add in another order); one that has ended is left alone. Images that cannot
    be used are left out and listed in the run's quarantine.jsonl, up to the share that `tolerance` allows.

    Raises:
        ValueError: unusable source, network, recipe or runtime; `out` exists and `resume` is not set, or it was
            made with other settings.
        TooManyBadImagesError: more images are unusable than is tolerated; a checkpoint was saved first.
        WorkerDiedError: a process that loads images was killed, say; a checkpoint was saved first.
        Stopped: SIGINT or SIGTERM; a checkpoint was saved first.
        DivergedError: loss or gradients became infinite or not a number; that step was not applied.
    """
    recipe, runtime, out = recipe or Recipe(), runtime or Runtime(), Path(out)
    _check_folder(out, resume=resume)
    splits = open_source(source) if isinstance(source, str) else source
    if runs.has_record(out) and runs.is_begun(out):
        _check_same(runs.read_record(out), splits, network, recipe, out)
        if runs.is_finished(out):
            return out
    training, view, notes = _prepare(splits, network, recipe, runtime, tolerance or Tolerance(), out)
    steps, done = batches_per_epoch(len(training.images), recipe.batch), training.position.step
    with stop_request() as stop, reporting(f"train {network}", recipe.epochs * steps, done=done) as report:
        training.bad_images.say = training.bad_validation.say = report.say
        for note in notes:
            report.say(note)
        try:
            _epochs(training, view, stop, report)
        except (WorkerDiedError, TooManyBadImagesError) as error:
            _save(training)
            raise type(error)(f"{error}; what was done is saved in {out} and can be resumed") from error
    model = runs.Model(net=training.net, classes=splits.classes, scale=recipe.scale, flip=recipe.flip)
    runs.save_model(model, out / runs.MODEL)
    return out


def _epochs(training: _Training, view: TrainingView, stop: StopRequest, report: Reporter) -> None:
    """Steps until the schedule or the epochs end, or a signal does."""
    recipe = training.recipe
    steps = batches_per_epoch(len(training.images), recipe.batch)
    if training.position.seen and training.position.step % steps == 0:
        _end_epoch(training, report)  # it was stopped in the middle of that
    batches = training_batches(
        training.images,
        view,
        batch=recipe.batch,
        epochs=recipe.epochs,
        seed=recipe.seed,
        quarantine=training.bad_images,
        first_step=training.position.step,
        workers=training.workers,
    )
    if training.position.plateau.finished:
        return
    started = time.perf_counter()
    with closing(on_device(batches, training.device)) as shown:
        for batch in shown:
            _step(training, batch)
            seconds = time.perf_counter() - started
            training.position = replace(training.position, seconds=training.position.seconds + seconds)
            epoch_ends = training.position.step % steps == 0
            if epoch_ends:
                _end_epoch(training, report)
            else:
                report.advance(figures=_figures(training))
            if training.position.plateau.finished:
                return
            if stop.signal is not None:
                if not epoch_ends:
                    _save(training)
                raise Stopped(
                    stop.signal, f"stopped, and saved in {training.out}: the same command with --resume goes on"
                )
            started = time.perf_counter()


def _step(training: _Training, batch: DeviceBatch) -> None:
    """One step of gradient descent; random numbers follow from (seed, step) alone."""
    net, recipe, position = training.net, training.recipe, training.position
    if not len(batch.labels):  # none of its images can be used
        training.position = replace(position, step=position.step + 1)
        return
    torch.manual_seed(int(np.random.SeedSequence([recipe.seed, position.step]).generate_state(1, np.uint64)[0]))
    for group in training.optimiser.param_groups:
        group["lr"] = learning_rate(position.plateau, recipe.learning_rate)
    net.train()
    logits = net(batch.images)
    loss = F.cross_entropy(logits, batch.labels)
    training.optimiser.zero_grad()
    loss.backward()
    value = loss.item()
    gradient = torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None]).item()
    if not (math.isfinite(value) and math.isfinite(gradient)):
        raise DivergedError(
            f"training diverged at step {position.step} (loss {value:.3g}, gradient norm {gradient:.3g}); that step "
            "was not applied: train again in another folder with a lower learning rate"
        )
    training.optimiser.step()
    training.position = replace(
        position,
        step=position.step + 1,
        loss_sum=position.loss_sum + value * len(batch.labels),
        wrong=position.wrong + int((logits.argmax(1) != batch.labels).sum()),
        seen=position.seen + len(batch.labels),
    )


def _end_epoch(training: _Training, report: Reporter) -> None:
    """Validation error, schedule, a line of metrics, a checkpoint."""
    recipe, position = training.recipe, training.position
    if not position.seen:
        raise ValueError("none of the training images can be used")
    error = _validation_error(training)
    plateau = after_epoch(position.plateau, error, patience=recipe.patience, drops=recipe.drops)
    epoch = _epoch(training)
    metrics = {
        "epoch": epoch,
        "step": position.step,
        "learning_rate": training.optimiser.param_groups[0]["lr"],
        "loss": position.loss_sum / position.seen,
        "training_error": 100 * position.wrong / position.seen,
        "validation_error": error,
        "images_per_second": position.seen / position.seconds,
        "seconds": position.seconds,
    }
    report.advance(tell=True, figures={**_figures(training), "validation": f"{error:.1f}%"})
    runs.append_metrics(training.out, metrics)
    training.position = replace(position, loss_sum=0.0, wrong=0, seen=0, seconds=0.0, plateau=plateau)
    _save(training)


def _save(training: _Training) -> None:
    checkpoint.save(training.out / runs.CHECKPOINTS, training.net, training.optimiser, training.position)


@torch.no_grad()
def _validation_error(training: _Training) -> float:
    """Top-1 error in percent of the validation images' centre crops at S."""
    recipe = training.recipe
    scale = scale_in_pixels(middle_scale(recipe.scale), recipe.crop)
    training.net.eval()
    wrong = seen = 0
    batches = centre_batches(
        training.validation,
        crop=recipe.crop,
        scale=scale,
        batch=recipe.batch,
        quarantine=training.bad_validation,
        workers=training.workers,
    )
    with closing(on_device(batches, training.device)) as shown:
        for batch in shown:
            logits = training.net(batch.images)
            if not logits.isfinite().all():
                raise DivergedError(
                    "training diverged: scores of validation images are not finite; lower the learning rate"
                )
            wrong += int((logits.argmax(1) != batch.labels).sum())
            seen += len(batch.labels)
    if not seen:
        raise ValueError("none of the validation images can be used")
    return 100 * wrong / seen


def _prepare(
    splits: Splits, network: str, recipe: Recipe, runtime: Runtime, tolerance: Tolerance, out: Path
) -> tuple[_Training, TrainingView, list[str]]:
    """Everything before the first step, and what to tell about it. Writes `run.json` if nothing was begun."""
    images, validation, device = splits.part("train"), splits.part("val"), torch_device(runtime.device)
    net, initialisation = _initial_network(network, splits.classes, recipe)
    if not runs.is_begun(out):
        record = runs.Record(
            network=net.configuration.name,
            recipe=asdict(recipe),
            runtime=asdict(runtime),
            source=splits.name,
            fingerprints=_fingerprints(splits, recipe),
            images={"train": len(images), "val": len(validation)},
            classes=splits.classes,
            initialisation=str(initialisation),
            command=runs.command(),
            versions=runs.versions(),
        )
        runs.write_record(out, record)
        (out / runs.QUARANTINE).unlink(missing_ok=True)
    bad_images, bad_validation = (
        Quarantine(len(part), tolerance, split=split, file=out / runs.QUARANTINE)
        for split, part in (("train", images), ("val", validation))
    )
    colour = colour_statistics(images, quarantine=bad_images, workers=runtime.workers)
    net.mean_rgb.copy_(torch.tensor(colour.mean))
    check_images(validation, quarantine=bad_validation, workers=runtime.workers)
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(
        net.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    position, notes = checkpoint.load_latest(out / runs.CHECKPOINTS, net, optimiser)
    low, high = (scale_in_pixels(scale, recipe.crop) for scale in scale_range(recipe.scale))
    notes.append(
        f"{net.configuration.name}, {sum(parameter.numel() for parameter in net.parameters()):,} parameters, on "
        f"{device}; {len(images):,} training and {len(validation):,} validation images in {len(splits.classes)} "
        f"classes; crop {recipe.crop}, S {low if low == high else f'from {low} to {high}'} pixels"
    )
    sampled = ", a seeded sample" if len(images) > SAMPLE else ""
    mean = ", ".join(f"{value:.1f}" for value in colour.mean)
    notes.append(f"mean RGB {mean} of {colour.images:,} training images{sampled}")
    for bad in (bad_images, bad_validation):
        if bad.reasons:
            notes.append(f"{len(bad.reasons):,} images of {bad.split} cannot be used and are left out: {bad.file}")
    notes.append(f"resumed at step {position.step}" if position.step else str(initialisation))
    training = _Training(
        net=net,
        optimiser=optimiser,
        position=position,
        recipe=recipe,
        device=device,
        workers=runtime.workers,
        images=images,
        validation=RescaledImages(validation, max_pixels=tolerance.max_pixels),
        bad_images=bad_images,
        bad_validation=bad_validation,
        out=out,
    )
    view = TrainingView(
        crop=recipe.crop,
        scale=(low, high),
        flip=recipe.flip,
        colour_sd=recipe.colour_sd,
        colour_components=shift_components(colour.covariance),
    )
    return training, view, notes


def _initial_network(network: str, classes: tuple[str, ...], recipe: Recipe) -> tuple[VGG, Initialisation]:
    net = VGG(
        configuration(network),
        classes=len(classes),
        crop=recipe.crop,
        batch_norm=recipe.batch_norm,
        width=recipe.width,
        dropout=recipe.dropout,
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    if not recipe.starts_from_run():
        return net, initialise(net, cast(InitialisationScheme, recipe.init), generator=generator)
    seed = runs.load_model(recipe.init)
    if seed.classes != classes:
        raise ValueError(f"cannot start from {recipe.init}: it was trained for other classes, so fc8 does not fit")
    return net, initialise(net, recipe.init_rest or "glorot", seed_from=seed.net, generator=generator)


def _fingerprints(splits: Splits, recipe: Recipe) -> dict[str, str]:
    images = {split: splits.part(split).fingerprint for split in ("train", "val")}
    return {**images, "init": runs.weights_fingerprint(recipe.init)} if recipe.starts_from_run() else images


def _check_folder(out: Path, *, resume: bool) -> None:
    """Refuses to write where something else lies."""
    if out.is_file():
        raise ValueError(f"{out} is a file: choose a folder")
    if not out.is_dir() or not any(out.iterdir()) or (runs.has_record(out) and not runs.is_begun(out)):
        return
    if not resume:
        raise ValueError(f"{out} exists: add --resume to go on with it, or choose another folder")
    if not runs.has_record(out):
        raise ValueError(f"{out} is no run to resume (it has no {runs.RECORD}): choose another folder")


def _check_same(before: runs.Record, splits: Splits, network: str, recipe: Recipe, out: Path) -> None:
    """Refuses to resume a run with another network, recipe or other images."""
    theirs = recipe_from(before.recipe)
    old = {**asdict(theirs), **before.fingerprints, "network": before.network, "classes": before.classes}
    new = {
        **asdict(recipe),
        **_fingerprints(splits, recipe),
        "network": configuration(network).name,
        "classes": splits.classes,
    }
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        raise ValueError(
            f"{out} was made with another {', '.join(changed)}: resume it with its own settings "
            f"({before.command}), or choose another folder"
        )


def _epoch(training: _Training) -> int:
    """Which epoch the last step belonged to, from 1."""
    return math.ceil(training.position.step / batches_per_epoch(len(training.images), training.recipe.batch))


def _figures(training: _Training) -> dict[str, str]:
    position, recipe = training.position, training.recipe
    seen = max(1, position.seen)
    return {
        "epoch": f"{_epoch(training)}/{recipe.epochs}",
        "loss": f"{position.loss_sum / seen:.3f}",
        "error": f"{100 * position.wrong / seen:.1f}%",
        "images/s": f"{seen / position.seconds:,.0f}",
    }
