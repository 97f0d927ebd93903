"""The learner: the network on its device, together with other processes, its objective and its optimiser."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from verydeep.machine.processes import Processes
from verydeep.machine.runtime import Precision, uses_bf16
from verydeep.networks.vgg import VGG
from verydeep.training.checkpoint import Checkpoint
from verydeep.training.job import TrainingJob
from verydeep.training.micro_batch import micro_batch_that_fits
from verydeep.training.objective import Objective, box_regression, classification
from verydeep.training.parallel import laid_out_like, parallelised
from verydeep.training.recipe import Recipe

_FUSED_KERNELS = ("cuda", "cpu")
"""Devices on which one kernel updates all weights: for net A at crop 64, on a CPU, 22 ms against 95 (docs/LOG.md)."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Everything that computes steps, the same for all of them."""

    net: VGG
    """Holds the weights."""
    forward: nn.Module
    """Called in place of `net`: compiled, or adding up gradients over processes."""
    optimiser: torch.optim.SGD
    processes: Processes
    device: torch.device
    bf16: bool
    """Whether products are computed in bfloat16."""
    tf32: bool
    """Whether products of float32 are computed in TF32."""
    micro_batch: int
    """Images computed at once."""
    fc_parallel: bool
    """Whether each process holds a part of the fully connected layers."""
    objective: Objective


def learner_of(job: TrainingJob, net: VGG, checkpoint: Checkpoint | None = None) -> Learner:
    """Put the network on the job's device, together with other processes; take the momentum from the checkpoint."""
    execution, processes, device = job.execution, job.processes, job.device
    tf32 = _choose_kernels(device, execution.precision)
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    bf16 = uses_bf16(execution.precision, device)
    micro_batch = execution.micro_batch or micro_batch_that_fits(job, net, bf16=bf16)
    forward = parallelised(net, processes, device, fc_parallel=execution.fc_parallel)
    if execution.compile:
        forward = cast(nn.Module, torch.compile(forward))
    optimiser = _optimiser(net, job.recipe, device)
    for name, value in net.named_parameters():
        if checkpoint is not None and name in checkpoint.momentum:
            optimiser.state[value]["momentum_buffer"] = laid_out_like(value.detach(), checkpoint.momentum[name])
    return Learner(
        net=net,
        forward=forward,
        optimiser=optimiser,
        processes=processes,
        device=device,
        bf16=bf16,
        tf32=tf32,
        micro_batch=micro_batch,
        fc_parallel=execution.fc_parallel,
        objective=_objective(job),
    )


def _choose_kernels(device: torch.device, precision: Precision) -> bool:
    """Set what CUDA kernels may do in this process; return whether they may compute products in TF32."""
    if device.type != "cuda":
        return False
    tf32 = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    return tf32


def _objective(job: TrainingJob) -> Objective:
    if job.architecture.boxes is not None:
        return box_regression(job.architecture.boxes)
    return classification(label_smoothing=job.recipe.label_smoothing)


def _optimiser(net: VGG, recipe: Recipe, device: torch.device) -> torch.optim.SGD:
    """Return momentum descent; one kernel updates all weights where there is one (there is none for sharded ones)."""
    learning = [value for value in net.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in learning if isinstance(value, DTensor) == sharded], "fused": fused}
        for sharded, fused in ((False, device.type in _FUSED_KERNELS), (True, False))
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.first_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
