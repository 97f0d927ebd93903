"""Which descriptors are tested on other data, and on which images (needs neither PyTorch nor NumPy)."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast, get_args

from verydeep.descriptors.descriptor import Descriptor, VectorPool
from verydeep.evaluation.protocols import Scales

LEAST_TRAINING_IMAGES = 2
"""Training images of each class: one to fit and one to choose C on."""

_LEAST = {"train": LEAST_TRAINING_IMAGES, "test": 1, "splits": 1, "seed": 0}


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """The descriptor to test, the labels of images, and the split into training and test images.

    The numbers of images and splits are the paper's for Caltech-101.

    Raises:
        ValueError: a value that is not possible; the message says which ones are.
    """

    scales: Sequence[int] | Scales = Descriptor.scales
    """Test scales Q for a crop of 224, such as 256,384,512; `single`: the training scale; `paper`: the three that
    follow from it."""

    pool: VectorPool = cast(VectorPool, Descriptor.pool)
    """`avg`: the average over scales; `stack`: the scales one after the other."""

    labels: Path | str | None = None
    """Which classes each image shows, if several: a .csv or .tsv file with a line file,class for each label (or
    file,x0,y0,x1,y1,class; a line with an empty class is an image that shows none; or file,cat,dog with 0 and 1), a
    folder of Pascal VOC's .xml files or of YOLO's .txt files, or a COCO .json file. SOURCE is then a folder of images
    without classes."""

    label_separator: str | None = None
    """Separator of several labels in one cell of a table, as | in cat|dog; none: a cell is one class."""

    test_images: Path | str | None = None
    """File with the names of the images to test on, one per line, as VOC's ImageSets/Main/test.txt; all others are for
    training. Without it both are sampled at random."""

    train: int = 30
    """Training images of each class that are sampled."""

    test: int = 50
    """Test images of each class that are sampled, or all that are left if they are fewer."""

    splits: int = 3
    """How many times training and test images are sampled."""

    seed: int = 0
    """Seed of the samples, and of the untrained networks' weights."""

    baseline: bool = False
    """Also test plain pixels (32 x 32), and networks like the runs' with random weights."""

    def __post_init__(self) -> None:
        """Refuse values that are not possible."""
        if self.pool not in get_args(VectorPool):
            raise ValueError(f"an SVM needs vectors: pool is {' or '.join(get_args(VectorPool))}, not {self.pool}")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if self.label_separator is not None and self.labels is None:
            raise ValueError("--label-separator goes with --labels: name a table of labels, or leave it out")
        sampling = [field for field in fields(self) if field.name in ("train", "test", "splits")]
        chosen = [f"--{field.name}" for field in sampling if getattr(self, field.name) != field.default]
        if self.test_images is not None and chosen:
            raise ValueError(
                "--test-images says which images are for training and which for testing: leave out " + ", ".join(chosen)
            )

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of each network."""
        return Descriptor(scales=self.scales, pool=self.pool, normalise=True)
