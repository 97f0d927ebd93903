"""Addresses, `https://...`, where a file or a folder is expected: nothing is fetched."""

import os
import re

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_address(text: str) -> bool:
    """Return whether a text is an address and not a path of something that is there."""
    return _ADDRESS.match(text) is not None and not os.path.lexists(text)
