"""The learner: the network on its device, together with other processes, its objective and its optimiser.

It computes as many images at once, a micro-batch, as fit into memory.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from verydeep.box_regression import Regression
from verydeep.images.boxes.geometry import CORRECT_IOU
from verydeep.images.loader import DeviceBatch
from verydeep.machine.memory import memory_bytes
from verydeep.machine.runtime import Precision, autocast, uses_bf16
from verydeep.machine.torchrun import processes_here
from verydeep.networks.arithmetic import describe_architecture
from verydeep.networks.vgg import VGG
from verydeep.training.checkpoint import Checkpoint
from verydeep.training.job import TrainingJob
from verydeep.training.parallel import laid_out_like, parallelised


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Two functions of a network's outputs and the images that it was given."""

    loss: Callable[[Float[Tensor, "B outputs"], DeviceBatch], Float[Tensor, ""]]
    """Loss summed over the images; their mean is descended on."""
    wrong: Callable[[Float[Tensor, "B outputs"], DeviceBatch], Bool[Tensor, " B"]]
    """Images that the network gets wrong."""


def classification(*, label_smoothing: float = 0.0, class_weights: Float[Tensor, " K"] | None = None) -> Objective:
    """Return multinomial logistic regression on logits [B, classes], the classes weighted or all alike."""

    def loss(logits: Float[Tensor, "B K"], batch: DeviceBatch) -> Float[Tensor, ""]:
        if class_weights is None:
            return F.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=label_smoothing)
        of_images = F.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=label_smoothing)
        return (of_images * class_weights[batch.labels]).sum()

    def wrong(logits: Float[Tensor, "B K"], batch: DeviceBatch) -> Bool[Tensor, " B"]:
        return logits.argmax(1) != batch.labels

    return Objective(loss=loss, wrong=wrong)


def box_regression(regression: Regression) -> Objective:
    """Return half the squared Euclidean distance of (x, y, width, height) to the true box, in units of the crop.

    Outputs are [B, 4], or [B, 4 * classes], of which the true class's four count. An image is wrong if the intersection
    over union with its box is not above one half, both taken as they are, also beyond the crop.
    """

    def of_true_class(outputs: Float[Tensor, "B outputs"], batch: DeviceBatch) -> Float[Tensor, "B 4"]:
        if regression == "shared":
            return outputs.float()
        boxes = outputs.float().unflatten(1, (-1, 4))
        return boxes.gather(1, batch.labels[:, None, None].expand(-1, 1, 4))[:, 0]

    def loss(outputs: Float[Tensor, "B outputs"], batch: DeviceBatch) -> Float[Tensor, ""]:
        return F.mse_loss(of_true_class(outputs, batch), _boxes(batch), reduction="sum") / 2

    def wrong(outputs: Float[Tensor, "B outputs"], batch: DeviceBatch) -> Bool[Tensor, " B"]:
        return ~(_intersection_over_union(of_true_class(outputs, batch), _boxes(batch)) > CORRECT_IOU)

    return Objective(loss=loss, wrong=wrong)


def _boxes(batch: DeviceBatch) -> Float[Tensor, "B 4"]:
    if not len(batch.labels):
        return batch.images.new_zeros(0, 4)
    if batch.boxes is None:
        raise ValueError("these images have no boxes to learn")
    return batch.boxes


def _intersection_over_union(one: Float[Tensor, "B 4"], other: Float[Tensor, "B 4"]) -> Float[Tensor, " B"]:
    """Return the overlap of boxes (x, y, width, height); 0 for a side below 0."""
    (low, high), (lower, higher) = _edges(one), _edges(other)
    shared = (high.minimum(higher) - low.maximum(lower)).clamp(min=0).prod(1)
    union = (high - low).clamp(min=0).prod(1) + (higher - lower).clamp(min=0).prod(1) - shared
    return shared / union


def _edges(boxes: Float[Tensor, "B 4"]) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B 2"]]:
    return boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2


_FUSED_KERNELS = ("cuda", "cpu")
"""Devices on which one kernel updates all weights: for net A at crop 64, on a CPU, 22 ms against 95 (docs/LOG.md)."""

OUT_OF_MEMORY_IS_SURVIVED = ("cuda",)
"""Devices on which an allocation that fails is an error; elsewhere the system ends the process."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Everything that computes steps, the same for all of them."""

    job: TrainingJob
    net: VGG
    """Holds the weights."""
    forward: nn.Module
    """Called in place of `net`: compiled, or adding up gradients over processes."""
    optimiser: torch.optim.SGD
    bf16: bool
    """Whether products are computed in bfloat16."""
    tf32: bool
    """Whether products of float32 are computed in TF32."""
    micro_batch: int
    """Images computed at once."""
    objective: Objective
    first: str | None = None
    """The first layer that a step computes, if inputs are features of frozen layers; None if they are images."""


def learner_of(
    job: TrainingJob, net: VGG, checkpoint: Checkpoint | None = None, *, micro_batch_as_begun: int | None = None
) -> Learner:
    """Put the network on the job's device, together with other processes; take the momentum from the checkpoint.

    Images are computed at once as it was asked for, or as many as memory holds, but no more than when it was begun:
    other pieces are added in another order.
    """
    execution, device, boxes = job.execution, job.device, job.architecture.boxes
    tf32 = _choose_kernels(device, execution.precision)
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    bf16 = uses_bf16(execution.precision, device)
    most = micro_batch_as_begun or job.recipe.batch
    micro_batch = execution.micro_batch or min(_micro_batch_that_fits(job, net, bf16=bf16), most)
    forward = parallelised(net, job.processes, device, fc_parallel=execution.fc_parallel)
    if execution.compile:
        forward = cast(nn.Module, torch.compile(forward))
    optimiser = _optimiser(job, net)
    for name, value in net.named_parameters():
        if checkpoint is not None and name in checkpoint.momentum:
            optimiser.state[value]["momentum_buffer"] = laid_out_like(value.detach(), checkpoint.momentum[name])
    return Learner(
        job=job,
        net=net,
        forward=forward,
        optimiser=optimiser,
        bf16=bf16,
        tf32=tf32,
        micro_batch=micro_batch,
        objective=box_regression(boxes) if boxes else _classification(job),
    )


def _classification(job: TrainingJob) -> Objective:
    """Return the objective of a recipe; weights of classes have the mean 1 over the training images."""
    weights = None
    if job.recipe.class_weights:
        source = job.splits.source("train")
        images = torch.bincount(torch.tensor(source.labels), minlength=len(source.classes))
        weights = (len(source) / (images.count_nonzero() * images.clamp(min=1))).to(job.device)
    return classification(label_smoothing=job.recipe.label_smoothing, class_weights=weights)


def _choose_kernels(device: torch.device, precision: Precision) -> bool:
    """Choose CUDA's kernels for this process; return whether they may compute products in TF32."""
    if device.type != "cuda":
        return False
    tf32 = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    return tf32


def _optimiser(job: TrainingJob, net: VGG) -> torch.optim.SGD:
    """Return momentum descent; one kernel updates all weights where there is one (there is none for sharded ones)."""
    learning = [value for value in net.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in learning if isinstance(value, DTensor) == sharded], "fused": fused}
        for sharded, fused in ((False, job.device.type in _FUSED_KERNELS), (True, False))
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=job.recipe.first_rate,
        momentum=job.recipe.momentum,
        weight_decay=job.recipe.weight_decay,
    )


def measured_copy(net: VGG) -> VGG:
    """Return a copy of a network, as a training on a CPU has it, whose steps can be timed; `net` stays as it is."""
    copy = net.with_weights({name: value.clone() for name, value in net.state_dict().items()})
    return copy.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def forward_and_back(net: VGG, images: int, device: torch.device, *, bf16: bool) -> None:
    """Compute the gradients of a loss on so many black images, with products in bfloat16 or float32."""
    crop = net.architecture.crop
    black = torch.zeros(images, 3, crop, crop, device=device).to(memory_format=torch.channels_last)
    with autocast(device, bf16=bf16):
        loss = net(black).float().logsumexp(1).sum()
    net.zero_grad(set_to_none=True)
    loss.backward()


def _micro_batch_that_fits(job: TrainingJob, net: VGG, *, bf16: bool) -> int:
    """Return the images that every process can compute at once: all of its share, or a half, a quarter, ... of it."""
    share, device = math.ceil(job.recipe.batch / job.processes.count), job.device

    if device.type in OUT_OF_MEMORY_IS_SURVIVED:
        momentum = [torch.empty_like(value) for value in net.parameters()]  # which will have to fit, too
        before = {name: value.clone() for name, value in net.named_buffers()}
        try_out = partial(forward_and_back, net, device=device, bf16=bf16)
        fits = _largest_that_fits(share, try_out, forget=lambda: net.zero_grad(set_to_none=True))
        net.load_state_dict(before, strict=False)
        del momentum
    else:
        fits = _largest_by_arithmetic(job, share)
    return int(job.processes.gathered([fits]).min())


def _largest_by_arithmetic(job: TrainingJob, images: int) -> int:
    """Return the first of `images`, a half, a quarter, ... whose activations and gradients take half of the memory."""
    size = describe_architecture(job.architecture).activation_bytes
    memory = memory_bytes() / processes_here()
    while images > 1 and 2 * size * images > memory / 2:
        images = math.ceil(images / 2)
    return images


def _largest_that_fits(images: int, try_out: Callable[[int], None], *, forget: Callable[[], None]) -> int:
    """Return the first of `images`, a half, a quarter, ... that `try_out` has memory for; `forget` frees it again.

    Raises:
        ValueError: not even one image fits.
    """
    while True:
        try:
            try_out(images)
        except torch.OutOfMemoryError:
            if images == 1:
                raise ValueError(
                    "not even one image fits into the device's memory: take a smaller --width or --crop"
                ) from None
        else:
            return images
        finally:
            forget()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        images = math.ceil(images / 2)
