"""Requests that are not answered with a prediction: status, code and words, the same for all paths."""

import logging
import math
import traceback
from collections.abc import Sequence

from verydeep.images.decode import UnusableImageError
from verydeep.machine.errors import escaped
from verydeep.numbers import number

_LOGGER = logging.getLogger("verydeep.serving")


class RefusedRequestError(ValueError):
    """A request that is refused; the message says why and what to do."""

    def __init__(self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}
        self.images: tuple[UnusableImageError, ...] = ()
        """Images that it is about."""

    def __str__(self) -> str:
        return self.message


def bad_request(message: str) -> RefusedRequestError:
    """Return the refusal of a request that cannot be understood."""
    return RefusedRequestError(400, "bad_request", message)


def busy(code: str, message: str, *, seconds: float = 1.0) -> RefusedRequestError:
    """Return the refusal of a request that may come again after some seconds."""
    return RefusedRequestError(503, code, message, headers={"Retry-After": str(max(1, math.ceil(seconds)))})


def too_large(most: int) -> RefusedRequestError:
    """Return the refusal of a body of more than `most` bytes."""
    return RefusedRequestError(413, "too_large", f"the body has more than the {number(most)} bytes allowed")


def too_late() -> RefusedRequestError:
    """Return the refusal of a request whose deadline has passed."""
    return RefusedRequestError(504, "deadline", "the images were not computed in time: try again later")


def unusable(message: str, images: Sequence[UnusableImageError]) -> RefusedRequestError:
    """Return the refusal of images that cannot be used."""
    refusal = RefusedRequestError(422, "unusable_image", message)
    refusal.images = tuple(images)
    return refusal


def failed() -> RefusedRequestError:
    """Return the refusal that tells a client of an error of the service itself, and no more."""
    return RefusedRequestError(500, "internal", "the service has failed: its log says why")


def log_failure(request_id: str, error: BaseException) -> None:
    """Note an error of the service itself in its log, with the request's id and where it arose."""
    where = "".join(traceback.format_exception(error))
    _LOGGER.error("request %s has failed:\n%s", request_id, escaped(where))


def client_gone() -> RefusedRequestError:
    """Return the refusal that counts for a request whose client has left; nobody reads it."""
    return RefusedRequestError(499, "client_gone", "the client has left")
