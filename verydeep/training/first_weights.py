"""First weights: drawn, copied from A, or gone on from; and which of them stay as they are."""

from typing import cast

import torch

from verydeep.ilsvrc_classes import places
from verydeep.networks.architecture import Architecture
from verydeep.networks.configurations import InitialisationScheme
from verydeep.networks.initialisation import Initialisation, initialise, layers_with_weights
from verydeep.networks.vgg import VGG
from verydeep.runs.model import load_model, warnings_of
from verydeep.training.job import Order
from verydeep.training.recipe import check_for_boxes


def initial_network(order: Order) -> tuple[VGG, Initialisation, list[str]]:
    """The network with its first weights, how it got them, and what is worth a word about that."""
    recipe, classes = order.recipe, order.splits.classes
    if order.splits.regression is not None:
        check_for_boxes(recipe)
    net = VGG(order.architecture, dropout=recipe.dropout)
    generator = torch.Generator().manual_seed(recipe.seed)
    notes: list[str] = []
    if recipe.start is None:
        initialisation = initialise(net, cast(InitialisationScheme, recipe.init), generator=generator)
    elif recipe.finetune is None:
        seed = load_model(recipe.start)
        if seed.drawn:
            raise ValueError(*warnings_of(f"cannot start from {recipe.init}: it", seed))
        if _places(classes, seed.classes) != list(range(len(seed.classes))):
            raise ValueError(f"cannot start from {recipe.init}: it was trained for other classes, so fc8 does not fit")
        initialisation = initialise(net, recipe.init_rest or "glorot", seed_from=seed.net, generator=generator)
    else:
        initialisation, notes = _gone_on_from(order, net, generator)
    if recipe.freeze is not None:
        frozen = _freeze(net, recipe.freeze)
        drawn = [name for name in frozen if name in initialisation.random]
        if drawn:
            raise ValueError(f"freeze {recipe.freeze} would keep {', '.join(drawn)} at random weights: freeze less")
        notes.append(f"frozen: {', '.join(frozen)}")
    return net, initialisation, notes


def _gone_on_from(order: Order, net: VGG, generator: torch.Generator) -> tuple[Initialisation, list[str]]:
    """Copies all layers and the mean of a run; fc8 is drawn anew where the classes are others, and for boxes."""
    recipe, classes = order.recipe, order.splits.classes
    run, scheme = str(recipe.finetune), cast(InitialisationScheme, recipe.init)
    trained = load_model(run)
    theirs, ours = _options(trained.net.architecture), _options(net.architecture)
    if theirs != ours:
        raise ValueError(f"cannot go on from {run}, which is {theirs}, with {ours}: say the same")
    net.mean_rgb.copy_(trained.net.mean_rgb)
    layers = tuple(name for name in layers_with_weights(trained.net) if name not in trained.drawn)
    notes = [f"{', '.join(trained.drawn)} are new: {run} was imported without them"] if trained.drawn else []
    theirs_by_ours = _places(classes, trained.classes)
    if order.splits.regression is not None:
        layers = tuple(name for name in layers if name != "fc8")
        notes.append(f"fc8 is new: it predicts boxes ({order.splits.regression})")
    elif sorted(theirs_by_ours) == list(range(len(trained.classes))):
        with torch.no_grad():
            trained.net.fc8.weight.copy_(trained.net.fc8.weight[theirs_by_ours])
            trained.net.fc8.bias.copy_(trained.net.fc8.bias[theirs_by_ours])
    elif "fc8" in layers:
        layers = tuple(name for name in layers if name != "fc8")
        notes.append(f"fc8 is new: the classes are not the {len(trained.classes):,} of {run}")
    return initialise(net, scheme, seed_from=trained.net, layers=layers, generator=generator), notes


def _places(classes: tuple[str, ...], theirs: tuple[str, ...]) -> list[int]:
    """The place of each class among theirs, -1 where it has none."""
    known = places(theirs)
    return [known.get(name, -1) for name in classes]


def _options(architecture: Architecture) -> str:
    """What has to be the same, as options say it."""
    norm = " --batch-norm" if architecture.batch_norm else ""
    return f"--network {architecture.network} --crop {architecture.crop} --width {architecture.width:g}{norm}"


def _freeze(net: VGG, last: str) -> tuple[str, ...]:
    """Excludes the layers up to `last` from learning; their names."""
    if last not in net.layer_names:
        raise ValueError(f"freeze: no layer {last!r}; this network has {', '.join(net.layer_names)}")
    # A convolution's batch normalisation belongs to it.
    ends = [net.layer_names.index(name) for name in (last, last.replace("conv", "bn")) if name in net.layer_names]
    upto = net.layer_names[: max(ends) + 1]
    frozen = tuple(name for name in layers_with_weights(net) if name in upto)
    if "fc8" in frozen:
        raise ValueError("freeze fc8 leaves nothing to train: name an earlier layer")
    for name in frozen:
        net.get_submodule(name).requires_grad_(False)
    return frozen
