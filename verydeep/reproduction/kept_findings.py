"""Findings of a reproduction from its kept outcomes, without its runs and its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from verydeep.machine.documents import read_json
from verydeep.presentation.terminal import table_with
from verydeep.reproduction.contrasts import Outcomes, trainings_of
from verydeep.reproduction.fair_tests import with_descendants
from verydeep.reproduction.files import OUTCOMES, RESULTS
from verydeep.reproduction.findings import Finding, findings
from verydeep.reproduction.limits import beside_verdict
from verydeep.reproduction.stored_tests import outcomes_digest, read_outcomes
from verydeep.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class KeptFindings:
    """The claims, decided once more."""

    findings: tuple[Finding, ...]
    beside: Mapping[int, str]
    """Notes beside each verdict, by the number of the claim."""
    not_told: str
    """Reason why none was decided, if none was."""


@dataclass(frozen=True, kw_only=True)
class _Training:
    name: str
    start: str | None


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    init: str = Recipe.init


@dataclass(frozen=True, kw_only=True)
class _Results:
    """The fields of results.json that say how to read outcomes."""

    guessing: float
    margin: float
    unfinished: tuple[str, ...]
    """Earlier versions listed only trainings that were themselves cut off."""
    recipe: _Recipe = _Recipe()
    trainings: Sequence[_Training] = ()
    seeds: tuple[int, ...] = ()
    outcomes_sha256: str = ""
    """Earlier versions did not keep it."""
    not_told: str = ""


def kept_findings(folder: str | Path, *, margin: float | None = None) -> KeptFindings:
    """Decide the claims by a folder's outcomes.npz; results.json says how to read it.

    Where the report could not decide, for example because tests had different images, nothing is decided here.

    Args:
        folder: the folder that `reproduce` wrote.
        margin: as for `findings`; None: that of the report.

    Raises:
        ValueError: a file is missing or damaged, the two are not of the same report, or as `check_margin`.
    """
    folder = Path(folder)
    outcomes = read_outcomes(folder / OUTCOMES)
    try:
        results = read_json(folder / RESULTS, _Results)
    except ValueError as error:
        raise ValueError(f"{error} (verydeep reproduce writes it)") from error
    if results.not_told:
        return KeptFindings(findings=(), beside={}, not_told=results.not_told)
    starts = {one.name: one.start for one in results.trainings}
    _check_the_same_report(folder, outcomes, results)
    unfinished = {*results.unfinished, *with_descendants(results.unfinished, starts)}
    margin = results.margin if margin is None else margin
    found = findings(outcomes, guessing=results.guessing, margin=margin, unfinished=unfinished)
    beside = {one.number: beside_verdict(one, init=results.recipe.init, trainings=[*starts]) for one in found}
    return KeptFindings(findings=found, beside=beside, not_told="")


def _check_the_same_report(folder: Path, outcomes: Outcomes, results: _Results) -> None:
    """Refuse outcomes that are not those which results.json tells about.

    Then one of the two files is of an earlier report: the process that wrote the later one was killed in between. Where
    results.json has no digest of them, more trainings than it lists or another number of seeds show it.
    """
    trainings, seeds = {one.name for one in results.trainings}, {len(results.seeds)}
    if results.outcomes_sha256:
        others = outcomes_digest(outcomes) != results.outcomes_sha256
    else:
        more = {name for test in outcomes for name in trainings_of(test)} - trainings if trainings else set()
        others = bool(more) or (bool(results.seeds) and {len(wrong) for wrong in outcomes.values()} != seeds)
    if others:
        raise ValueError(
            f"{folder / OUTCOMES} and {RESULTS} are not of one report: repeat verydeep reproduce, which writes both"
        )


def findings_table(kept: KeptFindings) -> Table:
    """Return a table of the verdicts, of networks and of the trained ones alone, with the results of the parts."""
    table = table_with(None, left=("", "claim", "verdict", "of these trained networks", "its parts"), right=())
    for one in kept.findings:
        beside = f" ({kept.beside[one.number]})" if kept.beside[one.number] else ""
        verdicts = (one.verdict.replace("_", " ") + beside, one.verdict_of_trained.replace("_", " "))
        table.add_row(str(one.number), one.says, *verdicts, Text(one.why))
    return table
