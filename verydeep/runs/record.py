"""The run folder: its `run.json` and `metrics.jsonl`, written and read.

RUN/run.json         what made it: network, recipe, runtime, source, class names, versions, command; for an imported
                     run the origin of its weights, and no recipe
RUN/metrics.jsonl    a line per epoch
RUN/tensorboard/     the same as curves, and the loss of every step
RUN/norms.jsonl      norms of every layer in some steps, if they were recorded
RUN/checkpoints/     to resume from
RUN/quarantine.jsonl images that could not be used, and why; only if there are any
RUN/best/            config.json and model.safetensors of the epoch with the lowest validation error
RUN/model/           the same of the last epoch: appears when the training has ended
"""

import json
import platform
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verydeep.box_regression import Regression
from verydeep.machine import atomic
from verydeep.networks.architecture import Architecture
from verydeep.runs.files import CHECKPOINTS, CONFIG, METRICS, MODEL, RECORD, refuse_classifier
from verydeep.version import __version__

FORMAT = 2
"""Version of `run.json`; raised when older versions of the package can no longer read it."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What made a run; `run.json`."""

    network: str
    recipe: dict[str, Any]
    """Empty if the weights were imported."""
    runtime: dict[str, Any]
    source: str
    fingerprints: dict[str, str]
    """By training and validation images, and by the weights that the first ones were copied from (`init`)."""
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
    """Kind of boxes, if it does not classify."""

    @property
    def architecture(self) -> Architecture:
        """Architecture that was trained; for an imported run only its model has it."""
        return Architecture.of_recipe(
            self.recipe, network=self.network, classes=len(self.classes), boxes=self.regression
        )


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and PyTorch, and the machine."""
    import torch

    return {
        "verydeep": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
    }


def command() -> str:
    """Return the command line that is running."""
    program = Path(sys.argv[0]).name
    return shlex.join([*(["python", "-m", "verydeep"] if program == "__main__.py" else [program]), *sys.argv[1:]])


def write_record(folder: Path, record: Record) -> None:
    """Create the run folder with its `run.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = asdict(record)
    if record.regression is None:
        del fields["regression"]  # so that older versions read it
    atomic.write_json(folder / RECORD, fields)


def read_record(folder: str | Path) -> Record:
    """Read what made a run.

    Raises:
        ValueError: the folder is not a run, or its record is damaged or of a newer version.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        refuse_classifier(folder)
        raise ValueError(f"{folder} is not a run: it has no {RECORD} (verydeep train writes one)")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] > FORMAT:
            raise ValueError("a newer version of verydeep wrote it")
        return Record(**{**fields, "classes": tuple(fields["classes"])})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def has_record(folder: str | Path) -> bool:
    """Return whether a folder says what made it; a folder with only a model, from elsewhere, does not."""
    return (Path(folder) / RECORD).is_file()


def is_finished(folder: str | Path) -> bool:
    """Return whether the training has ended and its model is there."""
    return (atomic.locate(Path(folder) / MODEL) / CONFIG).is_file()


def is_begun(folder: str | Path) -> bool:
    """Return whether there is anything to lose: a checkpoint, or a model."""
    return (Path(folder) / CHECKPOINTS).is_dir() or is_finished(folder)


def append_metrics(folder: Path, figures: dict[str, Any]) -> None:
    """Append a line to `metrics.jsonl`."""
    atomic.append_json(folder / METRICS, figures)


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Read every epoch's figures; those of the last time for an epoch that was repeated after a crash."""
    path = Path(folder) / METRICS
    if not path.is_file():
        return []
    epochs: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            figures = json.loads(line)
            epochs[figures["epoch"]] = figures
        except (ValueError, KeyError, TypeError):
            continue  # torn by a crash; that epoch was repeated
    return [epochs[epoch] for epoch in sorted(epochs)]
