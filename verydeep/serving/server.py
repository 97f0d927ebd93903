"""The server: one process with one event loop that listens until it is told to end, and then drains."""

import asyncio
import logging
import math
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import uvicorn

from verydeep.machine.errors import reason
from verydeep.numbers import decimal, trimmed
from verydeep.serving.app import application
from verydeep.serving.connection import TimedConnection
from verydeep.serving.options import Listening
from verydeep.serving.service import Service

_BACKLOG = 2048


def serve(service: Service, socket: socket.socket, grace: float, say: Callable[[str], None]) -> None:
    """Listen until SIGTERM or Ctrl-C, then answer the requests that were accepted.

    Args:
        service: answers the requests.
        socket: as `bound_socket` returns it.
        grace: seconds after SIGTERM in which new requests are still accepted.
        say: is told the address when the service is ready, and when the end has begun.

    Raises:
        Exception: the model's failure; it cannot be computed any more.
        KeyboardInterrupt: it was Ctrl-C.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # bad requests would fill the log
    say(f"{service.name} is being prepared: until then requests are refused with 503")
    if asyncio.run(_until_signal(service, socket, grace, say)) == signal.SIGINT:
        raise KeyboardInterrupt


def bound_socket(listening: Listening) -> socket.socket:
    """Return a socket that is bound but does not listen, so that a port in use is reported before a model is loaded.

    Raises:
        OSError: the address cannot be used; the message names it.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(listening.host, listening.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
        return bound
    except (OSError, UnicodeError) as error:  # UnicodeError: of a name with two dots in a row, or one that is too long
        raise OSError(f"cannot listen on {listening.host}, port {listening.port}: {reason(error)}") from error


def _server_for(service: Service) -> uvicorn.Server:
    """Return uvicorn's server, with the service's limits."""
    limits = service.limits
    config = uvicorn.Config(
        application(service),
        http=partial(  # type: ignore[arg-type]
            TimedConnection,
            seconds=limits.body_seconds,
            count=lambda status: service.metrics.requests.labels("other", "other", str(status)).inc(),
            cut_off=service.metrics.cut_off.inc,
        ),
        ws="none",
        loop="asyncio",
        log_level="error",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=math.ceil(limits.body_seconds + limits.deadline),
        timeout_notify=1,
    )
    server = uvicorn.Server(config)

    async def notice_failure() -> None:
        server.should_exit |= service.queue.failure is not None

    config.callback_notify = notice_failure
    return server


def _told(say: Callable[[str], None], line: str) -> None:
    """Tell a line, if somebody still listens: a service goes on, and ends, without."""
    with suppress(OSError):
        say(line)


async def _tell_when_ready(service: Service, socket: socket.socket, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    await service.queue.until_ready()
    host, port = socket.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    prepared = decimal(time.monotonic() - began, 1)
    _told(say, f"{service.name} at {address} (prepared in {prepared} s; Ctrl-C ends it)")


async def _until_signal(service: Service, socket: socket.socket, grace: float, say: Callable[[str], None]) -> int:
    """Serve until a signal; return which one it was."""
    server, loop, received = _server_for(service), asyncio.get_running_loop(), [0]

    def stop() -> None:
        server.should_exit = True

    def end(number: int) -> None:
        server.force_exit = server.should_exit and number == signal.SIGINT
        if not service.draining:
            service.draining, received[0] = True, number
            seconds = grace if number == signal.SIGTERM else 0
            more = (
                f"requests are accepted for {trimmed(seconds)} s more" if seconds else "no more requests are accepted"
            )
            loop.call_later(seconds, stop)
            _told(say, f"shutting down: {more}, and all that were accepted are answered")
        elif number == signal.SIGINT:
            stop()

    def signalled(number: int, _frame: object) -> None:  # may interrupt anything, even a line that is being printed
        loop.call_soon_threadsafe(end, number)

    server.handle_exit = signalled  # type: ignore[method-assign, assignment]
    telling = loop.create_task(_tell_when_ready(service, socket, say))
    await server.serve(sockets=[socket])
    telling.cancel()
    if service.queue.failure is not None:
        raise service.queue.failure
    return received[0]
