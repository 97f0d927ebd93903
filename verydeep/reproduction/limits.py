"""How sure a report is: sentences by topic on what a grid of this size can show and what it cannot."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from verydeep.networks.architecture import DOWNSAMPLING, PAPER_CROP
from verydeep.networks.grids import positions_along
from verydeep.networks.scales import middle_scale, scale_in_pixels
from verydeep.numbers import decimal, number, percent, plural, share, trimmed
from verydeep.reproduction.claims import FEWEST_SEEDS, SMALL_FILTERS_HELP, UNSEEDED_B
from verydeep.reproduction.findings import Finding
from verydeep.reproduction.paper import B_5X5_EXTRA_TOP1, TABLE_3
from verydeep.reproduction.trainings import TRAININGS_BY_NAME, GridTraining
from verydeep.statistics import CONFIDENCE
from verydeep.training.recipe import Recipe

if TYPE_CHECKING:
    from verydeep.reproduction.results import GridResults

_REPORTED = {
    "crop": "crop",
    "width": "width",
    "epochs": "epochs at most",
    "batch": "batch",
    "first_rate": "first learning rate",
}
"""Fields of the recipe that are reported where they are not the paper's, and their names in the report."""

_SIZES = ("crop", "width", "epochs", "batch")
"""Those of them that make a training larger."""

TOPICS = {
    "seeds": "seeds",
    "images": "images",
    "margin": "margin",
    "level": "level",
    "unfinished": "unfinished trainings",
    "steering": "steering images",
    "lowest_error": "the lowest error",
    "starts": "first weights of the networks",
    "recipe": "recipe",
    "score_maps": "score maps",
}
"""Headings of the topics of `how_sure`."""


def how_sure(results: "GridResults") -> dict[str, list[str]]:
    """Return by topic, one of `TOPICS`, the sentences that are true of these trainings and tests."""
    recipe, trainings = results.recipe, [TRAININGS_BY_NAME[one.name] for one in results.trainings]
    topics = {
        "seeds": [_seeds(results.seeds)],
        "images": [_images(results), *_left_out(results.unusable)],
        "margin": _margin(results),
        "level": [
            f"The rules aim at any false verdict in at most {share(1 - CONFIDENCE, 0)} of such reports: the claims "
            "share that level (Holm). That holds for one look, with seeds and a margin that were fixed beforehand: "
            "adding seeds until a verdict appears, or choosing the margin by the errors, makes false verdicts more "
            "frequent. The intervals beside verdicts are each for one comparison and not corrected. 'Cannot be told' "
            "does not mean that there is no difference. 'Seeds to show it' is for planning a new experiment: four of "
            "five with so many seeds would show an open part, or its opposite, if the difference and its variances are "
            "what was found here. docs/VERDICTS.md has the rules, and how often they err."
        ],
        "unfinished": _unfinished(results),
        "steering": [_steering(results)],
        "lowest_error": ["The lowest of many errors on the same images is lower than it would be on others."],
        "starts": _starts(trainings),
        "recipe": _differences_of_recipe(recipe),
        "score_maps": [*_one_position(results, trainings), *_beyond_the_crop(recipe.crop)],
    }
    return {topic: sentences for topic, sentences in topics.items() if sentences}


def why_too_few_seeds(seeds: int) -> str:
    """Say why so few seeds decide nothing about networks trained again; nothing of `FEWEST_SEEDS` or more."""
    if seeds >= FEWEST_SEEDS:
        return ""
    if seeds == 1:
        return (
            "One seed does not show how much a network's error varies from seed to seed, so nothing is said about "
            "networks trained again, however large a difference: intervals and verdicts are about these trained "
            "networks alone, on other images."
        )
    return (
        f"{seeds} seeds may come out close to each other by luck, and then hide how much a network's error varies from "
        f"seed to seed, so no claim about networks trained again is decided, which takes {FEWEST_SEEDS} or more: "
        "verdicts are about these trained networks alone, intervals in the report's tables about networks trained "
        "again, both on other images."
    )


def listed(names: Sequence[str]) -> str:
    """Write names as `A, B and C`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def why_unfinished(trainings: Sequence[str], cut_off: Collection[str]) -> str:
    """Say of unfinished trainings which were cut off and which start from one that was."""
    own, later = ([name for name in trainings if (name in cut_off) is whether] for whether in (True, False))
    said = [f"{listed(own)} {plural('was', len(own), 'were')} cut off before the schedule had ended"] if own else []
    if later:
        said.append(f"{listed(later)} {plural('starts', len(later), 'start')} from a training that was cut off")
    return ", and ".join(said)


def beside_verdict(finding: Finding, *, init: str, trainings: Collection[str]) -> str:
    """Say what limits a verdict: its margin, trainings that were too brief, networks with different starts.

    Args:
        finding: a finding with its verdict.
        init: initialisation of layers that start from random weights.
        trainings: names of all that were done.
    """
    unlike = []
    if finding.parts and finding.id == SMALL_FILTERS_HELP:
        if UNSEEDED_B not in trainings:
            unlike = ["B started from A, B with 5 x 5 layers from random weights"]
        elif init != "glorot":
            unlike = ["B started from Glorot's random weights, B with 5 x 5 layers from others"]
    return "; ".join(filter(None, (finding.beside, *unlike)))


def _margin(results: "GridResults") -> list[str]:
    """Say what counts as alike, and where that is much of the errors themselves."""
    sentences = [
        f"Errors count as alike, and one as no more than another, up to {trimmed(results.margin)} points. Verdicts "
        "that depend on this margin have it beside them."
    ]
    if results.margin > results.best.top1_error / 2:
        most = "most of" if results.margin < results.best.top1_error else "more than"
        sentences.append(
            f"The lowest error here is {percent(results.best.top1_error)}%, so the margin is {most} the error itself: "
            "'alike' then says little, and a smaller one, fixed beforehand, would say more."
        )
    return sentences


def _images(results: "GridResults") -> str:
    rows = [row for rows in results.tables.values() for row in rows]
    errors = [(row.errors.top1_error, *row.errors.top1_error_ci95) for row in rows if row.errors.top1_error_ci95]
    widest = max((max(error - low, high - error) for error, low, high in errors), default=100.0)
    compared = [row.top1 for row in TABLE_3 if row.train == TABLE_3[0].train]
    gap = max(compared) - min(compared)
    told = "far apart enough to show here" if widest < gap / 2 else "too close to be told apart by their intervals here"
    return (
        f"One test image is {decimal(100 / results.best.n, 2)} points of error, and the intervals of single errors "
        f"reach up to {decimal(widest, 1)} points to either side. In the paper the networks at S = {TABLE_3[0].train} "
        f"lie within {decimal(gap, 1)} points: such differences are {told}. Comparisons on the same images tell "
        "smaller ones."
    )


def _seeds(seeds: Sequence[int]) -> str:
    if too_few := why_too_few_seeds(len(seeds)):
        often = "once" if len(seeds) == 1 else f"with {len(seeds)} seeds"
        return f"Each network was trained {often}. {too_few}"
    return (
        f"Each network was trained with {len(seeds)} seeds, and a difference counts only if it stands out from "
        "chance, both in the choice of images and in the seeds. How seeds vary is estimated from all networks "
        "together; a network's own variance counts where it is larger. Few seeds show only large differences."
    )


def _starts(trainings: Sequence[GridTraining]) -> list[str]:
    """Say which networks started from trained A."""
    at_256 = [one for one in trainings if not one.finetune]
    seeded = [one.label for one in at_256 if one.init]
    unseeded = [one.label for one in at_256 if not one.init]
    if not seeded:
        return []
    against = ""
    if {"B", "B-5x5"} <= {*seeded, *unseeded}:
        fair = any(one.unseeded and one.network == "B" for one in trainings)
        against = (
            f" In the paper B and B-5x5 are {decimal(B_5X5_EXTRA_TOP1, 0)} points apart on a centre crop; here "
            + ("B from random weights is compared with it." if fair else "B has A's training too.")
        )
    return [
        f"{listed(seeded)} {plural('starts', len(seeded), 'start')} from layers of trained A and so "
        f"{plural('has', len(seeded), 'have')} its training as well as {plural('its', len(seeded), 'their')} own; "
        f"{listed(unseeded)} {plural('starts', len(unseeded), 'start')} from random weights. Every comparison between "
        f"the two groups includes that difference.{against}"
    ]


def _differences_of_recipe(recipe: Recipe) -> list[str]:
    """Say what of the recipe is not the paper's, and that it was scaled down where nothing is larger."""
    paper = Recipe()
    differing = [
        f"{words} {trimmed(getattr(recipe, name))} (paper: {trimmed(getattr(paper, name))})"
        for name, words in _REPORTED.items()
        if getattr(recipe, name) != getattr(paper, name)
    ]
    if not recipe.flip:
        differing.append("no mirrored images (paper: half of them)")
    if not differing:
        return []
    larger = any(getattr(recipe, name) > getattr(paper, name) for name in _SIZES)
    smaller = any(getattr(recipe, name) < getattr(paper, name) for name in _SIZES)
    how = "was scaled down" if smaller and not larger else "differs from the paper's"
    early = (
        " Deep networks take off later than shallow ones, so one that is behind may only have been stopped too early."
    )
    brief = recipe.epochs < paper.epochs or (smaller and not larger)
    return [f"The recipe {how}: {', '.join(differing)}.{early if brief else ''}"]


def _one_position(results: "GridResults", trainings: Sequence[GridTraining]) -> list[str]:
    """Say at which Q the score map of a square image has a single position."""
    tested = dict.fromkeys(middle_scale(one.scale) for one in trainings)
    few = [str(scale) for scale in tested if _positions_along_a_side(scale, results) == 1]
    if not few:
        return []
    return [
        f"At this crop the score map of a square image has a single position at Q = {listed(few)}: there, dense "
        "evaluation averages over nothing but scales."
    ]


def _beyond_the_crop(crop: int) -> list[str]:
    """Say what dense evaluation suffers from at small crops (measured in docs/DEVIATIONS.md)."""
    if crop >= PAPER_CROP:
        return []
    here, paper = (f"{side // DOWNSAMPLING} x {side // DOWNSAMPLING}" for side in (crop, PAPER_CROP))
    return [
        "A dense position sees what lies around it, where in training layers saw zeros beyond the edge of the crop. "
        f"The last map of a crop is {here} here and {paper} in the paper, so this weighs more here, the more the "
        "deeper a network is and the larger Q: comparisons by dense evaluation include it, those on crops do not "
        "(docs/DEVIATIONS.md)."
    ]


def _positions_along_a_side(scale: int, results: "GridResults") -> int:
    crop = results.recipe.crop
    return positions_along(scale_in_pixels(scale, crop), crop // DOWNSAMPLING, results.grid)


def _left_out(unusable: Mapping[str, int]) -> list[str]:
    if not unusable:
        return []
    counts = listed([f"{number(count)} of {split}" for split, count in unusable.items()])
    return [
        f"Images that cannot be used were left out: {counts}. They are listed, with reasons, in the runs' "
        "quarantine.jsonl and in evaluations/."
    ]


def _unfinished(results: "GridResults") -> list[str]:
    if not results.unfinished:
        return ["None: every training went to the end of its schedule."]
    return [
        f"{why_unfinished(results.unfinished, results.cut_off)}. No claim is judged by them: use more epochs, or "
        "a schedule that ends."
    ]


def _steering(results: "GridResults") -> str:
    """Say which images decide on the learning rate, and that with a planned schedule they decide nothing."""
    planned = results.recipe.schedule != "plateau"
    return results.source.steering + (
        " In a planned schedule, such as this one, they decide nothing." if planned else ""
    )
