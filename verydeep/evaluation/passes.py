"""Networks over all images of a source: each image is decoded once for all networks that want it at one scale.

Several processes have a share of the images each. They meet from time to time, and the first one puts all results
together and keeps them in the cache.
"""

import itertools
import math
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from verydeep.evaluation.pixel_limits import PixelLimits
from verydeep.evaluation.posterior_cache import Posteriors, nothing_known, store, stored
from verydeep.evaluation.protocols import ViewName, view_named
from verydeep.images.decode import Size, UnusableImageError
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import Rescaled, rescaled_images
from verydeep.images.sources.source import Source
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.processes import Processes
from verydeep.machine.runtime import in_float32, stop_request
from verydeep.networks.vgg import ScoringNetwork

_PIXELS_WAITING = 64 * 2**20
"""Pixels of all images together that wait for others of their size (three bytes each)."""

SameSizeBatch = tuple[list[int], UInt8[Tensor, "B 3 H W"]]
"""Images and their indices in the source."""


class SameSizeBatches:
    """Collector of images until those of one size fill a batch of up to about `pixels` pixels."""

    def __init__(self, pixels: int, *, waiting: int = _PIXELS_WAITING) -> None:
        self._pixels, self._limit = pixels, waiting
        self._waiting: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
        self._pixels_waiting = 0

    def add(self, index: int, image: UInt8[Tensor, "3 H W"]) -> SameSizeBatch | None:
        """Add an image; return a batch if there is one to be computed now."""
        size, area = tuple(image.shape), image[0].numel()
        same = self._waiting.setdefault(size, [])
        same.append((index, image))
        self._pixels_waiting += area
        if (len(same) + 1) * area > self._pixels:
            return self._take(size)
        if self._pixels_waiting > self._limit:
            return self._take(max(self._waiting, key=lambda size: len(self._waiting[size]) * size[1] * size[2]))
        return None

    def rest(self) -> Iterator[SameSizeBatch]:
        """Yield the images that still wait."""
        for size in list(self._waiting):
            yield self._take(size)

    def _take(self, size: tuple[int, ...]) -> SameSizeBatch:
        batch = self._waiting.pop(size)
        images = torch.stack([image for _, image in batch])
        self._pixels_waiting -= images[:, 0].numel()
        return [index for index, _ in batch], images


_VIEWS_BETWEEN_MEETINGS = 512
"""Forward passes of a process from one meeting to the next: 256 images of dense evaluation, 10 of 50 crops. An
evaluation on several processes that is stopped loses at most these; one in a single process loses a batch."""

_SECONDS_BETWEEN_SAVES = 300.0
"""Seconds from one save into the cache to the next: an evaluation that is killed loses at most their work."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One network on one kind of view of every image, at one scale."""

    net: ScoringNetwork
    view: ViewName
    side: int
    """Pixels of the images' shorter side."""
    mirror: bool
    name: str = "the network"
    """For messages."""
    key: object = None
    """Key of its posteriors in the cache; None: they are not kept."""

    @property
    def forward_passes(self) -> int:
        """Forward passes for each image."""
        return view_named(self.view).passes * (1 + self.mirror)

    def pixels(self, size: Size) -> int:
        """Return the pixels that go through the first layer for an image of a size."""
        return view_named(self.view).pixels(size, self.net.architecture.crop) * (1 + self.mirror)

    def posteriors_and_map(
        self, images: UInt8[Tensor, "B 3 H W"], limits: PixelLimits
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K h w"] | None]:
        """Return the posteriors of images, on the CPU, and their score map, not mirrored, if this view has one."""
        view, on_device = view_named(self.view), images.to(self.net.mean_rgb.device)
        if view.posteriors_and_map is None:
            return view.posteriors(self.net, on_device, mirror=self.mirror, limits=limits), None
        return view.posteriors_and_map(self.net, on_device, mirror=self.mirror, limits=limits)


@dataclass(frozen=True, kw_only=True)
class PassContext:
    """Images, and how they are decoded and shared out: common to several passes."""

    source: Source
    quarantine: Quarantine
    workers: int = 0
    processes: Processes = field(default_factory=Processes)
    advance: Callable[[int], None] = lambda images: None
    """Called with the number of images that have just gone through a pass."""
    say: Callable[[str], None] = lambda line: None
    only: Sequence[int] | None = None
    """Images to test; of others there are only the posteriors that are known already. None for all."""
    opened: Callable[[int, Sequence[int]], Generator[Rescaled]] | None = None
    """Yields images of the source, by their indices, with their shorter side at so many pixels; if None, processes that
    decode are started for each pass."""

    def open(self, side: int, indices: Sequence[int]) -> Generator[Rescaled]:
        """Yield the images with these indices, their shorter side at `side` pixels."""
        if self.opened is not None:
            return self.opened(side, indices)
        max_pixels = self.quarantine.tolerance.max_pixels
        return rescaled_images(self.source, side, indices=indices, max_pixels=max_pixels, workers=self.workers)


def run_passes(passes: Sequence[Pass], context: PassContext, limits: PixelLimits) -> list[Posteriors]:
    """Return the posteriors of each of several passes of the same side; nothing in other processes than the first.

    Posteriors in the cache are not computed again. Those that were computed are kept there, also if an error or a
    signal ends the work.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        ValueError: a network's scores are not finite.
        WorkerDiedError: a worker was killed, say.
        LostProcessError: another process has failed.
    """
    processes, images = context.processes, len(context.source)
    wanted = np.arange(images) if context.only is None else np.array(context.only)
    known = [_known(one, context.source) for one in passes if processes.first]
    missing, refusals = processes.from_first(lambda: ([k.missing for k in known], [k.refusals for k in known]))
    missing = [np.intersect1d(indices, wanted) for indices in missing]
    context.quarantine.settle(itertools.chain(*(refused.values() for refused in refusals)))
    pending = [which for which, indices in enumerate(missing) if len(indices)]
    indices = np.unique(np.concatenate(missing)).tolist()
    context.advance(len(passes) * len(wanted) - len(pending) * len(indices))
    work = _Work(
        passes=[passes[which] for which in pending],
        known=[known[which] for which in pending if processes.first],
        missing=[np.isin(np.arange(images), missing[which]) for which in pending],
        indices=indices,
        context=context,
        limits=limits,
    )
    try:
        if pending:
            _compute(work)
    finally:
        _keep(work)
    return known


def _known(one: Pass, source: Source) -> Posteriors:
    classes = one.net.architecture.classes
    return stored(one.key, source.ids, classes) if one.key else nothing_known(len(source), classes)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Rows that have to be computed."""

    passes: Sequence[Pass]
    """Passes over images of one side."""
    known: Sequence[Posteriors]
    """Posteriors of each pass, in the first process, where everything is put together."""
    missing: Sequence[Bool[np.ndarray, " N"]]
    """Images that each pass lacks."""
    indices: Sequence[int]
    """Images that any pass lacks."""
    context: PassContext
    limits: PixelLimits


class _Rows(NamedTuple):
    """Posteriors of some images."""

    indices: list[int]
    of_passes: list[Float[np.ndarray, "B K"] | None]
    """None for a pass that has them already."""


class _News(NamedTuple):
    """Rows and refusals of a process since the last meeting."""

    rows: list[_Rows]
    refusals: dict[int, UnusableImageError]


@dataclass(kw_only=True)
class _Share:
    """State of a process that computes its share of the images."""

    batches: SameSizeBatches
    news: _News
    saved: float
    """Time of the last save."""


def _compute(work: _Work) -> None:
    """Compute this process's share of the images; all processes meet on the way, equally often."""
    context, processes = work.context, work.context.processes
    context.quarantine.waits = processes.several
    between = _images_between_meetings(work.passes)
    meetings = math.ceil(len(work.indices) / (processes.count * between))
    share = _Share(batches=SameSizeBatches(work.limits.batch), news=_News([], {}), saved=time.monotonic())
    opened = context.open(work.passes[0].side, work.indices[processes.rank :: processes.count])
    with closing(opened) as images, in_float32():
        for meeting in range(1, meetings + 1):
            failure = None
            try:
                _add(work, share, itertools.islice(images, between), last=meeting == meetings)
            except (WorkerDiedError, ValueError) as error:
                failure = error
            _meet(work, share.news, failure)
            share.news = _News([], {})


def _images_between_meetings(passes: Sequence[Pass]) -> int:
    return max(1, _VIEWS_BETWEEN_MEETINGS // sum(one.forward_passes for one in passes))


def _add(work: _Work, share: _Share, images: Iterable[Rescaled], *, last: bool) -> None:
    """Collect images and test each batch that is full; after the last images also those that are not."""
    for index, image in images:
        if isinstance(image, UnusableImageError):
            share.news.refusals[index] = image
            work.context.quarantine.add(image)
        elif batch := share.batches.add(index, image):
            _test(work, share, batch)
    for batch in share.batches.rest() if last else ():
        _test(work, share, batch)


def _test(work: _Work, share: _Share, batch: SameSizeBatch) -> None:
    """Compute a batch; the first process puts its rows in their place at once, others wait for the meeting."""
    share.news.rows.append(_rows(work, batch))
    if work.context.processes.first:
        _put(work, share.news)
        share.news = _News([], {})
    if time.monotonic() - share.saved > _SECONDS_BETWEEN_SAVES:
        _keep(work)
        share.saved = time.monotonic()


def _rows(work: _Work, batch: SameSizeBatch) -> _Rows:
    """Return the posteriors of a batch's images by every pass that lacks any of them."""
    indices, images = batch
    of_passes: list[Float[np.ndarray, "B K"] | None] = []
    for one, missing in zip(work.passes, work.missing, strict=True):
        rows = None
        if missing[indices].any():
            compute = view_named(one.view).posteriors
            on_device = images.to(one.net.mean_rgb.device)
            rows = compute(one.net, on_device, mirror=one.mirror, limits=work.limits).float().numpy()
            if not np.isfinite(rows).all():
                raise ValueError(f"the scores of {one.name} are not finite: its training has diverged")
        of_passes.append(rows)
        work.context.advance(len(indices) * work.context.processes.count)
    return _Rows(indices, of_passes)


def _put(work: _Work, news: _News) -> None:
    """Put the rows and refusals of a process in their place."""
    for which, known in enumerate(work.known):
        for indices, of_passes in news.rows:
            rows = of_passes[which]
            if rows is not None:
                known.values[indices] = rows
                known.computed += len(indices)
        known.refusals |= news.refusals
        known.computed += sum(bool(work.missing[which][index]) for index in news.refusals)


def _meet(work: _Work, news: _News, failure: Exception | None) -> None:
    """Gather the news of all processes in the first one, and go on only if none of them failed."""
    processes, quarantine = work.context.processes, work.context.quarantine
    waiting = processes.all_of(list(quarantine.waiting))
    for one in processes.to_first(news) or []:
        _put(work, one)
    processes.check_none_failed(failure)
    quarantine.settle(itertools.chain(*waiting))


def _keep(work: _Work) -> None:
    """Store the new posteriors, with those that others have stored meanwhile; a signal waits for that."""
    if not work.context.processes.first:
        return
    with stop_request() as stop:
        try:
            for one, known in zip(work.passes, work.known, strict=True):
                if one.key and known.computed:
                    if len(known.missing):
                        others = _known(one, work.context.source)
                        known.values[known.missing] = others.values[known.missing]
                    store(one.key, known)
        except OSError as error:
            work.context.say(
                f"posteriors cannot be kept for later ({error}): make room, name another folder by "
                "VERYDEEP_CACHE, or do without (--no-cache)"
            )
    if stop.signal is not None:
        signal.raise_signal(stop.signal)
