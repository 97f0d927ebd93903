"""Table 1 of the paper as data, and an architecture as one value: it makes the module, counts it, keys caches.

Nothing here needs PyTorch: `vgg.py` builds modules from an architecture's layers, `arithmetic.py` counts them.
"""

import dataclasses
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from verydeep.box_regression import Regression
from verydeep.machine.documents import converted
from verydeep.numbers import number

PAPER_CROP = 224
"""Side of the paper's input in pixels; its scales S and Q are stated for this crop."""

ILSVRC_CLASSES = 1000

DOWNSAMPLING = 32
"""Five 2 x 2 poolings: one position of `pool5` stands for 32 x 32 pixels."""

STAGE_CHANNELS = (64, 128, 256, 512, 512)
_FC_CHANNELS = 4096

DROPOUT = 0.5
"""Share of the activations of `fc6` and `fc7` that is zeroed in training (section 3.1)."""

InitialisationScheme = Literal["glorot", "paper", "paper-variance"]
"""How weights are initialised at random; `networks.initialisation` says what each means."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A column of Table 1: the kernel sizes of the convolutions of each of the five stages."""

    name: str
    kernels: tuple[tuple[int, ...], ...]
    lrn: bool = False
    """Local response normalisation after the first convolution (A-LRN)."""


CONFIGURATIONS: dict[str, Configuration] = {
    configuration.name: configuration
    for configuration in (
        Configuration(name="A", kernels=((3,), (3,), (3, 3), (3, 3), (3, 3))),
        Configuration(name="A-LRN", kernels=((3,), (3,), (3, 3), (3, 3), (3, 3)), lrn=True),
        Configuration(name="B", kernels=((3, 3), (3, 3), (3, 3), (3, 3), (3, 3))),
        Configuration(name="B-5x5", kernels=((5,), (5,), (5,), (5,), (5,))),
        Configuration(name="C", kernels=((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))),
        Configuration(name="D", kernels=((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))),
        Configuration(name="E", kernels=((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3))),
    )
}
"""Table 1, and B-5x5: the net of section 2.3 in which each pair of 3 x 3 layers is one 5 x 5 layer."""

COMMON_NAMES = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}
"""Names in torchvision and timm of the networks that they have; with `_bn` for batch normalisation."""


def configuration(name: str) -> Configuration:
    """Return the column of Table 1 called `name` (`A`, `A-LRN`, `B`, `B-5x5`, `C`, `D`, `E`; case does not matter).

    Raises:
        ValueError: there is no such network; the message lists those there are.
    """
    for known, column in CONFIGURATIONS.items():
        if known.casefold() == name.casefold():
            return column
        if COMMON_NAMES.get(known) == name.casefold().removesuffix("_bn"):
            norm = "; _bn is batch_norm here (--batch-norm)" if name.casefold().endswith("_bn") else ""
            raise ValueError(f"unknown network {name!r}: the paper calls it {known}{norm}")
    raise ValueError(f"unknown network {name!r}: choose one of {', '.join(CONFIGURATIONS)}")


_LARGEST_CROP = 8192
"""Pixels of a side: activations of one image of A then take 48 GB."""


def check_crop(crop: int) -> None:
    """Check that `fc6` can be built for a crop, in pixels.

    Raises:
        ValueError: it is not a positive multiple of 32, or larger than any machine computes.
    """
    if crop > _LARGEST_CROP:
        raise ValueError(
            f"crop {crop} is larger than {number(_LARGEST_CROP)} pixels, the most that are computed at once"
        )
    if crop < DOWNSAMPLING or crop % DOWNSAMPLING:
        nearest = max(DOWNSAMPLING, round(crop / DOWNSAMPLING) * DOWNSAMPLING)
        raise ValueError(f"crop {crop} is not a multiple of {DOWNSAMPLING} (five poolings halve it): try {nearest}")


LayerKind = Literal["conv", "batch_norm", "relu", "lrn", "pool", "linear", "dropout"]

_BOX = 4
"""Numbers of one box."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer, named as in the paper: `conv3_2`, `relu3_2`, `pool3`, `fc6`, `relu6`, `drop6`, `fc8`."""

    name: str
    kind: LayerKind
    inputs: int
    """Channels (features, for `fc7` and `fc8`) that come in."""
    outputs: int
    kernel: int = 1
    """Side of the window; for `fc6` the side of the `pool5` map that it covers."""

    @property
    def weight_count(self) -> int:
        """Weights without biases: kernel^2 x inputs x outputs; 0 for a layer that has none."""
        return self.kernel**2 * self.inputs * self.outputs if self.kind in ("conv", "linear") else 0


_WIDEST, _MOST_CLASSES = 100, 10_000_000
"""Far above any real network; a file may claim more than any computer could hold."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """All that a network is built from except its weights.

    Raises:
        ValueError: unknown network, a crop that is not a multiple of 32, fewer than 2 classes, a width that is not
            positive, or an unknown kind of boxes.
        TypeError: a field of another type.
    """

    network: str
    """Column of Table 1, or `B-5x5`."""
    classes: int = ILSVRC_CLASSES
    crop: int = PAPER_CROP
    """Side of the input in pixels."""
    width: float = 1.0
    """Factor on the channels of all hidden layers, convolutional and fully connected."""
    batch_norm: bool = False
    """Whether the output of each convolution is normalised before its ReLU (not in the paper)."""
    boxes: Regression | None = None
    """Whether `fc8` predicts one box for all classes or one for each; None for scores of the classes."""

    def __post_init__(self) -> None:
        """Check the fields, and bring them to one form, so that the same architecture is always equal to itself."""
        known = {
            "network": configuration(self.network).name,
            "classes": operator.index(self.classes),
            "crop": operator.index(self.crop),
            "width": float(self.width),
            "batch_norm": bool(self.batch_norm),
        }
        for name, value in known.items():
            object.__setattr__(self, name, value)
        check_crop(self.crop)
        if self.classes < 2:
            raise ValueError(f"a network needs at least 2 classes to tell apart, not {self.classes}")
        if self.classes > _MOST_CLASSES:
            raise ValueError(
                f"a network tells at most {number(_MOST_CLASSES)} classes apart, not {number(self.classes)}"
            )
        if not 0 < self.width <= _WIDEST:
            raise ValueError(f"width must be a positive number up to {_WIDEST}, not {self.width}")
        if self.boxes not in (None, *get_args(Regression)):
            raise ValueError(f"boxes are {' or '.join(get_args(Regression))}, not {self.boxes!r}")

    @classmethod
    def of_recipe(
        cls, recipe: Mapping[str, Any], *, network: str, classes: int, boxes: Regression | None
    ) -> "Architecture":
        """Return the architecture of a training whose recipe has these fields.

        Raises:
            ValueError: an impossible architecture.
        """
        sizes = {field.name: recipe[field.name] for field in dataclasses.fields(cls) if field.name in recipe}
        return converted({"network": network, "classes": classes, "boxes": boxes, **sizes}, cls)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that files store: all but `classes`, which they name, and `boxes` only if it has any."""
        stored = dataclasses.asdict(self)
        del stored["classes"]
        if self.boxes is None:
            del stored["boxes"]  # so that older versions read it
        return stored

    @property
    def configuration(self) -> Configuration:
        """The column of Table 1."""
        return CONFIGURATIONS[self.network]

    @property
    def window(self) -> int:
        """Side of the square of `pool5` that `fc6` covers."""
        return self.crop // DOWNSAMPLING

    @property
    def outputs(self) -> int:
        """Outputs of `fc8`: a score for each class, the four numbers of a box, or those for each class."""
        return {None: self.classes, "shared": _BOX, "per-class": _BOX * self.classes}[self.boxes]

    def layers(self) -> tuple[Layer, ...]:
        """Return every layer, in order, from `conv1_1` to `fc8`."""
        return (*self._convolutional_layers(), *self._fully_connected_layers())

    def _scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))

    def _convolutional_layers(self) -> Iterator[Layer]:
        inputs = 3
        for stage, (kernels, channels) in enumerate(zip(self.configuration.kernels, STAGE_CHANNELS, strict=True), 1):
            outputs = self._scaled(channels)
            for position, kernel in enumerate(kernels, 1):
                place = f"{stage}_{position}"
                yield Layer(name=f"conv{place}", kind="conv", inputs=inputs, outputs=outputs, kernel=kernel)
                if self.batch_norm:
                    yield Layer(name=f"bn{place}", kind="batch_norm", inputs=outputs, outputs=outputs)
                yield Layer(name=f"relu{place}", kind="relu", inputs=outputs, outputs=outputs)
                inputs = outputs
            if self.configuration.lrn and stage == 1:
                yield Layer(name="lrn1", kind="lrn", inputs=outputs, outputs=outputs)
            yield Layer(name=f"pool{stage}", kind="pool", inputs=outputs, outputs=outputs, kernel=2)

    def _fully_connected_layers(self) -> Iterator[Layer]:
        inputs, hidden, window = self._scaled(STAGE_CHANNELS[-1]), self._scaled(_FC_CHANNELS), self.window
        for place in (6, 7):
            yield Layer(name=f"fc{place}", kind="linear", inputs=inputs, outputs=hidden, kernel=window)
            yield Layer(name=f"relu{place}", kind="relu", inputs=hidden, outputs=hidden)
            yield Layer(name=f"drop{place}", kind="dropout", inputs=hidden, outputs=hidden)
            inputs, window = hidden, 1
        yield Layer(name="fc8", kind="linear", inputs=hidden, outputs=self.outputs)
