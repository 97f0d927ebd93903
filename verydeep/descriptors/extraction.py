"""The extraction of a descriptor from images: all choices made, checked before any work."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from verydeep.descriptors.descriptor import Descriptor
from verydeep.evaluation.pixel_limits import MOST_PIXELS, largest_image
from verydeep.evaluation.protocols import chosen_scales
from verydeep.exported_networks.run_or_file import model_on, name_of
from verydeep.images.open import open_one_split
from verydeep.images.sources.given import GivenImage
from verydeep.images.sources.source import Source
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Runtime
from verydeep.machine.threads import use_threads
from verydeep.networks.arithmetic import output_shapes
from verydeep.networks.scales import check_test_scales, scale_in_pixels
from verydeep.networks.vgg import LayeredNetwork
from verydeep.runs.model import Model

Images = str | Path | Source | Splits | GivenImage | Sequence[GivenImage]
"""SOURCE, open or not, an image or a folder of them without classes, or several images."""

_IMAGES_AT_ONCE, IMAGES_AT_ONCE_ON_CPU = 1024, 64
"""Most images of a chunk, which is computed, and lost if the work is killed, before it is kept."""

_BYTES_AT_ONCE = 128 * 2**20
"""Most bytes of a chunk's features."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """A descriptor of the images of a source, all choices made."""

    model: Model[LayeredNetwork]
    source: Source
    descriptor: Descriptor
    """With the layers, the scales and the mirror that were chosen."""
    scales: tuple[int, ...]
    """Q of the descriptor."""
    crop_shapes: dict[str, tuple[int, ...]]
    """Output of each layer for one crop, [C] or [C, h, w]."""
    runtime: Runtime
    tolerance: Tolerance
    most_pixels: int
    """Pixels of the largest image at a scale that there is memory for."""

    @property
    def sides(self) -> tuple[int, ...]:
        """Shorter side of the images at each scale, in pixels."""
        return tuple(scale_in_pixels(scale, self.model.net.architecture.crop) for scale in self.scales)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each layer's values for one image."""
        if self.descriptor.pool == "none":
            return self.crop_shapes
        copies = len(self.scales) if self.descriptor.pool == "stack" else 1
        return {name: (copies * shape[0],) for name, shape in self.crop_shapes.items()}

    @property
    def views_at_once(self) -> int:
        """Number of views of an image that go through the network together: itself and its mirror image."""
        return 2 if self.descriptor.mirror else 1

    @property
    def images_at_once(self) -> int:
        """Number of images in a chunk."""
        numbers = sum(math.prod(shape) for shape in self.shapes.values())
        most = IMAGES_AT_ONCE_ON_CPU if self.model.net.mean_rgb.device.type == "cpu" else _IMAGES_AT_ONCE
        return max(1, min(most, _BYTES_AT_ONCE // (4 * numbers)))


def checked_extraction(
    run: str | Path | Model[LayeredNetwork],
    data: Images,
    *,
    descriptor: Descriptor | None = None,
    split: str | None = None,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
) -> Extraction:
    """Check the arguments of `features`, make the choices that are left to the run, and open the source.

    Raises:
        ValueError: as `features`.
    """
    chosen, runtime = descriptor or Descriptor(), runtime or Runtime()
    use_threads(runtime.threads)
    model = model_on(runtime.device, run)
    scales = _checked_scales(chosen, model)
    crop_shapes = _crop_shapes(name_of(run), model.net, chosen.layers)
    _refuse_random_layers(name_of(run), model, chosen.layers)
    mirror = model.flip and chosen.pool != "none" if chosen.mirror is None else chosen.mirror
    device = model.net.mean_rgb.device
    return Extraction(
        model=model,
        source=open_one_split(data, split),
        descriptor=replace(chosen, layers=tuple(crop_shapes), scales=scales, mirror=mirror),
        scales=scales,
        crop_shapes=crop_shapes,
        runtime=runtime,
        tolerance=tolerance or Tolerance(),
        # Only CUDA devices tell how much memory there is.
        most_pixels=largest_image([model.net], device) if device.type == "cuda" else MOST_PIXELS,
    )


def _checked_scales(descriptor: Descriptor, model: Model[LayeredNetwork]) -> tuple[int, ...]:
    scales = chosen_scales(descriptor.scales, trained=model.scale)
    check_test_scales(scales)
    if descriptor.pool == "none" and len(scales) > 1:
        raise ValueError(f"without pooling features are of one scale, not of {', '.join(map(str, scales))}")
    return scales


def _crop_shapes(run: str, net: LayeredNetwork, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the output of each of these layers for one crop, [C] or [C, h, w]."""
    if not net.layer_names:
        raise ValueError(f"the graph in {run} is unknown, so its layers are too: name the run that it came from")
    shapes = output_shapes(net.architecture)
    unknown = [name for name in names if name not in shapes]
    if unknown or not names or len(set(names)) < len(names):
        problem = f"no layer {', '.join(map(repr, unknown))}" if unknown else "layers are one or more distinct ones"
        raise ValueError(f"{problem}: this network has {', '.join(net.layer_names)}")
    if missing := [name for name in names if name not in net.layer_names]:
        raise ValueError(
            f"{run} has no {', '.join(missing)} apart from other layers: name the run that it came from, or take of "
            f"its layers {', '.join(net.layer_names)}"
        )
    return {name: shapes[name] for name in names}


def _refuse_random_layers(name: str, model: Model[LayeredNetwork], layers: Sequence[str]) -> None:
    """Refuse layers that are random, or come after such a layer."""
    order = model.net.layer_names
    first = min(map(order.index, model.random_layers), default=len(order))
    random = [layer for layer in layers if order.index(layer) >= first]
    if random:
        last = max(map(order.index, random))
        needed = " and ".join(layer for layer in model.random_layers if order.index(layer) <= last)
        raise ValueError(
            f"{name} was imported without {', '.join(model.random_layers)}, so {', '.join(random)} would be of random "
            f"weights: take a run with {needed}, or of this one {order[first - 1]} or an earlier layer (verydeep "
            "features)"
        )
