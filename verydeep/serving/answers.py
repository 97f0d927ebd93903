"""Answers as JSON."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from verydeep.machine.documents import json_text


def json_answer(value: object, *, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as an answer; what is not valid text in it is escaped."""
    body = json_text(value).encode(errors="backslashreplace")
    return Response(body, status_code=status, headers=headers, media_type="application/json")
