"""Choices of a service: where it listens, who may use it, and its limits (needs no other library)."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from verydeep.images.tolerance import LARGEST_MAX_PIXELS
from verydeep.numbers import number

_LARGEST_PORT = 65_535

_MIB = 2**20

_USUAL_RESCALED = 1_000_000
"""Pixels of a rescaled image that are allowed at any scale."""

_USUAL_ELONGATION = 4
"""Ratio of the sides up to which an image is accepted at any scale."""

ANY = "*"
"""All origins, or all names of the service."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^A-Z/\s]+")
"""An origin as browsers send it."""

_NAME = re.compile(r"[^\s/:]*[^\s/:.]")
"""A name as browsers send it in Host, without its port."""


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where a service listens, and how it ends."""

    host: str = "127.0.0.1"
    """Address of this machine to listen on; 0.0.0.0 for all of its IPv4 addresses."""

    port: int = 8000
    """Port to listen on; 0 takes one that is free."""

    grace: float = 5.0
    """Seconds after SIGTERM in which requests are still accepted, while /readyz already says 503."""

    def __post_init__(self) -> None:
        """Refuse impossible choices with a ValueError."""
        if not 0 <= self.port <= _LARGEST_PORT:
            raise ValueError(f"port must be from 0 to {number(_LARGEST_PORT)}, not {self.port}")
        if not 0 <= self.grace < math.inf:
            raise ValueError(f"grace must be 0 seconds or more, not {self.grace}")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a service; everything beyond is refused, with the reason."""

    max_body: float = 20.0
    """MiB of one request's body."""

    max_bodies: float = 256.0
    """MiB of all bodies that are held; reserved before a body is read."""

    max_pixels: int = 50_000_000
    """Pixels of an image; larger ones are refused before they are unpacked."""

    max_rescaled_pixels: int | None = None
    """Pixels of an image with its shorter side at Q, for each Q. By default 1,000,000, or, if that is more, as many as
    an image has that is four times as long as wide."""

    max_images: int = 16
    """Images of one request."""

    body_seconds: float = 10.0
    """Seconds for a request's head to arrive, and then for its body; and for an answer to be taken, with one more for
    each 4 KiB of it already taken."""

    queue: int = 64
    """Images that are waiting, decoded, computed or, for the page, drawn."""

    queue_seconds: float = 10.0
    """Seconds of work, as estimated, that may be waiting when a request is accepted."""

    deadline: float = 30.0
    """Seconds after which a request is answered in any case."""

    decoders: int = 2
    """Threads that decode and rescale, and draw the page's pictures."""

    max_batch: int | None = None
    """Images of the same size that are computed at once. By default whichever a measurement at the start finds faster:
    1, with the numbers of predict to the last bit, or 4, or as many as there is memory for."""

    def __post_init__(self) -> None:
        """Refuse impossible choices with a ValueError."""
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, not {value}")
        if self.max_pixels > LARGEST_MAX_PIXELS:
            raise ValueError(f"max_pixels must be up to {number(LARGEST_MAX_PIXELS)}, not {self.max_pixels}")
        if self.max_bodies < self.max_body:
            raise ValueError(f"max_bodies ({self.max_bodies} MiB) must hold one body ({self.max_body} MiB)")
        if self.queue < self.max_images:
            raise ValueError(f"the queue ({self.queue}) must hold the images of one request ({self.max_images})")

    def rescaled_pixels(self, sides: Sequence[int]) -> int:
        """Return the pixels of a rescaled image that are allowed with these shorter sides.

        Raises:
            ValueError: no image could have so few.
        """
        least = max(sides) ** 2
        if self.max_rescaled_pixels is None:
            return max(_USUAL_RESCALED, _USUAL_ELONGATION * least)
        if self.max_rescaled_pixels < least:
            raise ValueError(
                f"max_rescaled_pixels must be at least {number(least)}, the pixels of a square at the shorter side of "
                f"{number(max(sides))}, not {number(self.max_rescaled_pixels)}"
            )
        return self.max_rescaled_pixels

    @property
    def body_bytes(self) -> int:
        """Bytes of one body."""
        return int(self.max_body * _MIB)

    @property
    def bodies_bytes(self) -> int:
        """Bytes of all bodies."""
        return int(self.max_bodies * _MIB)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may use a service."""

    key_file: Path | None = None
    """File with a key on each line, one of which every prediction then needs: `Authorization: Bearer KEY`, or
    `X-API-Key`. Lines that begin with # are skipped."""

    allow_origin: tuple[str, ...] = ()
    """Origins whose pages' scripts may use the service, such as https://example.org; * for all. By default none."""

    allow_host: tuple[str, ...] = ()
    """Names that the service may be asked by, such as gpu7.example.org; * for all. Addresses are always allowed. By
    default localhost where --host is an address of this machine alone, else all names: without this option a page whose
    name is made to point here could then use the service."""

    def __post_init__(self) -> None:
        """Refuse with a ValueError names and origins that no request could ever match."""
        for origin in self.allow_origin:
            if origin not in (ANY, "null") and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    "allow_origin is a scheme, a host in lower case and perhaps a port, such as https://example.org, "
                    f"not {origin!r}"
                )
        for name in self.allow_host:
            if not _NAME.fullmatch(name):
                raise ValueError(f"allow_host is a name without a port, such as gpu7.example.org, not {name!r}")
