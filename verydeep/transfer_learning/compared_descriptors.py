"""The descriptors that are compared: each run's features, all of them stacked, and baselines."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from verydeep.descriptors.extraction import Extraction
from verydeep.images.sources.source import Source
from verydeep.transfer_learning.features import DescribedImages, network_features, pixel_features, untrained
from verydeep.transfer_learning.linear_svm import stacked
from verydeep.transfer_learning.options import TransferOptions

Kind = Literal["network", "stacked", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """All images by one descriptor."""

    name: str
    kind: Kind
    networks: str
    """Names of its networks as the paper's tables write them, `D + E`; empty for baselines."""
    images: DescribedImages


def compared_descriptors(
    folders: Sequence[str | Path], extractions: Sequence[Extraction], options: TransferOptions
) -> list[Compared]:
    """Compute, or read from the cache, the images by each run, by all together, and by the baselines if wanted.

    Args:
        folders: the runs.
        extractions: one for each run, all of the same images, which `read_once` returned.
        options: whether there are baselines, and their seed.

    Raises:
        TooManyBadImagesError: more images are unusable than is tolerated.
        OSError: features cannot be written.
    """
    compared = []
    for folder, one in zip(folders, extractions, strict=True):
        images = network_features(one, weights=str(one.model.weights_sha256))
        networks = one.model.net.architecture.network
        compared.append(Compared(name=str(folder), kind="network", networks=networks, images=images))
    if len(compared) > 1:
        compared.append(_stacked(compared, extractions[0].source))
    if options.baseline:
        for folder, one in zip(folders, extractions, strict=True):
            random = replace(one, model=untrained(one.model, seed=options.seed))
            images = network_features(random, weights=f"seed {options.seed}, {one.model.weights_sha256}")
            compared.append(Compared(name=f"{folder}, untrained", kind="baseline", networks="", images=images))
        pixels = pixel_features(extractions[0].source, extractions[0].tolerance)
        compared.append(Compared(name="pixels", kind="baseline", networks="", images=pixels))
    return compared


def common_images(source: Source, described: Sequence[DescribedImages]) -> tuple[tuple[str, ...], list[int]]:
    """Return the images that all descriptors have, in the source's order: their names, and their rows in it."""
    usable = set(described[0].ids).intersection(*(one.ids for one in described))
    rows = [row for row, name in enumerate(source.ids) if name in usable]
    return tuple(source.ids[row] for row in rows), rows


def _stacked(networks: Sequence[Compared], source: Source) -> Compared:
    ids, _ = common_images(source, [one.images for one in networks])
    vectors = stacked([one.images.vectors_of(ids) for one in networks])
    return Compared(
        name="all stacked",
        kind="stacked",
        networks=" + ".join(sorted(one.networks for one in networks)),
        images=DescribedImages(ids=ids, vectors=vectors, unusable={}),
    )
