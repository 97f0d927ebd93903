"""The queue of a service: some threads decode (`Limits.decoders`), one computes, in batches where they gain.

Threads decode and rescale before an image enters the queue, and draw the page's pictures, for which an image keeps its
place and its deadline. A batch that fails is computed again, image by image.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from verydeep.machine.errors import escaped, one_line
from verydeep.numbers import counted, decimal, plural
from verydeep.serving.batches import fastest_batch
from verydeep.serving.bodies import Room
from verydeep.serving.image_outcomes import ImageAnswer
from verydeep.serving.metrics import Metrics
from verydeep.serving.options import Limits
from verydeep.serving.prepared_images import PreparedImage, prepared
from verydeep.serving.refusals import RefusedRequestError, busy, client_gone
from verydeep.serving.served_model import ServedModel, Wanted, black_image

_SLOW = 5.0
"""Seconds of a first computation after which no second one is waited for."""

_NEWEST = 0.2
"""Weight of the newest measurement in running averages."""

_LOGGER = logging.getLogger("verydeep.serving")

Draw = Callable[[bytes, ImageAnswer], ImageAnswer]
"""Draws the page's picture of an image into its answer, given the image's bytes."""


@dataclass(kw_only=True, eq=False)
class _Image:
    """An image on its way; its answer is cancelled when nobody waits for it any more."""

    wanted: Wanted
    room: Room
    draw: Callable[[ImageAnswer], ImageAnswer] | None
    """Drawing that is still to be done with its answer."""
    answer: "asyncio.Future[ImageAnswer]"
    task: "asyncio.Task[Any] | None" = None
    """Task of its decoding, or of its drawing."""
    in_thread: bool = False
    """Whether a thread decodes or draws it: then it cannot be dropped."""
    image: PreparedImage | None = None
    """While it waits, or is computed."""
    left: float | None = None
    """Pixels still to be computed; None until it is decoded."""
    alone: bool = False
    """Whether it was in a batch that failed."""


class WorkQueue:
    """Images from bytes to predictions. All of its state belongs to the event loop; threads only get what they need."""

    def __init__(self, model: ServedModel, limits: Limits, metrics: Metrics) -> None:
        self._model, self._limits, self._metrics = model, limits, metrics
        self._decoders = ThreadPoolExecutor(limits.decoders, "decoding")
        self._free_decoders = asyncio.Semaphore(limits.decoders)  # what waits for one can be dropped with its bytes
        self._computer = ThreadPoolExecutor(1, "computing")
        self._waiting: list[_Image] = []
        self._work_left = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: Callable[[], RefusedRequestError] | None = None  # one that is raised twice keeps all frames
        self._jobs: set[_Image] = set()
        self._seconds_per_pixel = self._usual_work = 0.0
        self._usual_seconds = {"decoding": 0.0, "drawing": 0.0}
        self.at_once = 1
        """Most images in a batch; 1 where batches gain nothing."""
        self._prepared_once = asyncio.Event()
        self.failure: Exception | None = None
        """What has ended all work: the model cannot be computed."""

    def start(self) -> None:
        """Begin to compute: first a black image, and whether batches gain; then what comes."""
        self._keep(self._compute())

    async def stop(self) -> None:
        """End the work; refuse images that are still waiting."""
        self._ended = partial(busy, "draining", "the service has shut down: use another instance")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end(self._ended)
        for threads in (self._decoders, self._computer):
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether the first computations are done, and the model can be computed."""
        return self._prepared_once.is_set()

    async def until_ready(self) -> None:
        """Wait for the first computations."""
        await self._prepared_once.wait()

    @property
    def images(self) -> int:
        """Images that are waiting, decoded, computed or drawn."""
        return len(self._jobs)

    @property
    def seconds(self) -> float:
        """Estimated seconds of all work to do; threads that decode take cores from the one that computes."""
        pixels = sum(self._usual_work if job.left is None else job.left for job in self._jobs)
        decoding = self._usual_seconds["decoding"] * sum(job.left is None for job in self._jobs)
        drawing = self._usual_seconds["drawing"] * sum(job.draw is not None for job in self._jobs)
        return self._seconds_per_pixel * pixels + (decoding + drawing) / self._limits.decoders

    def submit(
        self, images: Sequence[bytes], wanted: Sequence[Wanted], room: Room, draw: Draw | None = None
    ) -> "list[asyncio.Future[ImageAnswer]]":
        """Take the images of one request; cancelling an answer drops its image, unless a thread is working on it.

        Images that cannot be used have an UnusableImageError in place of an answer, those that are dropped when the
        service ends a RefusedRequestError, and those that it fails on any other error.

        Args:
            images: their bytes.
            wanted: the answer that is wanted for each.
            room: of the body that they came in, which is kept while a thread needs their bytes.
            draw: what to do with each answer, in a thread that decodes. The image keeps its place in the queue
                until then.

        Raises:
            RefusedRequestError: there is no room for them, or the model has failed.
        """
        self._admit(len(images))
        loop, jobs = asyncio.get_running_loop(), []
        for data, one in zip(images, wanted, strict=True):
            job = _Image(wanted=one, room=room, draw=draw and partial(draw, data), answer=loop.create_future())
            job.answer.add_done_callback(partial(self._answered, job))
            self._begin(job, self._decode(job, data), self._decoded)
            jobs.append(job)
        self._jobs.update(jobs)
        return [job.answer for job in jobs]

    def check_ready(self) -> None:
        """Refuse images while none should come here.

        Raises:
            RefusedRequestError: the model is being prepared, or cannot be computed.
        """
        if self._ended is not None:
            raise self._ended()
        if not self.ready:
            raise busy("not_ready", "the model is being prepared: try again in a few seconds")

    def _admit(self, count: int) -> None:
        self.check_ready()
        seconds = self.seconds
        if self.images + count > self._limits.queue or seconds > self._limits.queue_seconds:
            are = plural("is", self.images, "are")
            waiting = f"{counted(self.images, 'image')} {are} waiting, about {decimal(seconds, 1)} seconds of work"
            raise busy("queue_full", f"{waiting}: try again later", seconds=seconds)

    def _keep(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(
        self, job: _Image, work: Coroutine[Any, Any, Any], then: Callable[[_Image, "asyncio.Task[Any]"], None]
    ) -> None:
        """Begin work on the bytes of an image."""
        job.room.enter()
        job.task = self._keep(work)
        job.task.add_done_callback(partial(then, job))

    async def _decode(self, job: _Image, data: bytes) -> None:
        job.image = await self._in_decoders(job, "decoding", self._prepared, job.wanted.name, data)
        job.left = self._model.work(job.image)

    async def _in_decoders(
        self, job: _Image, kind: Literal["decoding", "drawing"], work: Callable[..., Any], *values: Any
    ) -> Any:
        async with self._free_decoders:
            job.in_thread, began = True, time.monotonic()
            try:
                return await self._in(self._decoders, work, *values)
            finally:
                job.in_thread = False
                self._usual_seconds[kind] += _NEWEST * (time.monotonic() - began - self._usual_seconds[kind])

    def _prepared(self, name: str, data: bytes) -> PreparedImage:
        with self._metrics.decoding.time():
            return prepared(data, self._model.sides, self._limits, name)

    def _decoded(self, job: _Image, task: "asyncio.Task[None]") -> None:
        """Go on with an image that no thread decodes any more."""
        job.task = None  # whose frames have its bytes, if it was cancelled
        job.room.leave()
        own = None if task.cancelled() else task.exception()  # asked for in any case: else asyncio reports it
        error = self._ended() if self._ended else own
        if error is not None:
            _settle(job, error)
        if job.image is None or job.answer.done():
            self._leave(job)
        else:
            self._waiting.append(job)
            self._work_left.set()

    def _drawn(self, job: _Image, task: "asyncio.Task[ImageAnswer]") -> None:
        """Answer with the drawn picture."""
        job.task = None
        job.room.leave()
        _settle(job, (self._ended or client_gone)() if task.cancelled() else task.exception() or task.result())
        self._leave(job)

    def _answered(self, job: _Image, answer: "asyncio.Future[ImageAnswer]") -> None:
        """Drop an image that nobody waits for any more."""
        if not answer.cancelled():
            return
        job.draw = None  # which has its bytes
        if job in self._waiting:
            self._waiting.remove(job)
            self._leave(job)
        elif job.task is not None and not job.in_thread:
            job.task.cancel()

    def _end(self, refusal: Callable[[], RefusedRequestError]) -> None:
        """Refuse all images that wait, and all that come."""
        self._ended = refusal
        self._prepared_once.clear()
        while self._waiting:
            job = self._waiting.pop()
            _settle(job, refusal())
            self._leave(job)

    async def _compute(self) -> None:
        try:
            await self._in(self._computer, self._warm_up)
            self._prepared_once.set()
            await self._compute_for_ever()
        except Exception as error:
            self.failure = error
            _LOGGER.error("the model cannot be computed: %s", escaped(one_line(error)))
            self._end(partial(busy, "failed", "the model cannot be computed: the service's log says why"))

    async def _compute_for_ever(self) -> None:
        while True:
            await self._work_left.wait()
            if batch := self._next_batch():
                await self._computed(batch)
            else:
                self._work_left.clear()

    def _warm_up(self) -> None:
        """Compute a black image, and several of them at once, to find out how large a batch pays."""
        self._black = image = black_image(self._model, self._limits)
        self._usual_work = self._model.work(image)
        single = self._seconds_for(image, 1)
        if single < _SLOW:  # the first time includes what is prepared once
            single = min(single, self._seconds_for(image, 1))
        self._seconds_per_pixel = single / self._usual_work
        if self._model.batches:
            most = min(self._model.batch_pixels // image.area, self._limits.queue)
            self.at_once = self._limits.max_batch or fastest_batch(partial(self._seconds_for, image), single, most)

    def _seconds_for(self, image: PreparedImage, count: int) -> float:
        began = time.monotonic()
        self._model.predict([image] * count, [Wanted("black", 1)] * count)
        return time.monotonic() - began

    def _next_batch(self) -> list[_Image]:
        """Take the oldest image that waits, and others of its size."""
        if not self._waiting:
            return []
        first = self._waiting[0]
        assert first.image is not None
        batch = [first]
        if not first.alone:
            same = [job for job in self._waiting if job.image and job.image.sizes == first.image.sizes]
            batch = same[: max(1, min(self.at_once, self._model.batch_pixels // first.image.area))]
        for job in batch:
            self._waiting.remove(job)
        return batch

    async def _computed(self, batch: Sequence[_Image]) -> None:
        """Compute a batch; if it fails its images wait again, each alone.

        Raises:
            Exception: a black image cannot be computed either.
        """
        images = [job.image for job in batch if job.image]
        began = time.monotonic()
        try:
            answers = await self._in(self._computer, self._model.predict, images, [job.wanted for job in batch])
        except asyncio.CancelledError:
            self._waiting[:0] = batch
            raise
        except Exception as error:
            await self._failed(batch, error)
            return
        self._note(batch, time.monotonic() - began)
        for job, answer in zip(batch, answers, strict=True):
            job.image, job.left = None, 0.0
            if job.draw is None or job.answer.done():
                _settle(job, answer)
                self._leave(job)
            else:
                self._begin(job, self._in_decoders(job, "drawing", job.draw, answer), self._drawn)

    async def _failed(self, batch: Sequence[_Image], error: Exception) -> None:
        alone = len(batch) == 1
        for job in batch:
            job.alone = True
            if alone:
                _settle(job, error)
            if job.answer.done():
                self._leave(job)
        self._waiting[:0] = [job for job in batch if not job.answer.done()]
        if alone:  # was it the image, or the model?
            await self._in(self._computer, self._seconds_for, self._black, 1)

    def _note(self, batch: Sequence[_Image], seconds: float) -> None:
        pixels = sum(job.left or 0.0 for job in batch)
        self._seconds_per_pixel += _NEWEST * (seconds / pixels - self._seconds_per_pixel)
        self._usual_work += _NEWEST * (pixels / len(batch) - self._usual_work)
        self._metrics.computing.observe(seconds)
        self._metrics.batches.observe(len(batch))

    def _leave(self, job: _Image) -> None:
        """Count an image out."""
        self._jobs.discard(job)
        self._metrics.count_image(job.answer)

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[..., Any], *values: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, work, *values)


def _settle(job: _Image, answer: ImageAnswer | BaseException) -> None:
    """Give the answer to whoever waits for it."""
    if job.answer.done():
        return
    if isinstance(answer, BaseException):
        job.answer.set_exception(answer)
    else:
        job.answer.set_result(answer)
