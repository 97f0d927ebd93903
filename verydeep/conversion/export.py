"""Export of a run to one file that other programs can use, checked against PyTorch on real images first."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import Tensor

from verydeep.conversion.comparison import ExportAgreement, agreement, usable_images
from verydeep.evaluation.passes import PassContext
from verydeep.evaluation.pixel_limits import largest_image
from verydeep.evaluation.posteriors import averages, protocol_passes
from verydeep.evaluation.precision import PrecisionErrors, precision_errors
from verydeep.evaluation.protocols import Protocol, single_scale
from verydeep.evaluation.tested_runs import labels_as_trained
from verydeep.exported_networks.exported import CALIBRATED, write_exported
from verydeep.exported_networks.formats import (
    FORMATS,
    ExportOptions,
    Format,
    check_export,
    format_module,
)
from verydeep.images.open import open_for_testing
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source, evenly_spread, subset
from verydeep.images.tolerance import Tolerance
from verydeep.machine import atomic
from verydeep.machine.errors import reason
from verydeep.machine.libraries import library
from verydeep.machine.runtime import PRECISION_NAMES, TestPrecision
from verydeep.networks.scales import scale_in_pixels
from verydeep.networks.vgg import ScoringNetwork
from verydeep.numbers import FINE, counted, interval, millions, number, percent, points, significant, size, trimmed
from verydeep.presentation.terminal import reporting, table_with
from verydeep.runs.model import Model, load_model, warnings_of
from verydeep.runs.record import record_of

_GREATEST_DIFFERENCE = 1e-3
"""Most that a score may differ from PyTorch's, relative to the largest of its image.

Float32 in another order stays below 1e-5.
"""

_LARGEST_GRAPH = 2**31
"""Bytes of a message of protobuf at most, which a graph in ONNX is: D has more at crop 512."""

_COMPARED = 100
"""Images by default: enough to show a fault. The cost of INT8 or bfloat16 is measured on all validation images."""


class BrokenExportError(RuntimeError):
    """An export that is not the network, or not good enough; nothing was written."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """A file that was written, and how it compares."""

    run: str
    file: str
    to: Format
    int8: bool
    precision: TestPrecision
    """Precision of all that is not in INT8."""
    bytes: int
    """Size, with a `.bin` beside the file."""
    weights_sha256: str | None
    source: str
    split: str
    """Split of the images that it was checked on."""
    unusable: dict[str, str]
    """Reasons by image that could not be used."""
    agreement: ExportAgreement
    errors: PrecisionErrors | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Images:
    """Images that a network is calibrated and checked on."""

    name: str
    split: str
    checked: Source
    labels: NDArray[np.int64]
    """Labels of the checked images, as the run numbers classes."""
    calibration: Source | None
    tolerance: Tolerance


def export(
    run: str | Path,
    out: str | Path,
    *,
    to: Format,
    options: ExportOptions = ExportOptions(),
    tolerance: Tolerance = Tolerance(),
) -> Export:
    """Write a run's network for another runtime; the file appears only if it agrees with PyTorch on real images.

    It takes `images` [B, 3, H, W] of any batch and size from the crop up and gives `logits` [B, classes] and
    `score_map` [B, classes, h, w]; in ncnn one image at a time, without B. Metadata say how to prepare images and name
    the classes.

    Args:
        run: a run folder.
        out: `.onnx`, `.xml` or `.ncnn.param` (each with a `.bin` beside it), or `.pt2`.
        to: onnx, openvino, ncnn or torch (torch.export).
        options: precision, and images to calibrate and check on; INT8 is for onnx and openvino, bfloat16 for openvino.
        tolerance: which images are used, and how many may be unusable.

    Raises:
        ValueError: unusable run, images or options, or a missing library.
        BrokenExportError: the scores differ from PyTorch's, or INT8 or bfloat16 costs more than `options.max_loss`.
        OSError: the file cannot be written.
    """
    started, out = time.perf_counter(), Path(out)
    check_export(to, out, options)
    _check_libraries(to, int8=options.int8)
    model, reduced = _whole_model(run), options.reduced
    _check_size(model, to)
    images = _images(run, model, options, tolerance)
    unusable: dict[str, str] = {}
    calibration = _calibration(model, images, unusable) if options.int8 else None
    with atomic.new_files(out) as file:
        exported = _written(model, file, to=to, calibration=calibration, bf16=options.precision == "bf16", named=out)
        most = _COMPARED if reduced else len(images.checked)  # in reduced precision the errors tell more
        agrees = _agreement(model, exported, images, unusable, most=most)
        errors = _precision_errors(model, exported, images, unusable) if reduced else None
        _refuse_broken(out, agrees, errors, options)
        written = sum(part.stat().st_size for part in file.parent.iterdir())
    return Export(
        run=str(run),
        file=str(out),
        to=to,
        int8=options.int8,
        precision=options.precision,
        bytes=written,
        weights_sha256=model.weights_sha256,
        source=images.name,
        split=images.split,
        unusable=unusable,
        agreement=agrees,
        errors=errors,
        seconds=time.perf_counter() - started,
    )


def _kind(int8: bool, precision: TestPrecision) -> str:
    return PRECISION_NAMES["int8" if int8 else precision]


def _refuse_broken(out: Path, agrees: ExportAgreement, errors: PrecisionErrors | None, options: ExportOptions) -> None:
    if errors is None and not agrees.greatest_difference <= _GREATEST_DIFFERENCE:
        raise BrokenExportError(
            f"{out} was not written: its scores differ from PyTorch's by "
            f"{significant(agrees.greatest_difference)} of the largest, more than {trimmed(_GREATEST_DIFFERENCE)}"
        )
    kind, most = _kind(options.int8, options.precision), options.max_loss
    if errors is not None and errors.loss > most and errors.lost - errors.won > 1:
        raise BrokenExportError(
            f"{out} was not written: in {kind} {percent(errors.reduced, FINE)}% of {counted(errors.images, 'image')} "
            f"are wrong, in float32 {percent(errors.float32, FINE)}%; --max-loss {most:g} allows no more than "
            f"{trimmed(most)} points"
        )


def _check_libraries(to: Format, *, int8: bool) -> None:
    """Import the libraries that a format needs, before any work."""
    known = FORMATS[to]
    for name in (*known.libraries, *((known.int8_libraries or ()) if int8 else ())):
        library(name)


def _images(run: str | Path, model: Model, options: ExportOptions, tolerance: Tolerance) -> _Images:
    record = None if options.data else record_of(run)
    # An imported run's source is the file of its weights.
    name = record.source if record and record.imported is None else options.data
    if not name:
        raise ValueError(f"{run} does not say what it was trained on: name images to check the export on (--data)")
    try:
        splits = open_for_testing(name, model.classes)
    except ValueError as error:
        raise ValueError(f"{error} (--data names other images to check the export on)") from error
    split = "val" if "val" in splits.sources else next(iter(splits.sources))
    source = splits.source(split)
    checked = options.check_images or (len(source) if options.reduced else _COMPARED)
    chosen = evenly_spread(len(source), checked)
    return _Images(
        name=name,
        split=split,
        checked=subset(source, chosen),
        labels=labels_as_trained(source, model.classes)[list(chosen)],
        calibration=splits.sources.get("train"),
        tolerance=tolerance,
    )


def _calibration(model: Model, images: _Images, unusable: dict[str, str]) -> Sequence[Tensor]:
    """Return the images to calibrate on, and note those that cannot be used for it."""
    source = images.calibration
    if source is None:
        raise ValueError(f"{images.name} has no train split to calibrate INT8 on (--data names another source)")
    chosen = subset(source, evenly_spread(len(source), CALIBRATED))
    quarantine = Quarantine(len(chosen), images.tolerance, split="train")
    most = largest_image([model.net], torch.device("cpu"))  # calibration has no tiles
    fitting = []
    for index, image in usable_images(chosen, _side(model), quarantine):
        if image[0].numel() <= most:
            fitting.append(image)
        else:
            unusable[chosen.ids[index]] = f"too large (more than {number(most)} pixels at once, to calibrate INT8 on)"
    unusable |= quarantine.reasons
    if not fitting:
        raise ValueError(f"no train image of {images.name} can be used to calibrate INT8 on")
    return fitting


def _side(model: Model) -> int:
    """Return the pixels of the shorter side at the run's single test scale."""
    (scale,) = single_scale(model.scale)
    return scale_in_pixels(scale, model.net.architecture.crop)


def _agreement(
    model: Model, exported: ScoringNetwork, images: _Images, unusable: dict[str, str], *, most: int
) -> ExportAgreement:
    source = subset(images.checked, evenly_spread(len(images.checked), most))
    quarantine = Quarantine(len(source), images.tolerance, split=images.split)
    with reporting("check", total=len(source)) as report:
        quarantine.say = report.say
        agrees = agreement(model.net, exported, source, _side(model), quarantine, report.advance)
    unusable |= quarantine.reasons
    return agrees


def _precision_errors(
    model: Model, exported: ScoringNetwork, images: _Images, unusable: dict[str, str]
) -> PrecisionErrors:
    protocol = Protocol(scales=single_scale(model.scale), mirror=model.flip)
    passes = [protocol_passes(net, protocol) for net in (model.net, exported)]
    quarantine = Quarantine(len(images.checked), images.tolerance, split=images.split)
    with reporting("test", total=2 * len(images.checked)) as report:
        quarantine.say = report.say
        context = PassContext(source=images.checked, quarantine=quarantine, advance=report.advance)
        float32, reduced = averages(passes, context).values
    unusable |= quarantine.reasons
    return precision_errors(float32, reduced, images.labels)


def _whole_model(run: str | Path) -> Model:
    """Load a run; refuse one with layers that are still random."""
    model = load_model(run)
    if model.random_layers:
        raise ValueError(*warnings_of(str(run), model))
    return model


def _check_size(model: Model, to: Format) -> None:
    """Refuse a network that a graph in ONNX does not hold, which those of OpenVINO are made from, before any work."""
    weights = sum(4 * value.numel() for value in model.net.parameters())
    if "onnx" in FORMATS[to].libraries and weights >= _LARGEST_GRAPH:
        raise ValueError(
            f"a graph in ONNX holds less than {size(_LARGEST_GRAPH)}, and this network has {size(weights)} of weights: "
            "--to torch"
        )


def _written(
    model: Model, file: Path, *, to: Format, calibration: Sequence[Tensor] | None, bf16: bool, named: Path
) -> ScoringNetwork:
    """Write the file; return the network that its users will have."""
    try:
        write_exported(model, file, to=to, calibration=calibration, bf16=bf16)
    except OSError as error:
        raise OSError(f"cannot write {named}: {reason(error)}") from error
    net: ScoringNetwork = format_module(to).reread(file)
    return net


def export_table(export: Export) -> Table:
    """Return a table of the exported file, and how it compares with PyTorch."""
    agreement, errors, kind = export.agreement, export.errors, _kind(export.int8, export.precision)
    what = f"{export.to}, {kind}" if errors else export.to
    table = table_with(f"{export.file} ({what}, {millions(export.bytes)} MB)", left=("against PyTorch",), right=("",))
    table.add_row("images compared", number(agreement.images))
    table.add_row("greatest difference of a score, of the largest", significant(agreement.greatest_difference))
    table.add_row("same most probable class", f"{percent(agreement.top1_agreement)}%")
    if errors:
        table.add_row(f"error in float32, {counted(errors.images, 'image')}", f"{percent(errors.float32, FINE)}%")
        table.add_row(f"error in {kind}", f"{percent(errors.reduced, FINE)}%")
        loss = f"{points(errors.loss, FINE)} ({interval(errors.loss_ci95, FINE, '+')})"
        table.add_row(f"cost of {kind}, percentage points, 95% interval", loss)
        table.add_row(f"images wrong in {kind} alone, in float32 alone", f"{number(errors.lost)}, {number(errors.won)}")
        table.add_row("images whose most probable class changed", number(errors.changed))
    table.caption = Text(f"{export.split} images of {export.source}")
    if export.unusable:
        table.caption.append(f"; {counted(len(export.unusable), 'image')} could not be used")
    return table
