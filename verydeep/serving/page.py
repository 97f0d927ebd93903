"""The page of a service: a form for images, and what the model sees in them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from verydeep.presentation.pages import render


class FormResult(NamedTuple):
    """What a form that was sent has led to."""

    predictions: Sequence[Mapping[str, Any]] = ()
    """As `POST /v1/predict` answers them."""
    error: str | None = None
    """Why there are none."""


def page(about: Mapping[str, Any], *, nonce: str, needs_key: bool = False, result: FormResult | None = None) -> str:
    """Return the page as HTML.

    Args:
        about: as `GET /v1/model` answers.
        nonce: of the page's own style and script, the only ones that its Content-Security-Policy allows.
        needs_key: whether the form has to ask for a key (its field `key`).
        result: of a form that was sent: field `image` with one or more files.
    """
    return render("serving/page.html", {"about": about, "nonce": nonce, "needs_key": needs_key, "result": result})
