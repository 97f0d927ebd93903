"""Results on other data as a self-contained HTML page: figures beside the paper's, differences, classes."""

from pathlib import Path

from verydeep.evaluation.charts import BLUE
from verydeep.evaluation.predictions import as_text
from verydeep.presentation.pages import INK, shared_folder, svg_figure, write_page
from verydeep.presentation.report_files import TRANSFER
from verydeep.presentation.translation import DEFAULT_LANGUAGE, Language
from verydeep.runs.record import command, versions
from verydeep.transfer_learning.linear_svm import CHOICES_OF_C
from verydeep.transfer_learning.paper import TABLE_11, TABLE_12
from verydeep.transfer_learning.results import Transfer

_HTML, _RESULTS = TRANSFER

_MOST_LISTED = 20
"""Unusable images that the page names."""


def write_transfer_report(result: Transfer, folder: str | Path, *, language: Language = DEFAULT_LANGUAGE) -> Path:
    """Write transfer.html and transfer.json into `folder`, which is made if missing; return the page's path.

    `language` is that of the page; figures in JSON are the same.

    Raises:
        OSError: the files cannot be written.
    """
    shared = shared_folder(result.runs)
    values = {
        "result": result,
        "chart": _chart(result, shared),
        "choices_of_c": CHOICES_OF_C,
        "folder": shared,
        "own": next(one for one in reversed(result.descriptors) if one.kind != "baseline"),
        "table_11": TABLE_11,
        "table_12": TABLE_12,
        "unusable": list(result.unusable.items())[:_MOST_LISTED],
        "command": command(),
        "versions": versions(),
    }
    return write_page(
        Path(folder),
        f"transfer_learning/{_HTML}",
        values,
        beside={_RESULTS: result.to_dict()},
        language=language,
        short=lambda name: name.removeprefix(shared),
    )


def _chart(result: Transfer, shared: str) -> str:
    """Draw a dot with its interval for every descriptor, hollow for baselines."""
    rows = len(result.descriptors)
    with svg_figure(panel=(7.4, 0.8 + 0.36 * rows)) as ((panel,), svg):
        panel.axvline(result.chance, color=INK, linewidth=1, linestyle=":")
        for row, one in enumerate(result.descriptors):
            if one.mean_ci95 is not None:
                panel.hlines(row, *one.mean_ci95, color=BLUE)
            panel.plot(one.mean, row, color=BLUE, marker="o", fillstyle="none" if one.kind == "baseline" else "full")
        panel.set_yticks(range(rows), [as_text(one.name.removeprefix(shared)) for one in result.descriptors])
        panel.set_ylim(rows - 0.5, -0.5)
        panel.set_xlim(left=0)
        panel.set_xlabel(f"{result.measure}, %")
    return svg[0]
