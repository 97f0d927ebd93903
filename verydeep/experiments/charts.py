"""The report's pictures, as SVG that takes the page's text colour and needs no other file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

from verydeep.pages import svg_figure

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


@dataclass(frozen=True, kw_only=True)
class Point:
    """An error in percent with its 95% interval."""

    label: str
    layers: int
    error: float
    low: float
    high: float


def learning_curves(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Training loss and validation error of every network over epochs, side by side."""
    with svg_figure(columns=2) as (panels, svg):
        for panel, key, label in zip(
            panels, ("loss", "validation_error"), ("training loss", "validation error, %"), strict=True
        ):
            for name, epochs in metrics.items():
                colour, line = STYLES[name]
                panel.plot(
                    [m["epoch"] for m in epochs], [m[key] for m in epochs], color=colour, linestyle=line, label=name
                )
            panel.set(xlabel="epoch", ylabel=label)
            panel.set_ylim(bottom=0)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[1].legend(ncols=2)
    return svg[0]


def error_against_depth(points: Sequence[Point]) -> str:
    """Test error of every network with its interval, in the order of their weight layers."""
    by_depth = sorted(points, key=lambda point: point.layers)
    with svg_figure(columns=1) as ((panel,), svg):
        for x, point in enumerate(by_depth):
            colour, line = STYLES[point.label]
            panel.errorbar(
                x,
                point.error,
                yerr=[[point.error - point.low], [point.high - point.error]],
                color=colour,
                marker="o",
                markerfacecolor=colour if line == "-" else "none",
                capsize=3,
            )
        panel.set_xticks(range(len(by_depth)), [f"{point.label}\n{point.layers}" for point in by_depth])
        panel.set(xlabel="network and its weight layers", ylabel="test error, %")
        panel.set_ylim(bottom=0)
    return svg[0]
