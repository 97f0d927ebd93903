"""Everything before the first step: images, first weights, the learner, where to go on; and lines about it."""

import math
import time
from collections.abc import Sequence
from typing import cast

import torch

from verydeep.ilsvrc_classes import class_numbers
from verydeep.images.class_sizes import about_unequal_classes
from verydeep.images.colour import SAMPLE, ColourStatistics, colour_statistics, shift_components
from verydeep.images.crops import TrainingView
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import RescaledImages
from verydeep.images.scan import check_images
from verydeep.images.sources.source import subset
from verydeep.machine.torchrun import processes_here
from verydeep.networks.architecture import InitialisationScheme
from verydeep.networks.initialisation import Initialisation, initialise, layers_with_weights
from verydeep.networks.vgg import VGG, check_weights
from verydeep.numbers import counted, decimal, millions, number
from verydeep.runs.files import CHECKPOINTS, QUARANTINE
from verydeep.runs.model import load_model, warnings_of
from verydeep.runs.record import is_begun
from verydeep.training.as_begun import micro_batch_as_begun, note_computed
from verydeep.training.checkpoint import Checkpoint, Progress, load_latest
from verydeep.training.job import TrainingJob, begin_run
from verydeep.training.learner import Learner, learner_of
from verydeep.training.parallel import bytes_sent
from verydeep.training.precision import with_precision
from verydeep.training.recipe import Recipe, check_for_boxes
from verydeep.training.start import check_goes_on, starting_model
from verydeep.training.state import TrainingState
from verydeep.training.threads import with_threads


def prepare(job: TrainingJob) -> tuple[TrainingState, list[str]]:
    """Return a training ready for its next step, and lines to show about it; write `run.json` if it is new."""
    begun, (checkpoint, damaged) = job.processes.from_first(
        lambda: (is_begun(job.out), load_latest(job.out / CHECKPOINTS))
    )
    if checkpoint is None:
        net, initialisation, notes = _initial_network(job)
    else:  # it holds what the first weights have become; what they came from may be gone
        net = VGG(job.architecture, dropout=job.recipe.dropout)
        initialisation, notes = "", _about_frozen(job, freeze_layers(net, job.recipe))
    job = with_threads(with_precision(job, net), net)
    job.processes.from_first(lambda: None if begun else begin_run(job, initialisation))
    quarantines = [_quarantine(job, split) for split in ("train", "val")]
    colour = _look_through(job, *quarantines)
    if job.recipe.taken_over is None:
        net.mean_rgb.copy_(torch.tensor(colour.mean))
    if checkpoint is not None:
        _check_checkpoint(job, net, checkpoint)
        net.load_state_dict(checkpoint.weights)
    as_begun = job.processes.from_first(lambda: micro_batch_as_begun(job))
    learner = learner_of(job, net, checkpoint, micro_batch_as_begun=as_begun)
    unlike = job.processes.from_first(lambda: note_computed(job, learner))
    state = TrainingState(
        job=job,
        learner=learner,
        progress=checkpoint.progress if checkpoint is not None else Progress(),
        view=TrainingView(
            crop=job.recipe.crop,
            scale=job.recipe.side_range,
            flip=job.recipe.flip,
            colour_sd=job.recipe.colour_sd,
            colour_components=shift_components(colour.covariance),
            views=job.recipe.views_shown or None,
            balanced=job.recipe.balanced,
        ),
        validation=_validation_share(job),
        bad_images=quarantines[0],
        bad_validation=quarantines[1],
        saved=time.monotonic(),
    )
    lines = [*damaged, *_about_training(job, learner), *unlike, *notes, *_about_images(job, colour, quarantines)]
    return state, [*lines, initialisation if checkpoint is None else f"resumed at step {state.progress.step}"]


def _check_checkpoint(job: TrainingJob, net: VGG, checkpoint: Checkpoint) -> None:
    """Check that a checkpoint is of this training's network: somebody may have put another one there.

    Raises:
        ValueError: it is of another network.
    """
    parameters = dict(net.named_parameters())
    momentum = {name: checkpoint.momentum.get(name, value) for name, value in parameters.items()}
    try:
        check_weights(net, checkpoint.weights)
        check_weights(net, {**net.state_dict(), **momentum})
    except ValueError as error:
        raise ValueError(f"the checkpoint in {job.out / CHECKPOINTS} is of another training: {error}") from error


def _quarantine(job: TrainingJob, split: str) -> Quarantine:
    file = job.out / QUARANTINE if job.processes.first else None
    return Quarantine(len(job.splits.source(split)), job.tolerance, split=split, file=file)


def _look_through(job: TrainingJob, bad_images: Quarantine, bad_validation: Quarantine) -> ColourStatistics:
    """Return the colours of the training images, and find images that cannot be used; one process looks for all."""
    splits, workers = job.splits, job.runtime.workers * processes_here()

    def look() -> tuple[ColourStatistics, list[dict[str, str]]]:
        colour = colour_statistics(splits.source("train"), quarantine=bad_images, workers=workers)
        check_images(splits.source("val"), quarantine=bad_validation, workers=workers)
        return colour, [bad_images.reasons, bad_validation.reasons]

    colour, reasons = job.processes.from_first(look)
    for quarantine, known in zip((bad_images, bad_validation), reasons, strict=True):
        quarantine.reasons.update(known)
        quarantine.waits = job.processes.several
    return colour


def _validation_share(job: TrainingJob) -> RescaledImages:
    """Return this process's share of the validation images."""
    images, processes = job.splits.source("val"), job.processes
    share = subset(images, tuple(range(processes.rank, len(images), processes.count)))
    return RescaledImages(share, max_pixels=job.tolerance.max_pixels, memory=job.image_memory("val"))


def _about_training(job: TrainingJob, learner: Learner) -> list[str]:
    """Describe the training, how its steps are computed and how much several processes send each other."""
    recipe, splits = job.recipe, job.splits
    low, high = recipe.side_range
    sides = f"{low}" if low == high else f"from {low} to {high}"
    parameters = number(sum(parameter.numel() for parameter in learner.net.parameters()))
    training, validation = (number(len(splits.source(split))) for split in ("train", "val"))
    trained = (
        f"{job.architecture.network}, {parameters} parameters; {training} training and {validation} validation images "
        f"in {counted(len(splits.classes), 'class', 'classes')}; crop {recipe.crop}, S {sides} pixels"
    )
    return [trained, _about_computing(job, learner), *_about_exchange(job, learner)]


def _about_computing(job: TrainingJob, learner: Learner) -> str:
    count, batch = job.processes.count, job.recipe.batch
    pieces = math.ceil(math.ceil(batch / count) / learner.micro_batch)
    float32 = f"float32{' (TF32 products)' if learner.tf32 else ''}"
    return ", ".join(
        [
            f"on {job.device}" + (f" and {count - 1} more" if count > 1 else ""),
            "bfloat16 products" if learner.bf16 else float32,
            "channels last",
            *(["compiled"] if job.execution.compile else []),
            *([f"batches of {batch} in {pieces} pieces of {learner.micro_batch}"] if pieces > 1 else []),
        ]
    )


def _about_exchange(job: TrainingJob, learner: Learner) -> list[str]:
    if not job.processes.several:
        return []
    net, count, batch = learner.net, job.processes.count, job.recipe.batch
    plain, sharded = (
        millions(bytes_sent(net, count, batch=batch, fc_parallel=shared, bf16=learner.bf16)) for shared in (False, True)
    )
    here, other, word = (sharded, plain, "without") if job.execution.fc_parallel else (plain, sharded, "with")
    return [f"each process sends {here} MB a step ({other} {word} --fc-parallel)"]


def _about_images(job: TrainingJob, colour: ColourStatistics, quarantines: Sequence[Quarantine]) -> list[str]:
    """Say which colours the images have, which of them were left out, and whether their classes are unequal."""
    lines = [_about_colours(job, colour), *job.splits.inventory.lines()]
    unequal = about_unequal_classes(job.images_per_class)
    if unequal and not (job.recipe.balanced or job.recipe.class_weights):  # which it advises
        lines.append(unequal)
    left_out = {bad.split: counted(len(bad.reasons), "image") for bad in quarantines if bad.reasons}
    file = job.out / QUARANTINE
    return [
        *lines,
        *(f"left out {images} of {split} that cannot be used: {file}" for split, images in left_out.items()),
    ]


def _about_colours(job: TrainingJob, colour: ColourStatistics) -> str:
    """Say the mean colour and how many images it was computed from."""
    sampled = ", a seeded sample" if len(job.splits.source("train")) > SAMPLE else ""
    mean = ", ".join(decimal(value, 1) for value in colour.mean)
    kept = ", which is not used: weights go with the mean that they were trained with" if job.recipe.taken_over else ""
    return f"mean RGB {mean} of {number(colour.images)} training images{sampled}{kept}"


def _initial_network(job: TrainingJob) -> tuple[VGG, str, list[str]]:
    """Return the network with its first weights, how it got them, and lines to show about that.

    Raises:
        ValueError: the run to start from does not fit, or layers at random weights would be frozen.
    """
    recipe = job.recipe
    if job.architecture.boxes is not None:
        check_for_boxes(recipe)
    net = VGG(job.architecture, dropout=recipe.dropout)
    generator = torch.Generator().manual_seed(recipe.seed)
    notes: list[str] = []
    if recipe.start is None:
        initialisation = initialise(net, cast(InitialisationScheme, recipe.init), generator=generator)
    elif recipe.taken_over is None:
        initialisation = _copied_from_shallower(job, net, recipe.start, generator)
    else:
        initialisation, notes = _taken_over(job, net, recipe.taken_over, generator)
    frozen = freeze_layers(net, recipe)
    if random := [name for name in frozen if name in initialisation.random]:
        asked = f"freeze {recipe.freeze}" if recipe.freeze else f"trainable {recipe.trainable}"
        raise ValueError(f"{asked} would keep {', '.join(random)} at random weights: freeze less")
    return net, str(initialisation), [*notes, *_about_frozen(job, frozen)]


def _about_frozen(job: TrainingJob, frozen: Sequence[str]) -> list[str]:
    """Name the frozen layers, and the way to compute them less often where none was chosen."""
    if not frozen:
        return []
    in_every_epoch = job.recipe.views is None and job.architecture.boxes is None and not job.processes.several
    advice = "with --views 2, for example, each image goes through the frozen layers only twice"
    return [f"frozen: {', '.join(frozen)}", *([advice] if in_every_epoch else [])]


def _copied_from_shallower(job: TrainingJob, net: VGG, run: str, generator: torch.Generator) -> Initialisation:
    """Copy the layers that the paper copies from a trained net A."""
    trained = load_model(run)
    if trained.random_layers:
        raise ValueError(*warnings_of(f"cannot start from {run}: it", trained))
    if _class_numbers(job.splits.classes, trained.classes) != list(range(len(trained.classes))):
        raise ValueError(f"cannot start from {run}: it was trained for other classes, so fc8 does not fit")
    scheme = job.recipe.init_rest or "glorot"
    return initialise(net, scheme, seed_from=trained.net, generator=generator)


def _taken_over(job: TrainingJob, net: VGG, run: str, generator: torch.Generator) -> tuple[Initialisation, list[str]]:
    """Copy all layers and the mean of a run or WEIGHTS; fc8 is random where the classes are others, and for boxes."""
    trained = load_model(run) if job.recipe.weights is None else starting_model(run)
    check_goes_on(job.network, job.recipe, trained.net.architecture)
    net.mean_rgb.copy_(trained.net.mean_rgb)
    new = trained.random_layers
    layers = [name for name in layers_with_weights(trained.net) if name not in new]
    notes = [f"{', '.join(new)} are new: {run} was imported without them"] if new else []
    biases = [value for name, value in trained.net.named_parameters() if name.endswith("bias")]
    if biases and not any(value.any() for value in biases):
        notes.append(f"all biases of {run} are zero, as in weights that were never trained: they teach little")
    theirs_by_ours = _class_numbers(job.splits.classes, trained.classes)
    if job.architecture.boxes is not None:
        notes.append(f"fc8 is new: it predicts boxes ({job.architecture.boxes})")
        layers = [name for name in layers if name != "fc8"]
    elif sorted(theirs_by_ours) == list(range(len(trained.classes))):
        with torch.no_grad():
            trained.net.fc8.weight.copy_(trained.net.fc8.weight[theirs_by_ours])
            trained.net.fc8.bias.copy_(trained.net.fc8.bias[theirs_by_ours])
    elif "fc8" in layers:
        notes.append(f"fc8 is new: the classes are not the {number(len(trained.classes))} of {run}")
        layers.remove("fc8")
    scheme = cast(InitialisationScheme, job.recipe.init)
    return initialise(net, scheme, seed_from=trained.net, layers=tuple(layers), generator=generator), notes


def _class_numbers(classes: tuple[str, ...], theirs: tuple[str, ...]) -> list[int]:
    """Return the number of each class among theirs, -1 where it is not among them."""
    known = class_numbers(theirs)
    return [known.get(name, -1) for name in classes]


def freeze_layers(net: VGG, recipe: Recipe) -> tuple[str, ...]:
    """Exclude from learning the layers that a recipe freezes; return their names.

    Raises:
        ValueError: there is no such layer, or nothing would learn.
    """
    last = recipe.last_frozen(net.layer_names)
    return () if last is None else _freeze(net, last)


def _freeze(net: VGG, last: str) -> tuple[str, ...]:
    """Exclude the layers up to `last` from learning; return their names."""
    if last not in net.layer_names:
        raise ValueError(f"freeze: no layer {last!r}; this network has {', '.join(net.layer_names)}")
    # A convolution's batch normalisation belongs to it.
    ends = [net.layer_names.index(name) for name in (last, last.replace("conv", "bn")) if name in net.layer_names]
    up_to_last = net.layer_names[: max(ends) + 1]
    frozen = tuple(name for name in layers_with_weights(net) if name in up_to_last)
    if "fc8" in frozen:
        raise ValueError("freeze fc8 leaves nothing to train: name an earlier layer")
    for name in frozen:
        net.get_submodule(name).requires_grad_(False)
    return frozen
