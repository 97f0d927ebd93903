"""The page of a service: a form for images, and the model's predictions for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verydeep.evaluation.score_maps import OPACITY, legend
from verydeep.presentation.pages import render
from verydeep.serving.image_outcomes import ImageOutcome, Numbers
from verydeep.serving.page_texts import PageTexts
from verydeep.serving.refusals import RefusedRequestError

_MOST_CLASSES = 1000
"""Names of classes that the page lists; `GET /v1/model` has all."""

_LEGEND = legend()
"""Made on import: Matplotlib takes a third of a second, in which the event loop would answer nobody."""

_OF_SCRIPT = (
    *("busy", "busy_of", "stopped", "done", "no_result"),
    *("no_connection", "unexpected", "file_too_large", "unreadable", "no_picture"),
)
"""Texts that the page's script fills in."""


@dataclass(frozen=True, kw_only=True)
class FormResult:
    """The result of a form that was sent."""

    images: Sequence[ImageOutcome] = ()
    """The outcome of each; answers have a picture."""
    numbers: Numbers = "probabilities"
    """Kind of the numbers beside the classes."""
    refusal: RefusedRequestError | None = None
    """Why there are none."""
    group: str = ""
    """Prefix of the names of buttons: the page's script puts several results on one page."""


def page(
    about: Mapping[str, Any],
    texts: PageTexts,
    *,
    nonce: str,
    needs_key: bool = False,
    result: FormResult | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        about: as `GET /v1/model` answers.
        texts: in the reader's language.
        nonce: of the page's own style and script, the only ones that its Content-Security-Policy allows.
        needs_key: whether the form has to ask for a key (its field `key`); the model is described only after one.
        result: of a form that was sent: field `image` with one or more files.
    """
    values = {
        "about": about,
        "texts": texts,
        "of_script": {name: getattr(texts, name) for name in _OF_SCRIPT},
        "nonce": nonce,
        "needs_key": needs_key,
        "described": not needs_key or (result is not None and result.refusal is None),
        "result": result,
        "most_classes": _MOST_CLASSES,
        "legend": _LEGEND,
        "opacity": OPACITY,
    }
    return render("serving/page.html", values)


def refused_page(texts: PageTexts, *, nonce: str, result: FormResult) -> str:
    """Return a page that says only why a request is refused.

    Args:
        texts: as for `page`.
        nonce: as for `page`.
        result: has the refusal.
    """
    return render("serving/refused.html", {"texts": texts, "nonce": nonce, "result": result})


def results(texts: PageTexts, result: FormResult) -> str:
    """Return the part of the page that has a form's results, which the page's script puts into its place."""
    return render("serving/results.html", {"texts": texts, "result": result})
