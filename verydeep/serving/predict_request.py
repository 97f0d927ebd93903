"""`POST /v1/predict`: one image as the body, or several as multipart/form-data."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from verydeep.machine.errors import escaped
from verydeep.prediction.options import NAMED_CLASSES
from verydeep.serving.answers import as_json, json_answer
from verydeep.serving.bodies import FormPart, Room, parts_of
from verydeep.serving.image_outcomes import RequestOutcomes
from verydeep.serving.refusals import RefusedRequestError, bad_request
from verydeep.serving.served_model import MOST_MAPS, Wanted
from verydeep.serving.service import Service
from verydeep.serving.work_queue import Draw

MULTIPART = "multipart/form-data"

_ONE_IMAGE = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Types of a body that is an image, beside `image/...`; the last is what `curl --data-binary` calls any file."""

_LONGEST_NAME = 200
"""Characters of an image's name that are repeated in its prediction."""

_MOST_DIGITS = 10

_TRUTH = {"1": True, "true": True, "0": False, "false": False}


class _Choices(NamedTuple):
    top: int
    maps: bool


async def answer_predict(service: Service, request: Request) -> Response:
    """Answer with the prediction of one image, or with those of several.

    Raises:
        RefusedRequestError: the request cannot be answered.
    """
    choices = _choices(service, request.query_params)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (MULTIPART, *_ONE_IMAGE) and not kind.startswith("image/"):
        message = (
            f"{escaped(kind[:_LONGEST_NAME])} is not a type of images: send one image's bytes with Content-Type: "
            f"application/octet-stream or image/..., or several as {MULTIPART}"
        )
        raise RefusedRequestError(415, "unsupported_type", message)
    async with service.bodies.body(request) as body:
        if kind != MULTIPART:
            wanted = Wanted("image 0", *choices)
            (one,) = (await service.outcomes(request, body.room, [body.taken()], [wanted])).images
            return await _answer(lambda: as_json(one, service.model.numbers), choices)
        most = service.limits.max_images
        kind = request.headers["content-type"]
        parts = await service.parsed(request, body.room, parts_of, body.taken(), kind, most_files=most)
        found = await outcomes_of(service, request, body.room, images_of(parts), choices.top, maps=choices.maps)
    return await _answer(
        lambda: {"predictions": [as_json(one, service.model.numbers) for one in found.images]}, choices
    )


async def _answer(value: Callable[[], dict[str, Any]], choices: _Choices) -> Response:
    """Return an answer; maps are hundreds of thousands of numbers, which would hold up the event loop."""
    if choices.maps:
        return await asyncio.to_thread(lambda: json_answer(value()))
    return json_answer(value())


def images_of(parts: Sequence[FormPart]) -> list[FormPart]:
    """Return the parts that are files.

    Raises:
        RefusedRequestError: there are none, or other parts too.
    """
    others = [part.field for part in parts if part.file_name is None]
    if others:
        raise bad_request(f"the field {escaped(others[0][:_LONGEST_NAME])!r} has no file name: send images as files")
    if not parts:
        raise bad_request("there is no image in the body")
    return list(parts)


async def outcomes_of(
    service: Service,
    request: Request,
    room: Room,
    images: Sequence[FormPart],
    top: int,
    *,
    maps: bool,
    draw: Draw | None = None,
) -> RequestOutcomes:
    """Return the outcomes of several images.

    Args:
        service: predicts.
        request: of a client that may leave.
        room: of the request's body.
        images: parts of the body that are files.
        top: classes of each.
        maps: whether they have score maps.
        draw: as for `WorkQueue.submit`.

    Raises:
        RefusedRequestError: as `Service.outcomes`.
    """
    names = [(image.file_name or f"image {number}")[:_LONGEST_NAME] for number, image in enumerate(images)]
    wanted = [Wanted(name, top, maps) for name in names]
    return await service.outcomes(request, room, [image.data for image in images], wanted, draw)


def _choices(service: Service, query: Mapping[str, str]) -> _Choices:
    unknown = sorted(set(query) - set(_Choices._fields))
    if unknown:
        raise bad_request(f"unknown parameter {escaped(unknown[0][:_LONGEST_NAME])!r}: there are top and maps")
    maps = _TRUTH.get(query.get("maps", "0"))
    if maps is None:
        raise bad_request("maps is 1 or 0")
    if maps and not service.model.has_maps:
        raise bad_request("a classifier of features has no score maps: leave out maps")
    top = checked_top(query.get("top", str(NAMED_CLASSES)))
    if maps and min(top, len(service.model.classes)) > MOST_MAPS:
        raise bad_request(
            f"an answer has the maps of up to {MOST_MAPS} classes: ask for top={MOST_MAPS}, or for no maps"
        )
    return _Choices(top, maps)


def checked_top(text: str) -> int:
    """Return how many classes are asked for, which may be more than there are.

    Raises:
        RefusedRequestError: it is not a whole number from 1 up.
    """
    if not (text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS and int(text) >= 1):
        raise bad_request("top is a number of classes, from 1 up")
    return int(text)
