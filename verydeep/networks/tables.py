"""Tables of what networks cost."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from verydeep.networks.arithmetic import LayerDescription, NetworkDescription, StackDescription
from verydeep.presentation.numbers import billions, millions, number
from verydeep.presentation.terminal import table_with


def layer_table(network: NetworkDescription) -> Table:
    """Return a table of one network, a row per layer."""
    table = table_with(
        f"{network.network} on {network.input} x {network.input} pixels, {network.classes} classes",
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
    """Return a table of several networks side by side, as in Table 1, with what they cost."""
    first = networks[0]
    table = table_with(
        f"Kernel side and channels of every convolution; {first.input} x {first.input} pixels, {first.classes} classes",
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
    return table


def stack_table(stack: StackDescription) -> Table:
    """Return a table of a stack of convolutions beside the one layer that sees as much."""
    side = stack.receptive_field
    names = " + ".join(f"{kernel} x {kernel}" for kernel in stack.kernels)
    table = table_with(f"C = {stack.channels} channels", left=("",), right=("stack", "one layer"))
    table.add_row("kernels", names, f"{side} x {side}")
    table.add_row("receptive field", str(side), str(side))
    table.add_row("weights", f"{stack.weights_per_square_channel} C^2", f"{side**2} C^2")
    table.add_row("", number(stack.weights), f"{number(stack.single_weights)} ({stack.single_extra_percent:+.0f}%)")
    table.add_row("non-linearities", str(len(stack.kernels)), "1")
    fewer = 100 * (1 - stack.weights / stack.single_weights)
    table.caption = Text(
        f"The one layer has {stack.single_extra_percent:.0f}% more weights than the stack, "
        f"the stack {fewer:.0f}% fewer than the one layer."
    )
    return table


def _stage(network: NetworkDescription, stage: int) -> list[str]:
    """Return `3-64` for each convolution of a stage (Table 1 writes conv3-64), and `LRN`."""
    return [
        _in_table_1(layer)
        for layer in network.layers
        if layer.name.startswith(f"conv{stage}_") or layer.name == f"lrn{stage}"
    ]


def _in_table_1(layer: LayerDescription) -> str:
    return "LRN" if layer.kind == "lrn" else f"{layer.kernel}-{layer.output[0]}"
