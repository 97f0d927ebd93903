"""The work of a service: two threads decode, one computes; images of equal size share a batch where that gains."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from verydeep.images.decode import UnusableImageError
from verydeep.machine.errors import escaped, one_line
from verydeep.serving.bodies import Room
from verydeep.serving.metrics import Metrics
from verydeep.serving.options import Limits
from verydeep.serving.refusals import RefusedRequestError, busy
from verydeep.serving.served_model import PreparedImage, ServedModel, Wanted, black_image, prepared

_MEASURED_BATCH = 4
"""Images of the batch that is compared with single ones."""

_ROUNDS = 2

_SLOW = 5.0
"""Seconds of a first computation after which no second one is waited for."""

_LARGE = 0.25
"""Seconds for an image; networks that take longer fill all cores with one."""

_WORTHWHILE = 0.9
"""A batch has to take at most this share of the time of its images one by one."""

_MUCH = 0.75
"""Under this share all that waits may be a batch; else images wait longer for others of a large batch than it saves.

In a simulated queue at 0.8 of capacity with a share of 0.9, the slowest of 100 images takes 11.1 times a computation of
one if all are computed one by one, 10.2 in batches of all that waits, 9.1 in batches of up to four.
"""

_NEWEST = 0.2
"""Weight of the newest measurement in running averages."""

T = TypeVar("T")

_LOGGER = logging.getLogger("verydeep.serving")

Answer = dict[str, Any] | UnusableImageError


@dataclass(kw_only=True, eq=False)
class _Job:
    """An image on its way; its answer is cancelled when nobody waits for it any more."""

    wanted: Wanted
    answer: "asyncio.Future[Answer]"
    decoding: bool = False
    """Whether a thread has, or had, its bytes."""
    image: PreparedImage | None = None
    alone: bool = False
    """Whether it was in a batch that failed."""


class WorkQueue:
    """Images from bytes to predictions. All of its state belongs to the event loop; threads only get what they need."""

    def __init__(self, model: ServedModel, limits: Limits, metrics: Metrics) -> None:
        self._model, self._limits, self._metrics = model, limits, metrics
        self._decoders = ThreadPoolExecutor(limits.decoders, "decoding")
        self._free_decoders = asyncio.Semaphore(limits.decoders)  # what waits for one can be dropped with its bytes
        self._computer = ThreadPoolExecutor(1, "computing")
        self._waiting: list[_Job] = []
        self._work_left = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: Callable[[], RefusedRequestError] | None = None  # one that is raised twice keeps all frames
        self._seconds_per_pixel = self._usual_work = 0.0
        self._being_computed = 0.0
        self.images = 0
        """Images that are waiting, decoded or computed."""
        self.at_once = 1
        """Most images in a batch; 1 where batches gain nothing."""
        self.ready = False
        """Whether the first computation is done."""
        self.failure: Exception | None = None
        """What has ended all work: the model cannot be computed."""

    def start(self) -> None:
        """Compute once, measure whether batches gain, and then what comes."""
        self._keep(self._compute())

    async def stop(self) -> None:
        """End; what is still waiting is refused."""
        self._ended = partial(busy, "draining", "the service has ended: ask another one")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end(self._ended)
        for threads in (self._decoders, self._computer):
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)

    @property
    def seconds(self) -> float:
        """Estimated seconds of work that is there."""
        decoded = sum(self._model.work(job.image) for job in self._waiting if job.image)
        undecoded = max(0, self.images - len(self._waiting)) * self._usual_work
        return self._seconds_per_pixel * (decoded + max(undecoded, self._being_computed))

    def submit(self, images: Sequence[bytes], wanted: Sequence[Wanted], room: Room) -> "list[asyncio.Future[Answer]]":
        """Take the images of one request; cancelling an answer drops its image if it is not computed already.

        Args:
            images: their bytes.
            wanted: what is asked for of each.
            room: of the body that they came in, which is kept until their bytes are not needed any more.

        Raises:
            RefusedRequestError: there is no room for them, or the model has failed.
        """
        self._admit(len(images))
        loop = asyncio.get_running_loop()
        jobs = [_Job(wanted=one, answer=loop.create_future()) for one in wanted]
        for job, data in zip(jobs, images, strict=True):
            room.enter()
            task = self._keep(self._decode(job, data))
            task.add_done_callback(partial(self._decoded, job, room))
            job.answer.add_done_callback(partial(self._answered, job, task))
        return [job.answer for job in jobs]

    async def in_decoders(self, work: Callable[..., T], *values: Any) -> T:
        """Do other work on images in the threads that decode, so that no more of them are unpacked at a time."""
        async with self._free_decoders:
            return await asyncio.get_running_loop().run_in_executor(self._decoders, work, *values)

    def check_ready(self) -> None:
        """Say why images should not come here.

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
            waiting = f"{self.images} images are waiting, about {seconds:.1f} seconds of work"
            raise busy("queue_full", f"{waiting}: try again later", seconds=seconds)
        self.images += count

    def _keep(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _decode(self, job: _Job, data: bytes) -> None:
        async with self._free_decoders:
            job.decoding = True
            job.image = await self._in(self._decoders, self._prepared, job.wanted.name, data)

    def _prepared(self, name: str, data: bytes) -> PreparedImage:
        with self._metrics.decoding.time():
            return prepared(data, self._model.sides, self._limits, name)

    def _decoded(self, job: _Job, room: Room, task: "asyncio.Task[None]") -> None:
        """Go on with an image that no thread decodes any more."""
        room.leave()
        error = self._ended() if self._ended else None if task.cancelled() else task.exception()
        if error is not None:
            _settle(job, error)
        if job.image is None or job.answer.done():
            self._leave(job)
        else:
            self._waiting.append(job)
            self._work_left.set()

    def _answered(self, job: _Job, task: "asyncio.Task[None]", answer: "asyncio.Future[Answer]") -> None:
        """Drop an image that nobody waits for any more."""
        if not answer.cancelled():
            return
        if job in self._waiting:
            self._waiting.remove(job)
            self._leave(job)
        elif not job.decoding:
            task.cancel()

    def _end(self, refusal: Callable[[], RefusedRequestError]) -> None:
        """Refuse what is waiting, and all that comes."""
        self.ready, self._ended, self._being_computed = False, refusal, 0.0
        while self._waiting:
            job = self._waiting.pop()
            _settle(job, refusal())
            self._leave(job)

    async def _compute(self) -> None:
        try:
            await self._in(self._computer, self._warm_up)
            self.ready = True
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
        """Compute a black square, and the same several times at once, which is worth it if it is faster."""
        self._black = image = black_image(self._model, self._limits)
        self._usual_work = self._model.work(image)
        single = self._seconds_for(image, 1)
        if single < _SLOW:  # what is prepared once is in it
            single = min(single, self._seconds_for(image, 1))
        self._seconds_per_pixel = single / self._usual_work
        if self._model.batches:
            self.at_once = self._limits.max_batch or self._most_at_once(image, single)

    def _most_at_once(self, image: PreparedImage, single: float) -> int:
        count = min(_MEASURED_BATCH, self._model.batch_pixels // image.area, self._limits.queue)
        if count < 2 or single > _LARGE:
            return 1
        together = min(self._seconds_for(image, count) for _ in range(_ROUNDS))
        share = together / (count * min(single, self._seconds_for(image, 1)))
        if share > _WORTHWHILE:
            return 1
        return self._limits.queue if share < _MUCH else count

    def _seconds_for(self, image: PreparedImage, count: int) -> float:
        began = time.monotonic()
        self._model.predict([image] * count, [Wanted("black", 1)] * count)
        return time.monotonic() - began

    def _next_batch(self) -> list[_Job]:
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

    async def _computed(self, batch: Sequence[_Job]) -> None:
        """Compute a batch; if it fails its images wait again, each alone.

        Raises:
            Exception: a black image cannot be computed either.
        """
        images = [job.image for job in batch if job.image]
        self._being_computed, began = sum(map(self._model.work, images)), time.monotonic()
        try:
            answers = await self._in(self._computer, self._model.predict, images, [job.wanted for job in batch])
        except asyncio.CancelledError:
            self._waiting[:0] = batch
            raise
        except Exception as error:
            self._being_computed = 0.0
            await self._failed(batch, error)
            return
        self._note(len(batch), time.monotonic() - began)
        for job, answer in zip(batch, answers, strict=True):
            _settle(job, answer)
            self._leave(job)

    async def _failed(self, batch: Sequence[_Job], error: Exception) -> None:
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

    def _note(self, count: int, seconds: float) -> None:
        pixels, self._being_computed = self._being_computed, 0.0
        self._seconds_per_pixel += _NEWEST * (seconds / pixels - self._seconds_per_pixel)
        self._usual_work += _NEWEST * (pixels / count - self._usual_work)
        self._metrics.computing.observe(seconds)
        self._metrics.batches.observe(count)

    def _leave(self, job: _Job) -> None:
        """Count an image out."""
        self.images -= 1
        dropped = job.answer.cancelled() or not job.answer.done()
        failed = dropped or job.answer.exception() or isinstance(job.answer.result(), UnusableImageError)
        self._metrics.images.labels("dropped" if dropped else "refused" if failed else "predicted").inc()

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[..., Any], *values: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, work, *values)


def _settle(job: _Job, answer: Answer | BaseException) -> None:
    """Give the answer to whoever waits for it."""
    if job.answer.done():
        return
    if isinstance(answer, BaseException) and not isinstance(answer, UnusableImageError):
        job.answer.set_exception(answer)
    else:
        job.answer.set_result(answer)
