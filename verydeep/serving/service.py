"""A service: one model with its queue, its bodies and its keys, and the way of a request's images through them."""

import asyncio
import hashlib
import hmac
import platform
import time
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.requests import Request

from verydeep.images.decode import UnusableImageError
from verydeep.machine.errors import reason
from verydeep.machine.regular_files import read_file
from verydeep.serving.bodies import Bodies
from verydeep.serving.metrics import new_metrics
from verydeep.serving.options import Access, Limits
from verydeep.serving.refusals import RefusedRequestError, client_gone, unusable
from verydeep.serving.served_model import ServedModel, Wanted
from verydeep.serving.work_queue import Answer, WorkQueue
from verydeep.version import __version__

_MOST_KEY_BYTES = 2**20
"""Of a file of keys."""

_SHORTEST_KEY = 16
"""Characters; shorter ones could be guessed."""

_MOST_NAMED = 3
"""Unusable images that a message names."""

Predictions = list[dict[str, Any] | UnusableImageError]


class Service:
    """All that the answers to requests have in common."""

    def __init__(self, model: ServedModel, name: str, limits: Limits, access: Access) -> None:
        self.model, self.name, self.limits, self.access = model, name, limits, access
        self.metrics = new_metrics()
        self.bodies = Bodies(limits)
        self.queue = WorkQueue(model, limits, self.metrics)
        self.draining = False
        """Whether the end has begun: /readyz says so, while requests are still answered."""
        self._keys = _keys_of(access.key_file)
        self.metrics.watch("verydeep_queue_images", "Images waiting or computed.", lambda: self.queue.images)
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

    @property
    def ready(self) -> bool:
        """Whether requests should come here."""
        return self.queue.ready and not self.draining

    @property
    def needs_key(self) -> bool:
        """Whether predictions need a key."""
        return bool(self._keys)

    def about(self) -> dict[str, Any]:
        """Return what there is to know about the model and the service, ready for JSON."""
        import torch

        return {
            "name": self.name,
            **self.model.about,
            "limits": {field: getattr(self.limits, field) for field in vars(self.limits)},
            "images_at_once": self.queue.at_once,
            "versions": {"verydeep": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        }

    def check_key(self, given: str | None) -> None:
        """Refuse a key that is not among those of the key file, if there is one; in the same time whichever it is.

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

    async def predictions(self, request: Request, images: Sequence[bytes], wanted: Sequence[Wanted]) -> Predictions:
        """Return the predictions of a request's images, or why they cannot be used.

        Raises:
            RefusedRequestError: all of them are unusable, there is no room, the deadline has passed, or the client has
                left.
        """
        answers = self.queue.submit(images, wanted)
        left = request.state.arrived + self.limits.deadline - time.monotonic()
        try:
            found = await _all_of(answers, request, left)
        finally:
            for answer in answers:
                answer.cancel()
        _refuse_if_all_are_unusable(found)
        return found


async def _all_of(answers: Sequence["asyncio.Future[Answer]"], request: Request, seconds: float) -> Predictions:
    everything: asyncio.Future[list[Answer]] = asyncio.gather(*answers)
    everything.add_done_callback(_looked_at)
    gone: asyncio.Future[None] = asyncio.ensure_future(_client_gone(request))
    both: list[asyncio.Future[Any]] = [everything, gone]
    try:
        await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if everything.done():
            return list(everything.result())
        if gone.done():
            raise client_gone()
        raise RefusedRequestError(504, "deadline", "the images were not computed in time: try again later")
    finally:
        gone.cancel()
        everything.cancel()


def _looked_at(future: "asyncio.Future[Any]") -> None:
    """Look at how it ended: asyncio would log an ending that nobody waits for, since the client has left."""
    if not future.cancelled():
        future.exception()


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refuse_if_all_are_unusable(found: Predictions) -> None:
    refusals = [one for one in found if isinstance(one, UnusableImageError)]
    if found and len(refusals) == len(found):
        more = f", and {len(refusals) - _MOST_NAMED} more" if len(refusals) > _MOST_NAMED else ""
        raise unusable("; ".join(map(str, refusals[:_MOST_NAMED])) + more, refusals)


def _keys_of(file: Path | None) -> tuple[bytes, ...]:
    """Return the SHA-256 of each key in a file.

    Raises:
        ValueError: there is no such file, it has no keys, or one that can be guessed.
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
    if min(map(len, keys)) < _SHORTEST_KEY:
        raise ValueError(f"{file} has a key of fewer than {_SHORTEST_KEY} characters, which can be guessed")
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)


def given_key(headers: Mapping[str, str]) -> str | None:
    """Return the key that a request brings."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")
