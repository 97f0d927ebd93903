"""Ten digits to train on and ten to validate on."""

from verydeep.images.open import open_for_training
from verydeep.images.sources.source import subset
from verydeep.images.sources.splits import Splits


def ten_digits():
    """Return their splits."""
    parts = {split: subset(open_for_training("digits").source(split), tuple(range(10))) for split in ("train", "val")}
    return Splits(name="ten digits", sources=parts)
