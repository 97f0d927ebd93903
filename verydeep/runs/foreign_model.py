"""A model of another library's weights, in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from verydeep.networks.architecture import ILSVRC_CLASSES, PAPER_CROP, Architecture
from verydeep.networks.class_names import WORDS, names_of_classes, numbered_classes
from verydeep.networks.foreign.first_layer import check_variation, oxford_channels
from verydeep.networks.foreign.heads import CONVOLUTIONS_ALONE, Affine, Head, written_head
from verydeep.networks.foreign.layouts import TakenWeights, TrainedPreprocessing
from verydeep.networks.foreign.named_arrays import NamedArrays
from verydeep.networks.foreign.preprocessing import (
    OXFORD,
    PREPROCESSING,
    TORCHVISION_FEATURES,
    Preprocessing,
    fold,
    in_order,
)
from verydeep.networks.foreign.recognition import HEAD, architecture_of, with_biases
from verydeep.networks.foreign.weight_files import in_our_layout
from verydeep.networks.initialisation import initialise, layers_with_weights
from verydeep.networks.scales import paper_scales, scale_range
from verydeep.networks.vgg import VGG, vgg_without_weights
from verydeep.runs.model import TEST_SCALE, Model

_SCHEME: Literal["glorot"] = "glorot"
_FEATURES_ONLY = "torchvision's weights for features only"
_FEATURES_PREPROCESSING = (TORCHVISION_FEATURES, in_order(TORCHVISION_FEATURES, "bgr"))
_MOST_BATCHES = 2**53
"""Whole numbers up to this one are exact as fractions."""

_OXFORD_SCALE = "256:512"
"""S of the training of the D and E that the Oxford group published, the best of the paper's Table 4."""

_SEED = 0
"""Initialisation of layers that the file does not have."""


@dataclass(frozen=True, kw_only=True)
class ForeignModel:
    """A model that was made from a file of weights."""

    model: Model
    layout: str
    initialisation: str
    """Layers that are the file's, and those that were initialised at random."""
    preprocessing: Preprocessing | None
    """Preprocessing that is folded into the weights; None for this package's own weights, which have their mean."""
    notes: tuple[str, ...] = ()


def foreign_model(
    arrays: NamedArrays,
    *,
    network: str | None = None,
    names: str | None = None,
    trained: TrainedPreprocessing = TrainedPreprocessing(),
    taken: TakenWeights = TakenWeights(),
) -> ForeignModel:
    """Build a model from named arrays; arguments as for `import_weights`.

    Raises:
        ValueError: not a network of the paper, or an option that does not fit.
    """
    weights, of_biases = with_biases(in_our_layout(arrays))
    weights, of_head = _with_head(weights, arrays, network, taken)
    architecture = architecture_of(weights, network, crop=taken.crop or arrays.crop or PAPER_CROP)
    weights = {
        name: _count(value) if name.endswith("num_batches_tracked") else value.float()
        for name, value in weights.items()
    }
    random, why = _unusable_layers(weights)
    preprocessing, notes = _preprocessing(arrays, trained, weights)
    of_scales = () if random else _about_scales(architecture, weights)
    if preprocessing is not None:
        weights = fold(weights, preprocessing)
    elif "mean_rgb" not in weights:
        raise ValueError("it has no mean_rgb, which belongs to the weights of this package")
    net = vgg_without_weights(architecture)
    if random:
        weights |= _first_weights(net, random)
    net.load_state_dict(weights, assign=True)
    if preprocessing not in (None, *_FEATURES_PREPROCESSING) and not _is_told(arrays, trained):
        check_variation(net.eval(), preprocessing.white, head=not random)
    if random and names is None:
        classes = numbered_classes(architecture.classes)
    else:
        classes = names_of_classes(architecture.classes, names or WORDS, arrays.classes)
    return ForeignModel(
        model=Model(net=net.eval(), classes=classes, scale=TEST_SCALE, flip=True, random_layers=random),
        layout=arrays.layout,
        initialisation=imported_layers(net, random)
        + (f"; {_SCHEME} initialisation: {', '.join(random)}" if random else ""),
        preprocessing=preprocessing,
        notes=(*arrays.notes, *of_biases, *of_head, *notes, *of_scales, *why),
    )


def _with_head(
    weights: dict[str, Tensor], arrays: NamedArrays, network: str | None, taken: TakenWeights
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the weights, with a head that is not the paper's written as fc6, fc7 and fc8, and notes about it.

    Raises:
        ValueError: a head that fc6, fc7 and fc8 cannot express; the message says how to take the convolutions alone.
    """
    convolutions = {name: value for name, value in weights.items() if not name.startswith(HEAD)}
    if taken.convolutions_only:
        return convolutions, ()
    head, misfit = arrays.head, None
    if arrays.unread_head is not None:
        raise ValueError(f"{arrays.unread_head}; {CONVOLUTIONS_ALONE}")
    if head is None:
        head, misfit = _misfitting_head(weights, network, taken)
    if head is None:
        return weights, ()
    architecture_of(convolutions, network)  # raises for what is wrong with them, before the head is judged
    try:
        return written_head(convolutions, head, network=network, crop=taken.crop or arrays.crop)
    except ValueError as error:
        raise ValueError(f"{misfit or error}; {CONVOLUTIONS_ALONE}") from error


def _misfitting_head(
    weights: Mapping[str, Tensor], network: str | None, taken: TakenWeights
) -> tuple[Head | None, ValueError | None]:
    """Return fc6, fc7 and fc8 that are not as wide as the paper's, or take the mean of pool5, and why they do not fit.

    Raises:
        ValueError: layers are missing.
    """
    if not any(f"{layer}.weight" in weights for layer in HEAD):
        return None, None
    try:
        crop = architecture_of(weights, network).crop
        if taken.crop in (None, crop):
            return None, None
        misfit = ValueError(f"its crop is {crop}, not {taken.crop}")
    except ValueError as error:
        misfit = error
    layers = [(weights.get(f"{name}.weight"), weights.get(f"{name}.bias")) for name in HEAD]
    affine = [
        Affine(weight=weight, bias=bias, relu=number < len(layers) - 1)
        for number, (weight, bias) in enumerate(layers)
        if weight is not None and bias is not None and weight.ndim == 2
    ]
    if len(affine) < len(HEAD):
        raise ValueError(f"{misfit}; {CONVOLUTIONS_ALONE}") from misfit
    return Head(layers=tuple(affine)), misfit


def imported_layers(net: VGG, random: tuple[str, ...]) -> str:
    """Write, for a run's record, the layers that came from a file."""
    return f"imported: {', '.join(layer for layer in layers_with_weights(net) if layer not in random)}"


def refuse_preprocessing(trained: TrainedPreprocessing) -> None:
    """Refuse options of preprocessing for weights of this package.

    Raises:
        ValueError: there are some.
    """
    if trained != TrainedPreprocessing():
        raise ValueError("its mean is part of its weights: leave out mean, std, channels and white")


def refuse_parts(taken: TakenWeights) -> None:
    """Refuse options that take a part of a file of weights, for a run.

    Raises:
        ValueError: there are some.
    """
    if taken != TakenWeights():
        raise ValueError("it is a run, which is imported as a whole: leave out --convolutions-only, --crop and --ema")


def _preprocessing(
    arrays: NamedArrays, trained: TrainedPreprocessing, weights: Mapping[str, Tensor]
) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """Return the preprocessing that was asked for, else the file's, else the library's own, and notes about it."""
    if arrays.layout == "verydeep":
        refuse_preprocessing(trained)
        return None, ()
    if arrays.ours and arrays.mean is not None and trained != TrainedPreprocessing():
        raise ValueError("its layers prepare images themselves: leave out mean, std, channels and white")
    usual, notes = _usual(arrays, trained, weights)
    usual = in_order(usual, trained.channels or arrays.channels or usual.channels)
    white = arrays.white or usual.white
    if trained.white not in (None, white) and (trained.mean is None or trained.std is None):
        raise ValueError(f"white {trained.white} is not {arrays.layout}'s: give mean and std in that range too")
    preprocessing = Preprocessing(
        channels=usual.channels,
        white=trained.white or white,
        mean=trained.mean or arrays.mean or usual.mean,
        std=trained.std or arrays.std or usual.std,
    )
    _check_range(preprocessing, arrays.layout)
    return preprocessing, notes


def _usual(
    arrays: NamedArrays, trained: TrainedPreprocessing, weights: Mapping[str, Tensor]
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return the assumed preprocessing where neither the file nor an option tells it, and notes about it."""
    usual = PREPROCESSING[arrays.layout]
    if arrays.layout == "torchvision" and _features_only(weights):
        note = f"its mean and std are those of {_FEATURES_ONLY}, which also have NaN for a classifier"
        return TORCHVISION_FEATURES, (note,) if None in (trained.mean, trained.std) else ()
    if not _is_told(arrays, trained) and (channels := oxford_channels(weights["conv1_1.weight"])):
        taken = trained.channels or channels
        says = ", as channels says," if trained.channels else ""
        note = (
            f"its conv1_1 has the filters of the Oxford group's weights, for {channels.upper()}: it takes "
            f"{taken.upper()}{says} in 0..255 minus ILSVRC's mean, not what {arrays.layout} publishes"
        )
        return OXFORD[taken], (note,) if OXFORD[taken] != usual else ()
    if arrays.layout == "numpy" and trained.channels is None:
        raise ValueError(
            "nothing in it tells the order of channels: say --channels bgr, as in Caffe, or --channels rgb"
        )
    return usual, ()


def _about_scales(architecture: Architecture, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Note at which scales the Oxford group's D and E are tested in the paper; they are known by their first filters.

    A network that was made from them for other classes was trained at an S that nothing tells.
    """
    published = architecture.network in ("D", "E") and architecture.classes == ILSVRC_CLASSES
    if not published or oxford_channels(weights["conv1_1.weight"]) is None:
        return ()
    low, high = scale_range(_OXFORD_SCALE)
    scales = ",".join(map(str, paper_scales(_OXFORD_SCALE)))
    return (
        f"its conv1_1 has the filters of the Oxford group's weights, which were trained with S in [{low};{high}]: for "
        f"the paper's protocol, and so its errors in Table 4, test with --scales {scales}",
    )


def _is_told(arrays: NamedArrays, trained: TrainedPreprocessing) -> bool:
    """Return whether the file or an option tells the range of the pixels, which the order of channels does not."""
    told = (trained.mean, trained.std, trained.white, arrays.mean)
    return any(one is not None for one in told)


def _check_range(preprocessing: Preprocessing, layout: str) -> None:
    mean, std, white = preprocessing.mean, preprocessing.std, preprocessing.white
    if not all(0 < value < float("inf") for value in std):
        raise ValueError(f"std must be numbers above 0, not {list(std)}")
    if not all(0 <= value <= white for value in mean):
        raise ValueError(f"mean must be numbers from 0 to {white}, white in {layout}'s range, not {list(mean)}")


def _count(value: Tensor) -> Tensor:
    """Return a number of batches as PyTorch keeps it, an int64: who halves or averages weights may do so to it too.

    Nothing is computed from it, so one that overflowed does not make a file damaged.
    """
    if not value.is_floating_point():
        return value.long()
    return value.double().nan_to_num(nan=0, posinf=0, neginf=0).clamp(0, _MOST_BATCHES).long()


def _unusable_layers(weights: Mapping[str, Tensor]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the fully connected layers that are missing or not finite, and a note about them.

    Raises:
        ValueError: a convolution is not finite, or only some of the fully connected layers are.
    """
    bad = {name.partition(".")[0] for name, value in weights.items() if not value.isfinite().all()}
    missing = {layer for layer in HEAD if f"{layer}.weight" not in weights}
    if bad - set(HEAD) or (bad and bad != set(HEAD)):
        raise ValueError(f"{', '.join(sorted(bad))} holds values that are not finite numbers: damaged")
    if not bad | missing:
        return (), ()
    why = "are not numbers in it" if bad else "are not in it"
    return HEAD, (f"{', '.join(HEAD)} {why}, so they are random: it is for features and for --finetune",)


def _features_only(weights: Mapping[str, Tensor]) -> bool:
    """Return whether there are fully connected layers in which all values are NaN."""
    head = [value for name, value in weights.items() if name.startswith(HEAD)]
    return bool(head) and all(bool(value.isnan().all()) for value in head)


def _first_weights(net: VGG, layers: tuple[str, ...]) -> dict[str, Tensor]:
    """Return random weights for whole layers."""
    fresh = net.to_empty(device="cpu")
    initialise(fresh, _SCHEME, generator=torch.Generator().manual_seed(_SEED))
    return {name: value for name, value in fresh.state_dict().items() if name.partition(".")[0] in layers}
