"""The verb `serve`."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from verydeep.commands.options import TESTING
from verydeep.evaluation.protocols import Method, Scales
from verydeep.machine.errors import say
from verydeep.machine.libraries import EXTRAS, library
from verydeep.machine.runtime import Device, Runtime
from verydeep.networks.grids import PoolingGrid
from verydeep.serving.options import Access, Limits, Listening

_LOCALHOST = "localhost"

ListeningOptions = Annotated[Listening, Parameter(name="*", group="Listening")]
LimitOptions = Annotated[Limits, Parameter(name="*", group="Limits")]
AccessOptions = Annotated[Access, Parameter(name="*", group="Access")]


def serve(
    run: Path,
    *,
    name: str | None = None,
    protocol: Annotated[Method | None, TESTING] = None,
    scales: Annotated[Sequence[int] | Scales | None, TESTING] = None,
    grid: Annotated[PoolingGrid | None, TESTING] = None,
    device: Device = Runtime.device,
    threads: int | None = None,
    listening: ListeningOptions = Listening(),
    limits: LimitOptions = Limits(),
    access: AccessOptions = Access(),
) -> None:
    """Classify images over HTTP: a page for people at /, and POST /v1/predict for programs.

    It listens on this machine only, unless --host says otherwise. After SIGTERM or Ctrl-C it answers the requests that
    it has accepted, and ends. GET /openapi.json describes all paths.

    Args:
        run: A run folder, hub:NAME, a file that verydeep export wrote, or a classifier of features.
        name: Name of the model on the page and in paths of /v2; by default that of RUN.
        protocol: As for predict; a classifier of features takes none of these three.
        scales: As for predict.
        grid: As for predict.
        device: Device of the network; auto takes CUDA, else MPS, else the CPU.
        threads: Threads that compute on a CPU; by default one for each core that may be used.
    """
    for package, extra in EXTRAS.items():
        if extra == "serve":
            library(package, needed_by="verydeep serve")
    from verydeep.serving.served_model import served_model
    from verydeep.serving.server import bound_socket
    from verydeep.serving.server import serve as serve_until_told
    from verydeep.serving.service import Service, read_keys

    if name is not None and name != _as_name(name):
        raise ValueError(f"--name has letters, digits, '.', '_' and '-' only, not {name!r}")
    keys = read_keys(access.key_file)
    with bound_socket(listening) as socket:
        runtime = Runtime(device=device, threads=threads)
        model = served_model(run, protocol=protocol, scales=scales, grid=grid, runtime=runtime)
        local = _is_local(listening.host)
        if local:
            access = replace(access, allow_host=(_LOCALHOST, *access.allow_host))
        service = Service(model, name or _name(run), limits, access, keys=keys)
        for note in (*model.notes, *_notes_on(listening, access, local=local)):
            say(note)
        serve_until_told(service, socket, listening.grace, say)


def _is_local(host: str) -> bool:
    """Return whether no other machine reaches this address."""
    from verydeep.serving.origins import is_address  # needs NumPy

    return host == _LOCALHOST or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def _notes_on(listening: Listening, access: Access, *, local: bool) -> list[str]:
    if local or access.key_file is not None:
        return []
    return [f"whoever reaches {listening.host} may use the service: --key-file FILE asks for keys"]


def _name(run: Path) -> str:
    """Return the name of a folder, that of a file without its ending, or the last part of `hub:OWNER/NAME`."""
    return _as_name(run.stem if run.is_file() else run.resolve().name if run.exists() else run.name.rpartition(":")[2])


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).strip(".") or "model"
