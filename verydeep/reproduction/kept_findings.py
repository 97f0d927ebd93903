"""Findings of a reproduction from what it kept, without its runs and its images."""

import json
from pathlib import Path

from rich.table import Table
from rich.text import Text

from verydeep.presentation.terminal import table_with
from verydeep.reproduction.findings import Finding, findings
from verydeep.reproduction.report import OUTCOMES, RESULTS
from verydeep.reproduction.stored_tests import read_outcomes


def kept_findings(folder: Path, *, margin: float | None = None) -> tuple[Finding, ...]:
    """Decide the claims from a folder's outcomes.npz, and from results.json how they are to be read.

    Args:
        folder: what `reproduce` wrote.
        margin: as for `findings`; None: that of the report.

    Raises:
        ValueError: a file is missing or damaged, or a margin that is not above 0.
    """
    outcomes = read_outcomes(folder / OUTCOMES)
    try:
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        guessing, unfinished = float(results["guessing"]), tuple(map(str, results["unfinished"]))
        margin = float(results["margin"]) if margin is None else margin
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / RESULTS} cannot be read: {error!r} (verydeep reproduce writes it)") from error
    return findings(outcomes, guessing=guessing, margin=margin, unfinished=unfinished)


def findings_table(found: tuple[Finding, ...]) -> Table:
    """Return a table of the verdicts, of networks and of just the trained ones, with what the parts say."""
    table = table_with(None, left=("", "claim", "verdict", "of these trained networks", "its parts"), right=())
    for one in found:
        verdicts = (one.verdict.replace("_", " "), one.verdict_of_trained.replace("_", " "))
        table.add_row(str(one.number), one.says, *verdicts, Text(one.why))
    return table
