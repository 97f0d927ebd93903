"""The verb `describe`."""

from verydeep.commands.options import JsonFile
from verydeep.networks.arithmetic import describe as describe_network
from verydeep.networks.arithmetic import describe_stack
from verydeep.networks.configurations import CONFIGURATIONS, ILSVRC_CLASSES, PAPER_CROP
from verydeep.networks.tables import layer_table, networks_table, stack_table
from verydeep.presentation.terminal import show

STACK_CHANNELS = 512


def describe(
    *networks: str,
    input: int = PAPER_CROP,
    classes: int = ILSVRC_CLASSES,
    batch: int = 1,
    width: float = 1.0,
    batch_norm: bool = False,
    stack: tuple[int, ...] | None = None,
    channels: int | None = None,
    json_file: JsonFile = None,
) -> None:
    """Show what networks cost and see: layers, parameters, multiply-adds, memory, receptive field.

    Args:
        networks: Names from the paper's Table 1 (A, A-LRN, B, C, D, E) or B-5x5; all, side by side, if none is named.
        input: Side of the crop in pixels, a multiple of 32.
        classes: Outputs of the last layer.
        batch: Images whose activations count as memory.
        width: Factor on the channels of every hidden layer.
        batch_norm: Describe the variant with batch normalisation (not in the paper).
        stack: Compare stacked convolutions, such as 3,3,3, with one layer that sees as much, instead of networks.
        channels: Channels of that stack, 512 by default.
        json_file: Write the figures to this file as well (- for standard output instead of the table).
    """
    if stack is not None:
        if networks or (input, classes, batch, width, batch_norm) != (PAPER_CROP, ILSVRC_CLASSES, 1, 1.0, False):
            raise ValueError("a --stack is described by --channels alone, without networks and their options")
        comparison = describe_stack(stack, channels=STACK_CHANNELS if channels is None else channels)
        show(comparison.to_dict(), json_file, stack_table(comparison))
        return
    if channels is not None:
        raise ValueError("--channels goes with --stack")
    described = [
        describe_network(name, input=input, classes=classes, batch=batch, width=width, batch_norm=batch_norm)
        for name in networks or CONFIGURATIONS
    ]
    figures = {"networks": [network.to_dict() for network in described]}
    show(figures, json_file, layer_table(described[0]) if len(described) == 1 else networks_table(described))
