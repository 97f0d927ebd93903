"""The report's pictures, as SVG that takes the page's text colour and needs no other file."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_INK = "#123456"
"""Stands for the page's text colour until the SVG is done."""

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

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "verydeep",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


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
    with _figure(columns=2) as (panels, svg):
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
    with _figure(columns=1) as ((panel,), svg):
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


@contextmanager
def _figure(*, columns: int) -> Iterator[tuple[Sequence[Axes], list[str]]]:
    """Axes to draw on, and a list that holds the SVG once the block has ended."""
    svg: list[str] = []
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(4.6 * columns, 3.4), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
        yield list(axes), svg
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    svg.append(text[text.index("<svg") :].replace(_INK, "currentColor"))
