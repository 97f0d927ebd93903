"""Tables of networks' costs."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from verydeep.networks.arithmetic import LayerDescription, NetworkDescription, StackDescription, describe_stack
from verydeep.numbers import billions, millions, number, percent, points
from verydeep.presentation.terminal import table_with

_SECTION_2_3 = describe_stack((3, 3, 3), channels=1)
"""The paper's example of a stack."""


def layer_table(network: NetworkDescription) -> Table:
    """Return a table of one network, a row per layer."""
    table = table_with(
        f"{network.network} on {network.input} x {network.input} pixels, {number(network.classes)} classes",
        left=("layer", "output"),
        right=("parameters", "mult-adds", "memory", "sees"),
    )
    for layer in network.layers:
        ends_stage = layer.kind == "pool" or layer is network.layers[-1]
        table.add_row(
            layer.name,
            " x ".join(map(str, layer.output)),
            number(layer.parameters),
            f"{millions(layer.macs)} M",
            f"{millions(layer.activation_bytes, 2)} MB",
            f"{layer.receptive_field} px",
            end_section=ends_stage,
        )
    table.add_row(
        f"{network.weight_layers} layers",
        "with weights",
        number(network.parameters),
        f"{millions(network.macs)} M",
        f"{millions(network.activation_bytes, 2)} MB",
        "",
        style="bold",
    )
    return table


def networks_table(networks: Sequence[NetworkDescription]) -> Table:
    """Return a table of several networks side by side, as in Table 1, with their costs."""
    first = networks[0]
    table = table_with(
        f"Kernel side and channels of every convolution; {first.input} x {first.input} pixels, "
        f"{number(first.classes)} classes",
        left=("",),
        right=[network.network for network in networks],
    )
    stages = sum(layer.kind == "pool" for layer in first.layers)
    for stage in range(1, stages + 1):
        cells = ["\n".join(_stage(network, stage)) for network in networks]
        table.add_row(f"conv{stage}", *cells, end_section=True)
    rows = {
        "weight layers": [str(network.weight_layers) for network in networks],
        "parameters, M": [millions(network.parameters) for network in networks],
        "mult-adds, G": [billions(network.macs, 2) for network in networks],
        "activations, MB": [millions(network.activation_bytes) for network in networks],
        "pool5 sees, px": [str(network.receptive_field) for network in networks],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    table.caption_justify = "left"
    table.caption = Text(f"Three 3 x 3 layers see as much as one of 7 x 7, which has {_both_ways(_SECTION_2_3)}.")
    return table


def stack_table(stack: StackDescription) -> Table:
    """Return a table of a stack of convolutions beside the one layer that sees as much."""
    side = stack.receptive_field
    names = " + ".join(f"{kernel} x {kernel}" for kernel in stack.kernels)
    table = table_with(f"C = {stack.channels} channels", left=("",), right=("stack", "one layer"))
    table.add_row("kernels", names, f"{side} x {side}")
    table.add_row("receptive field", str(side), str(side))
    table.add_row("weights", f"{stack.weights_per_square_channel} C^2", f"{side**2} C^2")
    table.add_row(
        "", number(stack.weights), f"{number(stack.single_weights)} ({points(stack.single_extra_percent, 0)}%)"
    )
    table.add_row("non-linearities", str(len(stack.kernels)), "1")
    table.caption_justify = "left"
    table.caption = Text(f"The one layer has {_both_ways(stack)}.")
    return table


def _both_ways(stack: StackDescription) -> str:
    """Compare weights in percent of either side, since texts confuse the two percentages."""
    more, fewer = (f"{percent(one, 0)}%" for one in (stack.single_extra_percent, stack.fewer_percent))
    turned = f"; texts that say '{more} fewer' have it the wrong way round" if more != fewer else ""
    return f"{more} more weights than the stack, the stack {fewer} fewer than the one layer{turned}"


def _stage(network: NetworkDescription, stage: int) -> list[str]:
    """Return `3-64` for each convolution of a stage (Table 1 writes conv3-64), and `LRN`."""
    return [
        _in_table_1(layer)
        for layer in network.layers
        if layer.name.startswith(f"conv{stage}_") or layer.name == f"lrn{stage}"
    ]


def _in_table_1(layer: LayerDescription) -> str:
    return "LRN" if layer.kind == "lrn" else f"{layer.kernel}-{layer.output[0]}"
