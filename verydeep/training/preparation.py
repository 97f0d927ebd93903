"""Everything before the first step: images, first weights, the machinery, and where a stopped training stands."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from verydeep.images.colour import SAMPLE, ColourStatistics, colour_statistics, shift_components
from verydeep.images.loader import RescaledImages, TrainingView, batches_per_epoch
from verydeep.images.quarantine import Quarantine
from verydeep.images.scan import check_images
from verydeep.images.sources.source import Source, Subset
from verydeep.machine.processes import processes_here
from verydeep.networks.scales import scale_in_pixels, scale_range
from verydeep.runs.files import CHECKPOINTS, QUARANTINE
from verydeep.runs.record import is_begun
from verydeep.training import checkpoint
from verydeep.training.checkpoint import Position
from verydeep.training.first_weights import initial_network
from verydeep.training.job import Order
from verydeep.training.machinery import assemble
from verydeep.training.parallel import bytes_sent
from verydeep.training.recipe import Recipe
from verydeep.training.run_folder import begin_run
from verydeep.training.schedule import learning_rate
from verydeep.training.step import Machinery


@dataclass(kw_only=True)
class Training:
    """What the steps of a training work on. `position`, `saved` and the weights change; pieces may become smaller."""

    machinery: Machinery
    position: Position
    recipe: Recipe
    images: Source
    view: TrainingView
    validation: RescaledImages
    """This process's share of them."""
    validation_images: int
    """Of all processes."""
    bad_images: Quarantine
    bad_validation: Quarantine
    workers: int
    save_minutes: float
    saved: float
    """When the last checkpoint was, by `time.monotonic`."""
    out: Path

    @property
    def steps_per_epoch(self) -> int:
        """Every image once."""
        return batches_per_epoch(len(self.images), self.recipe.batch)

    @property
    def epoch(self) -> int:
        """Which one the last step belonged to, from 1."""
        return max(1, math.ceil(self.position.step / self.steps_per_epoch))

    @property
    def ended(self) -> bool:
        """Whether there is no further step."""
        return self.position.plateau.finished or self.position.step >= self.recipe.epochs * self.steps_per_epoch

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return self._rate(self.position.step)

    @property
    def last_rate(self) -> float:
        """Learning rate of the last step."""
        return self._rate(max(0, self.position.step - 1))

    def _rate(self, step: int) -> float:
        return learning_rate(self.recipe, self.position.plateau, step=step, steps_per_epoch=self.steps_per_epoch)


def prepare(order: Order) -> tuple[Training, list[str]]:
    """A training that is ready for its next step, and what to tell about it. Writes `run.json` if nothing was begun."""
    recipe, processes, splits = order.recipe, order.processes, order.splits
    images, validation = splits.part("train"), splits.part("val")
    net, initialisation, notes = initial_network(order)
    processes.from_first(lambda: None if is_begun(order.out) else begin_run(order, initialisation))
    bad_images, bad_validation = (
        Quarantine(
            len(splits.part(split)),
            order.tolerance,
            split=split,
            file=order.out / QUARANTINE if processes.first else None,
        )
        for split in ("train", "val")
    )
    colour = _looked_through(order, bad_images, bad_validation)
    if recipe.finetune is None:
        net.mean_rgb.copy_(torch.tensor(colour.mean))
    found, damaged = processes.from_first(lambda: checkpoint.load_latest(order.out / CHECKPOINTS))
    if found is not None:
        net.load_state_dict(found.weights)
    machinery = assemble(order, net, found)
    low, high = (scale_in_pixels(scale, recipe.crop) for scale in scale_range(recipe.scale))
    share = Subset(source=validation, indices=tuple(range(processes.rank, len(validation), processes.count)))
    training = Training(
        machinery=machinery,
        position=found.position if found is not None else Position(),
        recipe=recipe,
        images=images,
        view=TrainingView(
            crop=recipe.crop,
            scale=(low, high),
            flip=recipe.flip,
            colour_sd=recipe.colour_sd,
            colour_components=shift_components(colour.covariance),
        ),
        validation=RescaledImages(share, max_pixels=order.tolerance.max_pixels),
        validation_images=len(validation),
        bad_images=bad_images,
        bad_validation=bad_validation,
        workers=order.runtime.workers,
        save_minutes=order.execution.save_minutes,
        saved=time.monotonic(),
        out=order.out,
    )
    about = [*damaged, *_about(order, machinery), *notes, _about_colours(order, colour)]
    about += [
        f"{len(bad.reasons):,} images of {bad.split} cannot be used and are left out: {order.out / QUARANTINE}"
        for bad in (bad_images, bad_validation)
        if bad.reasons
    ]
    about.append(f"resumed at step {training.position.step}" if training.position.step else str(initialisation))
    return training, about


def _looked_through(order: Order, *listed: Quarantine) -> ColourStatistics:
    """Colours of the training images, and which validation images cannot be used. One process looks for all."""
    bad_images, bad_validation = listed
    splits, workers = order.splits, order.runtime.workers * processes_here()

    def look() -> tuple[ColourStatistics, list[dict[str, str]]]:
        colour = colour_statistics(splits.part("train"), quarantine=bad_images, workers=workers)
        check_images(splits.part("val"), quarantine=bad_validation, workers=workers)
        return colour, [quarantine.reasons for quarantine in listed]

    colour, reasons = order.processes.from_first(look)
    for quarantine, known in zip(listed, reasons, strict=True):
        quarantine.reasons.update(known)
        quarantine.waits = order.processes.several
    return colour


def _about(order: Order, machinery: Machinery) -> list[str]:
    """What is trained, on what, and how it is computed."""
    net, recipe, splits, count = machinery.net, order.recipe, order.splits, order.processes.count
    low, high = (scale_in_pixels(scale, recipe.crop) for scale in scale_range(recipe.scale))
    parameters = sum(parameter.numel() for parameter in net.parameters())
    lines = [
        f"{net.architecture.network}, {parameters:,} parameters; {len(splits.part('train')):,} training and "
        f"{len(splits.part('val')):,} validation images in {len(splits.classes)} classes; crop {recipe.crop}, S "
        f"{low if low == high else f'from {low} to {high}'} pixels"
    ]
    share = math.ceil(recipe.batch / count)
    pieces = math.ceil(share / machinery.micro_batch)
    how = [
        f"on {order.device}" + (f" and {count - 1} more" if count > 1 else ""),
        "bfloat16 products" if machinery.bf16 else f"float32{' (TF32 products)' if machinery.tf32 else ''}",
        "channels last",
        *(["compiled"] if order.execution.compile else []),
        *([f"batches of {recipe.batch} in {pieces} pieces of {machinery.micro_batch}"] if pieces > 1 else []),
    ]
    lines.append(", ".join(how))
    if count > 1:
        plain, sharded = (
            bytes_sent(net, count, batch=recipe.batch, fc_parallel=shared, bf16=machinery.bf16) / 1e6
            for shared in (False, True)
        )
        here, other, word = (sharded, plain, "without") if machinery.fc_parallel else (plain, sharded, "with")
        lines.append(f"each process sends {here:,.1f} MB a step ({other:,.1f} {word} --fc-parallel)")
    return lines


def _about_colours(order: Order, colour: ColourStatistics) -> str:
    sampled = ", a seeded sample" if len(order.splits.part("train")) > SAMPLE else ""
    mean = ", ".join(f"{value:.1f}" for value in colour.mean)
    kept = "; the network keeps that of its first training" if order.recipe.finetune else ""
    return f"mean RGB {mean} of {colour.images:,} training images{sampled}{kept}"
