"""The report's pictures, as SVG that takes the page's text colour and needs no other file."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from verydeep.evaluation.charts import BLUE
from verydeep.networks.scales import scale_range
from verydeep.presentation.pages import INK, svg_figure
from verydeep.reproduction.grid import JITTER

STYLES = {
    "A": ("#0072b2", "-"),
    "A-LRN": ("#0072b2", ":"),
    "B": ("#e69f00", "-"),
    "B-5x5": ("#e69f00", ":"),
    "C": ("#009e73", "-"),
    "D": ("#d55e00", "-"),
    "E": ("#cc79a7", "-"),
}
"""Colour and line of each network, distinguishable without colour vision (Okabe and Ito); variants are dotted."""

UNSEEDED_LINE = "--"
"""Of a network from random weights that the paper starts from A."""

MARKERS = {"256": "o", "384": "s", JITTER: "D"}
"""Of each S."""

WIDTHS = 1.5, 0.8
"""Of the lines, in points: of one seed, of each of several."""


def learning_curves(trainings: Sequence[Mapping[str, Any]], curves: Mapping[str, Mapping[str, Any]]) -> str:
    """Training loss and validation error over epochs, side by side, one row for each S; a line for each seed."""
    by_scale: dict[str, list[Mapping[str, Any]]] = {}
    for one in trainings:
        by_scale.setdefault(one["scale"], []).append(one)
    with svg_figure(columns=2, rows=len(by_scale)) as (panels, svg):
        for row, (scale, here) in enumerate(by_scale.items()):
            for panel, key, name in zip(
                panels[2 * row : 2 * row + 2],
                ("loss", "validation_error"),
                ("training loss", "validation error, %"),
                strict=True,
            ):
                for one in here:
                    colour, line = _style(one)
                    of_seeds = curves[one["name"]].values()
                    for number, seed in enumerate(of_seeds):
                        epochs = range(1, len(seed[key]) + 1)
                        panel.plot(
                            epochs,
                            seed[key],
                            color=colour,
                            linestyle=line,
                            linewidth=WIDTHS[len(of_seeds) > 1],
                            label=None if number else one["label"],
                        )
                panel.set(xlabel="epoch", ylabel=name, title=f"S = {written(scale)}")
                panel.set_ylim(bottom=0)
                panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panels[2 * row + 1].legend(ncols=2)
    return svg[0]


def error_against_depth(trainings: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    """Test error of every network with its interval, in the order of their weight layers; at several S side by side."""
    known = {one["name"]: one for one in trainings}
    points = [(known[row["trainings"][0]], row) for row in rows]
    points.sort(key=lambda point: point[0]["weight_layers"])
    places = {name: place for place, name in enumerate(dict.fromkeys(one["label"] for one, _ in points))}
    layers = {one["label"]: one["weight_layers"] for one, _ in points}
    scales = [scale for scale in MARKERS if scale in {one["scale"] for one, _ in points}]
    with svg_figure(panel=(max(4.6, 0.85 * len(places)), 3.4)) as ((panel,), svg):
        for one, row in points:
            colour, line = _style(one)
            low, high = row["top1_error_ci95"] or (row["top1_error"], row["top1_error"])
            panel.errorbar(
                places[one["label"]] + 0.22 * (scales.index(one["scale"]) - (len(scales) - 1) / 2),
                row["top1_error"],
                # the mean of seeds may lie outside of an interval of drawn ones by less than can be seen
                yerr=[[max(0, row["top1_error"] - low)], [max(0, high - row["top1_error"])]],
                color=colour,
                marker=MARKERS[one["scale"]],
                markerfacecolor=colour if line == "-" else "none",
                capsize=3,
            )
        if len(scales) > 1:
            for scale in scales:
                panel.plot([], [], color=INK, linestyle="", marker=MARKERS[scale], label=f"S = {written(scale)}")
            panel.legend()
        panel.set_xticks(range(len(places)), [f"{name.replace(' ', chr(10))}\n{layers[name]}" for name in places])
        panel.set(xlabel="network and its weight layers", ylabel="test error, %")
        panel.set_ylim(bottom=0)
    return svg[0]


def gains_chart(gains: Sequence[Mapping[str, Any]]) -> str:
    """A dot with its interval for everything that is added: left of 0 it lowers the error."""
    with svg_figure(panel=(7.4, 0.8 + 0.36 * len(gains))) as ((panel,), svg):
        panel.axvline(0, color=INK, linewidth=1, alpha=0.6)
        for place, gain in enumerate(gains):
            low, high = gain["difference_ci95"]
            panel.hlines(place, low, high, color=BLUE)
            panel.plot(gain["difference"], place, color=BLUE, marker="o")
        panel.set_yticks(range(len(gains)), [gain["adds"] for gain in gains])
        panel.set_ylim(len(gains) - 0.5, -0.5)
        panel.set_xlabel("difference of test errors, points")
    return svg[0]


def written(scale: str) -> str:
    """S as the paper writes it: `256:512` is `[256;512]`."""
    low, high = scale_range(scale)
    return f"{low}" if low == high else f"[{low};{high}]"


def _style(training: Mapping[str, Any]) -> tuple[str, str]:
    """Colour and line."""
    colour, line = STYLES[training["network"]]
    return colour, UNSEEDED_LINE if training["unseeded"] else line
