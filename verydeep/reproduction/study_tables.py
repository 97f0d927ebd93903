"""The studies' tables: a line for every training, the figures of its seeds separated by commas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from verydeep.numbers import FINE, MISSING, decimal, number, percent, points, significant
from verydeep.reproduction.study_charts import FIRST_WEIGHTS, of_network, share_of_weights, weighted
from verydeep.reproduction.study_runs import StudyRun


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """A table in words: its caption, heads of the columns, and lines that begin with their heads."""

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


_Figure = Callable[[StudyRun], str]


def _table(runs: Sequence[StudyRun], caption: str, columns: dict[str, _Figure]) -> StudyTable:
    """Return a table with a line for each training, the networks' in the order of `runs`."""
    of_training: dict[str, list[StudyRun]] = {}
    for its in of_network(runs).values():
        for run in its:
            of_training.setdefault(run.training.name, []).append(run)
    rows = [
        (name, *(", ".join(figure(run) for run in of_seeds) for figure in columns.values()))
        for name, of_seeds in of_training.items()
    ]
    return StudyTable(caption=caption, columns=("training", *columns), rows=rows)


def initialisation_table(runs: Sequence[StudyRun]) -> StudyTable:
    """Return the outcome of each way to first weights."""
    columns: dict[str, _Figure] = {
        "first weights": lambda run: FIRST_WEIGHTS[run.first_weights],
        "learned": lambda run: "diverged" if run.diverged is not None else "yes" if run.learned else "no",
        "epochs": lambda run: number(len(run.loss)),
        "first loss": lambda run: decimal(run.loss[0] if run.loss else None, 3),
        "last loss": lambda run: decimal(run.loss[-1] if run.loss else None, 3),
        "test error, %": _test_error,
    }
    return _table(
        runs, "Learned: the test error is surely below that of always predicting the most frequent class.", columns
    )


def gradients_table(runs: Sequence[StudyRun]) -> StudyTable:
    """Return the sizes of signals at both ends of each network, in the first recorded step and the last."""
    columns: dict[str, _Figure] = {"first weights": lambda run: FIRST_WEIGHTS[run.first_weights]}
    columns |= {
        f"outputs of {words}": partial(_activation, layer=layer) for words, layer in (("conv1_1", 0), ("fc8", -1))
    }
    columns |= {
        f"gradient of {words}": partial(_share, at=at, layer=layer)
        for words, at, layer in (("conv1_1", 0, 0), ("fc8", 0, -1), ("conv1_1, last recorded", -1, 0))
    }
    columns["test error, %"] = _test_error
    caption = "In the first step, unless it says otherwise. Gradients are shares of the layer's weights."
    return _table(runs, caption, columns)


def regularisation_table(runs: Sequence[StudyRun]) -> StudyTable:
    """Return both errors of each network, and how far they are apart."""
    columns: dict[str, _Figure] = {
        "training images tested": lambda run: (
            MISSING if run.on_training_images is None else number(run.on_training_images.n)
        ),
        "error on them, %": lambda run: percent(
            None if run.on_training_images is None else run.on_training_images.top1_error, FINE
        ),
        "test error, %": _test_error,
        "test minus training, points": lambda run: MISSING if (both := gap(run)) is None else points(both, FINE),
        "last training loss": lambda run: decimal(run.loss[-1] if run.loss else None, 3),
    }
    return _table(runs, "The loss is that of the training, with augmentation and dropout.", columns)


def images_table(runs: Sequence[StudyRun]) -> StudyTable:
    """Return the test error of each network with each number of images."""
    columns: dict[str, _Figure] = {
        "training images": lambda run: number(run.images),
        "epochs": lambda run: number(len(run.loss)),
        "last training loss": lambda run: decimal(run.loss[-1] if run.loss else None, 3),
        "test error, %": _test_error,
    }
    return _table(runs, "With fewer images there are as many times the epochs, so that the steps are as many.", columns)


def gap(run: StudyRun) -> float | None:
    """Return the test error minus the error on training images, in points; None where one was not measured."""
    if run.test is None or run.on_training_images is None:
        return None
    return run.test.top1_error - run.on_training_images.top1_error


def _test_error(run: StudyRun) -> str:
    return percent(None if run.test is None else run.test.top1_error, FINE)


def _activation(run: StudyRun, layer: int) -> str:
    return significant(run.norms[0].layers[weighted(run)[layer]].activation if run.norms else None)


def _share(run: StudyRun, at: int, layer: int) -> str:
    return significant(share_of_weights(run, at, weighted(run)[layer]) if run.norms else None)
