"""One step of gradient descent: the gradients of a batch, in one piece or several, on one process or several."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from verydeep.images.loader import DeviceBatch
from verydeep.machine.runtime import autocast
from verydeep.networks.vgg import VGG
from verydeep.numbers import significant
from verydeep.training.learner import Learner
from verydeep.training.norms import LayerNorms, layer_norms, watched
from verydeep.training.parallel import everyones_rows, gradient_norm


class DivergedError(RuntimeError):
    """Loss, gradients or scores are no longer finite numbers."""

    def __init__(self, what: str, then: str = "") -> None:
        super().__init__(f"{what}; {then}" if then else what)
        self.what = what
        """What diverged and when, without what is to be done."""


class Abandoned(Exception):
    """A step was given up before it was applied."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one step, over all processes."""

    loss_sum: float = 0.0
    """Loss summed over all images; their mean is descended on."""
    wrong: int = 0
    """Images that the network got wrong."""
    norms: Mapping[str, LayerNorms] = field(default_factory=dict)
    """Norms of every layer, if they are recorded."""


def descend(
    learner: Learner,
    batch: DeviceBatch,
    *,
    step: int,
    rate: float,
    usable: Sequence[int],
    abandon: Callable[[], bool] = lambda: False,
    record: bool = False,
) -> Outcome:
    """Apply one step with learning rate `rate`; its random numbers follow from seed, step and positions in the batch.

    Args:
        learner: the network and its optimiser; its job has seed, batch and dropout.
        batch: this process's share.
        step: number of the step, from 0.
        rate: learning rate.
        usable: images of the batch that each process has; at least one of them has some.
        abandon: asked between micro-batches whether to give up.
        record: return the norms of all layers, too; they change nothing.

    Raises:
        DivergedError: loss or gradients are not finite; the weights are as they were.
        Abandoned: `abandon` said so; the weights are as they were.
    """
    learner.net.train()
    _freeze_statistics(learner.net)
    learner.optimiser.zero_grad()
    # What is compiled would keep the hooks.
    watching = watched(learner.net, on=record and not learner.job.execution.compile)
    with _restoring_statistics(learner.net), watching as outputs:
        sums = learner.job.processes.gathered(_gradients(learner, batch, step, usable, abandon))
        loss_sum, wrong = sums.sum(0).tolist()
        norm = gradient_norm(learner.net)
        if not (math.isfinite(loss_sum) and math.isfinite(norm)):
            loss = loss_sum / sum(usable)
            raise DivergedError(
                f"training diverged at step {step} (loss {significant(loss, 3)}, gradient norm {significant(norm, 3)})"
            )
    norms = layer_norms(learner.net, outputs, learner.job.processes) if record else {}
    for group in learner.optimiser.param_groups:
        group["lr"] = rate
    learner.optimiser.step()
    return Outcome(loss_sum=loss_sum, wrong=round(wrong), norms=norms)


def _gradients(
    learner: Learner, batch: DeviceBatch, step: int, usable: Sequence[int], abandon: Callable[[], bool]
) -> list[float]:
    """Add up the gradients of the mean loss of the whole batch; return loss and errors of this process's images."""
    recipe, device, fc_parallel = learner.job.recipe, learner.job.device, learner.job.execution.fc_parallel
    keep = _dropout_masks(learner.net, seed=recipe.seed, step=step, batch=recipe.batch, device=device)
    positions = _positions(learner, batch.positions, max(usable))
    sums = torch.zeros(2, device=device)
    rows = max(usable) if fc_parallel else len(batch.labels)
    starts = range(0, max(1, rows), learner.micro_batch)
    with autocast(device, bf16=learner.bf16):  # around all pieces, so that weights are converted once
        for start in starts:
            if abandon():
                raise Abandoned
            part = slice(start, min(start + learner.micro_batch, rows))
            piece = batch.piece(part)
            masks = {name: mask[positions[:, part].flatten()] for name, mask in keep.items()}
            images = _filled(piece.images, part.stop - part.start)
            with _exchange_only_if(learner.forward, start == starts[-1]):
                everyones = everyones_rows(masks, learner.net)
                outputs = learner.forward(images, everyones, first=learner.first)[: len(piece.labels)].float()
                loss = learner.objective.loss(outputs, piece)
                (loss / sum(usable)).backward()
            sums += torch.stack([loss.detach(), learner.objective.wrong(outputs, piece).sum()])
    return sums.tolist()


def _dropout_masks(
    net: VGG, *, seed: int, step: int, batch: int, device: torch.device
) -> dict[str, Bool[Tensor, "batch features"]]:
    """Return the activations that dropout keeps in a step, {"drop6": [batch, features], ...}.

    A row belongs to a position in the batch, so an image loses the same activations however the batch is divided
    among processes and micro-batches.
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


def _positions(learner: Learner, mine: Int[Tensor, " B"], rows: int) -> Int[Tensor, "processes rows"]:
    """Return the positions in the batch of the rows that dropout sees: all processes' if those layers are shared."""
    if not learner.job.execution.fc_parallel:
        return mine[None]
    padded = F.pad(mine, (0, rows - len(mine))).tolist()
    return learner.job.processes.gathered(padded).to(learner.job.device, torch.int64)


def _filled(images: Float[Tensor, "B ..."], rows: int) -> Float[Tensor, "rows ..."]:
    """Append copies of the last image (black ones if there is none) until there are `rows`."""
    missing = rows - len(images)
    if not missing:
        return images
    last = images[-1:] if len(images) else images.new_zeros(1, *images.shape[1:])
    return torch.cat([images, last.expand(missing, *images.shape[1:])]).contiguous(memory_format=torch.channels_last)


def _exchange_only_if(forward: nn.Module, last: bool) -> AbstractContextManager[object]:
    inner = getattr(forward, "_orig_mod", forward)  # of a compiled module
    return inner.no_sync() if isinstance(inner, DistributedDataParallel) and not last else nullcontext()


@contextmanager
def _restoring_statistics(net: VGG) -> Iterator[None]:
    """Restore the statistics of batch normalisation if the block ends with an error."""
    before = {name: value.clone() for name, value in net.named_buffers()} if net.architecture.batch_norm else {}
    try:
        yield
    except BaseException:
        for name, value in before.items():
            net.get_buffer(name).copy_(value)
        raise


def _freeze_statistics(net: VGG) -> None:
    """Let batch normalisations of frozen layers keep the statistics that they have."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def scores(learner: Learner, images: Float[Tensor, "B ..."]) -> Float[Tensor, "B outputs"]:
    """Return the outputs in testing, class scores or boxes, of at most as many inputs as a micro-batch has."""
    learner.net.eval()
    with torch.no_grad(), autocast(learner.job.device, bf16=learner.bf16):
        rows = _filled(images, learner.micro_batch) if learner.job.execution.fc_parallel else images
        outputs: Tensor = learner.net(rows, first=learner.first)
    return outputs[: len(images)]
