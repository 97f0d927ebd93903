"""Networks over all images of a source: each image is decoded once for all networks that want it at one scale."""

import itertools
import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from verydeep.evaluation.batches import Batch, SameSizeBatches
from verydeep.evaluation.crops import crop_posteriors
from verydeep.evaluation.dense import dense_posteriors, largest_image, pixels_at_once
from verydeep.evaluation.posterior_cache import Posteriors, nothing_known, store, stored
from verydeep.evaluation.protocols import Protocol, Views
from verydeep.images.decode import UnusableImageError
from verydeep.images.loader import Rescaled, rescaled_images
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source
from verydeep.images.views import GRID
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.processes import Processes
from verydeep.machine.runtime import stop_request
from verydeep.networks.scales import scale_in_pixels
from verydeep.networks.vgg import VGG

VIEWS_BETWEEN_MEETINGS = 512
"""Forward passes of a process, after which all tell what they found: 256 images of dense evaluation, 10 of 50 crops.
Of an evaluation on several processes that is stopped so much may be lost, of one in a single process a batch."""

SECONDS_BETWEEN_SAVES = 300.0
"""So much may be lost of one that is killed."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One network on one kind of view of every image, at one scale."""

    net: VGG
    views: Views
    side: int
    """Pixels of the images' shorter side."""
    mirror: bool
    name: str = "the network"
    """For messages."""
    key: object = None
    """What its posteriors are kept under; None: they are not kept."""


Rows = tuple[list[int], list[NDArray[np.float32] | None]]
"""Indices of some images, and of each pass its posteriors of them, [B, classes], or None if it has them already."""


class News(NamedTuple):
    """What a process found since the last meeting."""

    found: list[Rows]
    refusals: dict[int, UnusableImageError]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What passes have in common."""

    source: Source
    quarantine: Quarantine
    workers: int = 0
    processes: Processes = field(default_factory=Processes)
    advance: Callable[[int], None] = lambda images: None
    """Told how many images are through, for each pass anew."""
    say: Callable[[str], None] = lambda line: None
    opened: Callable[[int, Sequence[int]], Generator[Rescaled]] | None = None
    """Gives images of the source, by their indices, with their shorter side at so many pixels; if None, processes that
    decode are started for each pass."""


def protocol_passes(net: VGG, protocol: Protocol, **about: Any) -> list[Pass]:
    """The passes whose posteriors a protocol averages."""
    return [
        Pass(net=net, views=views, side=scale_in_pixels(scale, net.crop), mirror=protocol.mirror, **about)
        for scale in protocol.scales
        for views in protocol.views
    ]


def posteriors(
    net: VGG,
    source: Source,
    protocol: Protocol,
    *,
    quarantine: Quarantine | None = None,
    workers: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> NDArray[np.float64]:
    """The posterior of every image of a source, [N, classes], in the source's order; rows add up to 1.

    Images of the same size share a batch, none is padded. Images that cannot be used are in the quarantine, and their
    rows are NaN. `advance` is told how many images are through, for each kind of view and each scale anew.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        ValueError: the network's scores are no numbers.
    """
    around = Surroundings(
        source=source, quarantine=quarantine or Quarantine(len(source)), workers=workers, advance=advance
    )
    (found,) = averages([protocol_passes(net, protocol)], around).values
    return found


class Averages(NamedTuple):
    """Posteriors averaged over passes; in other processes than the first there are none."""

    values: list[NDArray[np.float64]]
    """Of each group of passes, [N, classes]; rows of NaN for images that cannot be used."""
    computed: int
    """Rows of passes that were not kept already."""


def averages(groups: Sequence[Sequence[Pass]], around: Surroundings) -> Averages:
    """Every group's average over its passes; images are decoded once for all passes at the same scale."""
    first, nets = around.processes.first, [group[0].net for group in groups]
    device = nets[0].mean_rgb.device
    pixels, largest = pixels_at_once(nets, device), largest_image(nets, device)
    totals = [np.zeros((len(around.source), group[0].net.classes)) for group in groups if first]
    computed = 0
    for side in dict.fromkeys(one.side for group in groups for one in group):
        chosen = [(which, one) for which, group in enumerate(groups) for one in group if one.side == side]
        known = run_passes([one for _, one in chosen], around, pixels=pixels, largest=largest)
        for which, _ in chosen if first else ():
            found = known.pop(0)
            totals[which] += found.values
            computed += found.computed
    for total, group in zip(totals, groups if first else (), strict=True):
        total /= len(group)
    return Averages(totals, computed)


def run_passes(passes: Sequence[Pass], around: Surroundings, *, pixels: int, largest: int) -> list[Posteriors]:
    """What each of some passes of the same side gives; nothing in other processes than the first.

    What is kept already is not computed again. What was computed is kept, also if an error or a signal ends the work.
    Batches are of about `pixels` pixels; an image of more than `largest` goes through in tiles.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        ValueError: a network's scores are no numbers.
        WorkerDiedError: a worker was killed, say.
        LostProcessError: another process has failed.
    """
    processes, images = around.processes, len(around.source)
    known = [_known(one, around.source) for one in passes if processes.first]
    missing, refusals = processes.from_first(lambda: ([k.missing for k in known], [k.refusals for k in known]))
    around.quarantine.settle(itertools.chain(*(found.values() for found in refusals)))
    pending = [which for which, indices in enumerate(missing) if len(indices)]
    indices = np.unique(np.concatenate(missing)).tolist()
    around.advance(len(passes) * images - len(pending) * len(indices))
    work = _Work(
        passes=[passes[which] for which in pending],
        known=[known[which] for which in pending if processes.first],
        missing=[np.isin(np.arange(images), missing[which]) for which in pending],
        indices=indices,
        around=around,
        pixels=pixels,
        largest=largest,
    )
    try:
        if pending:
            _compute(work)
    finally:
        _keep(work)
    return known


def _known(one: Pass, source: Source) -> Posteriors:
    classes = one.net.classes
    return stored(one.key, source.ids, classes) if one.key else nothing_known(len(source), classes)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is to be computed."""

    passes: Sequence[Pass]
    """Of the same side."""
    known: Sequence[Posteriors]
    """Of each pass, in the first process, where everything is put together."""
    missing: Sequence[NDArray[np.bool_]]
    """Of each pass, [N], which images it lacks."""
    indices: Sequence[int]
    """Of the images that any lacks."""
    around: Surroundings
    pixels: int
    largest: int


def _compute(work: _Work) -> None:
    """This process's share of the images, with meetings on the way, of which all processes have as many."""
    around, processes, quarantine = work.around, work.around.processes, work.around.quarantine
    quarantine.waits = processes.several
    between = _images_between_meetings(work.passes)
    meetings = math.ceil(len(work.indices) / (processes.count * between))
    batches = SameSizeBatches(work.pixels)
    images = (around.opened or partial(_open, around))(
        work.passes[0].side, work.indices[processes.rank :: processes.count]
    )
    saved = time.monotonic()
    with closing(images), in_float32():
        for meeting in range(1, meetings + 1):
            news, failure = News([], {}), None
            try:
                for index, image in itertools.islice(images, between):
                    if isinstance(image, UnusableImageError):
                        news.refusals[index] = image
                        quarantine.add(image)
                    elif batch := batches.add(index, image):
                        news.found.append(_rows(work, batch))
                        news, saved = _noted(work, news), _kept(work, saved)
                for batch in batches.rest() if meeting == meetings else ():
                    news.found.append(_rows(work, batch))
                    news, saved = _noted(work, news), _kept(work, saved)
            except (WorkerDiedError, ValueError) as error:
                failure = error
            _meet(work, news, failure)


def _open(around: Surroundings, side: int, indices: Sequence[int]) -> Generator[Rescaled]:
    max_pixels = around.quarantine.tolerance.max_pixels
    return rescaled_images(around.source, side, indices=indices, max_pixels=max_pixels, workers=around.workers)


def _images_between_meetings(passes: Sequence[Pass]) -> int:
    views = sum((1 if one.views == "dense" else GRID**2) * (1 + one.mirror) for one in passes)
    return max(1, VIEWS_BETWEEN_MEETINGS // views)


@contextmanager
def in_float32() -> Iterator[None]:
    """CUDA devices otherwise take three digits of it for convolutions, without being asked."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _rows(work: _Work, batch: Batch) -> Rows:
    """The posteriors of a batch's images, by every pass that lacks any of them."""
    indices, images = batch
    images = images.to(work.passes[0].net.mean_rgb.device)
    rows: list[NDArray[np.float32] | None] = []
    for one, missing in zip(work.passes, work.missing, strict=True):
        found = None
        if missing[indices].any():
            if one.views == "dense":
                posteriors = dense_posteriors(one.net, images, mirror=one.mirror, pixels=work.largest)
            else:
                posteriors = crop_posteriors(one.net, images, mirror=one.mirror, pixels=work.pixels)
            found = posteriors.float().numpy()
            if not np.isfinite(found).all():
                raise ValueError(f"the scores of {one.name} are not finite: its training has diverged")
        rows.append(found)
        work.around.advance(len(indices) * work.around.processes.count)
    return indices, rows


def _noted(work: _Work, news: News) -> News:
    """Nothing new in the first process, which puts what it finds in its place at once; others wait for the meeting."""
    if not work.around.processes.first:
        return news
    _put(work, news)
    return News([], {})


def _put(work: _Work, news: News) -> None:
    """Puts what a process found in its place."""
    for which, known in enumerate(work.known):
        for indices, its_rows in news.found:
            rows = its_rows[which]
            if rows is not None:
                known.values[indices] = rows
                known.computed += len(indices)
        known.refusals |= news.refusals
        known.computed += sum(bool(work.missing[which][index]) for index in news.refusals)


def _meet(work: _Work, news: News, failure: Exception | None) -> None:
    """All tell what they found, and whether they can go on; the first process puts it together."""
    processes, quarantine = work.around.processes, work.around.quarantine
    waiting = processes.all_of(list(quarantine.waiting))
    for found in processes.to_first(news) or []:
        _put(work, found)
    processes.check_none_failed(failure)
    quarantine.settle(itertools.chain(*waiting))


def _kept(work: _Work, saved: float) -> float:
    """When what was computed was last kept; keeps it now if that is long ago."""
    if time.monotonic() - saved <= SECONDS_BETWEEN_SAVES:
        return saved
    _keep(work)
    return time.monotonic()


def _keep(work: _Work) -> None:
    """Keeps what was computed, together with what others have kept meanwhile; a signal waits for that."""
    if not work.around.processes.first:
        return
    with stop_request() as stop:
        try:
            for one, known in zip(work.passes, work.known, strict=True):
                if one.key and known.computed:
                    if len(known.missing):
                        others = _known(one, work.around.source)
                        known.values[known.missing] = others.values[known.missing]
                    store(one.key, known)
        except OSError as error:
            work.around.say(
                f"what is computed cannot be kept for later ({error}): make room, name another folder by "
                "VERYDEEP_CACHE, or do without (--no-cache)"
            )
    if stop.signal is not None:
        signal.raise_signal(stop.signal)
