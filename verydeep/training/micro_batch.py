"""The micro-batch: as many images computed at once as fit into memory."""

import math
import os
from collections.abc import Callable

import torch

from verydeep.machine.processes import processes_here
from verydeep.machine.runtime import autocast
from verydeep.networks.arithmetic import describe
from verydeep.networks.vgg import VGG
from verydeep.training.job import TrainingJob

OUT_OF_MEMORY_IS_SURVIVED = ("cuda",)
"""Devices on which an allocation that fails is an error; elsewhere the system ends the process."""


def micro_batch_that_fits(job: TrainingJob, net: VGG, *, bf16: bool) -> int:
    """Return the images that every process can compute at once: all of its share, or a half, a quarter, ... of it."""
    share, device, crop = math.ceil(job.recipe.batch / job.processes.count), job.device, net.architecture.crop

    def try_out(images: int) -> None:
        black = torch.zeros(images, 3, crop, crop, device=device).to(memory_format=torch.channels_last)
        with autocast(device, bf16=bf16):
            loss = net(black).float().logsumexp(1).sum()
        loss.backward()

    if device.type in OUT_OF_MEMORY_IS_SURVIVED:
        momentum = [torch.empty_like(value) for value in net.parameters()]  # which will have to fit, too
        before = {name: value.clone() for name, value in net.named_buffers()}
        fits = _largest_that_fits(share, try_out, forget=lambda: net.zero_grad(set_to_none=True))
        net.load_state_dict(before, strict=False)
        del momentum
    else:
        fits = _largest_by_arithmetic(job, share)
    return int(job.processes.gathered([fits]).min())


def _largest_by_arithmetic(job: TrainingJob, images: int) -> int:
    """Return the first of `images`, a half, a quarter, ... whose activations and gradients take half of the memory."""
    size = describe(job.architecture).activation_bytes
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / processes_here()
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
