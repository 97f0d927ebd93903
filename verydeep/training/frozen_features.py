"""Features that frozen layers compute, kept: of every view that a training has of its images, and for validation."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from verydeep.images.loader import DeviceBatch
from verydeep.images.order import batches_of_samples
from verydeep.training.job import TrainingJob


@dataclass(frozen=True, kw_only=True)
class FrozenFeatures:
    """Inputs of the first layer that is computed in every step, on the CPU."""

    first: str
    """That layer."""
    views: Sequence[Mapping[int, Float[Tensor, "..."]]]
    """Features of the usable training images in each view, by the image's index."""
    validation: Sequence[DeviceBatch]

    def training_batches(self, job: TrainingJob, *, first_step: int) -> Generator[DeviceBatch]:
        """Yield the batches of a training from `first_step` on, features in place of crops."""
        source, recipe = job.splits.source("train"), job.recipe
        batches = batches_of_samples(
            len(source),
            batch=recipe.batch,
            epochs=recipe.epochs,
            seed=recipe.seed,
            first_step=first_step,
            balanced=source.labels if recipe.balanced else None,
        )
        for samples in batches:
            found = [
                (place, source.labels[index], view[index])
                for place, (epoch, index) in enumerate(samples)
                if index in (view := self.views[epoch % len(self.views)])
            ]
            positions, labels, features = zip(*found, strict=True) if found else ((), (), (torch.zeros(0),))
            yield DeviceBatch(
                torch.stack(features),
                torch.tensor(positions, dtype=torch.int64),
                torch.tensor(labels, dtype=torch.int64),
            ).on(job.device)

    def validation_batches(self, device: torch.device, *, images: int) -> Generator[DeviceBatch]:
        """Yield the usable validation images once, in order, at most so many at once."""
        for batch in self.validation:
            for start in range(0, len(batch.labels), images):
                yield batch.piece(slice(start, start + images)).on(device)
