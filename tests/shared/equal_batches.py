"""Batches of tensors compared to the bit."""

import torch


def equal(some, others):
    """Whether two lists hold the same batches; boxes may be missing in both."""
    return len(some) == len(others) and all(
        a is b is None or torch.equal(a, b)
        for one, other in zip(some, others, strict=True)
        for a, b in zip(one, other, strict=True)
    )
