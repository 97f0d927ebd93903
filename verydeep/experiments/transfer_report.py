"""Features on other data as a self-contained HTML page: figures beside the paper's, differences, classes."""

from pathlib import Path

from verydeep import atomic, runs
from verydeep.experiments.paper import TABLE_11, TABLE_12
from verydeep.experiments.transfer_results import Transfer
from verydeep.pages import render

HTML, RESULTS = "transfer.html", "transfer.json"

LISTED = 20
"""Images that cannot be used, at most."""


def write_transfer_report(found: Transfer, folder: str | Path) -> Path:
    """Writes transfer.html and transfer.json into `folder`, which is made if missing; returns the page's path.

    Raises:
        OSError: the files cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / RESULTS, found.to_dict())
    values = {
        "found": found,
        "own": next(one for one in reversed(found.descriptors) if one.kind != "baseline"),
        "table_11": TABLE_11,
        "table_12": TABLE_12,
        "unusable": list(found.unusable.items())[:LISTED],
        "command": runs.command(),
        "versions": runs.versions(),
    }
    atomic.write_text(folder / HTML, render(HTML, values, number="{:,}".format))
    return folder / HTML
