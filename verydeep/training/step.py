"""One step of gradient descent: the gradients of a batch, in one piece or several, on one process or several."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from verydeep.images.on_device import DeviceBatch
from verydeep.machine.processes import Processes
from verydeep.networks.vgg import VGG
from verydeep.training.objective import Objective
from verydeep.training.parallel import everyones_rows, gradient_norm
from verydeep.training.recipe import Recipe


class DivergedError(RuntimeError):
    """Loss, gradients or scores are no longer finite numbers."""


class Abandoned(Exception):
    """A step was given up before it was applied."""


@dataclass(frozen=True, kw_only=True)
class Machinery:
    """What computes steps; the same for all of them."""

    net: VGG
    """Holds the weights."""
    forward: nn.Module
    """What to call in its place: compiled, or with gradients added up over processes."""
    optimiser: torch.optim.SGD
    processes: Processes
    device: torch.device
    bf16: bool
    """Products are computed in bfloat16."""
    tf32: bool
    """Products of float32 are computed in TF32."""
    micro_batch: int
    """Images computed at once."""
    fc_parallel: bool
    objective: Objective


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one step, over all processes."""

    loss_sum: float = 0.0
    """Of all images; their mean is what was descended on."""
    wrong: int = 0
    """Images that the network had wrong."""


def descend(
    machinery: Machinery,
    recipe: Recipe,
    batch: DeviceBatch,
    *,
    step: int,
    rate: float,
    usable: list[int],
    abandon: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Applies one step with learning rate `rate`. Random numbers follow from (seed, step) and an image's place alone.

    `usable` says how many images of the batch each process has, at least one of them some. Between micro-batches
    `abandon` is asked whether to give up.

    Raises:
        DivergedError: loss or gradients are not finite; the weights are as they were.
        Abandoned: so are they.
    """
    machinery.net.train()
    freeze_statistics(machinery.net)
    machinery.optimiser.zero_grad()
    with unless_it_fails(machinery.net):
        loss_sum, wrong = _gradients(machinery, recipe, batch, step=step, usable=usable, abandon=abandon)
        sums = machinery.processes.gathered([loss_sum, wrong]).sum(0).tolist()
        norm = gradient_norm(machinery.net)
        if not (math.isfinite(sums[0]) and math.isfinite(norm)):
            loss = sums[0] / sum(usable)
            raise DivergedError(f"training diverged at step {step} (loss {loss:.3g}, gradient norm {norm:.3g})")
    for group in machinery.optimiser.param_groups:
        group["lr"] = rate
    machinery.optimiser.step()
    return Outcome(loss_sum=sums[0], wrong=round(sums[1]))


def _gradients(
    machinery: Machinery,
    recipe: Recipe,
    batch: DeviceBatch,
    *,
    step: int,
    usable: list[int],
    abandon: Callable[[], bool],
) -> tuple[float, float]:
    """Adds up the gradients of the mean loss of the whole batch; loss and errors of this process's images."""
    keep = dropout_masks(machinery.net, seed=recipe.seed, step=step, batch=recipe.batch, device=machinery.device)
    places = _places(machinery, batch.places, max(usable))
    told = torch.zeros(2, device=machinery.device)
    rows = max(usable) if machinery.fc_parallel else len(batch.labels)
    starts = range(0, max(1, rows), machinery.micro_batch)
    for start in starts:
        if abandon():
            raise Abandoned
        part = slice(start, min(start + machinery.micro_batch, rows))
        piece = batch.piece(part)
        here = {name: mask[places[:, part].flatten()] for name, mask in keep.items()}
        images = filled(piece.images, part.stop - part.start)
        with (
            _exchange_only_if(machinery.forward, start == starts[-1]),
            precision(machinery.device, bf16=machinery.bf16),
        ):
            outputs = machinery.forward(images, everyones_rows(here, machinery.net))[: len(piece.labels)]
            loss = machinery.objective.loss(outputs, piece)
            (loss / sum(usable)).backward()
        told += torch.stack([loss.detach(), machinery.objective.wrong(outputs, piece).sum()])
    loss_sum, wrong = told.tolist()
    return loss_sum, wrong


def dropout_masks(net: VGG, *, seed: int, step: int, batch: int, device: torch.device) -> dict[str, Tensor]:
    """Which activations dropout leaves in a step: {"drop6": [batch, features], ...}, by an image's place in the batch.

    So an image loses the same ones however a batch is divided among processes and micro-batches.
    """
    if not net.dropout:
        return {}
    generator = torch.Generator(device)
    generator.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))
    features = {"drop6": net.fc6.out_features, "drop7": net.fc7.out_features}
    return {
        name: torch.rand(batch, width, generator=generator, device=device) >= net.dropout
        for name, width in features.items()
    }


def _places(machinery: Machinery, places: Tensor, rows: int) -> Tensor:
    """Places in the batch of the rows that dropout sees: this process's or, where those are shared, everyone's."""
    if not machinery.fc_parallel:
        return places[None]
    padded = F.pad(places, (0, rows - len(places))).tolist()
    return machinery.processes.gathered(padded).to(machinery.device, torch.int64)


def filled(images: Tensor, rows: int) -> Tensor:
    """`images` with copies of the last one behind (black ones if there is none) until they are `rows`."""
    missing = rows - len(images)
    if not missing:
        return images
    last = images[-1:] if len(images) else images.new_zeros(1, *images.shape[1:])
    return torch.cat([images, last.expand(missing, *images.shape[1:])]).contiguous(memory_format=torch.channels_last)


def _exchange_only_if(forward: nn.Module, last: bool) -> AbstractContextManager[object]:
    inner = getattr(forward, "_orig_mod", forward)  # of a compiled module
    return inner.no_sync() if isinstance(inner, DistributedDataParallel) and not last else nullcontext()


def precision(device: torch.device, *, bf16: bool) -> AbstractContextManager[object]:
    """In its block products are computed in bfloat16, or as they come."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()


@contextmanager
def unless_it_fails(net: VGG) -> Iterator[None]:
    """Statistics of batch normalisation are as they were if the block ends with an error."""
    before = {name: value.clone() for name, value in net.named_buffers()} if net.architecture.batch_norm else {}
    try:
        yield
    except BaseException:
        for name, value in before.items():
            net.get_buffer(name).copy_(value)
        raise


def freeze_statistics(net: VGG) -> None:
    """Batch normalisations whose layer is frozen go on with the statistics that they have."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def scores(machinery: Machinery, images: Tensor) -> Tensor:
    """Outputs in testing, [B, classes] or boxes, of at most as many images as a micro-batch has."""
    machinery.net.eval()
    with torch.no_grad(), precision(machinery.device, bf16=machinery.bf16):
        shown = filled(images, machinery.micro_batch) if machinery.fc_parallel else images
        logits: Tensor = machinery.net(shown)
    return logits[: len(images)]
