"""The run folder: its `run.json` and `metrics.jsonl`, written and read.

RUN/run.json         its origin: network, recipe, runtime, source, class names, versions, command; for an imported
                     run the origin of its weights, and no recipe
RUN/metrics.jsonl    a line per epoch
RUN/tensorboard/     the same as curves, and the loss of every step
RUN/norms.jsonl      norms of every layer in some steps, if they were recorded
RUN/checkpoints/     to resume from; removed when the training has ended
RUN/quarantine.jsonl images that could not be used, and why; only if there are any
RUN/best/            config.json and model.safetensors of the epoch with the lowest validation error
RUN/model/           the same of the last epoch: appears when the training has ended
"""

import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verydeep.box_regression import Regression
from verydeep.machine import atomic
from verydeep.machine.documents import converted, read_json, read_json_lines
from verydeep.machine.inspection import processor_name
from verydeep.networks.architecture import Architecture
from verydeep.runs.files import CHECKPOINTS, CONFIG, METRICS, MODEL, RECORD, refuse_classifier
from verydeep.version import __version__, code_digest

FORMAT = 2
"""Version of `run.json`; raised when older versions of the package can no longer read it."""


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """The figures of one epoch; a line of `metrics.jsonl`, which may say more. Errors and waiting are in percent."""

    epoch: int
    step: int
    """Steps of the training until now."""
    learning_rate: float
    """That of the last step."""
    loss: float
    """Mean over the images."""
    training_error: float
    validation_error: float
    class_balanced_error: float | None = None
    """Mean of the classes' validation errors; None in runs that did not note it."""
    images: int
    images_per_second: float
    seconds: float
    waiting: float
    """Share of the time that was spent on waiting for data."""
    peak_memory_bytes: int | None = None
    """None where it was not measured."""
    guessing_loss: float | None = None
    """Least loss of an answer that is the same for every image; None of boxes, and in runs that did not note it."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The record of a run's making; `run.json`."""

    network: str
    recipe: dict[str, Any]
    """Empty if the weights were imported."""
    runtime: dict[str, Any]
    source: str
    fingerprints: dict[str, str]
    """Fingerprints of training and validation images, and of first weights by the option that named them: `init`,
    `finetune` or `from`."""
    images: dict[str, int]
    """Number of training and validation images."""
    classes: tuple[str, ...]
    initialisation: str
    """Which layers were copied and which initialised at random."""
    command: str
    versions: dict[str, str]
    imported: dict[str, Any] | None = None
    """Origin of imported weights: file, SHA-256, layout, and the preprocessing that they were trained with."""
    format: int = FORMAT
    regression: Regression | None = None
    """Kind of boxes, if the network predicts boxes."""
    held_out: float | None = None
    """Share of each class's training images that the learning rate followed; None where it followed the validation
    images, and in runs that did not note it."""

    def __post_init__(self) -> None:
        """Refuse the record of a newer version."""
        if self.format > FORMAT:
            raise ValueError("a newer version of verydeep wrote it")

    @property
    def architecture(self) -> Architecture:
        """Architecture that was trained; for an imported run only its model has it.

        Raises:
            ValueError: the recipe does not say it.
        """
        return Architecture.of_recipe(
            self.recipe, network=self.network, classes=len(self.classes), boxes=self.regression
        )


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and PyTorch, and the machine.

    `code` is the digest of this package's files: those of a checkout change while its version does not.
    """
    import torch

    return {
        "verydeep": __version__,
        "code": code_digest(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "threads": str(torch.get_num_threads()),
    }


def command() -> str:
    """Return the command line that is running."""
    program = Path(sys.argv[0]).name
    return shlex.join([*(["python", "-m", "verydeep"] if program == "__main__.py" else [program]), *sys.argv[1:]])


def words_of_command(command: str) -> list[str]:
    """Return the words of a recorded command line, unquoted; none where no shell could read it."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


def write_record(folder: Path, record: Record) -> None:
    """Create the run folder with its `run.json`.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields = asdict(record)
    for name in ("regression", "held_out"):
        if fields[name] is None:
            del fields[name]  # so that older versions read it
    atomic.write_json(folder / RECORD, fields)


def read_record(folder: str | Path) -> Record:
    """Read the record of a run.

    Raises:
        ValueError: the folder is not a run, or its record is damaged or of a newer version.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        refuse_classifier(folder)
        raise ValueError(f"{folder} is not a run: it has no {RECORD} (verydeep train writes one)")
    return read_json(path, Record, exact=True)


def has_record(folder: str | Path) -> bool:
    """Return whether a folder has a record; a folder with only a model, from elsewhere, has none."""
    return (Path(folder) / RECORD).is_file()


def run_of(folder: str | Path) -> Path | None:
    """Return the run that a folder is, or is part of, as its `best` is; None where there is no record."""
    path = Path(folder)
    return next((run for run in (path, path.absolute().parent) if has_record(run)), None)


def record_of(run: str | Path) -> Record | None:
    """Read the record of a run, or of the run that a folder such as its `best` is part of; None where there is none.

    Raises:
        ValueError: the record is damaged or of a newer version.
    """
    found = run_of(run)
    return None if found is None else read_record(found)


def training_images(records: Iterable[Record]) -> set[str | None]:
    """Return the fingerprints of all images that these runs were trained on.

    Where boxes are learned, `train` is the fingerprint of the images that have one.
    """
    return {record.fingerprints.get(part) for record in records for part in ("train", "train_whole")}


def is_finished(folder: str | Path) -> bool:
    """Return whether the training has ended and its model is there."""
    return (atomic.locate(Path(folder) / MODEL) / CONFIG).is_file()


def is_begun(folder: str | Path) -> bool:
    """Return whether there is anything to lose: a checkpoint, or a model."""
    return (Path(folder) / CHECKPOINTS).is_dir() or is_finished(folder)


def append_metrics(folder: Path, metrics: EpochMetrics) -> None:
    """Append a line to `metrics.jsonl`.

    Raises:
        OSError: it cannot be written.
    """
    atomic.append_json(folder / METRICS, asdict(metrics))


def read_metrics(folder: str | Path) -> list[EpochMetrics]:
    """Read every epoch's metrics; the later ones for an epoch that was repeated after a crash.

    Lines that do not describe an epoch are skipped: a crash tore them, and the epoch was repeated.
    """
    path = Path(folder) / METRICS
    if not path.exists():
        return []
    lines, _ = read_json_lines(path, dict[str, Any])
    epochs = {metrics.epoch: metrics for metrics in map(_as_metrics, lines) if metrics}
    return [epochs[epoch] for epoch in sorted(epochs)]


def best_epoch(epochs: Iterable[EpochMetrics]) -> EpochMetrics:
    """Return the metrics of the epoch whose weights are in `best`: the first with the lowest validation error."""
    return min(epochs, key=lambda epoch: epoch.validation_error)


def _as_metrics(line: object) -> EpochMetrics | None:
    try:
        return converted(line, EpochMetrics)
    except ValueError:
        return None
