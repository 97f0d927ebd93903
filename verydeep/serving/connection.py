"""A connection with a client: slow ones are closed, in such a way that no answer is lost."""

import asyncio
import fcntl
import json
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from verydeep.machine.errors import one_line
from verydeep.numbers import number

_LONGEST_HEAD = 16 * 2**10
"""Bytes of a request's line and headers."""

_LOOKS = 4
"""How often a connection is checked in the time after which it is too slow."""

_MOST_READ = 16 * 2**10
"""Bytes that are read from a connection before others have their turn; asyncio's 256 KiB in chunks of one byte take
h11 0.6 seconds."""

_FREE_CHUNKS = 1024
_LEAST_CHUNK = 64
"""Bytes that a chunk of a body has on average, beyond the first `_FREE_CHUNKS` of them."""

_UNREAD_SECONDS = 2.0
"""Seconds of silence after which no more of a body is expected that was answered already."""

_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Interim answer: the only one that clients skip whether they have asked for it or not."""

_PROBES = (0.1, 1.0)
"""Seconds to the next writing to a client that has stopped sending."""

_LEAST_TAKEN = 16 * 2**10
"""Bytes of an answer that are progress of its client."""

_LEAST_RATE = 4 * 2**10
"""Bytes a second that a client takes of its answers on the whole, as a throttled telephone does; 5 MB are then held for
20 minutes, not for an hour."""

_CODES = {HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "long_head", HTTPStatus.NOT_IMPLEMENTED: "unsupported_encoding"}
"""Codes of refusals, for statuses at which the parser hints, beside 400."""


class _Parser(h11.Connection):
    """A parser that refuses a body in many small chunks, since each costs as much as a large one."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, _LONGEST_HEAD)
        self._chunks = self._bytes = 0
        self.refusal: h11.RemoteProtocolError | None = None
        """Why it went no further."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event.

        Raises:
            h11.RemoteProtocolError: it is not HTTP, or a body in too many chunks.
        """
        try:
            event = super().next_event()
            self._check_chunks(event)
        except h11.RemoteProtocolError as error:
            self.refusal = error
            raise
        return event

    def _check_chunks(self, event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]) -> None:
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += 1
            self._bytes += len(event.data)
            if self._chunks > _FREE_CHUNKS + self._bytes / _LEAST_CHUNK:
                raise h11.RemoteProtocolError("the chunks of the body are too small: send larger ones")


class _Taking:
    """The progress of a client that takes answers: `_LEAST_TAKEN` bytes in `seconds`, `_LEAST_RATE` on the whole."""

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._began = self._progress_at = now
        self._taken_before = self._taken_then = 0

    def is_too_slow(self, now: float, taken: int, *, waits: bool) -> bool:
        """Return whether a client has taken too little.

        Args:
            now: seconds on the clock.
            taken: bytes that it has taken since it connected.
            waits: whether there are bytes that the system has no room for.
        """
        if not waits:
            self._began, self._taken_before = now, taken
        if not waits or taken >= self._taken_then + _LEAST_TAKEN:
            self._progress_at, self._taken_then = now, taken
        late = now - self._began - self._seconds
        return now - self._progress_at >= self._seconds or taken - self._taken_before < late * _LEAST_RATE


class _StagedTransport:
    """A transport that is closed in stages (RFC 9112, section 9.6) while its client may still be sending.

    Closed at once, it would answer further bytes with a reset, and the client could lose the answer.
    """

    def __init__(self, transport: asyncio.Transport, connection: "TimedConnection") -> None:
        self._transport, self._connection = transport, connection
        self._ending = False
        self._written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, and count what is written."""
        self._written += len(data)
        self._transport.write(data)

    def taken(self) -> int:
        """Return how many bytes the client has taken, those in the system's queue left out where it tells of them."""
        held = self._transport.get_write_buffer_size()
        with suppress(OSError, ValueError):  # no such question to a socket, or no socket any more
            queue = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
            held += struct.unpack("i", queue)[0]
        return self._written - held

    def is_closing(self) -> bool:
        """Return whether writing has ended."""
        return self._ending or self._transport.is_closing()

    def close(self) -> None:
        """End the writing; close when no more comes, or at once if nothing can."""
        if self._ending or not self._connection.may_be_sending():
            self._transport.close()
        elif not self._transport.is_closing():
            self._ending = True
            try:
                self._transport.write_eof()
            except OSError:  # the client has reset the connection, which asyncio does not know yet
                self._transport.close()
            else:
                self._connection.read_on()

    def close_now(self) -> None:
        """Close, whatever comes."""
        self._transport.close()


class TimedConnection(H11Protocol):
    """A connection that is closed where uvicorn would wait for ever: for a head, or for an answer to be taken.

    A head has `seconds` from its first byte; if only part of one has come by then, it is answered 408, also on a
    connection that was used before. An answer has `seconds` from when it began to wait for its client, and again
    whenever its client has taken `_LEAST_TAKEN` bytes of it, but on the whole no more than another second for each
    `_LEAST_RATE` bytes. The rest of a body that was answered is read for `seconds`, unless nothing comes for
    `_UNREAD_SECONDS`. A client that has stopped sending is answered if it has not left. `count` is told the status of
    each answer that is given in place of the application's; `cut_off` is called when an answer is not taken in time.
    """

    transport: _StagedTransport  # type: ignore[assignment]
    conn: _Parser

    def __init__(
        self, *args: Any, seconds: float, count: Callable[[int], None], cut_off: Callable[[], None], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.conn = _Parser()
        self._seconds, self._count, self._cut_off = seconds, count, cut_off
        self._idle_since = self._read_at = self.loop.time()
        self._taking = _Taking(seconds, self._idle_since)
        self._half_closed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_StagedTransport(transport, self))  # type: ignore[arg-type]
        transport.max_size = _MOST_READ  # type: ignore[attr-defined]
        # Otherwise an answer's body waits 40 ms until its head is acknowledged; asyncio does not see that this is TCP.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._look()

    def data_received(self, data: bytes) -> None:
        """Note when a head began; ignore bytes after the end."""
        self._read_at = self.loop.time()
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._idle_since = self.loop.time()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Note when an answer was complete, since every check may fall between requests."""
        self._idle_since = self.loop.time()
        if self.may_be_sending() and not self.transport.is_closing():
            self.read_on()
        super().on_response_complete()
        if self._half_closed and self.cycle.response_complete:
            self.transport.close()

    def may_be_sending(self) -> bool:
        """Return whether the client may be in the middle of a body."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def read_on(self) -> None:
        """Read the rest of a body that was answered, and close if it does not end."""
        self.flow.resume_reading()
        self._read_at = self.loop.time()
        self._close_unread(self.cycle, self._read_at)

    def _close_unread(self, answered: RequestResponseCycle, began: float) -> None:
        if self.cycle is not answered or not self.may_be_sending():
            return
        now, silence = self.loop.time(), min(_UNREAD_SECONDS, self._seconds)
        if now - began < self._seconds and now - self._read_at < silence:
            self.loop.call_later(silence, self._close_unread, answered, began)
        else:
            self.transport.close_now()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether a client that has stopped sending may still listen.

        One that has left looks the same until something is written: this comes back as a reset, which the next writing
        meets.
        """
        if self.cycle is None or self.cycle.response_complete or self.may_be_sending():
            return False
        self._half_closed = True
        self._probe(*_PROBES)
        return True

    def _probe(self, *delays: float) -> None:
        unanswered = self.conn.our_state is h11.SEND_RESPONSE and not self.transport.is_closing()
        if unanswered and self.conn.their_http_version == b"1.1":
            self.transport.write(_INTERIM)
            if delays:
                self.loop.call_later(delays[0], self._probe, *delays[1:])

    def _look(self) -> None:
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if self._taking.is_too_slow(now, self.transport.taken(), waits=bool(unsent)):
            self._cut_off()
            self.transport.abort()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._idle_since = now
        elif now - self._idle_since >= self._seconds and not self.transport.is_closing():
            if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
                self._say(HTTPStatus.REQUEST_TIMEOUT, "slow_head", "the request did not arrive in time")
            self.transport.close()
        if unsent or not self.transport.is_closing():
            self.loop.call_later(self._seconds / _LOOKS, self._look)

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not HTTP in the form of all refusals, unless an answer to their request has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(self.conn.refusal or h11.RemoteProtocolError(msg))
        if self.cycle is not None:  # whoever reads its body must not answer too
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _refuse(self, refusal: h11.RemoteProtocolError) -> None:
        status, message = HTTPStatus(refusal.error_status_hint), one_line(refusal)
        if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            message = f"the request's head, or the first line of a chunk, has more than {number(_LONGEST_HEAD)} bytes"
        self._say(status, _CODES.get(status, "bad_request"), message)

    def _say(self, status: HTTPStatus, code: str, message: str) -> None:
        if self.conn.our_state is h11.IDLE:  # else the application counts the request
            self._count(status.value)
        body = json.dumps({"error": message, "code": code, "request_id": ""})
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json"
        self.transport.write(f"{head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
