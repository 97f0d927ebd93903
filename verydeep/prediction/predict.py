"""Images to their most probable classes, a few at a time."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from verydeep.evaluation.passes import PassContext
from verydeep.evaluation.posteriors import averages, protocol_passes
from verydeep.evaluation.protocols import Method, Protocol, Scales, protocol_of
from verydeep.exported_networks.run_or_file import check_grid, model_on, name_of
from verydeep.images.decode import UnusableImageError
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.given import GivenImage, given_images
from verydeep.images.sources.source import Source, subset
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.errors import say
from verydeep.machine.processes import Processes, joined
from verydeep.machine.runtime import Runtime
from verydeep.machine.threads import use_threads
from verydeep.machine.torchrun import rank_of_environment
from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid
from verydeep.networks.vgg import ScoringNetwork
from verydeep.numbers import share
from verydeep.prediction import pieces
from verydeep.prediction.files import check_folder, write_picture
from verydeep.prediction.map_pictures import SUFFIX, MapView, about_positions, check_method, map_picture
from verydeep.prediction.options import MAP_METHOD, NAMED_CLASSES, MapMethod
from verydeep.presentation.pages import html_table
from verydeep.runs.model import Model

_ADVICE = "start it again"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most probable classes of one image."""

    image: str
    """Its path; `image 3` for the fourth of those given as pixels or bytes."""
    classes: tuple[str, ...]
    """In falling order of probability; empty when the image cannot be used."""
    probabilities: tuple[float, ...]
    """Posterior of each, 0..1."""
    error: str | None = None
    """Why the image cannot be used, or why it could not be read again for its picture."""
    score_map: str | None = None
    """File of the picture that shows where the first class is seen, if pictures were asked for."""

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """Return the classes and their probabilities as a table, as notebooks show it."""
        rows = zip(self.classes, map(share, self.probabilities), strict=True)
        caption = f"{self.image}: {self.error}" if self.error else self.image
        return html_table(caption, ("class", "probability"), rows)


@dataclass(frozen=True, kw_only=True)
class _PredictionJob:
    """A network, its protocol and the images, all choices made."""

    name: str
    model: Model[ScoringNetwork]
    source: Source
    protocol: Protocol
    top: int
    maps: Path | None
    view: MapView
    runtime: Runtime
    tolerance: Tolerance


def predict(
    run: str | Path | Model[ScoringNetwork],
    images: Source | GivenImage | Iterable[GivenImage],
    *,
    top: int = NAMED_CLASSES,
    protocol: Method = Protocol.method,
    scales: Sequence[int] | Scales | None = None,
    grid: PoolingGrid = DEFAULT_GRID,
    maps: str | Path | None = None,
    method: MapMethod = MAP_METHOD,
    runtime: Runtime | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Prediction]:
    """Yield the most probable classes of every image, in the order given, as they are computed.

    An image that cannot be used gives a prediction with `error` set, and the others are computed. Under torchrun every
    process computes its share, and all predictions are yielded in the first one; in the others there are none.

    Args:
        run: a run folder, a file that `verydeep export` wrote, or a model that is loaded already (`load_model`),
            which is moved to the device.
        images: one image or several: paths of files, folders (the image files in them and below) or patterns
            (`photos/**/*.jpg`); bytes of an image file; pixels, uint8 [H, W, 3]; Pillow images.
        top: number of classes.
        protocol: `dense`, `crops`, `both` or `centre` (`Protocol.method`).
        scales: Q for a crop of 224, or `single` (Q = S), or `paper` (the three that follow from the run's S). If not
            given, `single`; 256 for `centre`.
        grid: of dense evaluation and of pictures: `centred`, `floor` or `ceil` (docs/DEVIATIONS.md). Exported files
            have the centred one, but for those of torch.export.
        maps: folder for a picture of each image, in its own size, that shows where its first class is seen.
        method: of these pictures: `score-map` or `grad-cam` (`MapMethod`), at the middle one of the scales.
        runtime: device, how many processes decode for each scale, and threads, which this process keeps.
        max_pixels: larger images cannot be used.

    Raises:
        ValueError: unusable run, protocol, scales or method, `top` below 1, unusable `max_pixels`, a path that does not
            exist, pixels of another kind, or a folder for pictures that has one of the images.
        OSError: the pictures cannot be written.
    """
    if top < 1:
        raise ValueError(f"top must be 1 or more, not {top}")
    tolerance = Tolerance(max_bad=100, max_pixels=max_pixels)
    source = given_images(images)
    if maps is not None:
        check_folder(Path(maps), source.ids)
    runtime = runtime or Runtime()
    use_threads(runtime.threads)
    model = model_on(runtime.device, run)
    chosen = protocol_of(protocol, scales, usual="single", trained=model.scale, mirror=model.flip, grid=grid)
    check_grid(model, grid)
    check_method(method, model.net)
    job = _PredictionJob(
        name=name_of(run),
        model=model,
        source=source,
        protocol=chosen,
        top=top,
        maps=None if maps is None else Path(maps),
        view=MapView(
            method=method, scale=chosen.scales[len(chosen.scales) // 2], grid=grid, max_pixels=tolerance.max_pixels
        ),
        runtime=runtime,
        tolerance=tolerance,
    )
    if maps is not None and not rank_of_environment():
        for line in about_positions(model.net, job.view):
            say(line)
    return _predictions(job)


def _predictions(job: _PredictionJob) -> Iterator[Prediction]:
    """Yield predictions of pieces of the source, each of as many images as take a few seconds."""
    images, model = len(job.source), job.model
    with joined(model.net.mean_rgb.device, advice=_ADVICE, known=(WorkerDiedError,)) as processes:
        processes.check_alike(
            "images or another run under these names",
            lambda: (
                job.source.fingerprint,
                model.digests,
                model.classes,
                job.protocol,
                job.top,
                job.maps,
                job.view,
            ),
        )
        share = range(processes.rank, images, processes.count)
        workers, max_pixels = job.runtime.workers, job.tolerance.max_pixels
        with pieces.decoding(job.source, share=share, workers=workers, max_pixels=max_pixels) as decoder:
            start, at_once = 0, pieces.FIRST_IMAGES
            while start < images:
                began, stop = time.monotonic(), start + at_once * processes.count
                predictions = _of_piece(job, range(start, min(stop, images)), processes, decoder)
                seconds = time.monotonic() - began
                yield from predictions
                start, at_once = stop, processes.all_of(pieces.next_piece(at_once, seconds))[0]


def _of_piece(job: _PredictionJob, indices: range, processes: Processes, decoder: pieces.Decoder) -> list[Prediction]:
    """Return the predictions of some images; none in other processes than the first."""
    piece = subset(job.source, tuple(indices))
    quarantine = Quarantine(len(piece), job.tolerance)
    context = PassContext(source=piece, quarantine=quarantine, processes=processes, opened=decoder)
    posteriors = averages([protocol_passes(job.model.net, job.protocol, name=job.name)], context).values
    best = [most_probable(posterior, job.top) for posterior in posteriors[0]] if processes.first else []
    of_first = [
        (labels[0], float(posteriors[0][row, labels[0]])) if labels else None for row, labels in enumerate(best)
    ]
    pictures = _pictures(job, piece, of_first, processes) if job.maps is not None else {}
    predictions = []
    for row, labels in enumerate(best):
        picture = pictures.get(row)
        error = None if labels else quarantine.reasons[piece.ids[row]]
        predictions.append(
            Prediction(
                image=piece.ids[row],
                classes=tuple(job.model.classes[label] for label in labels),
                probabilities=tuple(float(posteriors[0][row, label]) for label in labels),
                error=picture.reason if isinstance(picture, UnusableImageError) else error,
                score_map=_written(job, indices[row], picture) if isinstance(picture, bytes) else None,
            )
        )
    return predictions


def most_probable(posterior: Float[np.ndarray, " K"], top: int) -> list[int]:
    """Return the labels of the most probable classes; none for an image that cannot be used."""
    if np.isnan(posterior[0]):
        return []
    best: list[int] = (-posterior).argsort(kind="stable")[:top].tolist()
    return best


def _pictures(
    job: _PredictionJob, piece: Source, best: Sequence[tuple[int, float] | None], processes: Processes
) -> dict[int, bytes | UnusableImageError]:
    """Return the pictures of a piece's images, by row, or why an image can no longer be used when it is read again.

    `best` is label and probability of each image's first class, in the first process; each draws its share.
    """
    of_first = processes.from_first(lambda: list(best))
    own: dict[int, bytes | UnusableImageError] = {}
    for row in range(processes.rank, len(piece), processes.count):
        if (first := of_first[row]) is not None:
            label, probability = first
            name = job.model.classes[label]
            try:
                own[row] = map_picture(
                    job.model.net, piece[row], label, job.view, class_name=name, probability=probability
                )
            except UnusableImageError as refusal:
                own[row] = refusal
    shares = processes.to_first(own) or []
    return {row: picture for share in shares for row, picture in share.items()}


def _written(job: _PredictionJob, number: int, picture: bytes) -> str:
    assert job.maps is not None
    return write_picture(job.maps, job.source.ids, number, picture, suffix=SUFFIX)
