"""The verb `findings`."""

from pathlib import Path

from verydeep.commands.options import JsonFile
from verydeep.presentation.terminal import show


def findings(folder: Path, *, margin: float | None = None, json_file: JsonFile = None) -> None:
    """Decide the claims of a finished reproduction once more, from the outcomes that it kept of every test.

    Args:
        folder: What reproduce wrote: results.json and outcomes.npz are read.
        margin: Percentage points up to which errors count as alike; by default those of the report.
        json_file: Write the findings to this file as well (- for standard output instead of the table).
    """
    from verydeep.reproduction.kept_findings import findings_table, kept_findings

    kept = kept_findings(folder, margin=margin)
    figures = {"findings": [one.to_dict() for one in kept.findings], "not_told": kept.not_told}
    show(figures, json_file, kept.not_told or findings_table(kept))
