"""The report's pictures, as SVG that takes the page's text colour and needs no other file."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from verydeep.evaluation.charts import BLUE
from verydeep.networks.scales import scale_range
from verydeep.presentation.pages import INK, svg_figure
from verydeep.reproduction.claims import GAINS
from verydeep.reproduction.findings import ComparedPart
from verydeep.reproduction.results import Curves, TrainedNetwork
from verydeep.reproduction.table_rows import TableRow
from verydeep.reproduction.trainings import SCALES

_COLOURS = dict(zip("ABCDE", ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7"), strict=True))
"""Distinguishable without colour vision (Okabe and Ito); variants such as A-LRN have their network's, dotted."""

_MARKERS = dict(zip(SCALES, "osD", strict=True))

_WIDTHS = 1.5, 0.8
"""Widths of the lines in points: of one seed, of each of several."""


def learning_curves(trainings: Sequence[TrainedNetwork], curves: Curves) -> str:
    """Draw training loss and validation error over the epochs, a row for each S and a line for each seed."""
    scales = list(dict.fromkeys(one.scale for one in trainings))
    with svg_figure(columns=2, rows=len(scales)) as (panels, svg):
        for row, scale in enumerate(scales):
            here = [one for one in trainings if one.scale == scale]
            loss, error = panels[2 * row : 2 * row + 2]
            _draw_curves(loss, here, curves, "loss")
            _draw_curves(error, here, curves, "validation_error")
            loss.set(ylabel="training loss", title=f"S = {written(scale)}")
            error.set(ylabel="validation error, %", title=f"S = {written(scale)}")
            error.legend(ncols=2)
    return svg[0]


def _draw_curves(panel: Axes, trainings: Sequence[TrainedNetwork], curves: Curves, key: str) -> None:
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
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def error_against_depth(trainings: Sequence[TrainedNetwork], rows: Sequence[TableRow]) -> str:
    """Draw the test error of every network with its interval, by weight layers; several S side by side."""
    known = {one.name: one for one in trainings}
    points = [(known[row.errors.trainings[0]], row.errors) for row in rows]
    points.sort(key=lambda point: point[0].weight_layers)
    layers = {one.label: one.weight_layers for one, _ in points}
    positions = {label: position for position, label in enumerate(layers)}
    scales = [scale for scale in SCALES if scale in {one.scale for one, _ in points}]
    with svg_figure(panel=(max(4.6, 0.85 * len(layers)), 3.4)) as ((panel,), svg):
        for one, errors in points:
            colour, line = _style(one)
            low, high = errors.top1_error_ci95 or (errors.top1_error, errors.top1_error)
            panel.errorbar(
                positions[one.label] + 0.22 * (scales.index(one.scale) - (len(scales) - 1) / 2),
                errors.top1_error,
                # the mean of seeds may lie outside of a resampled interval by less than can be seen
                yerr=[[max(0, errors.top1_error - low)], [max(0, high - errors.top1_error)]],
                color=colour,
                marker=_MARKERS[one.scale],
                markerfacecolor=colour if line == "-" else "none",
                capsize=3,
            )
        if len(scales) > 1:
            for scale in scales:
                panel.plot([], [], color=INK, linestyle="", marker=_MARKERS[scale], label=f"S = {written(scale)}")
            panel.legend()
        names = [f"{label.replace(' ', chr(10))}\n{count}" for label, count in layers.items()]
        panel.set_xticks(range(len(layers)), names)
        panel.set(xlabel="network and its weight layers", ylabel="test error, %")
        panel.set_ylim(bottom=0)
    return svg[0]


def gains_chart(gains: Sequence[ComparedPart]) -> str:
    """Draw a dot with its interval for every step: left of 0 it lowers the error."""
    with svg_figure(panel=(7.4, 0.8 + 0.36 * len(gains))) as ((panel,), svg):
        panel.axvline(0, color=INK, linewidth=1, alpha=0.6)
        for position, gain in enumerate(gains):
            panel.hlines(position, *gain.difference_ci95, color=BLUE)
            panel.plot(gain.difference, position, color=BLUE, marker="o")
        panel.set_yticks(range(len(gains)), [GAINS[gain.id] for gain in gains])
        panel.set_ylim(len(gains) - 0.5, -0.5)
        panel.set_xlabel("difference of test errors, points")
    return svg[0]


def written(scale: str) -> str:
    """Write S as the paper does: `256:512` is `[256;512]`."""
    low, high = scale_range(scale)
    return f"{low}" if low == high else f"[{low};{high}]"


def _style(training: TrainedNetwork) -> tuple[str, str]:
    """Return colour and line: dotted for variants, dashed for random weights where the paper starts from A."""
    network, variant, _ = training.network.partition("-")
    return _COLOURS[network], "--" if training.unseeded else ":" if variant else "-"
