"""Parts of pages that the program itself tells, as Markdown: its verbs, and the paths of its service."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from http_examples import example_service

from verydeep import __all__
from verydeep.cli import app
from verydeep.serving.openapi import openapi


def verbs() -> str:
    """Return a section for every verb, with its options."""
    _, begin, rest = app.generate_docs().partition("## verydeep ")  # a title, usage and a list of verbs come before
    return (begin + rest).replace("(see below)", "([Images](../how-to/data.md))")


def other_names(page: str) -> str:
    """Return a section of the public names that a page lacks; nothing if it has them all."""
    listed = set(re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", page, re.MULTILINE))
    names = sorted(set(__all__) - listed - {"__version__"})
    kinds = [f".. auto{'class' if name[0].isupper() else 'function'}:: {name}\n" for name in names]
    return "\n".join(["## More\n", "```{eval-rst}", ".. currentmodule:: verydeep\n", *kinds, "```"]) if names else ""


def http_tables() -> str:
    """Return a line for every operation, and one for every status of an error."""
    paths = _description()["paths"]
    operations = [(path, method, one) for path, ways in paths.items() for method, one in _operations(ways)]
    rows = [
        f"| `{method.upper()} {path}` | {one['summary']} | {_bodies(one)} | {_query(one)} |"
        for path, method, one in operations
    ]
    errors = {status: text["description"] for _, _, one in operations for status, text in one["responses"].items()}
    errors.pop("200")
    return "\n".join(
        [
            *("| request | answer | body | query |", "|---|---|---|---|", *rows, ""),
            *("| status | why |", "|---|---|", *(f"| {status} | {errors[status]} |" for status in sorted(errors))),
        ]
    )


def _description() -> dict[str, Any]:
    """Describe a service of a random network under the name NAME."""
    with TemporaryDirectory() as folder:
        return openapi(example_service(Path(folder), "NAME"))


def _operations(ways: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(method, one) for method, one in ways.items() if method in ("get", "post", "put", "delete")]


def _bodies(operation: dict[str, Any]) -> str:
    return ", ".join(f"`{kind}`" for kind in operation.get("requestBody", {}).get("content", {}))


def _query(operation: dict[str, Any]) -> str:
    return " ".join(f"`{one['name']}`: {one['description']}" for one in operation.get("parameters", ()))
