"""Features on other data as a self-contained HTML page: figures beside the paper's, differences, classes."""

from pathlib import Path

from verydeep.evaluation.charts import BLUE
from verydeep.presentation.pages import INK, shared_folder, svg_figure, write_page
from verydeep.runs.record import command, versions
from verydeep.transfer_learning.linear_svm import CHOICES_OF_C
from verydeep.transfer_learning.paper import TABLE_11, TABLE_12
from verydeep.transfer_learning.results import Transfer

HTML, RESULTS = "transfer.html", "transfer.json"

LISTED = 20
"""Images that cannot be used, at most."""


def write_transfer_report(found: Transfer, folder: str | Path) -> Path:
    """Writes transfer.html and transfer.json into `folder`, which is made if missing; returns the page's path.

    Raises:
        OSError: the files cannot be written.
    """
    shared = shared_folder(found.runs)
    values = {
        "found": found,
        "chart": _chart(found, shared),
        "choices_of_c": CHOICES_OF_C,
        "folder": shared,
        "own": next(one for one in reversed(found.descriptors) if one.kind != "baseline"),
        "table_11": TABLE_11,
        "table_12": TABLE_12,
        "unusable": list(found.unusable.items())[:LISTED],
        "command": command(),
        "versions": versions(),
    }
    return write_page(
        Path(folder),
        f"transfer_learning/{HTML}",
        values,
        beside={RESULTS: found.to_dict()},
        short=lambda name: name.removeprefix(shared),
    )


def _chart(found: Transfer, shared: str) -> str:
    """A dot with its interval for every descriptor, hollow for baselines."""
    several = len(found.descriptors)
    with svg_figure(panel=(7.4, 0.8 + 0.36 * several)) as ((panel,), svg):
        panel.axvline(found.chance, color=INK, linewidth=1, linestyle=":")
        for place, one in enumerate(found.descriptors):
            if one.mean_ci95 is not None:
                panel.hlines(place, *one.mean_ci95, color=BLUE)
            panel.plot(one.mean, place, color=BLUE, marker="o", fillstyle="none" if one.kind == "baseline" else "full")
        panel.set_yticks(range(several), [one.name.removeprefix(shared) for one in found.descriptors])
        panel.set_ylim(several - 0.5, -0.5)
        panel.set_xlim(left=0)
        panel.set_xlabel(f"{found.measure}, %")
    return svg[0]
