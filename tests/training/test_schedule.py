"""The plateau schedule against a plain account of a whole training, and against PyTorch's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verydeep import Recipe
from verydeep.training.recipe import Plateau, after_epoch, learning_rate


def rates(errors, *, patience, drops):
    """Return the learning rate of each epoch, and whether the training had ended after it."""
    recipe = Recipe(learning_rate=1.0, patience=patience, drops=drops)
    plateau, epochs = Plateau(), []
    for epoch, error in enumerate(errors):
        rate = learning_rate(recipe, plateau, step=7 * epoch + epoch % 7, steps_per_epoch=7)
        plateau = after_epoch(plateau, error, recipe)
        epochs.append((rate, plateau.finished))
    return epochs


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
        (0.01, False),  # 30 is not a new best: drop
        (0.001, False),
        (0.001, True),  # and once more: stop
    ]


def test_steady_improvement_never_drops():
    assert all(rate == 1.0 and not ended for rate, ended in rates(range(60, 0, -1), patience=1, drops=3))


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


def planned(recipe, steps_per_epoch):
    """Return the rates of all steps of a schedule that follows a plan, whatever the errors are."""
    return [
        learning_rate(recipe, Plateau(drops=2, waited=1), step=step, steps_per_epoch=steps_per_epoch)
        for step in range(recipe.epochs * steps_per_epoch)
    ]


def stepped(schedule_of, steps, *, rate):
    """Return the rates of a schedule of PyTorch."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    schedule, found = schedule_of(optimiser), []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


@pytest.mark.parametrize("warm_up", [0, 1, 3])
def test_cosine_with_warm_up_is_pytorchs(warm_up):
    recipe = Recipe(schedule="cosine", epochs=10, warm_up=warm_up, learning_rate=0.2)

    def theirs(optimiser):
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=7 * (10 - warm_up))
        if not warm_up:
            return cosine
        rising = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (step + 1) / (7 * warm_up))
        return torch.optim.lr_scheduler.SequentialLR(optimiser, [rising, cosine], milestones=[7 * warm_up])

    assert planned(recipe, 7) == pytest.approx(stepped(theirs, 70, rate=0.2))


def test_steps_are_pytorchs():
    recipe = Recipe(schedule="step", epochs=20, step_epochs=4, drops=3, learning_rate=0.2)
    found = planned(recipe, 5)
    theirs = stepped(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [20, 40, 60], gamma=0.1), 100, rate=0.2)
    assert found == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("epochs", "drops", "at"),
    [
        (8, 3, [2, 4, 6]),
        (74, 3, [19, 37, 56]),
        (5, 0, []),
        (3, 1, [2]),
        (18, 13, [2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17]),  # 9 / (18 / 14) is below 7 in floating point
    ],
)
def test_steps_divide_a_training_into_equal_parts(epochs, drops, at):
    rates = planned(Recipe(schedule="step", epochs=epochs, drops=drops, learning_rate=1.0), 1)
    assert rates == pytest.approx([10.0 ** -sum(epoch >= start for start in at) for epoch in range(epochs)])


def test_the_warm_up_of_steps_rises_to_the_rate():
    rates = planned(Recipe(schedule="step", epochs=4, drops=1, warm_up=1, learning_rate=1.0), 4)
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0] + 4 * [1.0] + 8 * [0.1])


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_only_the_plateau_ends_a_training_early(schedule):
    recipe, plateau = Recipe(schedule=schedule), Plateau()
    for error in [50.0, 40.0] + 100 * [60.0]:
        plateau = after_epoch(plateau, error, recipe)
    assert plateau == Plateau(best=40.0)
