"""A service: one model with its queue, its bodies and its keys, and the way of a request's images through them."""

import asyncio
import hashlib
import hmac
import platform
import time
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from starlette.requests import Request

from verydeep.images.decode import UnusableImageError
from verydeep.machine.errors import reason
from verydeep.machine.regular_files import read_file
from verydeep.numbers import first_few
from verydeep.serving.bodies import Bodies, Room
from verydeep.serving.image_outcomes import FailedImage, ImageAnswer, ImageOutcome, RefusedImage, RequestOutcomes
from verydeep.serving.metrics import new_metrics
from verydeep.serving.options import Access, Limits
from verydeep.serving.refusals import RefusedRequestError, busy, client_gone, failed, log_failure, too_late, unusable
from verydeep.serving.served_model import ServedModel, Wanted
from verydeep.serving.work_queue import Draw, WorkQueue
from verydeep.version import __version__

_MOST_KEY_BYTES = 2**20
"""Size of a file of keys."""

_SHORTEST_KEY = 16
"""Characters; shorter ones could be guessed."""

_MOST_NAMED = 3
"""Unusable images that a message names."""


_P = ParamSpec("_P")
_T = TypeVar("_T")


class Service:
    """A model behind a queue, and the common parts of the answers to all requests."""

    def __init__(
        self, model: ServedModel, name: str, limits: Limits, access: Access, *, keys: tuple[bytes, ...] | None = None
    ) -> None:
        """Take a model and who may use it; `keys` are those of `access.key_file`, if it was read before."""
        if limits.max_batch is not None and not model.batches:
            raise ValueError("a classifier of features is computed one image at a time: leave out --max-batch")
        limits = replace(limits, max_rescaled_pixels=limits.rescaled_pixels(model.sides))
        self.model, self.name, self.limits, self.access = model, name, limits, access
        self.metrics = new_metrics()
        self.bodies = Bodies(limits)
        self.queue = WorkQueue(model, limits, self.metrics)
        self.draining = False
        """Whether the end has begun: /readyz says so, while requests are still answered."""
        self._keys = read_keys(access.key_file) if keys is None else keys
        self.metrics.watch("verydeep_queue_images", "Images in the queue.", lambda: self.queue.images)
        self.metrics.watch("verydeep_queue_seconds", "Estimated seconds of work.", lambda: self.queue.seconds)
        self.metrics.watch("verydeep_bodies_bytes", "Bytes reserved for bodies.", lambda: self.bodies.held)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work within the block."""
        with warnings.catch_warnings():
            # For the whole time: threads that decode would undo each other's filters, which belong to the process.
            warnings.simplefilter("ignore")
            self.queue.start()
            try:
                yield
            finally:
                await self.queue.stop()

    def check_ready(self) -> None:
        """Refuse requests while none should come here.

        Raises:
            RefusedRequestError: the service is ending, or the model is being prepared or cannot be computed.
        """
        if self.draining:
            raise busy("draining", "the service is shutting down: use another instance", seconds=self.limits.deadline)
        self.queue.check_ready()

    @property
    def needs_key(self) -> bool:
        """Whether predictions need a key."""
        return bool(self._keys)

    def about(self) -> dict[str, Any]:
        """Return the public description of the model and the service, ready for JSON."""
        return {
            "name": self.name,
            **self.model.about,
            "limits": {field: getattr(self.limits, field) for field in vars(self.limits)},
            "images_at_once": self.queue.at_once,
            "versions": {"verydeep": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        }

    def check_key(self, given: str | None) -> None:
        """Refuse a key that is not in the key file, if there is one; it takes the same time for every key.

        Raises:
            RefusedRequestError: it is missing or unknown.
        """
        if not self._keys:
            return
        digest = hashlib.sha256((given or "").encode(errors="replace")).digest()
        if not sum([hmac.compare_digest(digest, key) for key in self._keys]):
            what = "unknown key" if given else "a key is needed"
            message = f"{what}: send it as Authorization: Bearer KEY, or as X-API-Key"
            raise RefusedRequestError(401, "unauthorised", message, headers={"WWW-Authenticate": "Bearer"})

    async def parsed(
        self, request: Request, room: Room, parse: Callable[_P, _T], *values: _P.args, **named: _P.kwargs
    ) -> _T:
        """Return what a thread makes of a request's body; if it takes too long the thread keeps the body's room.

        Args:
            request: whose body it is.
            room: of the body.
            parse: what the thread does, with the values that follow.

        Raises:
            RefusedRequestError: the deadline has passed, or `parse` says so.
        """
        room.enter()
        task = asyncio.create_task(asyncio.to_thread(parse, *values, **named))
        task.add_done_callback(partial(_parsed, room))
        await asyncio.wait((task,), timeout=self._left(request))
        if not task.done():
            raise too_late()
        return task.result()

    def _left(self, request: Request) -> float:
        return float(request.state.arrived + self.limits.deadline - time.monotonic())

    async def outcomes(
        self,
        request: Request,
        room: Room,
        images: Sequence[bytes],
        wanted: Sequence[Wanted],
        draw: Draw | None = None,
    ) -> RequestOutcomes:
        """Return the outcomes of a request's images; one at least is an answer of the model.

        Args:
            request: of a client that may leave.
            room: of the request's body.
            images: their bytes.
            wanted: the answer that is wanted for each.
            draw: as for `WorkQueue.submit`.

        Raises:
            RefusedRequestError: no image can be used, the service failed to process them all, there is no room,
                the deadline has passed, or the client has left.
        """
        answers = self.queue.submit(images, wanted, room, draw)
        try:
            found = await _all_of(answers, request, self._left(request))
        finally:
            for answer in answers:
                answer.cancel()
        return _checked(_told_apart(request, wanted, found))


def _parsed(room: Room, task: "asyncio.Task[Any]") -> None:
    """Give the room back; ask for an error, since nobody else may wait for it any more."""
    room.leave()
    if not task.cancelled():
        task.exception()


async def _all_of(
    answers: Sequence["asyncio.Future[ImageAnswer]"], request: Request, seconds: float
) -> list[ImageAnswer | BaseException]:
    everything, gone = asyncio.create_task(asyncio.wait(answers)), asyncio.create_task(_client_gone(request))
    try:
        await asyncio.wait((everything, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if everything.done():
            return [answer.exception() or answer.result() for answer in answers]
        if gone.done():
            raise client_gone()
        raise too_late()
    finally:
        gone.cancel()
        everything.cancel()


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _told_apart(
    request: Request, wanted: Sequence[Wanted], found: Sequence[ImageAnswer | BaseException]
) -> RequestOutcomes:
    """Return answers, and why others are missing; failures are noted in the log.

    Raises:
        RefusedRequestError: the service has ended.
    """
    outcomes: list[ImageOutcome] = []
    for asked, one in zip(wanted, found, strict=True):
        match one:
            case ImageAnswer():
                outcomes.append(one)
            case UnusableImageError():
                outcomes.append(RefusedImage(refusal=one))
            case RefusedRequestError():
                raise one
            case _:
                log_failure(request.state.request_id, one)
                outcomes.append(FailedImage(image=asked.name))
    return RequestOutcomes(images=tuple(outcomes))


def _checked(outcomes: RequestOutcomes) -> RequestOutcomes:
    """Refuse a request without any answer.

    Raises:
        RefusedRequestError: there is none.
    """
    if not outcomes.answers:
        if outcomes.failed:
            raise failed()
        refusals = outcomes.refusals
        raise unusable(first_few([str(one) for one in refusals], _MOST_NAMED, "; "), refusals)
    return outcomes


def read_keys(file: Path | None) -> tuple[bytes, ...]:
    """Return the SHA-256 of each key in a file; nothing without a file.

    Raises:
        ValueError: there is no such file, it has no keys, or one that can be guessed or that no header can carry.
    """
    if file is None:
        return ()
    try:
        lines = [line.strip() for line in read_file(file, most=_MOST_KEY_BYTES).decode().split("\n")]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{file} cannot be read: {reason(error)}") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError(f"{file} has no keys: write one on each line")
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise ValueError(f"{file} has a key that headers cannot carry: use ASCII letters, digits and punctuation only")
    if min(map(len, keys)) < _SHORTEST_KEY:
        raise ValueError(
            f"{file} has a key of fewer than {_SHORTEST_KEY} characters, which can be guessed: use longer ones"
        )
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)


def given_key(headers: Mapping[str, str]) -> str | None:
    """Return the key in a request's headers; None if there is none."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")
