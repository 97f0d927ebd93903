"""The description of a service in OpenAPI 3.1."""

from typing import Any

from verydeep.prediction.options import NAMED_CLASSES
from verydeep.serving.inference_protocol import VERSION
from verydeep.serving.served_model import MOST_MAPS
from verydeep.serving.service import Service
from verydeep.version import __version__

_ERRORS = {
    "400": "The request cannot be understood.",
    "401": "A key is missing or unknown.",
    "403": "It uses a host name that the service does not accept, or comes from a page of another origin.",
    "404": "There is nothing at this path.",
    "405": "The path does not have this method; Allow names those that it has.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large, or has too many images.",
    "415": "The body is of a type or an encoding that is not accepted.",
    "422": "No image in it can be used; in the open inference protocol, one of them cannot.",
    "431": "The request's line and headers are too long.",
    "500": "The service has failed; its log says why.",
    "501": "The body has a Transfer-Encoding other than chunked.",
    "503": "The queue is full, or the service is starting, ending or broken; Retry-After says when to try again.",
    "504": "The images were not computed before the deadline.",
}

_OF_ALL_METHODS = ("401", "403", "404", "405", "431", "500", "503")

_OF_NO_PATH = ("405", "431", "501")
"""Errors that are JSON for every path, since what answers them knows none."""

_OF_NO_PATH_OR_ONE = ("400", "408")

_Schema = dict[str, Any]

_TEXT: _Schema = {"type": "string"}
_NUMBER: _Schema = {"type": "number"}
_BINARY: _Schema = {"type": "string", "format": "binary"}


def openapi(service: Service) -> dict[str, Any]:
    """Return the description, ready for JSON."""
    secured: list[_Schema] = [{"bearer": []}, {"key": []}] if service.needs_key else []
    return {
        "openapi": "3.1.0",
        "info": {"title": service.name, "version": __version__, "description": "Classifies images."},
        "paths": {path: _path(one, secured) for path, one in _paths(service).items()},
        "components": {
            "schemas": _schemas(service),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _path(operations: _Schema, secured: list[_Schema]) -> _Schema:
    """Return a path's operations with the errors that all have, and with keys where they need one."""
    path = dict(operations)
    is_open, errors_are = path.pop("open", False), path.pop("errors", None) or _json("Error")
    for name, operation in path.items():
        if name != "parameters":
            errors = {
                status: {"description": text, "content": _of_error(status, errors_are)}
                for status, text in _ERRORS.items()
                if name == "post" or status in _OF_ALL_METHODS
            }
            operation["responses"] |= errors
            if secured and not is_open:
                operation["security"] = secured
    return path


def _of_error(status: str, of_path: _Schema) -> _Schema:
    if status in _OF_NO_PATH:
        return _json("Error")
    return of_path | _json("Error") if status in _OF_NO_PATH_OR_ONE else of_path


def _paths(service: Service) -> _Schema:
    model = f"/v2/models/{service.name}"
    return {
        "/": {"get": _get("page", "The page", _html()), "post": _form(service), "open": True, "errors": _html()},
        "/healthz": {"get": _get("alive", "Whether the process is alive"), "open": True},
        "/readyz": {"get": _get("ready", "Whether requests should come here"), "open": True},
        "/openapi.json": {"get": _get("description", "This description"), "open": True},
        "/metrics": {"get": _get("metrics", "Figures for Prometheus", {"text/plain": {"schema": _TEXT}})},
        "/v1/model": {"get": _get("model", "The model and the limits")},
        "/v1/predict": {"post": _predict(service)},
        "/v2": {"get": _get("server", "The server, in the open inference protocol")},
        "/v2/health/live": {"get": _get("live", "As /healthz"), "open": True},
        "/v2/health/ready": {"get": _get("server_ready", "As /readyz"), "open": True},
        **_inference(model, ""),
        **{path: _of_version(one) for path, one in _inference(f"{model}/versions/{{version}}", "version_").items()},
    }


def _inference(place: str, prefix: str) -> _Schema:
    """Return the paths of a model in the open inference protocol; names of operations begin with `prefix`."""
    return {
        place: {"get": _get(f"{prefix}metadata", "The model's inputs and outputs")},
        f"{place}/ready": {"get": _get(f"{prefix}model_ready", "As /readyz")},
        f"{place}/infer": {"post": _infer(f"{prefix}infer")},
    }


def _of_version(operations: _Schema) -> _Schema:
    version = {"name": "version", "in": "path", "required": True, "schema": {"type": "string", "enum": [VERSION]}}
    return {"parameters": [version], **operations}


def _get(name: str, summary: str, content: _Schema | None = None) -> _Schema:
    return {"operationId": name, "summary": summary, "responses": {"200": _answer(content or _json())}}


def _answer(content: _Schema) -> _Schema:
    return {"description": "The answer.", "content": content}


def _json(schema: str | None = None) -> _Schema:
    return {"application/json": {"schema": _reference(schema) if schema else {"type": "object"}}}


def _html() -> _Schema:
    return {"text/html": {"schema": _TEXT}}


def _reference(schema: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{schema}"}


def _images(service: Service) -> _Schema:
    files = {"type": "array", "items": _BINARY, "maxItems": service.limits.max_images}
    return {"schema": {"type": "object", "properties": {"image": files}}}


def _form(service: Service) -> _Schema:
    images = _images(service)
    if service.needs_key:  # before the images, so that nothing of them is kept without it
        key = {**_TEXT, "description": "The first field, unless a header has the key."}
        images["schema"]["properties"] = {"key": key, **images["schema"]["properties"]}
    body = {"required": True, "content": {"multipart/form-data": images}}
    operation = _get("form", "The form of the page, as browsers send it", _html())
    return {**operation, "requestBody": body}


def _predict(service: Service) -> _Schema:
    top = {"type": "integer", "minimum": 1, "default": NAMED_CLASSES}
    maps = {"type": "integer", "enum": [0, 1], "default": 0}
    content = {
        "application/octet-stream": {"schema": _BINARY},
        "image/*": {"schema": _BINARY},
        "multipart/form-data": _images(service),
    }
    several = {"type": "object", "properties": {"predictions": {"type": "array", "items": _reference("Prediction")}}}
    answer = {"oneOf": [_reference("Prediction"), {**several, "required": ["predictions"]}]}
    return {
        **_get("predict", "Classes of an image or of several", {"application/json": {"schema": answer}}),
        "parameters": [
            {"name": "top", "in": "query", "schema": top, "description": "Number of classes."},
            {"name": "maps", "in": "query", "schema": maps, "description": f"Score maps of up to {MOST_MAPS} classes."},
        ],
        "requestBody": {"required": True, "content": content},
    }


def _infer(name: str) -> _Schema:
    operation = _get(name, "Classes of images in tensors of BYTES")
    content = {**_json(), "application/octet-stream": {"schema": _BINARY}}
    return {**operation, "requestBody": {"required": True, "content": content}}


def _schemas(service: Service) -> _Schema:
    pair = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
    class_map = {
        "class": _TEXT,
        "grid": {"type": "array", "items": {"type": "array", "items": _NUMBER}},
        "stride": {"type": "integer", "description": "Pixels from one position to the next."},
        "window": {"type": "integer", "description": "Pixels of a side that a position sees."},
        "offset": {**pair, "description": "First pixel down and to the right."},
        "size": {**pair, "description": "Height and width of the rescaled image in pixels."},
    }
    prediction = {
        "image": _TEXT,
        "classes": {"type": "array", "items": _TEXT},
        service.model.numbers: {"type": "array", "items": _NUMBER},
        "error": {"type": ["string", "null"]},
        "score_map": {"type": "null"},
        "maps": {"type": "array", "items": _reference("ClassMap")},
    }
    return {
        "Prediction": {"type": "object", "properties": prediction, "required": ["image", "classes"]},
        "ClassMap": {"type": "object", "properties": class_map, "required": list(class_map)},
        "Error": {
            "type": "object",
            "properties": {"error": _TEXT, "code": _TEXT, "request_id": _TEXT},
            "required": ["error", "code", "request_id"],
        },
    }
