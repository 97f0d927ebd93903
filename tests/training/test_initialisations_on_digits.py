"""Each initialisation of net A on the handwritten digits (crop 32): signals at full width; learning at an eighth.

At the paper's width, signals keep their size with Glorot's initialisation, and A learns at once. With a standard
deviation of 0.01, which `paper` means, they shrink from layer to layer, and A stays at chance for a long time. With the
variance of 0.01 that is printed, they explode. `make battery` trains at full width.
"""

import math

import pytest
import torch

from verydeep import Recipe, initialise, train, vgg
from verydeep.images.open import open_for_training
from verydeep.images.sources.source import subset
from verydeep.images.sources.splits import Splits
from verydeep.runs.record import read_metrics

CHANCE = math.log(10)


def losses(folder, init, epochs, **recipe):
    """Train on every third digit, 27 steps an epoch."""
    images = subset(open_for_training("digits").source("train"), tuple(range(0, 1259, 3)))
    few = subset(open_for_training("digits").source("val"), tuple(range(20)))
    recipe = Recipe(crop=32, batch=16, epochs=epochs, patience=epochs, flip=False, init=init, **recipe)
    found = train(Splits(name="digits", sources={"train": images, "val": few}), network="A", out=folder, recipe=recipe)
    return [epoch.loss for epoch in read_metrics(found)]


def test_with_glorots_a_learns_and_with_the_papers_it_stays_at_chance(tmp_path, battery):
    # In short by a rate at which rounding matters little: with SSE 4.1, AVX2 and AVX-512 the last loss is 1.45 to 1.56.
    size = {"width": 1.0, "learning_rate": 2.5e-3} if battery else {"width": 0.125, "learning_rate": 3e-3}
    learned = losses(tmp_path / "glorot", "glorot", 4 if battery else 6, **size)
    stayed = losses(tmp_path / "paper", "paper", 1, **size)
    print(f"net A, {size}, loss of every epoch: glorot {learned}, paper {stayed}")
    assert learned[-1] < 0.85 * CHANCE
    assert stayed == pytest.approx([CHANCE], abs=0.01)


def test_signals_keep_their_size_shrink_or_explode():
    net, generator = vgg("A", classes=10, crop=32).eval(), torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator).float()
    logits = {}
    for init, factor in (("glorot", 1), ("paper", 1), ("paper", 10)):
        initialise(net, init, generator=generator)
        with torch.no_grad():
            for layer in net.modules():
                if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                    layer.weight.mul_(factor)
            logits[init, factor] = net(images).std().item()
    print({f"{init}, times {factor}": f"{size:.3g}" for (init, factor), size in logits.items()})
    assert 0.1 < logits["glorot", 1] < 10
    assert logits["paper", 1] < 1e-3
    assert logits["paper", 10] > 1e6
