"""`GET /` and `POST /`: the page, its form as browsers send it without script, and refusals of both."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from verydeep.prediction.options import NAMED_CLASSES
from verydeep.serving.bodies import first_parts, parts_of
from verydeep.serving.image_outcomes import ImageAnswer
from verydeep.serving.page import FormResult, page, refused_page, results
from verydeep.serving.page_pictures import page_picture
from verydeep.serving.page_texts import texts_for
from verydeep.serving.predict_request import MULTIPART, images_of, outcomes_of
from verydeep.serving.refusals import RefusedRequestError
from verydeep.serving.service import Service, given_key


async def answer_page(service: Service, request: Request) -> Response:
    """Answer with the empty form."""
    return _page(service, request, None)


async def answer_form(service: Service, request: Request) -> Response:
    """Answer a form with the page: it has the predictions of its images, or says why there are none."""
    try:
        found = await _result(service, request)
        return await asyncio.to_thread(_page, service, request, found)  # pictures are megabytes of text
    except RefusedRequestError as refusal:
        return _page(service, request, FormResult(refusal=refusal), status=refusal.status, headers=refusal.headers)


async def _result(service: Service, request: Request) -> FormResult:
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith(MULTIPART):
        raise RefusedRequestError(415, "unsupported_type", f"the form is sent as {MULTIPART}")
    check = None
    if service.needs_key:
        key = given_key(request.headers)
        if key is None:  # then it is the form's first field, as on the page, and nothing is kept of a form without it
            check = partial(_check_first_field, service, kind)
        else:
            service.check_key(key)
    async with service.bodies.body(request, check=check) as body:
        most = service.limits.max_images
        parts = await service.parsed(request, body.room, parts_of, body.taken(), kind, most_files=most)
        files = images_of([one for one in parts if one.field != "key"])
        files = [file for file in files if file.file_name or file.data]  # browsers send one without both for no choice
        if not files:
            raise RefusedRequestError(400, "no_image", "no image was chosen: choose one or more")
        has_maps, draw = service.model.has_maps, partial(_with_picture, service)
        found = await outcomes_of(service, request, body.room, files, NAMED_CLASSES, maps=has_maps, draw=draw)
    return FormResult(images=found.images, numbers=service.model.numbers, group=secrets.token_hex(4))


def _with_picture(service: Service, data: bytes, answer: ImageAnswer) -> ImageAnswer:
    grid, most = service.model.about.get("grid", "centred"), service.limits.max_pixels
    return replace(answer, picture=page_picture(data, answer, grid=grid, max_pixels=most))


def _check_first_field(service: Service, kind: str, first: bytes) -> None:
    keys = [part.data.decode(errors="replace") for part in first_parts(first, kind) if part.field == "key"]
    service.check_key(keys[0] if keys else None)


def answer_refusal(request: Request, refusal: RefusedRequestError) -> Response:
    """Answer with a page that has the words of a refusal alone.

    It says nothing about the model, since whoever asks may not be allowed to know.
    """
    return _html(request, FormResult(refusal=refusal), refused_page, status=refusal.status, headers=refusal.headers)


def _page(
    service: Service,
    request: Request,
    result: FormResult | None,
    *,
    status: int = HTTPStatus.OK,
    headers: dict[str, str] | None = None,
) -> Response:
    whole = partial(page, service.about(), needs_key=service.needs_key)
    return _html(request, result, whole, status=status, headers=headers)


def _html(
    request: Request,
    result: FormResult | None,
    whole: Callable[..., str],
    *,
    status: int,
    headers: dict[str, str] | None,
) -> Response:
    """Answer with a page, or with the part of it that its script asks for."""
    nonce, texts = secrets.token_urlsafe(16), texts_for(request.headers.get("accept-language", ""))
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    if result is not None and request.query_params.get("part") == "results":
        html = results(texts, result)
    else:
        html = whole(texts, nonce=nonce, result=result)
    body = html.encode(errors="backslashreplace")  # names of classes need not be valid text
    return HTMLResponse(body, status, {"Content-Security-Policy": policy, "Vary": "Accept-Language", **(headers or {})})
