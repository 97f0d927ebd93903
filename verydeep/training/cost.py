"""Cost of a training before it begins, from a short measurement on the images themselves."""

import os
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from timeit import timeit
from typing import Any

import numpy as np
import torch

from verydeep.images.crops import TrainingView
from verydeep.images.loader import DeviceBatch, training_batches
from verydeep.images.order import batches_per_epoch
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.memory import freed_memory_kept
from verydeep.machine.processes import Processes
from verydeep.machine.runtime import Execution, Runtime, torch_device
from verydeep.machine.threads import threads_kept, use_threads
from verydeep.networks.arithmetic import FLOAT32_BYTES, describe_architecture
from verydeep.networks.initialisation import initialise
from verydeep.networks.vgg import VGG
from verydeep.training import checkpoint
from verydeep.training.frozen_layers import features_before, fits, images_kept, kept_before
from verydeep.training.job import TrainingJob, architecture_of
from verydeep.training.learner import Learner, learner_of
from verydeep.training.precision import with_precision
from verydeep.training.preparation import freeze_layers
from verydeep.training.recipe import Recipe
from verydeep.training.step import descend
from verydeep.training.threads import with_threads

_IMAGES_TRIED = 16
"""Images of a step on a CPU, and of the source: enough, since larger batches gain little there."""

_LARGE, _IMAGES_TRIED_IF_LARGE = 1e9, 4
"""Multiply-adds of an image above which only so few are tried: 16 of D at crop 224 would take half a minute."""

_STEPS = 2
"""Steps that are timed, after one that is not."""

_LONG_STEP = 2.0
"""Seconds of a first step after which no other is measured."""

FORWARD_SHARE = 1 / 3
"""Share of a step that its forward pass takes: the backward pass takes twice as long."""

_PROCESS_BYTES = 400_000_000
"""Memory of a process that has imported PyTorch and holds some images, on Linux."""

_BF16_COPIES = 2
"""Copies in bfloat16, of weights that are multiplied in it and of their gradients."""

_NOWHERE = Path(os.devnull)
"""Run folder of a training that is only measured: it holds no run that would decide precision and threads. The current
folder may: many have a folder `checkpoints`."""

_SLOW = 2e9
"""Multiply-adds a second that every CPU of today does."""


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Bytes of a training, as `TrainingCost` has them."""

    memory_bytes: int
    checkpoint_bytes: int
    model_bytes: int


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """Amount of work of a training, and about how long and with how much memory."""

    network: str
    crop: int
    width: float
    parameters: int
    classes: int
    training_images: int
    validation_images: int
    steps_per_epoch: int
    epochs: int
    """At most; the schedule plateau mostly ends earlier."""
    seconds: float
    """At most."""
    memory_bytes: int
    """Memory of the device: measured on CUDA, elsewhere the sum of the process, weights, gradients, momentum,
    activations and features of frozen layers."""
    checkpoint_bytes: int
    """At most on the disk while it trains, beside the files that stay."""
    model_bytes: int
    """Files that stay on the disk: the networks of the last and of the best epoch."""

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


def is_surely_short(splits: Splits, network: str, recipe: Recipe, tolerance: Tolerance, *, seconds: float) -> bool:
    """Return whether every CPU trains this in so many seconds: by arithmetic, then by the loading of a few images.

    Raises:
        ValueError: unusable recipe or images.
    """
    architecture = architecture_of(network, recipe, splits)
    training, validation = (recipe.epochs * len(splits.source(split)) for split in ("train", "val"))
    if describe_architecture(architecture).macs * (training / FORWARD_SHARE + validation) >= _SLOW * seconds:
        return False
    return measured_loading(splits.source("train"), recipe, tolerance) * (training + validation) < seconds


def training_cost(
    splits: Splits,
    network: str,
    recipe: Recipe,
    *,
    runtime: Runtime = Runtime(),
    execution: Execution = Execution(),
    tolerance: Tolerance = Tolerance(),
) -> TrainingCost:
    """Measure a few steps and the loading of a few images, and return the cost of a whole training; write nothing.

    Loading and computing add up without workers, otherwise the slower counts. Frozen layers see each of fixed views
    once (`Recipe.views`).

    Raises:
        ValueError: unusable recipe or images, or more threads than cores.
    """
    job = job_to_measure(splits, network, recipe, runtime=runtime, execution=execution, tolerance=tolerance)
    training, validation = (len(splits.source(split)) for split in ("train", "val"))
    loading = measured_loading(splits.source("train"), recipe, tolerance)
    frozen, step, sizes = _measured_as_trained(job)
    check = FORWARD_SHARE * step
    if frozen is None:
        seen = recipe.epochs * sum(
            count * seconds_per_image(computing, loading, runtime.workers)
            for count, computing in ((training, step), (validation, check))
        )
    else:
        once = recipe.views_shown * training + validation
        seen = once * seconds_per_image(frozen, loading, runtime.workers)
        seen += recipe.epochs * (training * step + validation * check)
    return TrainingCost(
        network=network,
        crop=recipe.crop,
        width=recipe.width,
        parameters=describe_architecture(job.architecture).parameters,
        classes=len(splits.classes),
        training_images=training,
        validation_images=validation,
        steps_per_epoch=batches_per_epoch(training, recipe.batch),
        epochs=recipe.epochs,
        seconds=seen,
        **asdict(sizes),
    )


def job_to_measure(
    splits: Splits, network: str, recipe: Recipe, *, runtime: Runtime, execution: Execution, tolerance: Tolerance
) -> TrainingJob:
    """Return a training whose steps can be measured; it writes nothing."""
    return TrainingJob(
        splits=splits,
        network=network,
        recipe=recipe,
        runtime=runtime,
        execution=execution,
        tolerance=tolerance,
        out=_NOWHERE,
        device=torch_device(runtime.device),
        processes=Processes(),
    )


def seconds_per_image(computing: float, loading: float, workers: int) -> float:
    """Return the seconds of an image: with workers those of the slower of computing and loading, else of both."""
    return max(computing, loading / workers) if workers else computing + loading


def measured_step(job: TrainingJob) -> tuple[float, int]:
    """Return the seconds per image of a step in which all layers are computed, and the bytes that it takes."""
    _, seconds, sizes = _measured_as_trained(replace(job, recipe=replace(job.recipe, views=None)))
    return seconds, sizes.memory_bytes


def _measured_as_trained(job: TrainingJob) -> tuple[float | None, float, _Sizes]:
    """Measure with the threads of the training, and with freed memory kept as it keeps it; both only meanwhile."""
    with threads_kept(), freed_memory_kept():
        use_threads(job.runtime.threads)
        return _measured(job)


def _measured(job: TrainingJob) -> tuple[float | None, float, _Sizes]:
    """Return seconds per image of frozen layers (None if steps compute all) and of a step, and what it takes."""
    recipe, classes, device = job.recipe, len(job.splits.classes), job.device
    net = VGG(job.architecture, dropout=recipe.dropout)
    initialise(net)
    freeze_layers(net, recipe)
    learner = learner_of(with_threads(with_precision(job, net), net), net)
    tried = _IMAGES_TRIED if describe_architecture(job.architecture).macs < _LARGE else _IMAGES_TRIED_IF_LARGE
    images = recipe.batch if device.type == "cuda" else min(recipe.batch, tried)
    inputs = torch.zeros(images, 3, recipe.crop, recipe.crop, device=device).to(memory_format=torch.channels_last)
    frozen, kept = None, 0
    if (first := kept_before(job, net)) is not None:
        features = features_before(learner, inputs, first)
        if fits(images_kept(job), features[0]):
            frozen = _seconds(partial(features_before, learner, inputs, first)) / images
            learner, images = replace(learner, first=first), recipe.batch  # mostly weights move, whatever the batch
            inputs = features[:1].expand(images, *features.shape[1:]).to(device).contiguous()
            kept = images_kept(job) * features[0].nbytes
    numbers = torch.arange(images, device=device)
    batch = DeviceBatch(inputs, numbers, numbers % classes)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step = partial(descend, learner, batch, step=0, rate=0.0, usable=[images])
    return frozen, _seconds(step) / images, _sizes(learner, kept)


def _seconds(work: partial[Any]) -> float:
    """Return the least seconds of a few calls after a first one, or those of a long first one."""
    first = timeit(work, number=1)
    return first if first > _LONG_STEP else min(timeit(work, number=1) for _ in range(_STEPS))


def _sizes(learner: Learner, kept: int) -> _Sizes:
    """Return the bytes of a training; `kept` of them hold the features of frozen layers."""
    device, values = learner.job.device, [*learner.net.parameters()]
    learning = sum(value.numel() for value in values if value.requires_grad)
    weights, momentum = FLOAT32_BYTES * sum(value.numel() for value in values), FLOAT32_BYTES * learning
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    else:
        in_bf16 = _BF16_COPIES * FLOAT32_BYTES // 2 * learning if learner.bf16 else 0
        stepping = 2 * momentum + in_bf16  # gradients take as much
        memory = _PROCESS_BYTES + weights + _with_activations(learner, stepping) + kept
    return _Sizes(memory_bytes=memory, checkpoint_bytes=checkpoint.MOST * (weights + momentum), model_bytes=2 * weights)


def _with_activations(learner: Learner, stepping: int) -> int:
    """Add activations to the bytes that a step has beside the weights, or return those of frozen layers if more.

    Frozen layers are computed with the input and the output of one of them in memory; where they are computed before
    the first step, without the memory of a step.
    """
    layers = describe_architecture(learner.job.architecture, batch=learner.micro_batch).layers
    learning = {name.split(".")[0] for name, value in learner.net.named_parameters() if value.requires_grad}
    first = next(number for number, layer in enumerate(layers) if layer.name in learning)
    sizes = [layer.activation_bytes for layer in layers]
    frozen = max(map(sum, pairwise(sizes[:first])), default=0)
    step = stepping + 2 * sum(sizes[first:])
    return max(step, frozen) if learner.first is not None else max(step, frozen + stepping)


def measured_loading(source: Source, recipe: Recipe, tolerance: Tolerance) -> float:
    """Return the seconds per image that one process takes to decode and crop."""
    view = TrainingView(
        crop=recipe.crop, scale=recipe.side_range, flip=recipe.flip, colour_sd=0.0, colour_components=np.zeros((3, 3))
    )
    images = min(len(source), _IMAGES_TRIED)
    quarantine = Quarantine(len(source), tolerance, split="train")
    batches = training_batches(source, view, batch=images, epochs=1 + _STEPS, seed=recipe.seed, quarantine=quarantine)
    with closing(batches):
        next(batches)
        return timeit(lambda: list(islice(batches, 1)), number=1) / images
