"""Results of the grid's tests: a file for each entry and seed, with the images that were misclassified."""

import hashlib
import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from verydeep.evaluation.metrics import misclassified
from verydeep.evaluation.results import Evaluation
from verydeep.images.tolerance import Tolerance
from verydeep.machine import atomic
from verydeep.machine.documents import read_json
from verydeep.machine.errors import one_line
from verydeep.machine.regular_files import read_file
from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid
from verydeep.numbers import counted, number
from verydeep.reproduction.contrasts import Outcomes
from verydeep.reproduction.files import EVALUATIONS
from verydeep.reproduction.paper_tables import Entry

_IMAGES = "images"

_MOST_BYTES = 2**30
"""Size of all outcomes together; a bit is an image."""


@dataclass(frozen=True, kw_only=True)
class StoredTest:
    """The figures of one test that the report needs; errors in percent."""

    split: str
    scales: tuple[int, ...]
    """Q, for a crop of 224."""
    n: int
    """Images that could be used."""
    top1_error: float
    top1_error_ci95: tuple[float, float]
    top5_error: float | None
    """None with five classes or fewer."""
    images_of_classes: tuple[int, ...]
    unusable: tuple[str, ...]
    """Images that were left out."""
    wrong: Bool[np.ndarray, " N"]
    """Misclassified images, in the source's order."""

    @property
    def images(self) -> tuple[int, frozenset[str]]:
        """Which of the source's images it has; tests with equal ones can be compared image by image."""
        return self.n, frozenset(self.unusable)

    @property
    def guessing(self) -> float:
        """Error in percent of always predicting the most frequent class."""
        return 100 - 100 * max(self.images_of_classes) / sum(self.images_of_classes)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of a test; under any others it is done again."""

    weights: tuple[str, ...]
    """Fingerprints, in the entry's order."""
    images: str
    """Fingerprint."""
    grid: PoolingGrid = DEFAULT_GRID
    max_pixels: int = Tolerance.max_pixels


@dataclass(frozen=True, kw_only=True)
class _Tested:
    """Conditions in a file of results."""

    tested: Conditions


_Kept = TypeVar("_Kept")


@dataclass(frozen=True, kw_only=True)
class _ClassFigures:
    n: int


@dataclass(frozen=True, kw_only=True)
class _Figures:
    """Figures in a file of results."""

    split: str
    scales: tuple[int, ...]
    n: int
    top1_error: float
    top1_error_ci95: tuple[float, float]
    top5_error: float | None
    per_class: tuple[_ClassFigures, ...]
    unusable: dict[str, str]
    top1_wrong_by_image: str

    def __post_init__(self) -> None:
        """Refuse results that do not fit each other."""
        if len(self.top1_wrong_by_image) != self.n or self.n < 1:
            raise ValueError(
                f"top1_wrong_by_image has {counted(len(self.top1_wrong_by_image), 'image')}, n is {self.n}"
            )
        if not set(self.top1_wrong_by_image) <= {"0", "1"}:
            raise ValueError("top1_wrong_by_image has characters other than 0 and 1")
        if sum(one.n for one in self.per_class) != self.n:
            raise ValueError(f"the images of all classes are not {number(self.n)}")


StoredTests = Mapping[int, Mapping[str, StoredTest]]
"""By seed and by the entry's name."""


def file_of_test(out: Path, entry: Entry, seed: int) -> Path:
    """Return where the results of a test are kept."""
    return out / EVALUATIONS / f"seed-{seed}" / f"{entry.name}.json"


def is_tested(file: Path, conditions: Conditions) -> bool:
    """Return whether the file holds results of a test under exactly these conditions.

    Raises:
        ValueError: the file cannot be read.
    """
    return file.exists() and _read(file, _Tested).tested == conditions


def write_test(file: Path, evaluation: Evaluation, conditions: Conditions) -> None:
    """Write the results of a test, including those of every image, and its conditions."""
    wrong = misclassified(evaluation.images.posteriors, evaluation.images.labels)
    by_image = "".join("01"[one] for one in wrong.tolist())
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(file, {"tested": asdict(conditions), **evaluation.to_dict(), "top1_wrong_by_image": by_image})


def read_test(file: Path) -> StoredTest:
    """Read the results of a test.

    Raises:
        ValueError: the file cannot be read.
    """
    figures = _read(file, _Figures)
    return StoredTest(
        split=figures.split,
        scales=figures.scales,
        n=figures.n,
        top1_error=figures.top1_error,
        top1_error_ci95=figures.top1_error_ci95,
        top5_error=figures.top5_error,
        images_of_classes=tuple(one.n for one in figures.per_class),
        unusable=tuple(figures.unusable),
        wrong=np.array([image == "1" for image in figures.top1_wrong_by_image]),
    )


def _read(file: Path, kind: type[_Kept]) -> _Kept:
    try:
        return read_json(file, kind)
    except ValueError as error:
        raise ValueError(f"{error}: remove it to test again") from error


def write_outcomes(file: Path, outcomes: Outcomes) -> None:
    """Write which images every test misclassified, a bit for each image and seed, as NumPy's `.npz`."""
    images = {f"{_IMAGES}/{name}": np.array(wrong.shape[1]) for name, wrong in outcomes.items()}
    packed = io.BytesIO()
    np.savez_compressed(packed, **images, **{name: np.packbits(wrong, axis=1) for name, wrong in outcomes.items()})  # type: ignore[arg-type]
    atomic.write_bytes(file, packed.getvalue())


def read_outcomes(file: Path) -> Outcomes:
    """Read the file that `write_outcomes` wrote.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    if not file.is_file():
        raise ValueError(f"there is no {file}: verydeep reproduce writes it beside its report")
    try:
        content = read_file(file, most=_MOST_BYTES)
        _check_claims(content)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            counts = {name.partition("/")[2]: int(arrays[name]) for name in arrays if name.startswith(f"{_IMAGES}/")}
            bits = {name: _unpacked(arrays[name], count) for name, count in counts.items()}
            return {name: wrong.astype(bool) for name, wrong in bits.items()}
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        why = one_line(error) if str(error) else "it is cut off"
        raise ValueError(f"{file} cannot be read: {why}: repeat verydeep reproduce, which writes it") from error


def outcomes_digest(outcomes: Outcomes) -> str:
    """Return the SHA-256 of outcomes, which is the same however a file packs them."""
    digest = hashlib.sha256()
    for name, wrong in sorted(outcomes.items()):
        digest.update(f"{name} {wrong.shape}\n".encode())
        digest.update(np.packbits(wrong, axis=1).tobytes())
    return digest.hexdigest()


def _check_claims(content: bytes) -> None:
    """Refuse arrays that claim more bytes than they have, or more in all than any experiment has, before any is read.

    Raises:
        ValueError: they do, or are not numbers of images and bits.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if (size := sum(entry.file_size for entry in archive.infolist())) > _MOST_BYTES:
            raise ValueError(
                f"its arrays claim {number(size)} bytes, more than the {number(_MOST_BYTES)} that are read"
            )
        for entry in archive.infolist():
            with archive.open(entry) as array:
                np.lib.format.read_magic(array)
                shape, _, kind = np.lib.format.read_array_header_1_0(array)
                if kind.hasobject:
                    raise ValueError(f"{entry.filename} in it holds objects")
                wanted, axes = ("iu", 0) if entry.filename.startswith(f"{_IMAGES}/") else ("u", 2)
                if kind.kind not in wanted or len(shape) != axes:
                    raise ValueError(f"{entry.filename} in it is neither a number of images nor bits")
                if math.prod(shape) * kind.itemsize > entry.file_size:
                    raise ValueError(f"{entry.filename} in it claims more than its {number(entry.file_size)} bytes")


def _unpacked(bits: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    if bits.ndim != 2 or not 0 <= count <= 8 * bits.shape[1]:
        raise ValueError(f"it claims {number(count)} images, and has no bits for them")
    return np.unpackbits(bits, axis=1, count=count)
