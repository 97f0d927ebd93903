"""Answers as JSON."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from verydeep.machine.documents import json_text
from verydeep.serving.image_outcomes import ClassMap, ImageAnswer, ImageOutcome, Numbers


def json_answer(value: object, *, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as an answer; bytes that are not valid text in it are escaped."""
    body = json_text(value).encode(errors="backslashreplace")
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def as_json(outcome: ImageOutcome, numbers: Numbers) -> dict[str, Any]:
    """Return the outcome of an image, ready for JSON.

    Args:
        outcome: as `predict --out` writes it, with `maps` if there are any, or with an `error`.
        numbers: name of the numbers beside the classes, as `ServedModel.numbers`.
    """
    if not isinstance(outcome, ImageAnswer):
        return {"image": outcome.image, "classes": [], numbers: [], "error": outcome.error}
    prediction = outcome.prediction.to_dict()
    return prediction | {"maps": [_map_as_json(one) for one in outcome.maps]} if outcome.maps else prediction


def _map_as_json(one: ClassMap) -> dict[str, Any]:
    return {
        "class": one.name,
        "grid": one.values.tolist(),
        "stride": one.stride,
        "window": one.window,
        "offset": one.offset,
        "size": one.size,
    }
