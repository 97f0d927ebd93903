"""The ASGI application: the function that answers each path, and common properties of all answers."""

import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from verydeep.serving.answers import json_answer
from verydeep.serving.inference_protocol import BINARY_LENGTH, inference_routes
from verydeep.serving.metrics import CONTENT_TYPE
from verydeep.serving.openapi import openapi
from verydeep.serving.options import Access
from verydeep.serving.origins import check_host, check_origin
from verydeep.serving.page_requests import answer_form, answer_page, answer_refusal
from verydeep.serving.predict_request import answer_predict
from verydeep.serving.refusals import RefusedRequestError, failed, log_failure
from verydeep.serving.service import Service, given_key

_CODES = {404: "not_found", 405: "method_not_allowed"}

_PAGE = "/"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Without a referrer browsers would send the page's own form with `Origin: null`.
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store"}

_Endpoint = Callable[[Request], Awaitable[Response]]


def application(service: Service) -> ASGIApp:
    """Return the service as an ASGI application, which any server of such applications can run."""
    routes = [*_open_routes(service), *_keyed(service, _keyed_routes(service))]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=service.access.allow_origin,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", BINARY_LENGTH, "X-API-Key", "X-Request-ID"],
        expose_headers=[BINARY_LENGTH, "X-Request-ID", "Retry-After"],
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(_Guarded, access=service.access),
            *([cors] if service.access.allow_origin else []),
            Middleware(_FailuresAnswered),
        ],
        exception_handlers={RefusedRequestError: _refused, HTTPException: _http_error},
    )
    return _observed(app, service, routes)


def _open_routes(service: Service) -> list[Route]:
    """Return the routes that need no key; the form asks for one itself."""

    async def alive(_: Request) -> Response:
        return json_answer({"live": True})

    async def ready(_: Request) -> Response:
        service.check_ready()
        return json_answer({"ready": True})

    async def description(_: Request) -> Response:
        return json_answer(openapi(service))

    async def page(request: Request) -> Response:
        return await (answer_form if request.method == "POST" else answer_page)(service, request)

    return [
        Route(_PAGE, page, methods=["GET", "POST"]),
        Route("/healthz", alive),
        Route("/readyz", ready),
        Route("/v2/health/live", alive),
        Route("/v2/health/ready", ready),
        Route("/openapi.json", description),
    ]


def _keyed_routes(service: Service) -> list[Route]:
    async def predict(request: Request) -> Response:
        return await answer_predict(service, request)

    async def model(_: Request) -> Response:
        return json_answer(service.about())

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(service.metrics.text(), media_type=CONTENT_TYPE)

    return [
        Route("/v1/predict", predict, methods=["POST"]),
        Route("/v1/model", model),
        Route("/metrics", metrics),
        *inference_routes(service),
    ]


def _keyed(service: Service, routes: list[Route]) -> list[Route]:
    """Return routes that check the key before anything is read."""

    def keyed(endpoint: _Endpoint) -> _Endpoint:
        async def checked(request: Request) -> Response:
            service.check_key(given_key(request.headers))
            return await endpoint(request)

        return checked

    return [Route(route.path, keyed(route.endpoint), methods=list(route.methods or ())) for route in routes]


def _observed(app: ASGIApp, service: Service, routes: Sequence[Route]) -> ASGIApp:
    """Return an application whose answers have an id and common headers, and are counted."""

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["arrived"], state["request_id"], status = time.monotonic(), _request_id(scope), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = state["request_id"]
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await app(scope, receive, sent)
        finally:
            path = _path_label(_path_of(scope), service.name, routes)
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
            service.metrics.requests.labels(method, path, str(status)).inc()
            service.metrics.seconds.labels(path).observe(time.monotonic() - state["arrived"])

    return observed


def _path_label(path: str, name: str, routes: Sequence[Route]) -> str:
    """Return the path as metrics have it; all unknown paths are one, so that they cannot fill the memory."""
    found = next((route.path for route in routes if route.path_regex.match(path)), "other")
    return found.replace(f"/v2/models/{name}", "/v2/models/{name}", 1)


def _path_of(scope: Scope) -> str:
    """Return the path below the one at which the application is mounted."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    text = str(given.decode("latin-1"))
    if _REQUEST_ID.fullmatch(text):
        return text
    return f"{random.getrandbits(64):016x}"  # not a secret: asking the system for one releases the interpreter's lock


def _error(request: Request, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    body: dict[str, Any] = {"error": message, "code": code, "request_id": request.state.request_id}
    return json_answer(body, status=status, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedRequestError)
    if _path_of(request.scope) == _PAGE:
        return answer_refusal(request, error)
    return _error(request, error.status, error.code, error.message, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "bad_request")
    message = f"{request.method} {request.scope['path']}: {error.detail}"
    return _error(request, error.status_code, code, message, dict(error.headers or {}))


class _Guarded:
    """Refuses requests under other names than the service's, and those of other origins' pages."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            try:
                check_host(request.headers, self._access.allow_host)
                check_origin(request.method, request.headers, self._access.allow_origin)
            except RefusedRequestError as refusal:
                await (await _refused(request, refusal))(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _FailuresAnswered:
    """Answers errors of the service itself, and notes each in the log once.

    Starlette's own handler runs outside the middleware that allows other origins, and raises them again for the server
    to log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception as error:
            if scope["type"] != "http" or begun:
                raise
            request = Request(scope)
            log_failure(request.state.request_id, error)
            await (await _refused(request, failed()))(scope, receive, send)
