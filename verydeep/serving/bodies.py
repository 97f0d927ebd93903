"""Bodies of requests: room is reserved before they are read, time and size are limited, nothing goes to disk."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from verydeep.numbers import trimmed
from verydeep.serving.options import Limits
from verydeep.serving.refusals import RefusedRequestError, bad_request, busy, client_gone, too_large

_MOST_FIELDS = 8
"""Parts of a form that are not files."""

_FIRST_BYTES = 16 * 2**10
"""Bytes of a body that are checked before room for the rest is reserved; a connection holds more in any case."""


class FormPart(NamedTuple):
    """One part of a multipart body."""

    field: str
    file_name: str | None
    """None for a part that is not a file."""
    data: bytes


class Room:
    """Bytes that are reserved for one body, until the last one who holds any of them has left."""

    def __init__(self, bodies: "Bodies") -> None:
        self._bodies, self._size, self._holders = bodies, 0, 1

    def grow(self, size: int) -> None:
        """Reserve `size` bytes in all.

        Raises:
            RefusedRequestError: there is no room for them.
        """
        more = size - self._size
        if self._bodies.held + more > self._bodies.most:
            raise busy("bodies_full", "the service has reached its memory limit for requests: try again later")
        self._bodies.held += more
        self._size = size

    def enter(self) -> None:
        """Count one more who holds bytes of the body."""
        self._holders += 1

    def leave(self) -> None:
        """Count one out; the last one gives the bytes back."""
        self._holders -= 1
        if not self._holders:
            self._bodies.held -= self._size


class Body:
    """A body that was read, and the room that it takes."""

    def __init__(self, data: bytes, room: Room) -> None:
        self._data, self.room = data, room

    def taken(self) -> bytes:
        """Return its bytes and keep no reference, so that the caller can free them."""
        data, self._data = self._data, b""
        return data


class Bodies:
    """All bodies that are held at one time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.most = limits.bodies_bytes
        self.held = 0
        """Bytes that are reserved."""

    @asynccontextmanager
    async def body(self, request: Request, *, check: Callable[[bytes], None] | None = None) -> AsyncIterator[Body]:
        """Yield the body of a request; its room is kept until the block ends, and longer by those who have entered it.

        Args:
            request: whose body it is.
            check: is given the first bytes, 16 KiB if there are as many, and may refuse the request before room for
                more is reserved.

        Raises:
            RefusedRequestError: it is too large, too slow or encoded, there is no room for it, or the client has left.
        """
        size, room = _announced(request, self._limits.body_bytes), Room(self)
        try:
            yield Body(await self._read(request, room, size, check), room)
        finally:
            room.leave()

    async def _read(self, request: Request, room: Room, size: int, check: Callable[[bytes], None] | None) -> bytes:
        room.grow(size if check is None else min(size, _FIRST_BYTES))
        body, most = bytearray(), self._limits.body_bytes
        seconds = min(self._limits.body_seconds, self._limits.deadline)
        try:
            async with asyncio.timeout(seconds):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > most:
                        raise too_large(most)
                    body += chunk
                    if check is not None and len(body) >= _FIRST_BYTES:
                        check(bytes(body))
                        check = None
                        room.grow(size)
        except TimeoutError:
            message = f"the body did not arrive within {trimmed(seconds)} seconds"
            raise RefusedRequestError(408, "slow_body", message, headers={"Connection": "close"}) from None
        except ClientDisconnect:
            raise client_gone() from None
        if check is not None:
            check(bytes(body))
        return bytes(body)


def _announced(request: Request, most: int) -> int:
    """Return how many bytes to reserve: as many as the request says, or as many as are allowed if it says nothing."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedRequestError(415, "unsupported_encoding", "bodies are taken without Content-Encoding only")
    said = request.headers.get("content-length")
    if said is None:
        return most
    if "transfer-encoding" in request.headers:  # the length would be reserved, and the chunks taken
        raise bad_request("a body has a Content-Length or a Transfer-Encoding, not both")
    if not (said.isascii() and said.isdigit() and len(said) < 20):
        raise bad_request("Content-Length is not a number of bytes")
    if int(said) > most:
        raise too_large(most)
    return int(said)


def parts_of(body: bytes, content_type: str, *, most_files: int) -> list[FormPart]:
    """Return the parts of a multipart body.

    Raises:
        RefusedRequestError: it is not one, or has too many parts.
    """
    collector = _Collector(most_files)
    try:
        _parser_for(collector, content_type, body).finalize()
    except FormParserError as error:
        raise _not_multipart(error) from None
    if not collector.ended:
        raise bad_request("the multipart body ends before its last boundary")
    return collector.parts


def first_parts(body: bytes, content_type: str) -> list[FormPart]:
    """Return the parts that are complete in the first bytes of a multipart body.

    Raises:
        RefusedRequestError: it is not one.
    """
    collector = _Collector(len(body))
    _parser_for(collector, content_type, body)
    return collector.parts


def _parser_for(collector: "_Collector", content_type: str, body: bytes) -> MultipartParser:
    """Return a parser that has told the collector the body's parts."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise bad_request("multipart/form-data needs a boundary")
    if body.count(b"\r\n--" + boundary) > collector.most_parts + 1:
        # One that nothing like an end follows is read character by character, and there is room for millions.
        raise collector.too_many()
    try:
        # Sizes are bounded already: the whole body is in memory.
        parser = MultipartParser(boundary, collector.callbacks())  # type: ignore[arg-type]
        parser.write(body)
    except FormParserError as error:
        raise _not_multipart(error) from None
    return parser


def _not_multipart(error: FormParserError) -> RefusedRequestError:
    return bad_request(f"the body is not multipart/form-data: {error}")


class _Collector:
    """Collects the parts that the parser finds."""

    def __init__(self, most_files: int) -> None:
        self.parts: list[FormPart] = []
        self.ended = False
        self._most_files = most_files
        self.most_parts = most_files + _MOST_FIELDS
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._data = bytearray()

    def callbacks(self) -> dict[str, object]:
        """Return the functions that the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_part_data": lambda data, start, end: self._data.extend(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        self._headers, self._data = {}, bytearray()

    def _header_end(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise bad_request("a part of the multipart body has no Content-Disposition: form-data with a name")
        file_name = options.get(b"filename")
        name = None if file_name is None else file_name.decode(errors="replace")
        self.parts.append(FormPart(options[b"name"].decode(errors="replace"), name, bytes(self._data)))
        files = sum(part.file_name is not None for part in self.parts)
        if files > self._most_files or len(self.parts) - files > _MOST_FIELDS:
            raise self.too_many()

    def too_many(self) -> RefusedRequestError:
        """Return the refusal of a body with too many parts."""
        message = f"one request takes up to {self._most_files} images and {_MOST_FIELDS} fields"
        return RefusedRequestError(413, "too_many_images", message)

    def _all(self) -> None:
        self.ended = True
