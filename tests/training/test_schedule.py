"""The plateau schedule against a plain account of a whole training, and against PyTorch's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verydeep import Recipe
from verydeep.training.schedule import Plateau, after_epoch, learning_rate


def rates(errors, *, patience, drops):
    """Learning rate of each epoch, and whether the training had ended after it."""
    recipe = Recipe(learning_rate=1.0, patience=patience, drops=drops)
    state, found = Plateau(), []
    for epoch, error in enumerate(errors):
        rate = learning_rate(recipe, state, step=7 * epoch + epoch % 7, steps_per_epoch=7)
        state = after_epoch(state, error, recipe)
        found.append((rate, state.finished))
    return found


def test_three_drops_then_stop():
    errors = [50, 40, 40, 40, 30, 31, 32, 30, 30, 30, 30]
    assert rates(errors, patience=2, drops=3) == [
        (1.0, False),
        (1.0, False),
        (1.0, False),
        (1.0, False),  # two epochs at 40 without a new best: drop
        (0.1, False),
        (0.1, False),
        (0.1, False),  # 31, 32: drop
        (0.01, False),
        (0.01, False),  # 30 is no new best: drop
        (0.001, False),
        (0.001, True),  # and once more: stop
    ]


def test_steady_improvement_never_drops():
    assert all(rate == 1.0 and not ended for rate, ended in rates(range(60, 0, -1), patience=1, drops=3))


@settings(deadline=None)
@given(
    errors=st.lists(st.integers(0, 100), min_size=1, max_size=40),
    patience=st.integers(1, 4),
)
def test_the_rate_is_that_of_pytorchs_schedule(errors, patience):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=0.1, patience=patience - 1, threshold=0, eps=0
    )
    for (rate, _), error in zip(rates(errors, patience=patience, drops=1000), errors, strict=True):
        assert rate == pytest.approx(optimiser.param_groups[0]["lr"])
        theirs.step(error)
