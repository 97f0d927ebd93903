"""Image files to classes and where they are: the full procedure of appendix A.2."""

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from verydeep import atomic, runs
from verydeep.deployment.predict import model_on
from verydeep.evaluation.box_pictures import with_boxes_drawn
from verydeep.evaluation.localisation import TOP, FullTest, Seen, full_test
from verydeep.experiments.localise import FullProcedure
from verydeep.images.decode import decode
from verydeep.images.folders import image_files
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources import MemorySource, Sample
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.runtime import Runtime

_QUALITY = 92
"""Of JPEG."""


@dataclass(frozen=True, kw_only=True)
class LocatedObject:
    """One answer."""

    name: str
    """Of the class."""
    probability: float
    """Posterior of the image, 0..1."""
    box: tuple[float, float, float, float]
    """(x0, y0, x1, y1), edges in pixels from the upper left corner."""


@dataclass(frozen=True, kw_only=True)
class BoxPrediction:
    """What networks make of one image."""

    image: str
    objects: tuple[LocatedObject, ...]
    """The most probable class first; empty when the image cannot be used."""
    drawn: str | None = None
    """File of the image with the boxes, if that was wanted."""
    error: str | None = None
    """Why the image cannot be used."""

    def to_dict(self) -> dict[str, Any]:
        """The same as a plain dictionary, ready for JSON."""
        return asdict(self)


def predict_boxes(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    full: FullProcedure,
    out: Path | None = None,
    top: int = 1,
    runtime: Runtime | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[BoxPrediction]:
    """The `top` most probable classes of every image, and where each is; with `out`, copies with the boxes drawn in.

    An image that cannot be used gives a prediction with `error` set, and the others go on. Folders stand for the image
    files in them and below.

    Raises:
        ValueError: unusable runs, `top` not from 1 to 5, or a path that does not exist.
    """
    if not 1 <= top <= TOP:
        raise ValueError(f"top is a number from 1 to {TOP}, not {top}")
    runtime = runtime or Runtime()
    paths = [path for given in images for path in image_files(Path(given))]
    model = model_on(runtime.device, runs.load_box_model(run))
    test = full.test([model], runtime)
    tolerance = Tolerance(max_bad=100, max_pixels=max_pixels)
    targets = _targets(paths, out)
    return (_predict_one(path, target, test, top, tolerance) for path, target in zip(paths, targets, strict=True))


def _predict_one(path: Path, target: Path | None, test: FullTest, top: int, tolerance: Tolerance) -> BoxPrediction:
    quarantine = Quarantine(1, tolerance, split="given")
    try:
        data = path.read_bytes()
    except OSError as error:
        return BoxPrediction(image=str(path), objects=(), error=f"unreadable ({error.strerror})")
    one = MemorySource(classes=test.classes, samples=(Sample(data, 0, str(path)),))
    ((_, seen),) = full_test(test, one, quarantine=quarantine)
    if seen is None:
        return BoxPrediction(image=str(path), objects=(), error=next(iter(quarantine.reasons.values())))
    found = BoxPrediction(image=str(path), objects=_objects(seen, test.classes, top))
    if target is None:
        return found
    boxes = [np.array(one.box) for one in found.objects]
    picture = with_boxes_drawn(decode(data, str(path), max_pixels=tolerance.max_pixels), found=boxes)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY)
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(target, buffer.getvalue())
    return replace(found, drawn=str(target))


def _objects(seen: Seen, classes: tuple[str, ...], top: int) -> tuple[LocatedObject, ...]:
    best = np.argsort(-seen.posterior, kind="stable")[:top].tolist()
    return tuple(
        LocatedObject(
            name=classes[label],
            probability=float(seen.posterior[label]),
            box=tuple(seen.boxes[0, label].tolist()),
        )
        for label in best
    )


def _targets(paths: Sequence[Path], out: Path | None) -> list[Path | None]:
    """A JPEG file in `out` for each image, called as the image is; further ones of the same name get a number."""
    if out is None:
        return [None] * len(paths)
    taken: set[str] = set()
    found: list[Path | None] = []
    for path in paths:
        names = itertools.chain([path.stem], (f"{path.stem}-{number}" for number in itertools.count(2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        found.append(out / f"{name}.jpg")
    return found
