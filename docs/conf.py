"""How the pages of this folder become a site: `make docs`."""

import re
import sys
from functools import partial
from gettext import translation
from pathlib import Path
from typing import Any

import pydata_sphinx_theme
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

from from_the_program import http_tables, other_names, verbs  # noqa: E402
from http_examples import examples  # noqa: E402

from verydeep.version import __version__  # noqa: E402

project = "verydeep"
author = "the authors of verydeep"
version = release = __version__
language = "en"
default_role = "code"
smartquotes = False  # they would turn the two hyphens of an option into a dash

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns: list[str] = []
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_fence_as_directive = []
suppress_warnings = ["myst.header"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "pydata_sphinx_theme"
html_title = f"verydeep {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 7,
}


_BETWEEN_JAPANESE = re.compile("(?<=[\u3000-\u30ff\u4e00-\u9fff\uff00-\uffef])\n(?=[\u3000-\u30ff\u4e00-\u9fff])")

_WORDS = {
    language: translation(
        "sphinx", Path(pydata_sphinx_theme.__file__).parent / "locale", languages=[language], fallback=True
    )
    for language in ("en", "ja")
}


def setup(app: Sphinx) -> None:
    """Fill in what the program itself tells, and set the language of each page."""
    app.connect("env-get-outdated", _pages_from_the_program)
    app.connect("source-read", _with_parts_from_the_program)
    app.connect("source-read", _with_japanese_lines_joined)
    app.connect("html-page-context", _in_its_language)


def _pages_from_the_program(app: Sphinx, *_: object) -> list[str]:
    """Return the pages that are read again at each build: the program changes while they do not."""
    return [
        page
        for page in sorted(app.project.docnames)
        if "from docs/from_the_program.py" in Path(app.env.doc2path(page)).read_text(encoding="utf-8")
    ]


def _with_parts_from_the_program(_app: Sphinx, page: str, source: list[str]) -> None:
    others = partial(other_names, source[0])
    for name, written in (("verbs", verbs), ("paths", http_tables), ("examples", examples), ("others", others)):
        place = f"<!-- {name}: from docs/from_the_program.py -->"
        if page.startswith("reference/") and place in source[0]:
            source[0] = source[0].replace(place, written())


def _with_japanese_lines_joined(_app: Sphinx, page: str, source: list[str]) -> None:
    """Join lines of Japanese text, which has no spaces: browsers show one for the end of a line."""
    if page.startswith("ja/"):
        source[0] = _BETWEEN_JAPANESE.sub("", source[0])


def _in_its_language(app: Sphinx, page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    used = "ja" if page.startswith("ja/") else "en"
    context["language"] = used
    app.builder.templates.environment.install_gettext_translations(_WORDS[used])  # of the theme, such as 'On this page'
