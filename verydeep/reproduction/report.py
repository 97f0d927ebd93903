"""One finished grid as a self-contained HTML page, the same in Markdown, and its numbers as JSON."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verydeep.evaluation.charts import confusion_figure
from verydeep.evaluation.example_images import examples
from verydeep.evaluation.protocols import PROTOCOLS
from verydeep.evaluation.results import Evaluation
from verydeep.images.sources.splits import Splits
from verydeep.presentation.pages import write_page
from verydeep.presentation.translation import DEFAULT_LANGUAGE, Language
from verydeep.reproduction import paper
from verydeep.reproduction.answer import answer
from verydeep.reproduction.charts import error_against_depth, gains_chart, learning_curves, written
from verydeep.reproduction.claims import GAINS
from verydeep.reproduction.files import HTML, MARKDOWN, OUTCOMES, RESULTS
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.larger_run import larger_run, what_it_could_tell
from verydeep.reproduction.limits import TOPICS, beside_verdict, how_sure, listed, why_unfinished
from verydeep.reproduction.paper_tables import PAPER_TABLES
from verydeep.reproduction.plan_file import commands_of
from verydeep.reproduction.results import GridResults, grid_results
from verydeep.reproduction.stored_tests import StoredTests, outcomes_digest, write_outcomes
from verydeep.reproduction.studies import STUDIES
from verydeep.reproduction.study_report import study_page
from verydeep.reproduction.table_rows import outcomes
from verydeep.reproduction.trainings import SEVEN
from verydeep.runs.model import load_model

_CURVES = {"loss": ("loss", "training loss"), "validation": ("validation_error", "validation error, %")}
"""Pictures of the learning curves: the figure that each draws, and its name."""

MARKS = {"holds": "✓", "holds_in_part": "◐", "reversed": "✗", "cannot_be_told": "?"}
"""Signs of the verdicts, so that nothing depends on colour."""


def write_report(
    out: Path,
    *,
    grid: Grid,
    folders: Mapping[int, Path],
    tests: StoredTests,
    best: Evaluation | None = None,
    splits: Splits | None = None,
    language: Language = DEFAULT_LANGUAGE,
) -> Path:
    """Write report.html, report.md (with its pictures) and results.json into `out`, and return the first's path.

    Args:
        out: the folder of the grid.
        grid: what was done.
        folders: the folder with the runs of each seed.
        tests: results of the tests.
        best: evaluation of `table_rows.best_network` with one of the seeds. With it and `splits` the page has
            confusions, wrong images and score maps.
        splits: the images, which are read again for that.
        language: en or ja; figures in JSON are the same in both.
    """
    results = grid_results(grid, folders, tests, commands_of(out))
    shown = {} if best is None or splits is None else _best_network(best, splits, folders)
    confusions = [asdict(row) for row in shown["confusion"].rows] if shown else None
    charts, sure = _charts(results), how_sure(results)
    said = {
        "answer": answer(results),
        "how_sure": sure,
        "larger_run": larger_run(results.command),
        "could_tell": what_it_could_tell(grid, tests) if results.too_few_seeds and results.findings else None,
        "confusions": confusions,
    }
    studies = [one for one in STUDIES if one.name in grid.studies or study_page(out, one.name).is_file()]
    contents = _contents(results, shown, studies=bool(studies))
    pictures = {"charts": charts, "best_shown": shown}
    values = {**_values(results), **said, **pictures, "contents": contents, "studies": studies}
    filters: dict[str, Callable[..., str]] = {"range": written, "listed": listed, "unfinished_because": why_unfinished}
    svgs = {f"{name}.svg": svg for name, svg in charts.items()}
    write_page(out, f"reproduction/{MARKDOWN}", values, beside=svgs, language=language, **filters)
    write_outcomes(out / OUTCOMES, kept := outcomes(grid.entries, tests))
    limits = [sentence for sentences in sure.values() for sentence in sentences]
    numbers = {**results.to_dict(), **said, "limits": limits, "outcomes_sha256": outcomes_digest(kept)}
    return write_page(out, f"reproduction/{HTML}", values, beside={RESULTS: numbers}, language=language, **filters)


def _values(results: GridResults) -> dict[str, Any]:
    """Return the tables and sentences that pages show beside the pictures."""
    trainings = [one.name for one in results.trainings]
    return {
        **vars(results),
        "results": results,
        "recipe": results.shared_recipe,
        "steps": GAINS,
        "tables": {f"table-{table.number}": table for table in PAPER_TABLES if table.number in results.tables},
        "seven": SEVEN,
        "beside": {
            one.number: beside_verdict(one, init=results.recipe.init, trainings=trainings) for one in results.findings
        },
        "state_of_the_art": paper.TABLE_7,
        "clarifai": paper.CLARIFAI_WITH_OUTSIDE_DATA_TOP5_TEST,
        "topics": TOPICS,
        "marks": MARKS,
        "too_few_seeds": results.too_few_seeds,
        "protocols": PROTOCOLS,
    }


def _charts(results: GridResults) -> dict[str, str]:
    """Draw all pictures that there are figures for; SVG by name."""
    charts = {name: learning_curves(results.trainings, results.curves, *of) for name, of in _CURVES.items()}
    if 3 in results.tables:
        charts["depth"] = error_against_depth(results.trainings, results.tables[3], unfinished=results.unfinished)
    # Differences between untrained networks would hide the rest.
    if learned := [gain for gain in results.gains if gain.learned]:
        charts["gains"] = gains_chart(learned)
    return charts


def _contents(results: GridResults, shown: Mapping[str, Any], *, studies: bool) -> dict[str, str]:
    """Return the sections' headings by name, in their order: with too few seeds the findings come later."""
    few = results.too_few_seeds
    findings = {"findings": "What a larger run would tell" if few else "Findings", "sure": "How sure is this"}
    tables = {f"table-{table.number}": table.heading for table in PAPER_TABLES if table.number in results.tables}
    steps = {"steps": "What each step adds"} if results.gains else {}
    order = [tables, steps, findings] if few else [findings, tables, steps]
    curves = {} if few else {"curves": "Learning curves"}
    pictures = {
        "confusions": "Confusions of the best network",
        **({"wrong": "The most confidently wrong images"} if shown and shown["examples"].wrong else {}),
        **({"maps": "Score maps"} if shown and shown["examples"].mapped else {}),
    }
    return {
        **{name: heading for part in order for name, heading in part.items()},
        **({"studies": "Studies"} if studies else {}),
        "cost": "Cost",
        **curves,
        **(pictures if shown else {}),
        "others": "The paper's networks beside others of their time",
        "repeat": "To repeat it",
    }


def _best_network(evaluation: Evaluation, splits: Splits, folders: Mapping[int, Path]) -> dict[str, Any]:
    """Return confusions, wrong images and score maps of one network, which is one of the runs of a seed."""
    run = Path(evaluation.runs[0])
    return {
        "evaluation": evaluation,
        "training": run.name,
        "seed": next(seed for seed, folder in folders.items() if folder == run.parent),
        "confusion": confusion_figure(evaluation),
        "examples": examples(evaluation, splits.source(evaluation.split), load_model(evaluation.runs[0])),
    }
