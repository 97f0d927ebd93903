"""The convolution of the networks, and a faster gradient of its weights on CPUs that compute in bfloat16."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGEST_SIDE = 8
_FEWEST_CHANNELS = 64
"""Maps up to this side, with channels from this number, have their weights' gradient computed as one product."""


class Convolution(nn.Conv2d):
    """A convolution with stride 1 that keeps height and width, [B, inputs, H, W] to [B, outputs, H, W].

    In bfloat16 on a CPU oneDNN takes up to six times as long for the gradient of the weights as for the output where
    maps are small and channels many, though both are as many multiply-adds. There it is one product of matrices.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output; its gradients are those of `nn.Conv2d` up to rounding."""
        if _pays(x, self.weight):
            rounded = (value.to(torch.bfloat16) for value in (x, *self.parameters()))
            y: Tensor = _Convolved.apply(*rounded)  # type: ignore[no-untyped-call]
            return y
        return super().forward(x)


def _pays(x: Tensor, weight: Tensor) -> bool:
    """Return whether the gradient of the weights is computed as one product."""
    return (
        weight.requires_grad
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and max(x.shape[2:]) <= _LARGEST_SIDE
        and min(weight.shape[:2]) >= _FEWEST_CHANNELS
        and not torch.compiler.is_compiling()
    )


class _Convolved(torch.autograd.Function):
    """A convolution in bfloat16 whose weights' gradient is one product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_x = _gradient_of_inputs(gradient, x, weight) if ctx.needs_input_grad[0] else None
        return of_x, *_gradients_as_products(gradient, x, weight.shape[-1])


def _gradients_as_products(gradient: Tensor, x: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of weights [outputs, C, kernel, kernel] and biases, of inputs x [B, C, H, W].

    `gradient` is that of the outputs, [B, outputs, H, W].
    """
    rows = gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1])
    of_weight = (rows.t() @ _windows(x, kernel)).view(-1, kernel, kernel, x.shape[1])
    return of_weight.permute(0, 3, 1, 2), rows.sum(0, dtype=torch.float32).to(rows.dtype)


def _gradient_of_inputs(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    padding = [weight.shape[-1] // 2] * 2
    of_x, _, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, (True, False, False)
    )
    return of_x


def _windows(x: Tensor, kernel: int) -> Tensor:
    """Return the inputs of every output, zeros beyond the edges: [B * H * W, kernel * kernel * C] of x [B, C, H, W]."""
    pad = kernel // 2
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, pad, pad, pad, pad)).contiguous()
    images, (channels, height, width) = len(x), x.shape[1:]
    strides = padded.stride()
    shape = (images, height, width, kernel, kernel * channels)  # neighbours in a row lie side by side in memory
    return padded.as_strided(shape, (*strides[:3], strides[1], 1)).reshape(-1, kernel * kernel * channels)
