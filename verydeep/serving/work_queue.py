"""The work of a service: two threads decode, one computes; images of equal size share a batch where that gains."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from verydeep.images.decode import UnusableImageError
from verydeep.serving.metrics import Metrics
from verydeep.serving.options import Limits
from verydeep.serving.refusals import busy
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

_NEWEST = 0.2
"""Weight of the newest measurement in running averages."""

T = TypeVar("T")

Answer = dict[str, Any] | UnusableImageError


@dataclass(kw_only=True, eq=False)
class _Job:
    """An image on its way; its answer is cancelled when nobody waits for it any more."""

    wanted: Wanted
    answer: "asyncio.Future[Answer]"
    image: PreparedImage | None = None


class WorkQueue:
    """Images from bytes to predictions. All of its state belongs to the event loop; threads only get what they need."""

    def __init__(self, model: ServedModel, limits: Limits, metrics: Metrics) -> None:
        self._model, self._limits, self._metrics = model, limits, metrics
        self._decoders = ThreadPoolExecutor(limits.decoders, "decoding")
        self._computer = ThreadPoolExecutor(1, "computing")
        self._waiting: list[_Job] = []
        self._work_left = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
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
        """End; what is still waiting is dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._computer.shutdown(wait=True, cancel_futures=True)

    @property
    def seconds(self) -> float:
        """Estimated seconds of work that is there."""
        decoded = sum(self._model.work(job.image) for job in self._waiting if job.image)
        undecoded = max(0, self.images - len(self._waiting)) * self._usual_work
        return self._seconds_per_pixel * (decoded + max(undecoded, self._being_computed))

    def submit(self, images: Sequence[bytes], wanted: Sequence[Wanted]) -> "list[asyncio.Future[Answer]]":
        """Take the images of one request; cancelling an answer drops its image if it is not computed already.

        Raises:
            RefusedRequestError: there is no room for them.
        """
        self._admit(len(images))
        loop = asyncio.get_running_loop()
        jobs = [_Job(wanted=one, answer=loop.create_future()) for one in wanted]
        for job, data in zip(jobs, images, strict=True):
            self._keep(self._decode(job, data))
        return [job.answer for job in jobs]

    async def in_decoders(self, work: Callable[..., T], *values: Any) -> T:
        """Do other work on images in the threads that decode, so that no more of them are unpacked at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work, *values)

    def _admit(self, count: int) -> None:
        if not self.ready:
            raise busy("not_ready", "the model is being prepared: try again in a few seconds")
        seconds = self.seconds
        if self.images + count > self._limits.queue or seconds > self._limits.queue_seconds:
            waiting = f"{self.images} images are waiting, about {seconds:.1f} seconds of work"
            raise busy("queue_full", f"{waiting}: try again later", seconds=seconds)
        self.images += count

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decode(self, job: _Job, data: bytes) -> None:
        try:
            job.image = await self._in(self._decoders, self._prepared, job, data)
        except Exception as error:
            _settle(job, error)
        if job.image is None:
            self._leave(job)
        else:
            self._waiting.append(job)
            self._work_left.set()

    def _prepared(self, job: _Job, data: bytes) -> PreparedImage | None:
        if job.answer.done():
            return None
        with self._metrics.decoding.time():
            return prepared(data, self._model.sides, self._limits, job.wanted.name)

    async def _compute(self) -> None:
        try:
            await self._in(self._computer, self._warm_up)
            self.ready = True
            await self._compute_for_ever()
        except Exception as error:
            self.ready, self.failure = False, error

    async def _compute_for_ever(self) -> None:
        while True:
            await self._work_left.wait()
            batch = self._next_batch()
            if not batch:
                self._work_left.clear()
            elif not await self._computed(batch):
                for job in batch:  # one of them spoils it for the others
                    if job.answer.done():
                        self._leave(job)
                    else:
                        await self._computed([job])

    def _warm_up(self) -> None:
        """Compute a black square, and the same several times at once, which is worth it if it is faster."""
        image = black_image(self._model, self._limits)
        self._usual_work = self._model.work(image)
        single = self._seconds_for(image, 1)
        if single < _SLOW:  # what is prepared once is in it
            single = min(single, self._seconds_for(image, 1))
        self._seconds_per_pixel = single / self._usual_work
        self.at_once = self._limits.max_batch or (self._limits.queue if self._batches_gain(image, single) else 1)

    def _batches_gain(self, image: PreparedImage, single: float) -> bool:
        count = min(_MEASURED_BATCH, self._model.batch_pixels // image.area, self._limits.queue)
        if count < 2 or single > _LARGE or self._limits.max_batch is not None:
            return False
        together = min(self._seconds_for(image, count) for _ in range(_ROUNDS))
        return together < _WORTHWHILE * count * min(single, self._seconds_for(image, 1))

    def _seconds_for(self, image: PreparedImage, count: int) -> float:
        began = time.monotonic()
        self._model.predict([image] * count, [Wanted("black", 1)] * count)
        return time.monotonic() - began

    def _next_batch(self) -> list[_Job]:
        """Take the oldest image that somebody waits for, and others of its size."""
        for job in [job for job in self._waiting if job.answer.done()]:
            self._waiting.remove(job)
            self._leave(job)
        if not self._waiting:
            return []
        oldest = self._waiting[0].image
        assert oldest is not None
        same = [job for job in self._waiting if job.image and job.image.sizes == oldest.sizes]
        batch = same[: max(1, min(self.at_once, self._model.batch_pixels // oldest.area))]
        for job in batch:
            self._waiting.remove(job)
        return batch

    async def _computed(self, batch: Sequence[_Job]) -> bool:
        """Compute a batch; return False if it failed and has to be computed one by one."""
        images = [job.image for job in batch if job.image]
        self._being_computed, began = sum(map(self._model.work, images)), time.monotonic()
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._in(self._computer, self._model.predict, images, [job.wanted for job in batch])
            self._note(len(batch), time.monotonic() - began)
        except Exception as error:
            self._being_computed = 0.0
            if len(batch) > 1:
                return False
            answers = [error]
        for job, answer in zip(batch, answers, strict=True):
            _settle(job, answer)
            self._leave(job)
        return True

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


def _settle(job: _Job, answer: Answer | Exception) -> None:
    """Give the answer to whoever waits for it."""
    if job.answer.done():
        return
    if isinstance(answer, Exception) and not isinstance(answer, UnusableImageError):
        job.answer.set_exception(answer)
    else:
        job.answer.set_result(answer)
