"""`GET /` and `POST /`: the page, and its form as browsers send it without script."""

import secrets

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from verydeep.serving.bodies import parts_of
from verydeep.serving.page import FormResult, page
from verydeep.serving.predict_request import MULTIPART, TOP, images_of, predicted
from verydeep.serving.refusals import RefusedRequestError, bad_request
from verydeep.serving.service import Service, given_key


async def answer_page(service: Service, _: Request) -> Response:
    """Answer with the empty form."""
    return _page(service, None)


async def answer_form(service: Service, request: Request) -> Response:
    """Answer a form with the predictions of its images, or with why there are none, as the page."""
    try:
        found = await _predictions(service, request)
    except RefusedRequestError as refusal:
        return _page(service, FormResult(error=refusal.message), status=refusal.status, headers=refusal.headers)
    return _page(service, FormResult(predictions=found))


async def _predictions(service: Service, request: Request) -> list[dict[str, object]]:
    if not request.headers.get("content-type", "").lower().startswith(MULTIPART):
        raise RefusedRequestError(415, "unsupported_type", f"the form is sent as {MULTIPART}")
    async with service.bodies.body(request) as body:
        parts = parts_of(body, request.headers["content-type"], most_files=service.limits.max_images)
        keys = [part.data.decode(errors="replace") for part in parts if part.field == "key" and part.file_name is None]
        service.check_key(keys[0] if keys else given_key(request.headers))
        files = [part for part in images_of([one for one in parts if one.field != "key"]) if part.data]
        if not files:
            raise bad_request("no image was chosen: choose one or more")
        return await predicted(service, request, files, TOP, maps=False)


def _page(
    service: Service, result: FormResult | None, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src 'self' data: blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    html = page(service.about(), nonce=nonce, needs_key=service.needs_key, result=result)
    body = html.encode(errors="backslashreplace")  # names of classes need not be valid text
    return HTMLResponse(body, status, {"Content-Security-Policy": policy, **(headers or {})})
