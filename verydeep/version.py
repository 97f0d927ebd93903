"""The version, once: packaging and run folders read it from here; and what tells checkouts of one version apart."""

import hashlib
from functools import cache
from pathlib import Path

__version__ = "0.1.0"

_DIGITS = 12
"""Hexadecimal digits of a code's digest that are told."""


@cache
def code_digest() -> str:
    """Return the first digits of the SHA-256 of this package's Python files, which change between two releases."""
    package = Path(__file__).parent
    files = sorted(file.relative_to(package).as_posix() for file in package.rglob("*.py") if file.is_file())
    digests = (f"{name} {hashlib.sha256((package / name).read_bytes()).hexdigest()}\n" for name in files)
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:_DIGITS]
