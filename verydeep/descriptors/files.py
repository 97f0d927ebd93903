"""Features into a file, safetensors or Parquet: work that was stopped goes on, and ends with the same file."""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verydeep.descriptors import parts as feature_parts
from verydeep.descriptors.descriptor import Descriptor
from verydeep.descriptors.features import Extraction, Part, compute_part, extraction
from verydeep.evaluation.predictions import as_text
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.derived import Unchanged
from verydeep.images.sources.given import GivenImage
from verydeep.images.sources.source import Source, contents_digests, digest
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.images.workers import WorkerDiedError
from verydeep.machine import atomic
from verydeep.machine.libraries import library
from verydeep.machine.processes import Processes, joined
from verydeep.machine.runtime import Runtime
from verydeep.networks.vgg import VGG
from verydeep.presentation.progress import Reporter, reporting
from verydeep.runs.model import Model
from verydeep.version import __version__

SAFETENSORS, PARQUET = ".safetensors", ".parquet"

ID, IDS, LABEL, LABELS = "id", "ids", "label", "labels"

LONGEST_HEADER = 10**8
"""Bytes; readers of safetensors files refuse more."""

DTYPES = {"float32": "F32", "float16": "F16", "int64": "I64"}
"""As safetensors writes them."""

KEPT = "what was computed is kept: the same command goes on"


@dataclass(frozen=True, kw_only=True)
class FeatureFile:
    """What `write_features` wrote."""

    file: str
    images: int
    """Rows."""
    layers: dict[str, tuple[int, ...]]
    """Of each what one image has."""
    scales: tuple[int, ...]
    mirror: bool
    unusable: dict[str, str]
    """Images that were left out, and why."""
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The same as a plain dictionary, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is to be done."""

    asked: Extraction
    file: Path
    parts: Path
    order: dict[str, Any]
    quarantine: Quarantine
    processes: Processes


def check_kind(file: Path) -> None:
    """Refuses a file of another kind, before any work.

    Raises:
        ValueError: its ending is not .safetensors or .parquet, or there is nothing here that writes Parquet.
    """
    if file.suffix not in (SAFETENSORS, PARQUET):
        raise ValueError(f"a file of features ends in {SAFETENSORS} or {PARQUET}, not as {file.name} does")
    if file.suffix == PARQUET:
        _pyarrow()


def write_features(
    run: str | Path | Model,
    data: str | Path | Source | Splits | GivenImage | Sequence[GivenImage],
    file: str | Path,
    *,
    descriptor: Descriptor | None = None,
    split: str | None = None,
    runtime: Runtime | None = None,
    tolerance: Tolerance | None = None,
) -> FeatureFile:
    """The features of every usable image of a source in a file, a row each, in the source's order.

    safetensors: a tensor [N, ...] for each layer and, if there are classes, `labels`; everything else, `ids` among it,
    stands as JSON in the metadata. Parquet: columns `id` and `label` and a list for each layer; the rest stands in the
    schema's metadata. What is computed is kept beside the file until that stands: the same call goes on after a stop.
    Under torchrun each process computes its share, the first one writes, and all return the same.

    Args:
        run: as for `features`.
        data: as for `features`.
        file: its ending chooses the kind, .safetensors or .parquet.
        descriptor: as for `features`.
        split: as for `features`.
        runtime: as for `features`.
        tolerance: as for `features`.

    Raises:
        ValueError: as `features`, or a file of another kind.
        TooManyBadImagesError: more images are unusable than is tolerated.
        OSError: the file cannot be written.
    """
    started, file = time.perf_counter(), Path(file)
    check_kind(file)
    asked = extraction(run, data, descriptor=descriptor, split=split, runtime=runtime, tolerance=tolerance)
    if file.suffix == SAFETENSORS:
        _check_header(_json({IDS: _json(list(asked.source.ids))}).encode(), LONGEST_HEADER * 9 // 10)
    with (
        ExitStack() as stack,
        joined(asked.model.net.mean_rgb.device, advice=KEPT, known=(WorkerDiedError,)) as processes,
    ):
        weights = None if isinstance(run, Model) else asked.model.weights_sha256
        order = _order(asked, weights or _digest(asked.model.net))
        processes.check_alike("images or another run under these names", lambda: order)
        processes.from_first(lambda: stack.enter_context(feature_parts.alone(file)))
        work = _work(asked, file, order, processes)
        _compute(work)
        return processes.from_first(lambda: _finish(work, time.perf_counter() - started))


def _work(asked: Extraction, file: Path, order: dict[str, Any], processes: Processes) -> _Work:
    """Everything about it, the contents of all images too: whatever is called the same is not always the same.

    Images are not read again for that if their contents are known already (`Unchanged`).
    """
    source = asked.source

    def read() -> list[bytes]:
        with reporting("read images", total=len(source)) as report:
            return contents_digests(source, report.advance)

    if not isinstance(source, Unchanged):
        source = Unchanged(source=source, digests=processes.from_first(read))
    order = {**order, "contents_sha256": hashlib.sha256(b"".join(source.digests)).hexdigest()}
    return _Work(
        asked=replace(asked, source=source),
        file=file,
        parts=feature_parts.folder(file) / digest(order)[:16],
        order=order,
        quarantine=Quarantine(len(asked.source), asked.tolerance, split="all"),
        processes=processes,
    )


def _order(asked: Extraction, weights: str) -> dict[str, Any]:
    """What the features follow from, but for the contents of the images."""
    net = asked.model.net
    return {
        "verydeep": __version__,
        "torch": torch.__version__,
        "device": net.mean_rgb.device.type,
        "network": list(astuple(net.architecture)),
        "weights_sha256": weights,
        "source": asked.source.fingerprint,
        "layers": list(asked.of_crop),
        "scales": list(asked.scales),
        "pool": asked.pool,
        "mirror": asked.mirror,
        "normalise": asked.normalise,
        "dtype": asked.dtype,
        "max_pixels": asked.tolerance.max_pixels,
        "images_at_once": asked.images_at_once,
    }


def _digest(net: VGG) -> str:
    """Of weights that may not be those of a file: also what was read from one can have been changed."""
    found = hashlib.sha256()
    for name, value in net.state_dict().items():
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _compute(work: _Work) -> None:
    """All parts that are not kept already, in rounds of one for each process."""
    processes, asked = work.processes, work.asked
    images, at_once = len(asked.source), asked.images_at_once
    pending, done = processes.from_first(lambda: _begin(work))
    with reporting("features", images, done=done, quiet=not processes.first) as report:
        work.quarantine.say = report.say
        try:
            for start in range(0, len(pending), processes.count):
                its_own = pending[start + processes.rank : start + processes.rank + 1]
                found, failure = {}, None
                try:
                    for number in its_own:
                        first = number * at_once
                        found[number] = compute_part(asked, range(first, min(first + at_once, images)))
                except (WorkerDiedError, ValueError) as error:
                    failure = error
                _meet(work, found, failure, report)
        except (KeyboardInterrupt, SystemExit):
            report.say(KEPT)
            raise


def _meet(work: _Work, found: dict[int, Part], failure: Exception | None, report: Reporter) -> None:
    """All tell whether they can go on; the first process keeps what they computed."""
    work.processes.check_none_failed(failure)
    told = work.processes.to_first(found) or []

    def keep() -> None:
        for number, part in sorted(item for its_parts in told for item in its_parts.items()):
            feature_parts.keep(_part_file(work, number), part)
            report.advance(len(part.indices) + len(part.refusals))
            work.quarantine.settle(part.refusals)

    work.processes.from_first(keep)


def _begin(work: _Work) -> tuple[list[int], int]:
    """Numbers of the parts that are to be computed, and how many images the others have."""
    pending, done = [], 0
    for number in _numbers(work):
        if not _part_file(work, number).is_file():
            pending.append(number)
            continue
        indices, refusals = feature_parts.read(_part_file(work, number))
        work.quarantine.settle(refusals)
        done += len(indices) + len(refusals)
    return pending, done


def _numbers(work: _Work) -> range:
    """Of all parts."""
    return range(math.ceil(len(work.asked.source) / work.asked.images_at_once))


def _part_file(work: _Work, number: int) -> Path:
    return work.parts / f"{number:06}{SAFETENSORS}"


def _finish(work: _Work, seconds: float) -> FeatureFile:
    """The file, from its parts, which are not needed any more."""
    indices = [index for number in _numbers(work) for index in feature_parts.read(_part_file(work, number))[0]]
    if not indices:
        raise ValueError(f"none of the {len(work.asked.source):,} images can be used")
    with atomic.new_files(work.file) as aside:
        (_write_safetensors if work.file.suffix == SAFETENSORS else _write_parquet)(aside, work, indices)
    feature_parts.clear(work.file)
    return FeatureFile(
        file=str(work.file),
        images=len(indices),
        layers=work.asked.shapes,
        scales=work.asked.scales,
        mirror=work.asked.mirror,
        unusable=work.quarantine.reasons,
        seconds=seconds,
    )


def _json(value: object) -> str:
    """Short; what is no text in names of files stands there escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace").decode()


def _check_header(header: bytes, longest: int) -> None:
    if len(header) > longest:
        raise ValueError(
            f"names of {len(header):,} bytes are too long for a {SAFETENSORS} file, which nobody could read: name a "
            f"{PARQUET} one"
        )


def _metadata(work: _Work) -> dict[str, str]:
    """What a file says of itself, each as JSON."""
    about = {key: value for key, value in work.order.items() if key != "images_at_once"}
    network = work.asked.model.net.architecture
    about["network"] = [network.network, network.crop, network.width, network.batch_norm]  # as all files have it
    about["classes"] = list(work.asked.source.classes)
    about["shapes"] = work.asked.shapes
    about["unusable"] = work.quarantine.reasons
    return {key: _json(value) for key, value in about.items()}


def _labels(work: _Work, indices: Sequence[int]) -> NDArray[np.int64]:
    return np.asarray(work.asked.source.labels, dtype=np.int64)[list(indices)]


def _write_safetensors(file: Path, work: _Work, indices: Sequence[int]) -> None:
    """Written here, for the library holds all of a file in memory: length of the header, header, tensors."""
    ids = work.asked.source.ids
    arrays: dict[str, tuple[str, tuple[int, ...]]] = {
        name: (work.asked.dtype, (len(indices), *shape)) for name, shape in work.asked.shapes.items()
    }
    if work.asked.source.classes:
        arrays[LABELS] = ("int64", (len(indices),))
    header: dict[str, Any] = {"__metadata__": {**_metadata(work), IDS: _json([ids[index] for index in indices])}}
    end = 0
    for name, (dtype, shape) in sorted(arrays.items(), key=lambda item: item[1][0] != "int64"):  # aligned
        begin, end = end, end + int(np.prod(shape)) * np.dtype(dtype).itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = _json(header).encode()
    _check_header(text, LONGEST_HEADER)
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        if LABELS in arrays:
            out.write(_labels(work, indices).astype("<i8").tobytes())
        for name in work.asked.shapes:
            for number in _numbers(work):
                out.write(feature_parts.read_layer(_part_file(work, number), name).tobytes())


def _write_parquet(file: Path, work: _Work, indices: Sequence[int]) -> None:
    """A row group for each part."""
    arrow, parquet = _pyarrow()
    asked = work.asked
    kind = arrow.from_numpy_dtype(np.dtype(asked.dtype))
    sizes = {name: int(np.prod(shape)) for name, shape in asked.shapes.items()}
    columns = {ID: arrow.string(), **({LABEL: arrow.int64()} if asked.source.classes else {})}
    columns |= {name: arrow.list_(kind, size) for name, size in sizes.items()}
    schema = arrow.schema(list(columns.items()), metadata=_metadata(work))
    with parquet.ParquetWriter(file, schema) as writer:
        for number in _numbers(work):
            its_own, _ = feature_parts.read(_part_file(work, number))
            rows = {ID: arrow.array([as_text(asked.source.ids[index]) for index in its_own], arrow.string())}
            if asked.source.classes:
                rows[LABEL] = arrow.array(_labels(work, its_own))
            for name, size in sizes.items():
                numbers = arrow.array(feature_parts.read_layer(_part_file(work, number), name).reshape(-1), kind)
                rows[name] = arrow.FixedSizeListArray.from_arrays(numbers, size)
            writer.write_table(arrow.table(list(rows.values()), schema=schema))


def _pyarrow() -> tuple[Any, Any]:
    parquet = library("pyarrow.parquet", needed_by="a Parquet file", alternative=f"name a {SAFETENSORS} file")
    return library("pyarrow"), parquet
