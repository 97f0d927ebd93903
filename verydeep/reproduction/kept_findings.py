"""Findings of a reproduction from what it kept, without its runs and its images."""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from verydeep.machine.documents import read_json
from verydeep.presentation.terminal import table_with
from verydeep.reproduction.findings import Finding, findings
from verydeep.reproduction.report import OUTCOMES, RESULTS
from verydeep.reproduction.stored_tests import read_outcomes


@dataclass(frozen=True, kw_only=True)
class _Results:
    """What results.json says of how outcomes are to be read."""

    guessing: float
    margin: float
    unfinished: tuple[str, ...]


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
        results = read_json(folder / RESULTS, _Results)
    except ValueError as error:
        raise ValueError(f"{error} (verydeep reproduce writes it)") from error
    margin = results.margin if margin is None else margin
    return findings(outcomes, guessing=results.guessing, margin=margin, unfinished=results.unfinished)


def findings_table(found: tuple[Finding, ...]) -> Table:
    """Return a table of the verdicts, of networks and of just the trained ones, with what the parts say."""
    table = table_with(None, left=("", "claim", "verdict", "of these trained networks", "its parts"), right=())
    for one in found:
        beside = f" ({one.beside})" if one.beside else ""
        verdicts = (one.verdict.replace("_", " ") + beside, one.verdict_of_trained.replace("_", " "))
        table.add_row(str(one.number), one.says, *verdicts, Text(one.why))
    return table
