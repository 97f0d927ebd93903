"""The report's pictures, as SVG that takes the page's text colour and needs no other file."""

from collections.abc import Collection, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from verydeep.evaluation.charts import BLUE
from verydeep.networks.scales import scale_range
from verydeep.presentation.pages import INK, svg_figure
from verydeep.reproduction.claims import GAINS
from verydeep.reproduction.findings import ComparedPart
from verydeep.reproduction.results import LearningCurves, TrainedNetwork
from verydeep.reproduction.table_rows import EntryErrors, TableRow
from verydeep.reproduction.trainings import SCALES

NETWORK_COLOURS = dict(zip("ABCDE", ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7"), strict=True))
"""Distinguishable without colour vision (Okabe and Ito); variants such as A-LRN have their network's, dotted."""

_MARKERS = dict(zip(SCALES, "osD", strict=True))

_PANEL = 4.6, 3.4
"""Width and height in inches: on a phone its words are still legible."""

_ASIDE = 0.12
"""Distance of the seeds from the mean, as a share of that between two networks or steps."""

_SEED: dict[str, Any] = {"marker": "o", "markersize": 2.5, "linestyle": "", "alpha": 0.6}

_WIDTHS = 1.5, 0.8
"""Widths of the lines in points: of one seed, of each of several."""


def learning_curves(trainings: Sequence[TrainedNetwork], curves: LearningCurves, key: str, words: str) -> str:
    """Draw the figure `key` of every epoch, called `words`, with a panel for each S and a line for each seed."""
    scales = list(dict.fromkeys(one.scale for one in trainings))
    with svg_figure(rows=len(scales)) as (panels, svg):
        for panel, scale in zip(panels, scales, strict=True):
            _draw_curves(panel, [one for one in trainings if one.scale == scale], curves, key)
            panel.set(ylabel=words, title=f"S = {written(scale)}" if len(scales) > 1 else "")
            panel.legend(ncols=2)
    return svg[0]


def _draw_curves(panel: Axes, trainings: Sequence[TrainedNetwork], curves: LearningCurves, key: str) -> None:
    for one in trainings:
        colour, line = _style(one)
        of_seeds = [figures[key] for figures in curves[one.name].values()]
        for number, figures in enumerate(of_seeds):
            panel.plot(
                range(1, len(figures) + 1),
                figures,
                color=colour,
                linestyle=line,
                linewidth=_WIDTHS[len(of_seeds) > 1],
                label=None if number else one.label,
            )
    panel.set(xlabel="epoch")
    panel.set_ylim(bottom=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def error_against_depth(
    trainings: Sequence[TrainedNetwork], rows: Sequence[TableRow], *, unfinished: Collection[str] = ()
) -> str:
    """Draw the dense test error of every network by weight layers, with each seed and the interval.

    Several S stand side by side. A line joins the networks that differ in depth alone, at each S. Trainings in
    `unfinished` are marked.
    """
    known = {one.name: one for one in trainings}
    points = [(known[row.errors.trainings[0]], row.errors) for row in rows if row.errors.method == "dense"]
    points.sort(key=lambda point: point[0].weight_layers)
    layers = {one.label: one.weight_layers for one, _ in points}
    scales = [scale for scale in SCALES if scale in {one.scale for one, _ in points}]
    with svg_figure(panel=(max(_PANEL[0], 0.62 * len(layers)), _PANEL[1])) as ((panel,), svg):
        for scale in scales:
            aside = 0.24 * (scales.index(scale) - (len(scales) - 1) / 2)
            here = [(list(layers).index(one.label) + aside, one, its) for one, its in points if one.scale == scale]
            deeper = [(at, its.top1_error) for at, one, its in here if one.label in NETWORK_COLOURS]
            if deeper:
                panel.plot(*zip(*deeper, strict=True), color=INK, linewidth=1, alpha=0.35)
            for at, one, its in here:
                _draw_errors(panel, at, one, its)
            if len(scales) > 1:
                panel.plot([], [], color=INK, linestyle="", marker=_MARKERS[scale], label=f"S = {written(scale)}")
        if len(scales) > 1:
            panel.legend()
        marked = {known[name].label for name in unfinished}
        lines = 1 + max(label.count(" ") for label in layers)  # so that the counts stand in one row
        names = [
            "\n".join([*label.split(" "), *[""] * (lines - len(label.split(" "))), f"{count}{'†' * (label in marked)}"])
            for label, count in layers.items()
        ]
        panel.set_xticks(range(len(layers)), names)
        panel.set(xlabel="network and its weight layers", ylabel="test error, %")
        panel.set_ylim(bottom=max(0, panel.get_ylim()[0]))
    return svg[0]


def _draw_errors(panel: Axes, at: float, training: TrainedNetwork, errors: EntryErrors) -> None:
    """Draw the mean with its interval and, faintly, the error of each of several seeds."""
    colour, line = _style(training)
    low, high = errors.top1_error_ci95 or (errors.top1_error, errors.top1_error)
    panel.errorbar(
        at,
        errors.top1_error,
        # the mean of seeds may lie outside of a resampled interval by less than can be seen
        yerr=[[max(0, errors.top1_error - low)], [max(0, high - errors.top1_error)]],
        color=colour,
        marker=_MARKERS[training.scale],
        markerfacecolor=colour if line == "-" else "none",
        capsize=3,
    )
    if len(errors.of_seeds) > 1:
        panel.plot([at + _ASIDE] * len(errors.of_seeds), errors.of_seeds, **_SEED, color=INK)


def gains_chart(gains: Sequence[ComparedPart]) -> str:
    """Draw for every step, below its name, a dot with its interval and each of several seeds: left of 0 it helps.

    Steps with unfinished trainings are marked.
    """
    with svg_figure(panel=(_PANEL[0], 0.8 + 0.46 * len(gains))) as ((panel,), svg):
        for position, gain in enumerate(gains):
            panel.vlines(0, position - 0.12, position + 0.36, color=INK, linewidth=1, alpha=0.6)  # beside names
            panel.hlines(position, *gain.difference_ci95, color=BLUE)
            panel.plot(gain.difference, position, color=BLUE, marker="o")
            if len(gain.differences_of_seeds) > 1:
                seeds = gain.differences_of_seeds
                panel.plot(seeds, [position + _ASIDE] * len(seeds), **_SEED, color=INK)
            name = f"{GAINS[gain.id]}{' †' * bool(gain.unfinished)}"
            panel.text(0, position - 0.28, name, transform=panel.get_yaxis_transform(), va="center")
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
        panel.set_ylim(len(gains) - 0.5, -0.6)
        panel.set_xlabel("difference of test errors, points")
    return svg[0]


def written(scale: str) -> str:
    """Write S as the paper does: `256:512` is `[256;512]`."""
    low, high = scale_range(scale)
    return f"{low}" if low == high else f"[{low};{high}]"


def _style(training: TrainedNetwork) -> tuple[str, str]:
    """Return colour and line: dotted for variants, dashed for random weights where the paper starts from A."""
    network, variant, _ = training.network.partition("-")
    return NETWORK_COLOURS[network], "--" if training.unseeded else ":" if variant else "-"
