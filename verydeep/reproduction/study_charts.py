"""The studies' pictures, as SVG in the page's text colour: a line or a point for each seed."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from verydeep.numbers import number, trimmed
from verydeep.presentation.pages import INK, svg_figure
from verydeep.reproduction.charts import NETWORK_COLOURS
from verydeep.reproduction.study_runs import FROM_A, StudyRun

FIRST_WEIGHTS = {FROM_A: "from A", "glorot": "Glorot", "paper": "sd 0.01", "paper-variance": "variance 0.01"}
"""Ways to first weights, in words; also the order in which they are shown."""

_STYLES: dict[str, dict[str, Any]] = {
    FROM_A: {"color": "#0072b2", "linestyle": "-"},
    "glorot": {"color": "#009e73", "linestyle": "--"},
    "paper": {"color": "#e69f00", "linestyle": "-."},
    "paper-variance": {"color": "#d55e00", "linestyle": ":"},
}
"""Distinguishable without colour vision (Okabe and Ito), and without any colour."""


def of_network(runs: Sequence[StudyRun]) -> dict[str, list[StudyRun]]:
    """Return the runs of each network, the ways to first weights in one order."""
    ways = list(FIRST_WEIGHTS)
    networks = dict.fromkeys(run.training.network for run in runs)
    return {
        network: sorted(
            (run for run in runs if run.training.network == network), key=lambda run: ways.index(run.first_weights)
        )
        for network in networks
    }


def loss_curves(runs: Sequence[StudyRun], *, classes: int) -> str:
    """Draw training loss over the epochs, a panel for each network, with that of giving all classes the same chance."""
    networks = of_network(runs)
    with svg_figure(columns=len(networks), panel=(3.9, 3.4), sharey=True) as (panels, svg):
        for panel, (network, its) in zip(panels, networks.items(), strict=True):
            panel.axhline(math.log(classes), color=INK, linewidth=1, alpha=0.6)
            for run in its:
                panel.plot(
                    range(1, len(run.loss) + 1), run.loss, label=_label(panel, run), **_STYLES[run.first_weights]
                )
            panel.set(xlabel="epoch", title=network)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            panel.set_ylim(0, 1.5 * math.log(classes))
            panel.legend()
        panels[0].set_ylabel("training loss")
    return svg[0]


def norms_of_layers(runs: Sequence[StudyRun]) -> str:
    """Draw activations and gradients of every layer in the first step, and the first layer's gradient over the steps.

    A row for each network. Gradients are shares of the weights.
    """
    networks = of_network([run for run in runs if run.norms])
    with svg_figure(columns=3, rows=max(1, len(networks)), panel=(3.9, 2.9)) as (panels, svg):
        for row, (network, its) in enumerate(networks.items()):
            outputs, gradients, over_steps = panels[3 * row : 3 * row + 3]
            for run in its:
                layers, style = weighted(run), _STYLES[run.first_weights]
                places = range(1, len(layers) + 1)
                _lines(outputs, run, places, [run.norms[0].layers[name].activation for name in layers], style)
                _lines(gradients, run, places, [share_of_weights(run, 0, name) for name in layers], style)
                shares = [share_of_weights(run, at, layers[0]) for at in range(len(run.norms))]
                _lines(over_steps, run, [one.step for one in run.norms], shares, style)
            outputs.set(title=f"{network}, first step", ylabel="outputs", xlabel="weight layer")
            gradients.set(title=f"{network}, first step", ylabel="gradient / weights", xlabel="weight layer")
            over_steps.set(title=f"{network}, conv1_1", ylabel="gradient / weights", xlabel="step")
            for panel in (outputs, gradients, over_steps):
                _logarithmic(panel.set_yscale, panel.yaxis)
                panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            over_steps.legend(loc="upper left", bbox_to_anchor=(1, 1))  # curves are anywhere in the panel
    return svg[0]


def errors_on_both(runs: Sequence[StudyRun]) -> str:
    """Draw the errors on training images (hollow) and on test images (filled) of every training."""
    names = list(dict.fromkeys(run.training.label for run in runs))
    with svg_figure(panel=(max(4.6, 0.85 * len(names)), 3.4)) as ((panel,), svg):
        for run in runs:
            if run.test is not None and run.on_training_images is not None:
                place, colour = names.index(run.training.label), _colour(run)
                ends = [run.on_training_images.top1_error, run.test.top1_error]
                panel.plot([place, place], ends, color=colour, linewidth=1)
                panel.plot(place, ends[0], color=colour, marker="o", markerfacecolor="none", linestyle="")
                panel.plot(place, ends[1], color=colour, marker="o", linestyle="")
        panel.plot([], [], color=INK, marker="o", markerfacecolor="none", linestyle="", label="training images")
        panel.plot([], [], color=INK, marker="o", linestyle="", label="test images")
        panel.legend()
        panel.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
        panel.set(ylabel="error, %")
        panel.set_ylim(bottom=0)
    return svg[0]


def errors_by_images(runs: Sequence[StudyRun]) -> str:
    """Draw the test error of each network against the number of training images: points of seeds, lines of means."""
    with svg_figure(panel=(5.6, 3.6)) as ((panel,), svg):
        for network, its in of_network(runs).items():
            points = [(run.images, run.test.top1_error) for run in its if run.test is not None]
            counts = sorted({images for images, _ in points})
            means = [fmean([error for images, error in points if images == count]) for count in counts]
            style: dict[str, Any] = {"color": NETWORK_COLOURS[network], "marker": "os"[network != "A"]}
            panel.plot(counts, means, color=NETWORK_COLOURS[network], linestyle="--" if network == "A" else "-")
            panel.plot(*zip(*points, strict=True), linestyle="", label=network, **style)
        _logarithmic(panel.set_xscale, panel.xaxis, base=2)
        every = sorted({run.images for run in runs})
        panel.set_xticks(every, [number(count) for count in every])
        panel.set(xlabel="training images", ylabel="test error, %")
        panel.set_ylim(bottom=0)
        panel.legend()
    return svg[0]


def weighted(run: StudyRun) -> list[str]:
    """Return the layers with weights of the paper, in order: convolutions and fully connected layers."""
    return [name for name in run.norms[0].layers if not name.startswith("bn")]


def share_of_weights(run: StudyRun, at: int, layer: str) -> float | None:
    """Return the norm of a layer's gradient divided by that of its weights, in the recorded step number `at`."""
    norms = run.norms[at].layers[layer]
    return None if norms.gradient is None or not norms.weight else norms.gradient / norms.weight


def _lines(
    panel: Axes, run: StudyRun, places: Sequence[int], values: Sequence[float | None], style: dict[str, Any]
) -> None:
    """Draw the values that there are, but 0, for which a logarithmic axis has no place."""
    shown = [(place, value) for place, value in zip(places, values, strict=True) if value]
    marker = "." if len(shown) == 1 else None
    if shown:
        panel.plot(*zip(*shown, strict=True), label=_label(panel, run), marker=marker, **style)


def _label(panel: Axes, run: StudyRun) -> str | None:
    """Return how a run got its first weights, once for all seeds."""
    words = FIRST_WEIGHTS[run.first_weights]
    return None if words in panel.get_legend_handles_labels()[1] else words


def _logarithmic(set_scale: Callable[..., None], axis: Any, *, base: int = 10) -> None:
    set_scale("log", base=base)
    axis.set_major_formatter(FuncFormatter(lambda value, _: trimmed(value)))
    axis.set_minor_formatter(NullFormatter())


def _colour(run: StudyRun) -> str:
    return NETWORK_COLOURS[run.training.network.partition("-")[0]]
