"""The run folder: what a training leaves behind, and how everyone reads it.

RUN/run.json         what made it: network, recipe, runtime, source, class names, versions, command; of an imported
                     run where its weights came from, and no recipe
RUN/metrics.jsonl    a line per epoch
RUN/tensorboard/     the same as curves, and the loss of every step
RUN/checkpoints/     to resume from
RUN/quarantine.jsonl images that could not be used, and why; there only if there are some
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
"""Of `run.json`; raised when older versions could no longer read it."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What made a run; `run.json`."""

    network: str
    recipe: dict[str, Any]
    """Empty where nothing was trained here: the weights were imported."""
    runtime: dict[str, Any]
    source: str
    fingerprints: dict[str, str]
    """Of the training and validation images, and of the weights that the first ones were copied from (`init`)."""
    images: dict[str, int]
    """How many of them there are."""
    classes: tuple[str, ...]
    initialisation: str
    """Which layers were copied and which were drawn."""
    command: str
    versions: dict[str, str]
    imported: dict[str, Any] | None = None
    """Where imported weights came from: file, SHA-256, layout, and how images were to be preprocessed for them."""
    format: int = FORMAT
    regression: Regression | None = None
    """Of boxes, if it does not classify."""

    @property
    def architecture(self) -> Architecture:
        """What was trained; a run that was imported says it in its model alone."""
        return Architecture(
            network=self.network,
            classes=len(self.classes),
            boxes=self.regression,
            **{name: self.recipe[name] for name in ("crop", "width", "batch_norm")},
        )


def versions() -> dict[str, str]:
    """Of this package, Python, PyTorch and the machine."""
    import torch

    return {
        "verydeep": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
    }


def command() -> str:
    """The command line that is running."""
    program = Path(sys.argv[0]).name
    return shlex.join([*(["python", "-m", "verydeep"] if program == "__main__.py" else [program]), *sys.argv[1:]])


def write_record(folder: Path, record: Record) -> None:
    """Creates the run folder with its `run.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = asdict(record)
    if record.regression is None:
        del fields["regression"]  # so that older versions read it
    atomic.write_json(folder / RECORD, fields)


def read_record(folder: str | Path) -> Record:
    """What made a run.

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
    """Whether the folder says what made it; one with a model only, from elsewhere, does not."""
    return (Path(folder) / RECORD).is_file()


def is_finished(folder: str | Path) -> bool:
    """Whether the training has ended and its model stands."""
    return (atomic.locate(Path(folder) / MODEL) / CONFIG).is_file()


def is_begun(folder: str | Path) -> bool:
    """Whether there is anything to lose: a checkpoint, or a model."""
    return (Path(folder) / CHECKPOINTS).is_dir() or is_finished(folder)


def append_metrics(folder: Path, figures: dict[str, Any]) -> None:
    """One more line of `metrics.jsonl`."""
    atomic.append_json(folder / METRICS, figures)


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Every epoch's figures; of an epoch that was done twice, after a crash, the later ones."""
    path = Path(folder) / METRICS
    if not path.is_file():
        return []
    epochs: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            figures = json.loads(line)
            epochs[figures["epoch"]] = figures
        except (ValueError, KeyError, TypeError):
            continue  # torn by a crash; that epoch was done again
    return [epochs[epoch] for epoch in sorted(epochs)]
