"""What computes steps: the network on its device, together with other processes, and the optimiser."""

from typing import cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from verydeep.machine.runtime import uses_bf16
from verydeep.networks.vgg import VGG
from verydeep.training.checkpoint import Checkpoint
from verydeep.training.job import Order
from verydeep.training.micro_batch import micro_batch_that_fits
from verydeep.training.objective import Objective, classification, localisation
from verydeep.training.parallel import like, parallelised
from verydeep.training.recipe import Recipe
from verydeep.training.step import Machinery

FUSED = ("cuda", "cpu")
"""Devices on which one kernel updates all weights: for net A at crop 64, on a CPU, 22 ms against 95 (docs/LOG.md)."""


def assemble(order: Order, net: VGG, found: Checkpoint | None = None) -> Machinery:
    """The network on its device, together with the other processes, and the optimiser with its momentum."""
    recipe, execution, processes, device = order.recipe, order.execution, order.processes, order.device
    tf32 = device.type == "cuda" and execution.precision != "fp32"
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    bf16 = uses_bf16(execution.precision, device)
    micro_batch = execution.micro_batch or micro_batch_that_fits(order, net, bf16=bf16)
    forward = parallelised(net, processes, device, fc_parallel=execution.fc_parallel)
    if execution.compile:
        forward = cast(nn.Module, torch.compile(forward))
    optimiser = _optimiser(net, recipe, device)
    for name, value in net.named_parameters():
        if found is not None and name in found.momentum:
            optimiser.state[value]["momentum_buffer"] = like(found.momentum[name], value.detach())
    return Machinery(
        net=net,
        forward=forward,
        optimiser=optimiser,
        processes=processes,
        device=device,
        bf16=bf16,
        tf32=tf32,
        micro_batch=micro_batch,
        fc_parallel=execution.fc_parallel,
        objective=_objective(order),
    )


def _objective(order: Order) -> Objective:
    if order.splits.regression is not None:
        return localisation(order.splits.regression)
    return classification(label_smoothing=order.recipe.label_smoothing)


def _optimiser(net: VGG, recipe: Recipe, device: torch.device) -> torch.optim.SGD:
    """Momentum descent; one kernel for all weights where there is one (none for sharded ones)."""
    learning = [value for value in net.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in learning if isinstance(value, DTensor) == sharded], "fused": fused}
        for sharded, fused in ((False, device.type in FUSED), (True, False))
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.first_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
