"""Pages that need no other file: filled-in templates, and charts in the page's own colours."""

import hashlib
import html
import inspect
import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import files
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from verydeep import numbers
from verydeep.machine import atomic
from verydeep.machine.errors import escaped
from verydeep.presentation.translation import DEFAULT_LANGUAGE, Language, translated, words

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.axes import Axes

_NUMBERS: dict[str, Callable[..., str]] = dict(inspect.getmembers(numbers, inspect.isfunction))

_NUMBERS_IN: Mapping[Language, Mapping[str, Callable[..., str]]] = {
    "ja": {"interval": lambda *given: numbers.interval(*given).replace(" to ", "〜")}
}
"""Number formats with words in them, in other languages."""

INK = "#123456"
"""Placeholder of the page's text colour until the SVG is done."""

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "verydeep",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def write_page(
    folder: Path,
    template: str,
    values: Mapping[str, Any],
    *,
    beside: Mapping[str, Any],
    language: Language = DEFAULT_LANGUAGE,
    **filters: Callable[..., str],
) -> Path:
    """Write a page and the files beside it into a folder, which is made if missing; return the page's path.

    Args:
        folder: folder of all files.
        template: as for `render`; its last part is the page's name.
        values: as for `render`.
        beside: content of the other files by name: text, or a value for JSON.
        language: as for `render`.
        filters: as for `render`.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in beside.items():
        write = atomic.write_text if isinstance(content, str) else atomic.write_json
        write(folder / name, content)
    page = folder / PurePosixPath(template).name
    atomic.write_text(page, render(template, values, language, **filters))
    return page


def render(
    template: str, values: Mapping[str, Any], language: Language = DEFAULT_LANGUAGE, **filters: Callable[..., str]
) -> str:
    """Fill in the package's file `TEMPLATE.jinja`, such as `evaluation/evaluation.html`.

    Values in HTML and SVG are escaped. The functions of `numbers` are filters in every template, beside those that are
    given; `_` turns an English text into one of the language.
    """
    return _environment(language, **filters).get_template(f"{template}.jinja").render(values)


@lru_cache(maxsize=4)
def _environment(language: Language, **filters: Callable[..., str]) -> "Environment":
    """Return an environment, which keeps compiled templates; a service shows the same page again and again."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # `describe` prints without it

    templates = Environment(
        loader=FunctionLoader(lambda name: translated(_template(name, language), language)),
        autoescape=lambda name: name is not None and (".html" in name or ".svg" in name),
        undefined=StrictUndefined,
        finalize=_without_control,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known = words(language)
    said = {"_": lambda english: known.get(english, english)}
    templates.filters |= {
        "in_markdown": _in_markdown,
        "as_code": _as_code,
        **_NUMBERS,
        **_NUMBERS_IN.get(language, {}),
        **said,
        **filters,
    }
    templates.globals |= {"FINE": numbers.FINE, "language": language, "in_english": _in_english(language), **said}
    return templates


def _template(name: str, language: Language) -> str:
    """Return a template of the package, or the language's own version of it: `notes.ja.html.jinja`."""
    folder, _, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    own = files("verydeep") / folder / f"{stem}.{language}.{suffix}"
    return (own if own.is_file() else files("verydeep") / name).read_text(encoding="utf-8")


def _in_english(language: Language) -> "Markup":
    """Return the attribute of an element whose text is English even on a page in another language."""
    from markupsafe import Markup

    return Markup("" if language == "en" else ' lang="en"')


def html_table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as HTML for a notebook; names in it are escaped."""
    head, *lines = (
        "".join(f"<{tag}>{html.escape(escaped(cell))}</{tag}>" for cell in cells)
        for tag, cells in (("th", columns), *(("td", row) for row in rows))
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{html.escape(escaped(caption))}</caption><tr>{head}</tr>{body}</table>"


def _in_markdown(name: str) -> str:
    """Return a name on one line, escaped so that Markdown takes nothing in it for markup or HTML, in a table either."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", " ".join(name.split()))


def _as_code(text: str) -> str:
    """Return a text on one line as code in Markdown, whatever backticks it has (CommonMark 0.31, section 6.1)."""
    line = text.replace("\n", " ")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    # one space on either side is taken away again; without it a backtick at an end would lengthen the fence
    space = " " if line.startswith(("`", " ")) or line.endswith(("`", " ")) else ""
    return f"{fence}{space}{line}{space}{fence}"


def _without_control(value: Any) -> Any:
    """Escape control characters in names, which pages do not show, or obey; charts are escaped already."""
    return escaped(value) if type(value) is str else value


def shared_folder(folders: Sequence[str]) -> str:
    """Return the folder that all runs are in, ending with `/`, so that tables can leave it out; "" if there is none."""
    if len(folders) < 2:
        return ""
    levels = zip(*(name.split("/")[:-1] for name in folders), strict=False)
    return "".join(f"{names[0]}/" for names in takewhile(lambda names: len(set(names)) == 1, levels))


@contextmanager
def svg_figure(
    *, columns: int = 1, rows: int = 1, panel: tuple[float, float] = (4.6, 3.4), **subplots: Any
) -> Iterator[tuple[Sequence["Axes"], list[str]]]:
    """Yield axes to draw on, row by row, and a list into which the SVG is put when the block ends.

    Args:
        columns: columns of panels.
        rows: rows of panels.
        panel: width and height of a panel, in inches.
        subplots: further options of `Figure.subplots`, such as `sharex`.
    """
    import matplotlib as mpl  # takes a third of a second
    from matplotlib.figure import Figure

    svg: list[str] = []
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **subplots)
        yield list(axes.flat), svg
        buffer = io.StringIO()
        with warnings.catch_warnings():
            # A letter that Matplotlib's font lacks is text in the SVG, which the reader's fonts show.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    svg.append(_with_own_ids(escaped(text[text.index("<svg") :]).replace(INK, "currentColor")))


def _with_own_ids(svg: str) -> str:
    """Give ids that are referred to a prefix of this picture, since ids must be unique in a page; drop the others."""
    own, reference = hashlib.sha256(svg.encode()).hexdigest()[:8], r'((?:url\(|href=")#)([^")]+)'
    wanted = {name for _, name in re.findall(reference, svg)}
    svg = re.sub(r' id="([^"]+)"', lambda match: f' id="{own}-{match[1]}"' if match[1] in wanted else "", svg)
    return re.sub(reference, rf"\g<1>{own}-\2", svg)
