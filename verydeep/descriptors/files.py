"""Features into a file, safetensors or Parquet: work that was stopped is continued, and ends with the same file."""

import hashlib
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from verydeep.descriptors import chunks, file_formats
from verydeep.descriptors.descriptor import Descriptor
from verydeep.descriptors.extraction import Extraction, Images, checked_extraction
from verydeep.descriptors.features import Chunk, any_usable_now, extract
from verydeep.exported_networks.run_or_file import precision_of
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import contents_digests, digest, unchanged
from verydeep.images.tolerance import Tolerance
from verydeep.images.workers import WorkerDiedError
from verydeep.machine import atomic
from verydeep.machine.cache import say_computed_again
from verydeep.machine.errors import one_line
from verydeep.machine.lock import locked
from verydeep.machine.processes import Processes, joined
from verydeep.machine.runtime import FULL_PRECISION, PRECISION_NAMES, Runtime
from verydeep.networks.vgg import VGG, LayeredNetwork
from verydeep.numbers import counted, number
from verydeep.prediction.pieces import Decoder
from verydeep.presentation.terminal import Reporter, reporting, table_with
from verydeep.runs.model import Model
from verydeep.version import __version__

_KEPT = "what was computed is kept: repeat the command to continue"


@dataclass(frozen=True, kw_only=True)
class FeatureFile:
    """A file that `write_features` wrote."""

    file: str
    images: int
    """Rows."""
    layers: dict[str, tuple[int, ...]]
    """Shape of each layer's values for one image."""
    scales: tuple[int, ...]
    mirror: bool
    precision: str
    """How products were computed: fp32, or bf16 or int8 by an exported file."""
    unusable: dict[str, str]
    """Images that were left out, and why."""
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _ExtractionJob:
    """An extraction into a file, and how far it is."""

    extraction: Extraction
    file: Path
    inputs: dict[str, Any]
    """Everything that determines the features."""
    chunks: dict[Path, range]
    """The file of every chunk, whether it exists or not, and its images."""
    quarantine: Quarantine
    processes: Processes


def write_features(
    run: str | Path | Model[LayeredNetwork],
    data: Images,
    file: str | Path,
    *,
    descriptor: Descriptor | None = None,
    split: str | None = None,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
    decoder: Decoder | None = None,
) -> FeatureFile:
    """Write the features of every usable image of a source into a file, a row each, in the source's order.

    safetensors: a tensor [N, ...] for each layer and, if there are classes, `labels`; everything else, including `ids`,
    is JSON in the metadata. Parquet: columns `id` and `label` and a list for each layer; the rest is in the schema's
    metadata. Chunks are kept beside the file until it is complete: after a stop the same call continues.
    Under torchrun each process computes its share, the first one writes, and all return the same.

    Args:
        run: as for `features`.
        data: as for `features`.
        file: its ending chooses the kind, .safetensors or .parquet.
        descriptor: as for `features`.
        split: as for `features`.
        runtime: as for `features`.
        tolerance: as for `features`.
        decoder: where the source's decoded images come from, if other networks look at them too; they must be those
            that the other arguments would give.

    Raises:
        ValueError: as `features`, or a file of another kind.
        TooManyBadImagesError: more images are unusable than is tolerated.
        OSError: the file cannot be written.
    """
    started, file = time.perf_counter(), Path(file)
    file_formats.check_kind(file)
    extraction = checked_extraction(run, data, descriptor=descriptor, split=split, runtime=runtime, tolerance=tolerance)
    file_formats.check_names(file, extraction.source.ids)
    with (
        ExitStack() as stack,
        joined(extraction.model.net.mean_rgb.device, advice=_KEPT, known=(WorkerDiedError,)) as processes,
    ):
        inputs = _inputs(extraction, loaded_before=isinstance(run, Model))
        processes.check_alike("images or another run under these names", lambda: inputs)
        processes.from_first(lambda: stack.enter_context(locked(file)))
        job = _job(extraction, file, inputs, processes)
        _compute(job, decoder)
        return processes.from_first(lambda: _finish(job, time.perf_counter() - started))


def _inputs(extraction: Extraction, *, loaded_before: bool) -> dict[str, Any]:
    """Return everything that determines the features, except the contents of the images."""
    model = extraction.model
    weights = model.weights_sha256
    if isinstance(model.net, VGG) and (loaded_before or weights is None):
        weights = _weights_digest(model.net)
    of_file = {"exported": model.exported, "precision": precision_of(model)} if model.exported else {}
    return {
        "verydeep": __version__,
        "torch": torch.__version__,
        "device": model.net.mean_rgb.device.type,
        "network": list(astuple(model.net.architecture)),
        "weights_sha256": weights,
        **of_file,
        "source": extraction.source.fingerprint,
        **asdict(extraction.descriptor),
        "max_pixels": extraction.tolerance.max_pixels,
        "images_at_once": extraction.images_at_once,
        # Earlier versions computed views one by one, with other last digits: their chunks are not continued.
        **({"views_at_once": extraction.views_at_once} if extraction.views_at_once > 1 else {}),
    }


def _weights_digest(net: VGG) -> str:
    """Return the SHA-256 of weights that may not be those of a file: they can be changed after they are read."""
    sha256 = hashlib.sha256()
    for name, value in net.state_dict().items():
        sha256.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()


def _job(extraction: Extraction, file: Path, inputs: dict[str, Any], processes: Processes) -> _ExtractionJob:
    """Return the job, with the contents of all images as inputs: the same names may have other contents later.

    Images are not read for that if their contents are known already (`unchanged`).
    """
    images = extraction.source
    if not images.digests:
        images = unchanged(images, processes.from_first(lambda: contents_digests(extraction.source)))
    inputs = {**inputs, "contents_sha256": hashlib.sha256(b"".join(images.digests)).hexdigest()}
    folder = chunks.folder(file) / digest(inputs)[:16]
    everything, at_once = range(len(images)), extraction.images_at_once
    return _ExtractionJob(
        extraction=replace(extraction, source=images),
        file=file,
        inputs=inputs,
        chunks={
            folder / f"{number:06}{file_formats.SAFETENSORS}": everything[start : start + at_once]
            for number, start in enumerate(everything[::at_once])
        },
        quarantine=Quarantine(len(images), extraction.tolerance, split="all"),
        processes=processes,
    )


def _compute(job: _ExtractionJob, decoder: Decoder | None) -> None:
    """Compute all chunks that are not kept already, in rounds of one for each process."""
    processes = job.processes
    pending, done = processes.from_first(lambda: _pending(job))
    with reporting("features", len(job.extraction.source), done=done, quiet=not processes.first) as report:
        report.say_all(job.extraction.source.inventory.lines())
        job.quarantine.say = report.say
        try:
            for start in range(0, len(pending), processes.count):
                _compute_round(job, pending[start : start + processes.count], decoder, report)
        except (KeyboardInterrupt, SystemExit):
            report.say(_KEPT)
            raise


def _pending(job: _ExtractionJob) -> tuple[list[Path], int]:
    """Return the files of the chunks that have to be computed, and how many images the others have."""
    pending, done = [], 0
    for chunk_file in job.chunks:
        if not chunk_file.is_file():
            pending.append(chunk_file)
            continue
        try:
            chunks.check(chunk_file)
        except (OSError, ValueError) as error:
            say_computed_again(f"{chunk_file}: {one_line(error)}")
            pending.append(chunk_file)
            continue
        indices, refusals = chunks.read(chunk_file)
        unusable = {refusal.name: refusal.reason for refusal in refusals}
        most_pixels = job.extraction.most_pixels
        if any_usable_now(job.extraction.source, unusable, job.chunks[chunk_file], most_pixels=most_pixels):
            pending.append(chunk_file)
            continue
        job.quarantine.settle(refusals)
        done += len(indices) + len(refusals)
    return pending, done


def _compute_round(job: _ExtractionJob, files: Sequence[Path], decoder: Decoder | None, report: Reporter) -> None:
    """Compute up to one chunk in each process; if none has failed, the first process keeps them."""
    own, failure = {}, None
    try:
        for file in files[job.processes.rank : job.processes.rank + 1]:
            own[file] = extract(job.extraction, job.chunks[file], decoder)
    except (WorkerDiedError, ValueError) as error:
        failure = error
    job.processes.check_none_failed(failure)
    computed = job.processes.to_first(own) or []
    job.processes.from_first(lambda: _keep(job, computed, report))


def _keep(job: _ExtractionJob, computed: Sequence[dict[Path, Chunk]], report: Reporter) -> None:
    for file, chunk in sorted(item for of_process in computed for item in of_process.items()):
        chunks.keep(file, chunk)
        report.advance(len(chunk.indices) + len(chunk.refusals))
        job.quarantine.settle(chunk.refusals)


def _finish(job: _ExtractionJob, seconds: float) -> FeatureFile:
    """Write the file from its chunks, and delete them."""
    extraction = job.extraction
    indices = [index for chunk_file in job.chunks for index in chunks.read(chunk_file)[0]]
    if not indices:
        raise ValueError(f"none of the {counted(len(extraction.source), 'image')} can be used")
    contents = file_formats.Contents(
        ids=[extraction.source.ids[index] for index in indices],
        labels=np.asarray(extraction.source.labels, dtype=np.int64)[indices] if extraction.source.classes else None,
        shapes=extraction.shapes,
        dtype=extraction.descriptor.dtype,
        metadata=_metadata(job),
        chunk_files=list(job.chunks),
    )
    with atomic.new_files(job.file) as aside:
        file_formats.write(aside, contents, kind=job.file.suffix)
    chunks.clear(job.file)
    return FeatureFile(
        file=str(job.file),
        images=len(indices),
        layers=extraction.shapes,
        scales=extraction.scales,
        mirror=bool(extraction.descriptor.mirror),
        precision=precision_of(extraction.model),
        unusable=job.quarantine.reasons,
        seconds=seconds,
    )


def _metadata(job: _ExtractionJob) -> dict[str, Any]:
    """Return a file's description of itself."""
    network = job.extraction.model.net.architecture
    return {
        **{name: value for name, value in job.inputs.items() if name not in ("images_at_once", "views_at_once")},
        "network": [network.network, network.crop, network.width, network.batch_norm],  # as in all files so far
        "classes": list(job.extraction.source.classes),
        "shapes": job.extraction.shapes,
        "unusable": job.quarantine.reasons,
    }


def feature_tables(written: FeatureFile) -> list[Table | str]:
    """Return a line about a file of features, and a table of its layers."""
    without = f", without {number(len(written.unusable))} that cannot be used" if written.unusable else ""
    scales = ", ".join(map(str, written.scales)) + (" and their mirror images" if written.mirror else "")
    reduced = f", computed in {PRECISION_NAMES[written.precision]}" if written.precision != FULL_PRECISION else ""
    table = table_with(None, left=("layer",), right=("numbers of each image",))
    for name, shape in written.layers.items():
        table.add_row(name, " x ".join(map(number, shape)))
    return [f"{written.file}: {counted(written.images, 'image')} at Q = {scales}{reduced}{without}", table]
