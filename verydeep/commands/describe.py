"""The verb `describe`."""

from dataclasses import asdict, dataclass
from typing import Annotated

from cyclopts import Group, Parameter

from verydeep.commands.options import JsonFile, OutputFile
from verydeep.networks.architecture import CONFIGURATIONS, Architecture
from verydeep.networks.arithmetic import describe as describe_network
from verydeep.networks.arithmetic import describe_stack
from verydeep.networks.tables import layer_table, networks_table, stack_table
from verydeep.presentation.terminal import say_next, show

_STACK_CHANNELS = 512


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the networks that are described."""

    input: int = Architecture.crop
    """Side of the crop in pixels, a multiple of 32."""

    classes: int = Architecture.classes
    """Outputs of the last layer."""

    batch: int = 1
    """Images whose activations count as memory."""

    width: float = Architecture.width
    """Factor on the channels of every hidden layer."""

    batch_norm: bool = Architecture.batch_norm
    """Describe the variant with batch normalisation (not in the paper)."""


def describe(
    *networks: str,
    sizes: Annotated[Sizes, Parameter(name="*", group=Group("Sizes", sort_key=1))] = Sizes(),
    stack: tuple[int, ...] | None = None,
    channels: int = _STACK_CHANNELS,
    plot: OutputFile = None,
    json_file: JsonFile = None,
) -> None:
    """Show networks' costs and receptive fields: layers, parameters, multiply-adds, memory, receptive field.

    Args:
        networks: Names from the paper's Table 1 (A, A-LRN, B, C, D, E) or B-5x5; all, side by side, if none is named.
        stack: Compare stacked convolutions, such as 3,3,3, with one layer that sees as much, instead of networks.
        channels: Channels of that stack.
        plot: Draw one network into this .svg file: every layer with its map, stride, receptive field and parameters.
        json_file: Write the figures to this file as well (- for standard output instead of the table).
    """
    if plot is not None and (len(networks) != 1 or stack is not None or plot.suffix != ".svg"):
        raise ValueError("--plot draws a single network: name one, and a file that ends in .svg")
    if stack is not None:
        if networks or sizes != Sizes():
            raise ValueError("a --stack is described by --channels alone, without networks and their options")
        comparison = describe_stack(stack, channels=channels)
        show(comparison.to_dict(), json_file, stack_table(comparison))
        return
    if channels != _STACK_CHANNELS:
        raise ValueError("--channels goes with --stack")
    described = [describe_network(name, **asdict(sizes)) for name in networks or CONFIGURATIONS]
    if plot is not None:
        from verydeep.machine import atomic

        atomic.write_text(plot, described[0].to_svg())
    figures = {"networks": [network.to_dict() for network in described]}
    show(figures, json_file, layer_table(described[0]) if len(described) == 1 else networks_table(described))
    say_next([plot] if plot else [])
