"""A client of servers over HTTP that measures: as many requests as answers, or at moments of its own."""

import asyncio
import itertools
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

SETTLING = 1.0
"""Seconds of a measurement's beginning that are not counted."""

PATIENCE = 30.0
"""Seconds that answers may take after the last image of an open loop was sent."""


@dataclass(kw_only=True)
class Outcome:
    """What a client saw."""

    duration: float
    """Seconds in which its answers came."""
    seconds: list[float] = field(default_factory=list)
    """Time until each answer that was a prediction."""
    answers: int = 0
    """All answers, those of the first second too."""
    refused: int = 0
    wrong: int = 0

    def note(self, status: int, seconds: float, *, bad: bool) -> None:
        """Count an answer."""
        if status == 503:
            self.refused += 1
        elif (status != 200) != bad or status >= 500:
            self.wrong += 1
        elif not bad:
            self.seconds.append(seconds)


def form(path: str, image: bytes) -> bytes:
    """Return a whole HTTP request with one image as multipart/form-data."""
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="1.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = part + image + b"\r\n--x--\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection:
    """A connection that is kept, and opened again where the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> int:
        """Send a request, read the whole answer, and return its status; 599 if there is none."""
        try:
            if self._writer is None or self._writer.is_closing():
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writer.write(request)
            await self._writer.drain()
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: (\d+)", head)
            await self._reader.readexactly(int(length[1]) if length else 0)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 599
        if b"connection: close" in head:
            self.close()
        return int(head[9:12])

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None


async def asked_once(port: int, request: bytes) -> int:
    """Return the status of an answer on a connection of its own."""
    connection = Connection(port)
    try:
        return await connection.ask(request)
    finally:
        connection.close()


Images = Sequence[tuple[bytes, bool]]
"""Requests, and whether their image is damaged."""


async def closed_loop(port: int, requests: Images, clients: int, seconds: float) -> Outcome:
    """Let clients send one image after the other."""
    outcome, following = Outcome(duration=seconds), itertools.cycle(requests)
    began = time.monotonic()
    counted_from, end = began + SETTLING, began + SETTLING + seconds

    async def client() -> None:
        connection = Connection(port)
        while (sent := time.monotonic()) < end:
            request, bad = next(following)
            status = await connection.ask(request)
            outcome.answers += 1
            if counted_from <= time.monotonic() < end:
                outcome.note(status, time.monotonic() - sent, bad=bad)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return outcome


async def open_loop(port: int, requests: Images, rate: float, seconds: float) -> Outcome:
    """Send images at the moments of a Poisson process, whatever the answers do; it lasts until the last answer."""
    outcome, following, idle = Outcome(duration=seconds), itertools.cycle(requests), list[Connection]()
    moments, rng, moment = [], random.Random(0), 0.0
    while (moment := moment + rng.expovariate(rate)) < seconds:
        moments.append(moment)
    began = time.monotonic()

    async def one(intended: float) -> None:
        request, bad = next(following)
        connection = idle.pop() if idle else Connection(port)
        status = await connection.ask(request)
        answered = time.monotonic()
        outcome.note(status, answered - intended, bad=bad)
        outcome.duration = max(outcome.duration, answered - began)
        idle.append(connection)

    tasks = []
    for moment in moments:
        await asyncio.sleep(max(0, began + moment - time.monotonic()))
        tasks.append(asyncio.create_task(one(began + moment)))
    _, late = await asyncio.wait(tasks, timeout=PATIENCE)
    for task in late:
        task.cancel()
    outcome.wrong += len(late)
    for connection in idle:
        connection.close()
    return outcome
