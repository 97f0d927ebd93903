"""Whose requests are answered: under which names of the service, and from which pages in a browser.

A browser sends what any page asks it to send, to services on this machine too. A page of another origin is known by
Sec-Fetch-Site and Origin (https://www.w3.org/TR/fetch-metadata/). One whose own name was made to point here ("DNS
rebinding") is of the same origin as far as the browser knows; it is known by the name in Host.

A service that only this machine reaches accepts `localhost` and the names that it was given; one that other machines
reach accepts all names, since only its operator knows them. Addresses are always accepted.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence

from verydeep.machine.errors import escaped
from verydeep.serving.options import ANY
from verydeep.serving.refusals import RefusedRequestError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+?)\.?(:[0-9]*)?")

_SHOWN = 100
"""Characters of a header that are repeated in a message."""


def check_host(headers: Mapping[str, str], allowed: Sequence[str]) -> None:
    """Refuse a request whose Host is a name that is not allowed; an address is always allowed.

    Args:
        headers: those of the request.
        allowed: names without a port; none, or *, for all.

    Raises:
        RefusedRequestError: it is another name.
    """
    host = headers.get("host")
    if host is None or not allowed or ANY in allowed:
        return
    found = _HOST.fullmatch(host)
    name = found[1].lower() if found else ""
    if not is_address(name.strip("[]")) and name not in map(str.lower, allowed):
        message = f"the service does not accept the host name {escaped(host[:_SHOWN])!r}: allow it with --allow-host"
        raise RefusedRequestError(403, "unknown_host", message)


def is_address(name: str) -> bool:
    """Return whether it is an IP address in its usual form."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_origin(method: str, headers: Mapping[str, str], allowed: Sequence[str]) -> None:
    """Refuse a request that a page of another origin has caused, unless it only follows a link to this one.

    Args:
        method: of the request.
        headers: of the request; programs send neither Origin nor Sec-Fetch-Site.
        allowed: origins, or * for all.

    Raises:
        RefusedRequestError: it is of another origin.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if ANY in allowed or origin in allowed:
        return
    if site is not None:
        own = site in ("same-origin", "none")
    else:  # not sent to plain HTTP on other machines, nor by old browsers
        own = origin is None or origin.partition("://")[2] == headers.get("host")
    link = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    if not own and not (link and method in ("GET", "HEAD")):
        of = f" ({escaped(origin[:_SHOWN])})" if origin else ""
        raise RefusedRequestError(
            403, "other_origin", f"pages of other origins{of} are refused: allow them with --allow-origin"
        )
