"""Image files to their most probable classes."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verydeep import runs
from verydeep.evaluation.passes import posteriors
from verydeep.evaluation.protocols import Protocol, single_scale
from verydeep.images.folders import image_files
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources import MemorySource, Sample
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.runtime import Device, torch_device


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network makes of one image."""

    image: str
    classes: tuple[str, ...]
    """The most probable ones, the first first; empty when the image cannot be used."""
    probabilities: tuple[float, ...]
    """Posterior of each, 0..1."""
    error: str | None = None
    """Why the image cannot be used."""

    def to_dict(self) -> dict[str, Any]:
        """The same as a plain dictionary, ready for JSON."""
        return asdict(self)


def predict(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    device: Device = "auto",
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Prediction]:
    """The `top` most probable classes of every image, densely at the run's single test scale.

    An image that cannot be used, one of more than `max_pixels` pixels for instance, gives a prediction with `error`
    set, and the others go on. Folders stand for the image files in them and below.

    Raises:
        ValueError: unusable run, `top` below 1, unusable `max_pixels`, or a path that does not exist.
    """
    if top < 1:
        raise ValueError(f"top must be 1 or more, not {top}")
    paths = [path for given in images for path in image_files(Path(given))]
    model = runs.load_model(run)
    protocol = Protocol(scales=single_scale(model.scale), mirror=model.flip)
    net = model.net.to(torch_device(device))
    tolerance = Tolerance(max_bad=100, max_pixels=max_pixels)
    return (_predict_one(path, net, model.classes, protocol, top, tolerance) for path in paths)


def _predict_one(
    path: Path, net: Any, classes: tuple[str, ...], protocol: Protocol, top: int, tolerance: Tolerance
) -> Prediction:
    quarantine = Quarantine(1, tolerance, split="given")
    try:
        one = MemorySource(classes=classes, samples=(Sample(path.read_bytes(), 0, str(path)),))
        posterior = posteriors(net, one, protocol, quarantine=quarantine)[0]
    except OSError as error:
        return Prediction(image=str(path), classes=(), probabilities=(), error=f"unreadable ({error.strerror})")
    for reason in quarantine.reasons.values():
        return Prediction(image=str(path), classes=(), probabilities=(), error=reason)
    best = (-posterior).argsort(kind="stable")[:top]
    return Prediction(
        image=str(path),
        classes=tuple(classes[i] for i in best),
        probabilities=tuple(float(posterior[i]) for i in best),
    )
