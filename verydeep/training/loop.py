"""The training loop: `train` is the paper's recipe on one page, the rest are the steps that it names."""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from verydeep import runs
from verydeep.images.colour import colour_statistics, shift_components
from verydeep.images.loader import (
    Batch,
    RescaledImages,
    TrainingView,
    batches_per_epoch,
    centre_batches,
    training_batches,
)
from verydeep.images.sources import Source, Splits, open_source
from verydeep.networks.configurations import InitialisationScheme, configuration
from verydeep.networks.initialisation import Initialisation, initialise
from verydeep.networks.vgg import VGG
from verydeep.progress import Reporter, reporting
from verydeep.runtime import Runtime, Stopped, stop_request, torch_device
from verydeep.training import checkpoint
from verydeep.training.checkpoint import Position
from verydeep.training.recipe import Recipe, scale_in_pixels
from verydeep.training.schedule import after_epoch, learning_rate


class DivergedError(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass(kw_only=True)
class _Training:
    """What the steps of a training work on; `position` and `net` change."""

    net: VGG
    optimiser: torch.optim.SGD
    position: Position
    recipe: Recipe
    device: torch.device
    images: Source
    validation: RescaledImages
    out: Path


def train(
    source: str | Splits,
    *,
    network: str,
    out: str | Path,
    recipe: Recipe | None = None,
    runtime: Runtime | None = None,
    resume: bool = False,
) -> Path:
    """Trains a network on a source's training images and leaves a run folder (see `verydeep.runs`).

    The learning rate follows the error on the validation images, as centre crops at S. With `resume`, a run
    that was stopped goes on from its last checkpoint and ends with the same weights, to the bit, as one that
    was not; one that has ended is left alone.

    Raises:
        ValueError: unusable source, network, recipe or runtime; `out` exists and `resume` is not set, or it was
            made with other settings.
        Stopped: SIGINT or SIGTERM; a checkpoint was saved first.
        DivergedError: the loss became infinite or not a number; that step was not applied.
    """
    recipe, runtime, out = recipe or Recipe(), runtime or Runtime(), Path(out)
    if out.is_file():
        raise ValueError(f"{out} is a file: choose a folder")
    if out.is_dir() and any(out.iterdir()) and not resume:
        raise ValueError(f"{out} exists: add --resume to go on with it, or choose another folder")
    splits = open_source(source) if isinstance(source, str) else source
    if (out / runs.RECORD).exists():
        _check_same(runs.read_record(out), splits, network, recipe, out)
        if runs.is_finished(out):
            return out
    training, view, notes = _prepare(splits, network, recipe, runtime, out)
    steps = batches_per_epoch(len(training.images), recipe.batch)
    batches = training_batches(
        training.images,
        view,
        batch=recipe.batch,
        epochs=recipe.epochs,
        seed=recipe.seed,
        first_step=training.position.step,
        workers=runtime.workers,
    )
    done = training.position.step
    with stop_request() as stop, reporting(f"train {network}", recipe.epochs * steps, done=done) as report:
        for note in notes:
            report.say(note)
        clock = _Clock()
        for batch in () if training.position.plateau.finished else batches:
            _step(training, batch)
            clock.count(len(batch.labels))
            if training.position.step % steps == 0:
                _end_epoch(training, clock, report)
                clock = _Clock()
            else:
                report.advance(figures=_figures(training, clock))
            if training.position.plateau.finished:
                break
            if stop.signal is not None:
                checkpoint.save(out / runs.CHECKPOINTS, training.net, training.optimiser, training.position)
                raise Stopped(stop.signal, f"stopped, and saved in {out}: the same command with --resume goes on")
    runs.save_model(runs.Model(net=training.net, classes=splits.classes), out / runs.MODEL)
    return out


def _step(training: _Training, batch: Batch) -> None:
    """One step of gradient descent; random numbers follow from (seed, step) alone."""
    net, recipe, position = training.net, training.recipe, training.position
    torch.manual_seed(int(np.random.SeedSequence([recipe.seed, position.step]).generate_state(1, np.uint64)[0]))
    for group in training.optimiser.param_groups:
        group["lr"] = learning_rate(position.plateau, recipe.learning_rate)
    images, labels = _on_device(batch.images, training.device), batch.labels.to(training.device)
    net.train()
    logits = net(images + batch.shifts.to(training.device)[:, :, None, None])
    loss = F.cross_entropy(logits, labels)
    value = loss.item()
    if not math.isfinite(value):
        raise DivergedError(
            f"the loss is {value} at step {position.step}, which was not applied: resume with a lower learning rate in "
            f"a new folder; earlier checkpoints in {training.out / runs.CHECKPOINTS} are good"
        )
    training.optimiser.zero_grad()
    loss.backward()
    training.optimiser.step()
    training.position = replace(
        position,
        step=position.step + 1,
        loss_sum=position.loss_sum + value * len(labels),
        wrong=position.wrong + int((logits.argmax(1) != labels).sum()),
    )


def _end_epoch(training: _Training, clock: "_Clock", report: Reporter) -> None:
    """Validation error, schedule, a line of metrics, a checkpoint."""
    recipe, position = training.recipe, training.position
    error = _validation_error(training)
    plateau = after_epoch(position.plateau, error, patience=recipe.patience, drops=recipe.drops)
    epoch = _epoch(training)
    metrics = {
        "epoch": epoch,
        "step": position.step,
        "learning_rate": learning_rate(position.plateau, recipe.learning_rate),
        "loss": position.loss_sum / len(training.images),
        "training_error": 100 * position.wrong / len(training.images),
        "validation_error": error,
        "images_per_second": clock.rate(),
        "seconds": clock.seconds(),
    }
    report.advance(tell=True, figures={**_figures(training, clock), "validation": f"{error:.1f}%"})
    runs.append_metrics(training.out, metrics)
    training.position = replace(position, loss_sum=0.0, wrong=0, plateau=plateau)
    checkpoint.save(training.out / runs.CHECKPOINTS, training.net, training.optimiser, training.position)


@torch.no_grad()
def _validation_error(training: _Training) -> float:
    """Top-1 error in percent of the validation images' centre crops at S."""
    recipe = training.recipe
    scale = scale_in_pixels(recipe.middle_scale(), recipe.crop)
    training.net.eval()
    wrong = 0
    for batch in centre_batches(training.validation, crop=recipe.crop, scale=scale, batch=recipe.batch):
        logits = training.net(_on_device(batch.images, training.device))
        wrong += int((logits.argmax(1).cpu() != batch.labels).sum())
    return 100 * wrong / len(training.validation.source)


def _on_device(images: Tensor, device: torch.device) -> Tensor:
    return images.to(device, torch.float32, non_blocking=True, memory_format=torch.channels_last)


def _prepare(
    splits: Splits, network: str, recipe: Recipe, runtime: Runtime, out: Path
) -> tuple[_Training, TrainingView, list[str]]:
    """Everything before the first step, and what to tell about it. Writes `run.json` if there is none."""
    images, validation, device = splits.part("train"), splits.part("val"), torch_device(runtime.device)
    colour = colour_statistics(images)
    net, initialisation = _initial_network(network, splits.classes, recipe, colour.mean)
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(
        net.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    if not (out / runs.RECORD).exists():
        record = runs.Record(
            network=net.configuration.name,
            recipe=asdict(recipe),
            runtime=asdict(runtime),
            source=splits.name,
            fingerprints=_fingerprints(splits),
            images={"train": len(images), "val": len(validation)},
            classes=splits.classes,
            initialisation=str(initialisation),
            command=runs.command(),
            versions=runs.versions(),
        )
        runs.write_record(out, record)
    position, notes = checkpoint.load_latest(out / runs.CHECKPOINTS, net, optimiser)
    low, high = (scale_in_pixels(scale, recipe.crop) for scale in recipe.scale_range())
    notes.append(
        f"{net.configuration.name}, {sum(parameter.numel() for parameter in net.parameters()):,} parameters, on "
        f"{device}; {len(images):,} training and {len(validation):,} validation images in {len(splits.classes)} "
        f"classes; crop {recipe.crop}, S {low if low == high else f'from {low} to {high}'} pixels"
    )
    notes.append(f"resumed at step {position.step}" if position.step else str(initialisation))
    training = _Training(
        net=net,
        optimiser=optimiser,
        position=position,
        recipe=recipe,
        device=device,
        images=images,
        validation=RescaledImages(validation),
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


def _initial_network(
    network: str, classes: tuple[str, ...], recipe: Recipe, mean_rgb: tuple[float, float, float]
) -> tuple[VGG, Initialisation]:
    net = VGG(
        configuration(network),
        classes=len(classes),
        crop=recipe.crop,
        batch_norm=recipe.batch_norm,
        width=recipe.width,
        dropout=recipe.dropout,
        mean_rgb=mean_rgb,
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    if not recipe.starts_from_run():
        return net, initialise(net, cast(InitialisationScheme, recipe.init), generator=generator)
    seed = runs.load_model(recipe.init)
    if seed.classes != classes:
        raise ValueError(f"cannot start from {recipe.init}: it was trained for other classes, so fc8 does not fit")
    return net, initialise(net, recipe.init_rest or "glorot", seed_from=seed.net, generator=generator)


def _fingerprints(splits: Splits) -> dict[str, str]:
    return {split: splits.part(split).fingerprint for split in ("train", "val")}


def _check_same(before: runs.Record, splits: Splits, network: str, recipe: Recipe, out: Path) -> None:
    """Refuses to resume a run with another network, recipe or other images."""
    old = {**before.recipe, "network": before.network, "images": before.fingerprints, "classes": before.classes}
    new = {
        **asdict(recipe),
        "network": configuration(network).name,
        "images": _fingerprints(splits),
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


def _figures(training: _Training, clock: "_Clock") -> dict[str, str]:
    position, recipe = training.position, training.recipe
    seen = (position.step - 1) % batches_per_epoch(len(training.images), recipe.batch) * recipe.batch + recipe.batch
    seen = min(seen, len(training.images))
    return {
        "epoch": f"{_epoch(training)}/{recipe.epochs}",
        "loss": f"{position.loss_sum / seen:.3f}",
        "error": f"{100 * position.wrong / seen:.1f}%",
        "images/s": f"{clock.rate():,.0f}",
    }


class _Clock:
    """Counts images against time."""

    def __init__(self) -> None:
        self._started, self._images = time.perf_counter(), 0

    def count(self, images: int) -> None:
        self._images += images

    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def rate(self) -> float:
        return self._images / max(self.seconds(), 1e-9)
