"""The report's answer in a few sentences: which findings hold, how much depth gains, what cannot be told and why."""

from collections.abc import Collection, Mapping, Sequence

from verydeep.numbers import counted, duration, percent, plural
from verydeep.reproduction.claims import CLAIMS, FEWEST_SEEDS
from verydeep.reproduction.findings import ComparedPart, Finding, Verdict
from verydeep.reproduction.limits import listed, why_unfinished
from verydeep.reproduction.results import GridResults
from verydeep.reproduction.table_rows import EntryErrors

_DEPTH = {"d_against_a": ("D", "A"), "d_against_b": ("D", "B"), "b_against_a": ("B", "A")}
"""Parts that compare a deeper network with a shallower one, and the two; the first that was tested is reported."""

_SAID: Mapping[Verdict, tuple[str, str]] = {
    "holds": ("holds", "hold"),
    "holds_in_part": ("holds in part", "hold in part"),
    "reversed": ("is reversed", "are reversed"),
    "cannot_be_told": ("cannot be told", "cannot be told"),
}
"""Predicates of one claim with this verdict, and of several."""

_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def answer(results: GridResults) -> tuple[str, ...]:
    """Return the sentences: about networks trained again if there are enough seeds, else about those trained."""
    learned = (_learned(results),) if results.too_few_seeds else ()
    if not results.findings:
        return *learned, results.not_told
    if results.too_few_seeds:
        return *learned, _gain_of_depth(results), _of_the_trained(results)
    return _which_hold(results), _gain_of_depth(results), _open(results)


def _which_hold(results: GridResults) -> str:
    return f"On these images, {_verdicts({one.says: one.verdict for one in results.findings})}."


def _of_the_trained(results: GridResults) -> str:
    """Say what too few seeds tell, and that they tell nothing about networks trained again."""
    told = _verdicts({one.says: one.verdict_of_trained for one in results.findings})
    unfinished = f" {why_unfinished(results.unfinished, results.cut_off)}: that tells nothing."
    seeds = len(results.seeds)
    return (
        f"For these trained networks alone, {told}; {_in_words(seeds)} {plural('seed tells', seeds, 'seeds decide')} "
        "nothing about networks trained again."
        f"{unfinished if results.unfinished else ''}"
    )


def _verdicts(told: Mapping[str, Verdict]) -> str:
    """Say how many claims have each verdict, and which those are that can be told."""
    said = []
    for verdict, (one, several) in _SAID.items():
        if not (claims := [claim for claim, its in told.items() if its == verdict]):
            continue
        which = f" ({'; '.join(claims)})" if verdict != "cannot_be_told" else ""
        said.append(f"{_in_words(len(claims))} {plural(one, len(claims), several)}{which}")
    if {*told.values()} == {"cannot_be_told"}:
        return f"none of the paper's {_in_words(len(told))} findings can be told"
    return f"of the paper's {_in_words(len(told))} findings {listed(said)}"


def _gain_of_depth(results: GridResults) -> str:
    """Say by how much a deeper network errs less than a shallower one, and how sure that is."""
    parts = {part.id: part for finding in results.findings for part in finding.parts}
    compared = next((part for part in _DEPTH if part in parts), None)
    if compared is None:
        return "The gain of depth is not known: no deeper network was compared with A or B."
    part, (deep, shallow) = parts[compared], _DEPTH[compared]
    layers = {one.label: one.weight_layers for one in results.trainings}
    differ = percent(abs(part.difference)) != percent(0)
    compared = f"{_signed(part.difference)} than" if differ else "as often as"
    errs = f"{deep}, with {layers[deep]} weight layers, errs {compared} {shallow}, with {layers[shallow]}"
    if part.unfinished or not part.learned:
        return f"{errs}. {_verdict_on(part, results.cut_off)}"
    low, high = (_signed(end) for end in part.difference_ci95)
    whose = "networks trained again" if part.networks else "these trained networks alone"
    return (
        f"{errs}; for {whose} on other images the 95% interval of this comparison alone goes from {low} to {high}. "
        f"{_verdict_on(part, results.cut_off)}"
    )


def _verdict_on(part: ComparedPart, cut_off: Sequence[str]) -> str:
    """Say whether a comparison stands when all claims are counted, which its interval alone does not tell."""
    if part.unfinished:
        return f"It tells nothing, since {why_unfinished(part.unfinished, cut_off)}."
    if not part.learned:
        return "It tells nothing, since one of them does no better than guessing."
    if part.networks and len(part.differences_of_seeds) < FEWEST_SEEDS:
        return f"It takes {FEWEST_SEEDS} seeds or more to tell whether that stands."
    match (part.networks or part.trained).verdict:
        case "holds":
            return "That stands with all claims counted."
        case "reversed":
            return "That stands with all claims counted, against the paper."
        case _:
            return f"With all claims counted it cannot be told that {part.says}: there may be no difference."


def _signed(points: float) -> str:
    return f"{percent(abs(points))} points {'more' if points > 0 else 'less'}"


def _open(results: GridResults) -> str:
    """Say which claims cannot be told, grouped by the reason."""
    by_reason: dict[str, list[str]] = {}
    for finding in results.findings:
        if finding.verdict == "cannot_be_told":
            by_reason.setdefault(_reason(finding, results), []).append(f"'{finding.says}'")
    if not by_reason:
        return "No finding is left open."
    return f"Not told: {'; '.join(f'{listed(claims)}, since {reason}' for reason, claims in by_reason.items())}."


def _reason(finding: Finding, results: GridResults) -> str:
    if finding.unfinished:
        return why_unfinished(finding.unfinished, results.cut_off)
    if not all(part.learned for part in finding.parts):
        return "a network does no better than guessing"
    if len(finding.parts) < len(CLAIMS[finding.number - 1].parts):
        return "not everything that it compares was trained and tested"
    seeds, images = counted(len(results.seeds), "seed"), counted(results.best.n, "image")
    return f"{seeds} and {images} do not decide them at the level that all claims share"


def _learned(results: GridResults) -> str:
    """Say how many networks learned, how deep they are, and how much they err."""
    errors = sorted(_of_single_networks(results), key=lambda one: one.top1_error)
    if not errors:
        return f"The lowest error is {percent(results.best.top1_error)}%, of {results.best.network}."
    alike = len({one.network for one in errors}) == len(errors)
    names = {one.entry: one.network if alike else one.trainings[0] for one in errors}
    learned = [one for one in errors if one.entry in results.learned]
    failed = [names[one.entry] for one in errors if one not in learned]
    said = _trained(results, learned=len(learned), networks={one.trainings[0] for one in errors})
    if learned:
        ends = [f"{percent(one.top1_error)}% ({names[one.entry]})" for one in (learned[0], learned[-1])]
        err = plural("it errs", len(learned), "they err")
        said += f": {err} on {' to '.join(dict.fromkeys(ends))} of {counted(results.best.n, 'test image')}"
    if failed:
        said += f"; {listed(failed)} {plural('does', len(failed), 'do')} no better than guessing"
    return f"{said}. Always predicting the most frequent class gives an error of {percent(results.guessing)}%."


def _trained(results: GridResults, *, learned: int, networks: Collection[str]) -> str:
    layers, trained = sorted(one.weight_layers for one in results.trainings if one.name in networks), len(networks)
    deep = " to ".join(map(str, dict.fromkeys((layers[0], layers[-1]))))
    of = f"of {_in_words(trained)} " if learned < trained else ""
    seconds, seeds = results.training_seconds, len(results.seeds)
    each = f", each with {seeds} seeds" if seeds > 1 else ""
    said = (
        f"{_in_words(learned)} {of}{plural('network', trained)} of {deep} weight layers learned in {duration(seconds)} "
        f"{'minutes' if seconds < 3600 else 'hours'}{each}, {'with' if results.recipe.batch_norm else 'without'} batch "
        "normalisation"
    )
    return said.capitalize()


def _of_single_networks(results: GridResults) -> list[EntryErrors]:
    """Return the errors of each training alone, all tested in the same way, from the first table that has any."""
    for rows in results.tables.values():
        alone = [row.errors for row in rows if len(row.errors.trainings) == 1]
        if alone:
            return [one for one in alone if one.method == alone[0].method]
    return []


def _in_words(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else f"{count}"
