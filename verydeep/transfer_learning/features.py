"""Descriptors of a source's images for an SVM: networks' features, which are cached, and plain pixels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch.nn import functional as F

from verydeep.descriptors.descriptor import PENULTIMATE
from verydeep.descriptors.extraction import Extraction
from verydeep.descriptors.features import any_usable_now
from verydeep.descriptors.files import write_features
from verydeep.exported_networks.run_or_file import precision_of
from verydeep.images.decode import UnusableImageError, decode
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.inventory import Inventory
from verydeep.images.sources.source import Source, contents_digests, digest, unchanged
from verydeep.images.tolerance import Tolerance
from verydeep.machine import atomic, cache
from verydeep.machine.documents import parse_json
from verydeep.machine.errors import one_line
from verydeep.machine.lock import WrittenElsewhereError
from verydeep.machine.regular_files import read_file
from verydeep.machine.runtime import reduced_precision, torch_device
from verydeep.networks.initialisation import initialise
from verydeep.networks.vgg import VGG, ScoringNetwork
from verydeep.prediction.pieces import Decoder
from verydeep.presentation.terminal import reporting
from verydeep.runs.model import Model, file_sha256
from verydeep.version import __version__

_KIND = "features"
"""Folder in the user's folder for caches."""

_DIGITS = 64
"""Hexadecimal digits of a SHA-256."""

_PIXELS_SIDE = 32
"""Side of the square that images are squeezed into as plain pixels: 3,072 numbers."""


@dataclass(frozen=True, kw_only=True)
class DescribedImages:
    """The usable images of a source, each as a vector of length 1."""

    ids: tuple[str, ...]
    vectors: Float32[np.ndarray, "N D"]
    unusable: dict[str, str]
    """Images that could not be used, and why."""

    def vectors_of(self, ids: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """Return the vectors of these images."""
        rows = {name: row for row, name in enumerate(self.ids)}
        return self.vectors[[rows[name] for name in ids]]


@dataclass(frozen=True, kw_only=True)
class DescribingNetwork:
    """A network whose features describe the images of a source: a run's or a file's, or its like without training."""

    extraction: Extraction
    """The one by the run or the file, also where random weights stand in for its own."""
    seed: int | None
    """The seed of random weights; None: the network has its own."""
    file: Path
    """The place of its features in the folder for caches; its name follows from all that they depend on."""


def describing_network(extraction: Extraction, source: Source, *, seed: int | None = None) -> DescribingNetwork:
    """Return the network of a run or a file; with a seed its like with random weights, which is not made yet.

    Args:
        extraction: the network and its descriptor.
        source: the images, which `read_once` returned.
        seed: of the random weights.

    Raises:
        OSError: there is no folder for caches.
    """
    model, tolerance = extraction.model, extraction.tolerance
    computed = (__version__, torch.__version__, torch_device(extraction.runtime.device).type)
    # Kept features are found by the images' names, which a fingerprint need not know: that of shards is without theirs.
    contents = digest(source.fingerprint, source.ids, source.digests)
    reduced = reduced_precision(precision_of(model), model.net.mean_rgb.device)
    of_file = (*model.exported, *reduced) if seed is None else ()
    network = (*astuple(model.net.architecture), model.scale, model.flip, *of_file)
    weights = str(model.weights_sha256) if seed is None else f"seed {seed}, {model.weights_sha256}"
    key = digest(computed, network, weights, contents, extraction.descriptor, tolerance.max_pixels)
    return DescribingNetwork(extraction=extraction, seed=seed, file=cache.folder() / _KIND / f"{key}.safetensors")


def network_features(network: DescribingNetwork, source: Source, decoder: Decoder | None = None) -> DescribedImages:
    """Return the penultimate features of every usable image, computed once, then read from the folder for caches.

    Work that was stopped is continued (`write_features`), also if it stopped because more images were unusable than is
    tolerated.

    Args:
        network: the network and its descriptor.
        source: the images, which `read_once` returned.
        decoder: where the decoded images come from, if other networks look at them too.

    Raises:
        TooManyBadImagesError: more images are unusable than is tolerated.
        OSError: the folder for caches cannot be written, or another process computes the same.
    """
    extraction, file = network.extraction, network.file
    cached = _kept(file)
    every, most_pixels = range(len(source)), extraction.most_pixels
    if cached is None or any_usable_now(source, cached.unusable, every, most_pixels=most_pixels):
        with _errors_about_the_folder(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            for place in (file, _digest_file(file)):
                cache.clear_place(place)
            _digest_file(file).unlink(missing_ok=True)  # it is of the file before
            write_features(
                extraction.model if network.seed is None else untrained(extraction.model, seed=network.seed),
                source,
                file,
                descriptor=extraction.descriptor,
                runtime=extraction.runtime,
                tolerance=extraction.tolerance,
                decoder=decoder,
            )
            atomic.write_text(_digest_file(file), file_sha256(file))
        cached = _read(file)
    # More may have been tolerated when it was written.
    Quarantine(len(source), extraction.tolerance, split="all").add_known(cached.unusable)
    return cached


@contextmanager
def _errors_about_the_folder(folder: Path) -> Iterator[None]:
    """Raise errors about the file as errors about the folder for caches, since the user has named no file."""
    try:
        yield
    except WrittenElsewhereError:
        raise OSError("another verydeep transfer computes the same features: wait for it") from None
    except OSError as error:
        why = next(
            (one.strerror for one in (error, error.__cause__) if isinstance(one, OSError) and one.strerror), error
        )
        raise OSError(f"features cannot be kept in {folder}: {why} (VERYDEEP_CACHE names another folder)") from error


def _kept(file: Path) -> DescribedImages | None:
    """Return the features in the folder for caches; None if it has none, or if they are damaged, which is said."""
    try:
        if not (file.exists() and _digest_file(file).exists()):
            return None
        if read_file(_digest_file(file), most=_DIGITS).decode(errors="replace") != file_sha256(file):
            raise ValueError("it has changed since it was kept")
        return _read(file)
    except (OSError, SafetensorError, ValueError) as error:
        cache.say_computed_again(f"{file}: {one_line(error)}")
        return None


def _digest_file(file: Path) -> Path:
    """Return where the SHA-256 of a file of features is kept, which appears after it."""
    return file.with_suffix(".sha256")


def _read(file: Path) -> DescribedImages:
    with safe_open(file, "numpy") as opened:
        about, vectors = opened.metadata() or {}, opened.get_tensor(PENULTIMATE)
    ids = parse_json(about.get("ids", ""), tuple[str, ...])
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise ValueError("it does not have one vector for each image")
    unusable = parse_json(about.get("unusable", ""), dict[str, str])
    return DescribedImages(ids=ids, vectors=vectors, unusable=unusable)


def read_once(source: Source) -> Source:
    """Read all images once for their SHA-256, which identify them; an image that changes later cannot be used.

    Says which files were left out where the images were found; what is returned no longer does, for each network.
    """
    read = unchanged(source, contents_digests(source, notes=source.inventory.lines()))
    return replace(read, inventory=Inventory())


def untrained(model: Model[ScoringNetwork], *, seed: int) -> Model:
    """Return the network with Glorot's random weights, but with the mean RGB of the model's training."""
    net = VGG(model.net.architecture)
    initialise(net, generator=torch.Generator().manual_seed(seed))
    net.mean_rgb.copy_(model.net.mean_rgb)
    return Model(net=net.eval(), classes=model.classes, scale=model.scale, flip=model.flip)


def pixel_features(source: Source, tolerance: Tolerance) -> DescribedImages:
    """Return every usable image squeezed into a small square, as a vector of length 1.

    Raises:
        TooManyBadImagesError: more images are unusable than is tolerated.
    """
    quarantine = Quarantine(len(source), tolerance, split="all")
    ids, vectors = [], []
    with reporting("pixels", total=len(source)) as report:
        quarantine.say = report.say
        for index in range(len(source)):
            report.advance()
            try:
                sample = source[index]
                image = decode(sample.data, sample.id, max_pixels=tolerance.max_pixels)
            except UnusableImageError as refusal:
                quarantine.add(refusal)
                continue
            ids.append(sample.id)
            vectors.append(_squeezed(image))
    return DescribedImages(ids=tuple(ids), vectors=np.stack(vectors), unusable=quarantine.reasons)


def _squeezed(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    small = F.interpolate(pixels, size=(_PIXELS_SIDE, _PIXELS_SIDE), mode="bilinear", antialias=True).flatten()
    return cast(NDArray[np.float32], F.normalize(small, dim=0).numpy())
