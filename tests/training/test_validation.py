"""A validation in which something goes wrong loses nothing and is repeated."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from verydeep import Recipe, Runtime, load, train
from verydeep.images.decode import UnusableImageError
from verydeep.images.open import open_for_training
from verydeep.images.sources.source import Source, subset
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.images.workers import WorkerDiedError
from verydeep.runs.record import read_metrics

TINY = Recipe(crop=32, width=0.05, batch=4, epochs=2, learning_rate=1e-3)


@dataclass(frozen=True, kw_only=True)
class Failing(Source):
    """A source whose fifth image fails once, in whichever process reads it."""

    marker: Path
    kind: str

    def __getitem__(self, index):
        if index == 4 and not self.marker.exists():
            self.marker.touch()
            if self.kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise UnusableImageError("digit", "unreadable", "the disk has gone")
        return super().__getitem__(index)


def parts():
    return {split: subset(open_for_training("digits").source(split), tuple(range(10))) for split in ("train", "val")}


@pytest.mark.parametrize(
    ("kind", "workers", "error"),
    [
        ("killed", 1, WorkerDiedError),
        ("unreadable", 0, TooManyBadImagesError),
        ("unreadable", 1, TooManyBadImagesError),
    ],
)
def test_a_failure_in_validation_costs_no_step(tmp_path, monkeypatch, kind, workers, error):
    monkeypatch.setattr("verydeep.training.preparation.check_images", lambda *_, **__: None)  # as if all were well
    val = Failing(
        **vars(subset(open_for_training("digits").source("val"), tuple(range(10)))),
        marker=tmp_path / "marker",
        kind=kind,
    )
    failing = Splits(name="digits", sources={**parts(), "val": val})
    options = {"network": "A", "recipe": TINY, "runtime": Runtime(workers=workers)}
    with pytest.raises(error, match=r"what was done is saved in .* and can be resumed"):
        train(failing, out=tmp_path / "run", **options)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000003"]
    assert read_metrics(tmp_path / "run") == []
    (tmp_path / "run" / "quarantine.jsonl").unlink(missing_ok=True)  # the disk is back
    train(failing, out=tmp_path / "run", resume=True, **options)
    whole = Splits(name="digits", sources=parts())
    train(whole, out=tmp_path / "whole", **options)
    one, other = (load(tmp_path / name).state_dict() for name in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    errors = [[epoch.validation_error for epoch in read_metrics(tmp_path / name)] for name in ("run", "whole")]
    assert errors[0] == errors[1]
