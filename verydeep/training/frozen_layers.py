"""The pass of all images through frozen layers, before the first step; and the batches of a validation."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from verydeep.images.loader import DeviceBatch, centre_batches, on_device, training_batches
from verydeep.images.order import EpochAndIndex, batches_of_samples
from verydeep.machine.memory import memory_bytes
from verydeep.machine.runtime import Stopped, StopRequest, autocast
from verydeep.networks.scales import middle_scale, scale_in_pixels
from verydeep.networks.vgg import VGG
from verydeep.numbers import number
from verydeep.presentation.terminal import Reporter
from verydeep.training.frozen_features import FrozenFeatures
from verydeep.training.job import TrainingJob
from verydeep.training.learner import Learner
from verydeep.training.state import TrainingState

_SHARE_OF_MEMORY = 0.5
"""Share of this process's memory that features may take; larger ones are computed in every step."""

_FIRST_RANDOM = "drop6"
"""Features end before it, since dropout differs from step to step."""


def _first_layer_of_steps(net: VGG) -> str | None:
    """Return the first layer whose input is not the same every time for one view; None if no layer is frozen."""
    learning = {name.split(".")[0] for name, value in net.named_parameters() if value.requires_grad}
    first = next(name for name in net.layer_names if name in learning or name == _FIRST_RANDOM)
    return None if first == net.layer_names[0] else first


def kept_before(job: TrainingJob, net: VGG) -> str | None:
    """Return the layer at which steps begin if the features before it can be kept for all views.

    None if all layers are computed in every step: none is frozen, views are not fixed, there are several processes, or
    norms of every layer are recorded.
    """
    fixed = job.recipe.views is not None and not job.processes.several and job.execution.norms_every is None
    return _first_layer_of_steps(net) if fixed else None


def images_kept(job: TrainingJob) -> int:
    """Return the images that go through frozen layers before the first step: all fixed views, and for validation."""
    return job.recipe.views_shown * len(job.splits.source("train")) + len(job.splits.source("val"))


def frozen_features(state: TrainingState, first: str, stop: StopRequest, report: Reporter) -> FrozenFeatures | None:
    """Compute the features of all images before the layer `first`; None if memory does not hold them.

    Every view goes through the network in the batches in which the first epochs would show it in plain order, so that a
    training that is resumed has the same features to the bit.

    Raises:
        Stopped: a signal came.
        TooManyBadImagesError: more images are unusable than is tolerated.
        WorkerDiedError: a process that loads images was killed, say.
    """
    views: list[dict[int, Tensor]] = [{} for _ in range(state.job.recipe.views_shown)]
    images = images_kept(state.job)
    for samples, batch in _viewed(state, len(views)):
        features = features_before(state.learner, batch.images, first)
        if len(features) and not fits(images, features[0]):
            return None
        for position, feature in zip(batch.positions.tolist(), features, strict=True):
            epoch, index = samples[position]
            views[epoch][index] = feature
        _go_on(state, stop, report, len(samples))
    validation = []
    with closing(validation_batches(state)) as batches:
        for batch in batches:
            features = features_before(state.learner, batch.images, first)
            validation.append(DeviceBatch(features, batch.positions, batch.labels).on(torch.device("cpu")))
            _go_on(state, stop, report, len(batch.labels))
    return FrozenFeatures(first=first, views=views, validation=validation)


def _viewed(state: TrainingState, views: int) -> Generator[tuple[list[EpochAndIndex], DeviceBatch]]:
    """Yield the samples of the first epochs, as many as there are views, and their crops."""
    job, recipe, source = state.job, state.job.recipe, state.job.splits.source("train")
    samples = batches_of_samples(len(source), batch=recipe.batch, epochs=views, seed=recipe.seed)
    loaded = training_batches(
        source,
        replace(state.view, balanced=False),  # every image
        batch=recipe.batch,
        epochs=views,
        seed=recipe.seed,
        quarantine=state.bad_images,
        workers=job.runtime.workers,
        memory=job.image_memory("train"),
    )
    with closing(on_device(loaded, job.device)) as batches:
        yield from zip(samples, batches, strict=True)


def features_before(learner: Learner, images: Float[Tensor, "B 3 H W"], first: str) -> Float[Tensor, "B ..."]:
    """Return the input of the layer `first`, on the CPU, computed in the precision of the training."""
    layers = learner.net.layer_names
    learner.net.eval()
    with torch.no_grad(), autocast(learner.job.device, bf16=learner.bf16):
        before = layers[layers.index(first) - 1]
        parts = [learner.net.activations(part, [before])[before].cpu() for part in images.split(learner.micro_batch)]
    return torch.cat(parts)


def fits(images: int, feature: Float[Tensor, "..."]) -> bool:
    """Return whether memory holds the features of so many images."""
    return images * feature.nbytes <= _SHARE_OF_MEMORY * memory_bytes()


def _go_on(state: TrainingState, stop: StopRequest, report: Reporter, images: int) -> None:
    """Report progress, unless a signal asked for an end."""
    report.advance(images)
    if stop.signal is not None:
        stays = f"stopped before the next step, {state.job.out} stays at step {number(state.progress.step)}"
        raise Stopped(stop.signal, f"{stays}: repeat the command with --resume to continue")


def validation_batches(state: TrainingState) -> Generator[DeviceBatch]:
    """Yield the centre crops at S of this process's usable validation images."""
    recipe, job = state.job.recipe, state.job
    loaded = centre_batches(
        state.validation,
        crop=recipe.crop,
        scale=scale_in_pixels(middle_scale(recipe.scale), recipe.crop),
        batch=state.learner.micro_batch,
        quarantine=state.bad_validation,
        workers=job.runtime.workers,
    )
    return on_device(loaded, job.device)
