"""The open inference protocol (v2), as clients of KServe and Triton speak it: images as tensors of BYTES.

Specification: https://github.com/kserve/open-inference-protocol. Tensors in binary follow Triton's extension
`binary_tensor_data`.
"""

import base64
import binascii
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from verydeep.machine.documents import json_text, parse_json
from verydeep.machine.errors import escaped, one_line
from verydeep.numbers import counted, number
from verydeep.prediction.options import NAMED_CLASSES
from verydeep.serving.answers import json_answer
from verydeep.serving.image_outcomes import ImageAnswer
from verydeep.serving.predict_request import checked_top
from verydeep.serving.refusals import RefusedRequestError, bad_request, failed, unusable
from verydeep.serving.served_model import Wanted
from verydeep.serving.service import Service
from verydeep.version import __version__

BINARY_LENGTH = "Inference-Header-Content-Length"
"""Header that says where JSON ends and binary tensors begin."""

_INPUT = "images"

VERSION = "1"
"""Version of the model: a service has one."""

_MOST_VALUES = 10_000
"""Brackets, commas and colons of a request in JSON: a megabyte of them would take 30 in memory, and seconds."""

_LONGEST_NAME = 1000
"""Characters of an id or a name. To escape the id in an answer takes a microsecond for each, while nobody else is
answered."""

_SHOWN = 100
"""Characters of a name that are repeated in a message."""


@dataclass(frozen=True, kw_only=True)
class _Input:
    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: dict[str, Any] = field(default_factory=dict)
    data: list[Any] | None = None


@dataclass(frozen=True, kw_only=True)
class _Output:
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Inference:
    """The fields of a request."""

    inputs: tuple[_Input, ...]
    outputs: tuple[_Output, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    id: str | None = None


def inference_routes(service: Service) -> list[Route]:
    """Return the routes that need a key; /v2/health needs none."""

    async def server(_: Request) -> Response:
        return json_answer({"name": "verydeep", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def metadata(request: Request) -> Response:
        _check_version(request)
        return json_answer(_metadata(service))

    async def ready(request: Request) -> Response:
        _check_version(request)
        service.check_ready()
        return json_answer({"name": service.name, "ready": True})

    async def infer(request: Request) -> Response:
        _check_version(request)
        return await _infer(service, request)

    model = f"/v2/models/{service.name}"
    routes = [Route("/v2", server)]
    for place in (model, f"{model}/versions/{{version}}"):
        routes += [Route(place, metadata), Route(f"{place}/ready", ready)]
        routes.append(Route(f"{place}/infer", infer, methods=["POST"]))
    return routes


def _check_version(request: Request) -> None:
    version = request.path_params.get("version", VERSION)
    if version != VERSION:
        raise RefusedRequestError(404, "not_found", f"this model has version {VERSION} only")


def _metadata(service: Service) -> dict[str, Any]:
    return {
        "name": service.name,
        "versions": [VERSION],
        "platform": "verydeep",
        "inputs": [{"name": _INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "classes", "datatype": "BYTES", "shape": [-1, -1]},
            {"name": service.model.numbers, "datatype": "FP64", "shape": [-1, -1]},
        ],
    }


async def _infer(service: Service, request: Request) -> Response:
    header = request.headers.get(BINARY_LENGTH)
    async with service.bodies.body(request) as body:
        said, images = await service.parsed(request, body.room, _read, body.taken(), header, service.limits.max_images)
        asked = _outputs(said, ("classes", service.model.numbers))
        top = checked_top(str(said.parameters.get("top", NAMED_CLASSES)))
        wanted = [Wanted(f"image {number}", top) for number in range(len(images))]
        found = await service.outcomes(request, body.room, images, wanted)
    if found.failed:
        raise failed()
    if found.refusals:
        raise unusable("; ".join(map(str, found.refusals)), found.refusals)
    return _response(service, said, asked, found.answers, min(top, len(service.model.classes)))


def _read(body: bytes, header: str | None, most: int) -> tuple[_Inference, list[bytes]]:
    """Return the request without its images, and its images; for a thread, since a body may be large."""
    said, rest = _parsed(body, header)
    return replace(said, inputs=()), _images(said, rest, most)


def _parsed(body: bytes, header: str | None) -> tuple[_Inference, memoryview]:
    """Return the request, and the bytes of its binary tensors."""
    length = len(body)
    if header is not None:
        if not (header.isascii() and header.isdigit() and len(header) < 20 and int(header) <= length):
            raise bad_request(f"{BINARY_LENGTH} is not a number of bytes of the body")
        length = int(header)
    head = body[:length]
    if len(head) - len(head.translate(None, b"[{,:")) > _MOST_VALUES:
        raise bad_request(f"the request has more than {number(_MOST_VALUES)} values in JSON")
    try:
        said = parse_json(head, _Inference)
    except ValueError as error:
        raise bad_request(f"the request is not one of the inference protocol: {one_line(error)}") from None
    names = [*(one.name for one in said.inputs), *(one.name for one in said.outputs)]
    if any(len(text) > _LONGEST_NAME for text in (said.id or "", *names)):
        raise bad_request(f"the id or a name has more than {number(_LONGEST_NAME)} characters: use a shorter one")
    return said, memoryview(body)[length:]


def _images(said: _Inference, rest: memoryview, most: int) -> list[bytes]:
    if [one.name for one in said.inputs] != [_INPUT] or said.inputs[0].datatype != "BYTES":
        raise bad_request(f"the model has one input, {_INPUT!r}, of datatype BYTES")
    (given,) = said.inputs
    size = given.parameters.get("binary_data_size")
    if size is not None:
        if size != len(rest) or isinstance(size, bool):
            there = counted(len(rest), "byte")
            raise bad_request(f"binary_data_size is {escaped(str(size)[:_SHOWN])}, but what follows has {there}")
        images = list(_binary(rest, most))
    elif given.data is None or len(rest):
        raise bad_request("the input has no data" if given.data is None else "bytes follow that no input names")
    else:
        images = [_from_text(one) for one in _flat(given.data, most)]
    # Triton's clients send [N] or, for models with batches, [N, 1].
    if given.shape not in ((len(images),), (len(images), 1)):
        raise bad_request(
            f"the shape {list(given.shape[:4])} does not go with {counted(len(images), 'image')}: it is [N] or [N, 1]"
        )
    if not images:
        raise bad_request("there is no image in the input")
    return images


def _binary(rest: memoryview, most: int) -> Iterator[bytes]:
    """Yield the elements of a tensor of BYTES: each begins with its length in 4 bytes."""
    at = count = 0
    while at < len(rest):
        count += 1
        _check_count(count, most)
        if at + 4 > len(rest):
            raise bad_request("the tensor ends within an element")
        (length,) = struct.unpack_from("<I", rest, at)
        at += 4
        if at + length > len(rest):
            raise bad_request("the tensor ends within an element")
        yield bytes(rest[at : at + length])
        at += length


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise RefusedRequestError(413, "too_many_images", f"one request takes up to {counted(most, 'image')}")


def _flat(data: Sequence[Any], most: int) -> list[Any]:
    """Return the elements of a tensor in JSON, which may be flat or nested."""
    _check_count(len(data), most)
    return [one[0] if isinstance(one, list) and len(one) == 1 else one for one in data]


def _from_text(element: object) -> bytes:
    try:
        if isinstance(element, str):
            return base64.b64decode(element, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise bad_request("images in JSON are text in base64; the binary extension takes them as they are")


def _outputs(said: _Inference, known: tuple[str, str]) -> list[tuple[str, bool]]:
    """Return the outputs that are asked for, and whether in binary."""
    usual = said.parameters.get("binary_data_output") is True
    asked = [(one.name, one.parameters.get("binary_data", usual) is True) for one in said.outputs]
    for name, _ in asked:
        if name not in known:
            raise bad_request(f"unknown output {escaped(name[:_SHOWN])!r}: there are {' and '.join(known)}")
    if len(dict(asked)) < len(asked):
        raise bad_request("an output is asked for twice")
    return asked or [(name, usual) for name in known]


def _response(
    service: Service,
    said: _Inference,
    asked: Sequence[tuple[str, bool]],
    answers: Sequence[ImageAnswer],
    top: int,
) -> Response:
    outputs: list[dict[str, Any]] = []
    binary = b""
    for name, as_binary in asked:
        of_classes = name == "classes"
        values = [value for one in answers for value in (one.classes if of_classes else one.numbers)[:top]]
        datatype = "BYTES" if of_classes else "FP64"
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(answers), top]}
        if as_binary:
            tensor = _tensor(values)
            binary += tensor
            output["parameters"] = {"binary_data_size": len(tensor)}
        else:
            output["data"] = values
        outputs.append(output)
    body = {"model_name": service.name, "model_version": VERSION, "outputs": outputs}
    if said.id is not None:
        body["id"] = said.id
    if not any(as_binary for _, as_binary in asked):
        return json_answer(body)
    head = json_text(body).encode(errors="backslashreplace")
    return Response(head + binary, headers={BINARY_LENGTH: str(len(head))}, media_type="application/octet-stream")


def _tensor(values: Sequence[str | float]) -> bytes:
    """Return values as a tensor in binary: texts with their lengths, or numbers of 8 bytes, the lowest byte first."""
    texts = [one.encode(errors="backslashreplace") for one in values if isinstance(one, str)]
    if texts:
        return b"".join(struct.pack("<I", len(one)) + one for one in texts)
    return struct.pack(f"<{len(values)}d", *values)
