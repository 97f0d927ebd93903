"""The server: one process with one event loop that listens until it is told to end, and then drains."""

import asyncio
import json
import logging
import math
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from verydeep.machine.errors import reason
from verydeep.serving.app import application
from verydeep.serving.options import Listening
from verydeep.serving.service import Service

_LONGEST_HEAD = 16 * 2**10
"""Bytes of a request's line and headers."""

_LOOKS = 4
"""Times that a connection is looked at until it is too slow."""

_BACKLOG = 2048

_MOST_READ = 16 * 2**10
"""Bytes that are read of a connection before others have their turn; asyncio's 256 KiB in chunks of one byte take h11
0.6 seconds."""

_FREE_CHUNKS = 1024
_LEAST_CHUNK = 64
"""Bytes that a chunk of a body has on average, beyond the first `_FREE_CHUNKS` of them."""

_UNREAD_SECONDS = 2.0
"""In which what is left of a body is read that was answered already: closed at once, the answer could be lost."""

_LEAST_TAKEN = 16 * 2**10
"""Bytes of an answer that are progress of its client."""


class _Parser(h11.Connection):
    """A parser that refuses a body in many small chunks, of which each costs as much as a large one."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, _LONGEST_HEAD)
        self._chunks = self._bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what comes next.

        Raises:
            h11.RemoteProtocolError: it is no HTTP, or a body in too many chunks.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += 1
            self._bytes += len(event.data)
            if self._chunks > _FREE_CHUNKS + self._bytes / _LEAST_CHUNK:
                raise h11.RemoteProtocolError("the chunks of the body are too small")
        return event


class _TimedConnection(H11Protocol):
    """A connection that is closed where uvicorn would wait for ever: for a head, or for an answer to be taken.

    A head has `seconds` from its first byte; what was sent of one then is answered 408, on a connection that was used
    before too. An answer has `seconds` from when it began to wait for its client, and again whenever its client has
    taken `_LEAST_TAKEN` bytes of it. What is left of a body that was refused is read for `_UNREAD_SECONDS` after the
    answer, or for `seconds` if they are fewer.
    """

    def __init__(self, *args: Any, seconds: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = _Parser()
        self._seconds = seconds
        self._idle_since = self._taken_at = self.loop.time()
        self._unsent_then = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.max_size = _MOST_READ  # type: ignore[attr-defined]
        # Else an answer's body waits for its head to be acknowledged, 40 ms; asyncio does not see that this is TCP.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._look()

    def data_received(self, data: bytes) -> None:
        """Note when a head began."""
        if self.conn.our_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._idle_since = self.loop.time()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Note when an answer was complete, since looks may all fall between requests."""
        self._idle_since = self.loop.time()
        if self.conn.their_state is h11.SEND_BODY:
            self.loop.call_later(min(_UNREAD_SECONDS, self._seconds), self._close_unread, self.cycle)
        super().on_response_complete()

    def _close_unread(self, answered: RequestResponseCycle) -> None:
        if self.cycle is answered and self.conn.their_state is h11.SEND_BODY:
            self.transport.close()

    def _look(self) -> None:
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if not unsent or unsent <= self._unsent_then - _LEAST_TAKEN:
            self._taken_at, self._unsent_then = now, unsent
        elif now - self._taken_at >= self._seconds:
            self.transport.abort()
            return
        self._unsent_then = max(self._unsent_then, unsent)
        if self.cycle is not None and not self.cycle.response_complete:
            self._idle_since = now
        elif now - self._idle_since >= self._seconds and not self.transport.is_closing():
            if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
                self._say(408, "Request Timeout", "slow_head", "the request did not arrive in time")
            self.transport.close()
        if unsent or not self.transport.is_closing():
            self.loop.call_later(self._seconds / _LOOKS, self._look)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP as all else is refused, unless an answer to its request has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._say(400, "Bad Request", "bad_request", msg)
        if self.cycle is not None:  # whoever reads its body must not answer too
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _say(self, status: int, phrase: str, code: str, message: str) -> None:
        body = json.dumps({"error": message, "code": code, "request_id": ""})
        head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self.transport.write(f"{head}\r\nConnection: close\r\n\r\n{body}".encode())


def serve(service: Service, socket: socket.socket, grace: float, say: Callable[[str], None]) -> None:
    """Listen until SIGTERM or Ctrl-C, then answer what was accepted.

    Args:
        service: what answers.
        socket: as `bound_socket` returns it.
        grace: seconds after SIGTERM in which new requests are still accepted.
        say: told the address when it is ready, and that the end has begun.

    Raises:
        ValueError: the model cannot be computed.
        KeyboardInterrupt: it was Ctrl-C.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # bad requests would fill the log
    say(f"{service.name} is being prepared: until then requests are refused with 503")
    if asyncio.run(_until_signal(service, socket, grace, say)) == signal.SIGINT:
        raise KeyboardInterrupt


def bound_socket(listening: Listening) -> socket.socket:
    """Return a socket for an address, so that one that is taken is told before a model is loaded; it does not listen.

    Raises:
        OSError: the address cannot be used; the message names it.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(listening.host, listening.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
        return bound
    except OSError as error:
        raise OSError(f"cannot listen on {listening.host}, port {listening.port}: {reason(error)}") from error


def _server_for(service: Service) -> uvicorn.Server:
    """Return uvicorn's server, with the service's limits."""
    limits = service.limits
    config = uvicorn.Config(
        application(service),
        http=partial(_TimedConnection, seconds=limits.body_seconds),  # type: ignore[arg-type]
        ws="none",
        loop="asyncio",
        log_level="error",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=math.ceil(limits.body_seconds + limits.deadline),
        timeout_notify=1,
    )
    server = uvicorn.Server(config)

    async def notice_failure() -> None:
        server.should_exit |= service.queue.failure is not None

    config.callback_notify = notice_failure
    return server


async def _tell_when_ready(service: Service, socket: socket.socket, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    await service.queue.until_ready()
    host, port = socket.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    say(f"{service.name} at {address} (prepared in {time.monotonic() - began:.1f} s; Ctrl-C ends it)")


async def _until_signal(service: Service, socket: socket.socket, grace: float, say: Callable[[str], None]) -> int:
    """Serve until a signal; return which one it was."""
    server, loop, received = _server_for(service), asyncio.get_running_loop(), [0]

    def stop() -> None:
        server.should_exit = True

    def end(number: int) -> None:
        server.force_exit = server.should_exit and number == signal.SIGINT
        if not service.draining:
            service.draining, received[0] = True, number
            seconds = grace if number == signal.SIGTERM else 0
            more = f"requests are accepted for {seconds:g} s more" if seconds else "no more requests are accepted"
            say(f"ending: {more}, and all that were accepted are answered")
            loop.call_later(seconds, stop)
        elif number == signal.SIGINT:
            stop()

    def signalled(number: int, _frame: object) -> None:  # in the middle of anything, of a line that is printed too
        loop.call_soon_threadsafe(end, number)

    server.handle_exit = signalled  # type: ignore[method-assign, assignment]
    telling = loop.create_task(_tell_when_ready(service, socket, say))
    await server.serve(sockets=[socket])
    telling.cancel()
    if service.queue.failure is not None:
        raise service.queue.failure
    return received[0]
