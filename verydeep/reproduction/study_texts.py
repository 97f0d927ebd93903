"""Observations of each study, and how far they can be trusted, in sentences that follow from its numbers."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from verydeep.networks.architecture import STAGE_CHANNELS
from verydeep.networks.initialisation import STANDARD_DEVIATIONS
from verydeep.numbers import FINE, counted, decimal, number, percent, points, significant
from verydeep.reproduction.claims import FEWEST_SEEDS
from verydeep.reproduction.contrasts import Estimate
from verydeep.reproduction.limits import listed
from verydeep.reproduction.study_charts import of_network, share_of_weights, weighted
from verydeep.reproduction.study_differences import difference_of_gaps, difference_of_tests, of_what, with_interval
from verydeep.reproduction.study_runs import FROM_A, StudyRun
from verydeep.reproduction.study_tables import gap

_IN_WORDS = {
    FROM_A: "from A",
    "glorot": "with Glorot's initialisation",
    "paper": "with sd 0.01",
    "paper-variance": "with variance 0.01",
}
"""Ways to first weights, within a sentence."""


def initialisation_seen(runs: Sequence[StudyRun], classes: int) -> list[str]:
    """Say which ways to first weights let each network learn."""
    sentences = [
        f"{network}: {'; '.join(_outcome(way, its) for way, its in _by_way(its).items())}."
        for network, its in of_network(runs).items()
    ]
    return [*sentences, f"Without learning, the loss stays near {decimal(math.log(classes), 3)}.", *_factors(runs)]


def gradients_seen(runs: Sequence[StudyRun], classes: int) -> list[str]:
    """Say how large the first gradients are at both ends of each network, and which ones were not recorded."""
    recorded = [run for run in runs if run.norms]
    sentences = [_signals(network, _by_way(its)) for network, its in of_network(recorded).items()]
    silent = list(dict.fromkeys(run.training.name for run in runs if not run.norms))
    if silent:
        sentences.append(
            f"Not recorded: {listed(silent)}. They were trained by an earlier version or with --fc-parallel "
            "(remove their folders in runs/ to train them again), or diverged in the first step."
        )
    return [*sentences, *_learned_by_gradient(recorded), *_factors(runs)]


def regularisation_seen(runs: Sequence[StudyRun], classes: int) -> list[str]:
    """Say how far training and test errors are apart, and compare B with B of 5 x 5 layers."""
    labels = _by_label([run for run in runs if gap(run) is not None])
    gaps = {label: fmean([value for run in its if (value := gap(run)) is not None]) for label, its in labels.items()}
    if not gaps:
        return ["No training was tested on both kinds of images."]
    apart = listed([f"{points(value, FINE)} ({label})" for label, value in gaps.items()])
    sentences = [f"Test errors minus errors on training images, in points: {apart}."]
    stack = next((label for label in ("B (Glorot)", "B") if label in gaps), None)
    if stack is None or "B-5x5" not in gaps:
        return [
            *sentences,
            "B and B with 5 x 5 layers were not both trained: there is nothing to compare small filters to.",
        ]
    weights = {labels["B-5x5"][0].training.name: 1.0, labels[stack][0].training.name: -1.0}
    further, higher = difference_of_gaps(runs, weights), difference_of_tests(runs, weights)
    if further is None or higher is None:
        return [*sentences, "B and B with 5 x 5 layers were not tested on the same images with any seed."]
    starts = "both from random weights" if stack != "B" else "which starts from A"
    return [
        *sentences,
        f"With 5 x 5 layers in place of those of {stack}, {starts}, that difference changes by "
        f"{with_interval(further)}, and the test error by {with_interval(higher)}; {of_what(further)}. "
        f"{_regularises(further, higher)}",
    ]


def _regularises(further: Estimate, higher: Estimate) -> str:
    """Say what the differences of B with 5 x 5 layers and B tell about small filters.

    Args:
        further: by how much test and training errors are further apart with large filters.
        higher: by how much the test error is higher with them.
    """
    apart, test = further.ci95, higher.ci95
    if apart[0] > 0 and test[0] > 0:
        return "Both are what a regularisation by small filters would do."
    if apart[0] > 0 and test[1] < 0:
        return "Errors that are closer without a lower test error come from learning less, not from a regularisation."
    if apart[1] < 0:
        return "That does not look like a regularisation by small filters."
    return "That leaves open whether small filters regularise."


def images_seen(runs: Sequence[StudyRun], classes: int) -> list[str]:
    """Say how the errors fall with more images, and how the difference of D and A changes."""
    means = {
        network: {
            count: fmean(errors)
            for count in sorted({run.images for run in its})
            if (errors := [run.test.top1_error for run in its if run.images == count and run.test is not None])
        }
        for network, its in of_network(runs).items()
    }
    sentences = [
        f"{network}: from {number(min(errors))} to {number(max(errors))} training images the test error goes from "
        f"{percent(errors[min(errors)])} to {percent(errors[max(errors)])}%."
        if len(errors) > 1
        else f"{network}: with {number(min(errors))} training images the test error is {percent(errors[min(errors)])}%."
        for network, errors in means.items()
        if errors
    ]
    return [*sentences, *_d_against_a(runs, means)]


def _d_against_a(runs: Sequence[StudyRun], means: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Say how D's error minus A's changes with the images, given the mean errors by network and number of images."""
    counts = sorted(means.get("A", {}).keys() & means.get("D", {}).keys())
    if not counts:
        return []
    few, many = (
        {run.training.network: run.training.name for run in runs if run.images == count}
        for count in (counts[0], counts[-1])
    )
    weights = {many["A"]: 1.0, many["D"]: -1.0, few["A"]: -1.0, few["D"]: 1.0}
    gained = difference_of_tests(runs, weights) if len(counts) > 1 else None
    steps = ", ".join(f"{points(means['D'][one] - means['A'][one], FINE)} at {number(one)}" for one in counts)
    images = next(run.test.n for run in runs if run.test is not None)
    return [
        f"D's error minus A's, in points: {steps}; one test image is {decimal(100 / images, FINE)} points.",
        *([] if gained is None else [_gained(gained)]),
        "D starts from A as trained on the same images, so it has A's steps behind it at every number of images.",
    ]


def _gained(gained: Estimate) -> str:
    """Say how much more than A the deeper net gains by more images, and whether that is sure."""
    low, high = gained.ci95
    told = "the deeper net gains more" if low > 0 else "A gains more" if high < 0 else "which gains more is left open"
    return (
        f"From fewest to most images the error of D falls further than A's by {with_interval(gained)}: {told}; "
        f"{of_what(gained)}."
    )


def limits_of(runs: Sequence[StudyRun]) -> list[str]:
    """Say what one seed, unfinished trainings and diverged ones mean for the observations."""
    seeds = len({run.seed for run in runs})
    brief = list(dict.fromkeys(run.training.name for run in runs if run.diverged is None and not run.schedule_ended))
    lost = list(dict.fromkeys(run.training.name for run in runs if run.diverged is not None))
    sentences = [
        "One seed: this illustrates what can happen and does not show what mostly does."
        if seeds == 1
        else f"{seeds} seeds, each a point, a line or a figure of its own. Where there is no interval, agreement "
        "by chance was not ruled out."
    ]
    if 1 < seeds < FEWEST_SEEDS:
        sentences.append(
            f"Intervals are of these trained networks alone: {seeds} seeds do not show how others would turn out."
        )
    if brief:
        sentences.append(
            "Cut off before the schedule of the learning rate had ended, or started from a training that was: "
            f"{listed(brief)}. With more epochs they may "
            "come out differently."
        )
    if lost:
        sentences.append(f"Diverged, that is, weights or losses ceased to be finite numbers: {listed(lost)}.")
    return sentences


def _by_way(runs: Sequence[StudyRun]) -> dict[str, list[StudyRun]]:
    ways: dict[str, list[StudyRun]] = {}
    for run in runs:
        ways.setdefault(_IN_WORDS[run.first_weights], []).append(run)
    return ways


def _by_label(runs: Sequence[StudyRun]) -> dict[str, list[StudyRun]]:
    labels: dict[str, list[StudyRun]] = {}
    for run in runs:
        labels.setdefault(run.training.label, []).append(run)
    return labels


def _outcome(way: str, runs: Sequence[StudyRun]) -> str:
    """Say how one way to first weights turned out, over the seeds."""
    lost = [run.diverged for run in runs if run.diverged is not None]
    if lost:
        return f"{way} its {lost[0]}{_of_seeds(len(lost), runs)}"
    learned = sum(run.learned for run in runs)
    often = _of_seeds(learned, runs) if learned else ""
    error = percent(fmean([run.test.top1_error for run in runs if run.test is not None]))
    return f"{way} it {'learns' if learned else 'does not learn'}{often} (test error {error}%)"


def _of_seeds(count: int, runs: Sequence[StudyRun]) -> str:
    return "" if count == len(runs) else f" with {count} of {len(runs)} seeds"


def _first_share(run: StudyRun) -> float | None:
    """Return the first layer's gradient in the first step, as a share of its weights."""
    return share_of_weights(run, 0, weighted(run)[0])


def _signals(network: str, ways: Mapping[str, Sequence[StudyRun]]) -> str:
    """Say how large a network's first gradients are at the bottom, and which outputs arrive at the top."""
    shares = ", ".join(f"{significant(_first_share(its[0]))} {way}" for way, its in ways.items())
    outputs = [its[0].norms[0].layers[weighted(its[0])[-1]].activation for its in ways.values()]
    top = "" if None in outputs else f"; the outputs of fc8 are {', '.join(map(significant, outputs))}"
    seed = "" if len({run.seed for its in ways.values() for run in its}) == 1 else " of the first seed"
    return f"{network}: in the first step{seed} conv1_1's gradient is, as a share of its weights, {shares}{top}."


def _learned_by_gradient(runs: Sequence[StudyRun]) -> list[str]:
    """Compare the first layer's first gradients of trainings that learned with those of trainings that did not."""
    shares = [(run.learned, share) for run in runs if (share := _first_share(run)) is not None]
    learned, others = ([share for which, share in shares if which is wanted] for wanted in (True, False))
    if not learned or not others:
        return []
    of_learned, of_others = (f"{significant(min(its))} to {significant(max(its))}" for its in (learned, others))
    return [
        f"That share is {of_learned} in the {counted(len(learned), 'training')} that learned, and {of_others} in the "
        f"{counted(len(others), 'training')} that did not. "
        "Smaller by orders of magnitude, it has vanished on its way down; larger, it has exploded."
    ]


def _factors(runs: Sequence[StudyRun]) -> list[str]:
    """Say by which factor a layer changes the size of a signal, by arithmetic.

    Source: He and others, Delving Deep into Rectifiers, arXiv 1502.01852, section 2.2: sqrt(inputs / 2) times the
    standard deviation of the weights.
    """
    network = runs[0].architecture
    if network.batch_norm:
        return []
    inputs, whole = (9 * max(1, round(STAGE_CHANNELS[-1] * width)) for width in (network.width, 1.0))
    here, there = (
        listed([decimal(sd * math.sqrt(count / 2), 2) for sd in STANDARD_DEVIATIONS.values()])
        for count in (inputs, whole)
    )
    smaller = "" if inputs == whole else f" (at the paper's width, {number(whole)} inputs, {there})"
    return [
        f"By arithmetic (He and others, 2015), a 3 x 3 layer with {number(inputs)} inputs and its ReLU multiply the "
        f"size of a signal by about {here} at sd 0.01 and variance 0.01{smaller}, and by "
        f"{decimal(math.sqrt(0.5), 2)} with Glorot's; layers in a row raise that to a power."
    ]
