"""First weights: random, copied from A, or taken over from the run to go on from; and which of them stay fixed."""

from typing import cast

import torch

from verydeep.ilsvrc_classes import class_numbers
from verydeep.networks.architecture import Architecture
from verydeep.networks.configurations import InitialisationScheme
from verydeep.networks.initialisation import Initialisation, initialise, layers_with_weights
from verydeep.networks.vgg import VGG
from verydeep.runs.model import load_model, warnings_of
from verydeep.training.job import TrainingJob
from verydeep.training.recipe import check_for_boxes


def initial_network(job: TrainingJob) -> tuple[VGG, Initialisation, list[str]]:
    """Return the network with its first weights, how it got them, and lines to tell about that.

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
    elif recipe.finetune is None:
        initialisation = _copied_from_shallower(job, net, recipe.start, generator)
    else:
        initialisation, notes = _taken_over(job, net, recipe.finetune, generator)
    if recipe.freeze is not None:
        frozen = _freeze(net, recipe.freeze)
        random = [name for name in frozen if name in initialisation.random]
        if random:
            raise ValueError(f"freeze {recipe.freeze} would keep {', '.join(random)} at random weights: freeze less")
        notes.append(f"frozen: {', '.join(frozen)}")
    return net, initialisation, notes


def _copied_from_shallower(job: TrainingJob, net: VGG, run: str, generator: torch.Generator) -> Initialisation:
    """Copy the layers that the paper copies from a trained net A."""
    trained = load_model(run)
    if trained.drawn:
        raise ValueError(*warnings_of(f"cannot start from {run}: it", trained))
    if _class_numbers(job.splits.classes, trained.classes) != list(range(len(trained.classes))):
        raise ValueError(f"cannot start from {run}: it was trained for other classes, so fc8 does not fit")
    scheme = job.recipe.init_rest or "glorot"
    return initialise(net, scheme, seed_from=trained.net, generator=generator)


def _taken_over(job: TrainingJob, net: VGG, run: str, generator: torch.Generator) -> tuple[Initialisation, list[str]]:
    """Copy all layers and the mean of a run; fc8 is random where the classes are others, and for boxes."""
    trained = load_model(run)
    theirs, ours = _options(trained.net.architecture), _options(net.architecture)
    if theirs != ours:
        raise ValueError(f"cannot go on from {run}, which is {theirs}, with {ours}: say the same")
    net.mean_rgb.copy_(trained.net.mean_rgb)
    layers = [name for name in layers_with_weights(trained.net) if name not in trained.drawn]
    notes = [f"{', '.join(trained.drawn)} are new: {run} was imported without them"] if trained.drawn else []
    theirs_by_ours = _class_numbers(job.splits.classes, trained.classes)
    if job.architecture.boxes is not None:
        notes.append(f"fc8 is new: it predicts boxes ({job.architecture.boxes})")
        layers = [name for name in layers if name != "fc8"]
    elif sorted(theirs_by_ours) == list(range(len(trained.classes))):
        with torch.no_grad():
            trained.net.fc8.weight.copy_(trained.net.fc8.weight[theirs_by_ours])
            trained.net.fc8.bias.copy_(trained.net.fc8.bias[theirs_by_ours])
    elif "fc8" in layers:
        notes.append(f"fc8 is new: the classes are not the {len(trained.classes):,} of {run}")
        layers.remove("fc8")
    scheme = cast(InitialisationScheme, job.recipe.init)
    return initialise(net, scheme, seed_from=trained.net, layers=tuple(layers), generator=generator), notes


def _class_numbers(classes: tuple[str, ...], theirs: tuple[str, ...]) -> list[int]:
    """Return the number of each class among theirs, -1 where it is not among them."""
    known = class_numbers(theirs)
    return [known.get(name, -1) for name in classes]


def _options(architecture: Architecture) -> str:
    """Return the options that have to be the same to go on from a run."""
    norm = " --batch-norm" if architecture.batch_norm else ""
    return f"--network {architecture.network} --crop {architecture.crop} --width {architecture.width:g}{norm}"


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
