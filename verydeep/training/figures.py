"""Figures of a training in progress: beside the bar, and in the line of metrics of an epoch."""

from typing import Any

from verydeep.machine.runtime import peak_memory
from verydeep.presentation.numbers import billions, decimal, number, percent
from verydeep.training.state import TrainingState


def bar_figures(state: TrainingState) -> dict[str, str]:
    """Return the figures beside the bar, the most important first: the last are left out where there is no room."""
    progress = state.progress
    seen, seconds = max(1, progress.seen), max(progress.seconds, 1e-9)
    best = {} if progress.plateau.best is None else {"best": f"{percent(progress.plateau.best)}%"}
    return {
        "epoch": f"{state.epoch}/{state.recipe.epochs}",
        "loss": decimal(progress.loss_sum / seen, 3),
        "error": f"{percent(100 * progress.wrong / seen)}%",
        "images/s": number(round(seen / seconds)),
        "waiting": f"{percent(100 * progress.waited / seconds, 0)}%",
        **best,
        "rate": f"{state.last_rate:.2g}",
        "memory": f"{billions(peak_memory(state.job.device))} GB",
    }


def epoch_metrics(state: TrainingState, validation_error: float) -> dict[str, Any]:
    """Return the metrics of an epoch that has just ended; errors and waiting in percent."""
    progress = state.progress
    return {
        "epoch": state.epoch,
        "step": progress.step,
        "learning_rate": state.last_rate,
        "loss": progress.loss_sum / progress.seen,
        "training_error": 100 * progress.wrong / progress.seen,
        "validation_error": validation_error,
        "images": progress.seen,
        "images_per_second": progress.seen / progress.seconds,
        "seconds": progress.seconds,
        "waiting": 100 * progress.waited / progress.seconds,
        "peak_memory_bytes": peak_memory(state.job.device),
    }


def missing_images(state: TrainingState) -> list[str]:
    """Say how many usable images an epoch went without: those whose object none of their crops showed."""
    usable = state.bad_images.images - len(state.bad_images.reasons)
    missing = usable - state.progress.seen
    if missing <= 0:
        return []
    without = f"epoch {state.epoch} went without {number(missing)} of {number(usable)} images"
    return [f"{without}: none of their crops showed enough of their object"]
