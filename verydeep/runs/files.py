"""Names of the files in the folder of a run, of a model and of a classifier."""

from pathlib import Path

from verydeep.machine import atomic

RECORD, METRICS, CHECKPOINTS, MODEL = "run.json", "metrics.jsonl", "checkpoints", "model"
QUARANTINE, TENSORBOARD, BEST, NORMS = "quarantine.jsonl", "tensorboard", "best", "norms.jsonl"
CONFIG, WEIGHTS = "config.json", "model.safetensors"

CLASSIFIER = "classifier.json"
"""In the folder of a classifier of features, which is not a run."""


def refuse_classifier(folder: str | Path) -> None:
    """Refuse the folder of a classifier of features where a run is expected.

    Raises:
        ValueError: it is one.
    """
    if (atomic.locate(Path(folder)) / CLASSIFIER).is_file():
        raise ValueError(
            f"{folder} is a classifier of features, not a run: verydeep predict takes it (in Python verydeep.classify)"
        )
