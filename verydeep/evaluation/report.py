"""One evaluation as a self-contained HTML page: errors, confusions, calibration, wrong images and score maps."""

import io
from dataclasses import dataclass
from pathlib import Path

from verydeep.evaluation.bfloat16 import in_bfloat16
from verydeep.evaluation.charts import confusion_figure, reliability_chart
from verydeep.evaluation.contact_sheet import sheet_of
from verydeep.evaluation.example_images import examples
from verydeep.evaluation.protocols import PROTOCOLS
from verydeep.evaluation.results import ClassErrors, Evaluation
from verydeep.exported_networks.run_or_file import model_on, precision_of
from verydeep.images.open import open_for_testing
from verydeep.images.sources.source import Source
from verydeep.images.sources.splits import Splits
from verydeep.machine import atomic
from verydeep.networks.scales import scale_in_pixels
from verydeep.networks.vgg import ScoringNetwork
from verydeep.presentation.pages import write_page
from verydeep.presentation.report_files import EVALUATION
from verydeep.presentation.translation import DEFAULT_LANGUAGE, Language
from verydeep.runs.model import Model
from verydeep.runs.record import command, versions

_HTML, _RESULTS, _WRONG_IMAGES = EVALUATION

_ALL_CLASSES, _WORST_CLASSES = 40, 20
"""Most classes that are all in the table, and how many of more, the worst."""

_QUALITY = 90
"""JPEG quality of the sheet."""

_UNUSABLE = 20
"""Most unusable images in the list."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Confidence beside accuracy, in percent of all images."""

    chart: str
    """SVG."""
    confidence: float
    """Mean probability of the most probable class."""
    accuracy: float
    interval: tuple[float, float]
    """95% interval of the accuracy."""

    @property
    def gap(self) -> float:
        """Confidence minus accuracy, in points: above 0 the network is overconfident."""
        return self.confidence - self.accuracy

    @property
    def may_be_chance(self) -> bool:
        """Whether the confidence is within the interval of the accuracy."""
        low, high = self.interval
        return low <= self.confidence <= high


def evaluation_report(
    evaluation: Evaluation, folder: str | Path, *, data: str | Path | Splits, language: Language = DEFAULT_LANGUAGE
) -> Path:
    """Write evaluation.html and evaluation.json into `folder`, which is made if missing; return the page's path.

    If images are wrong, wrong_images.jpg is a sheet of the most confident errors (`contact_sheet`); if none is, a sheet
    of an earlier page is removed.

    Args:
        evaluation: result of `evaluate`.
        folder: folder of these files.
        data: as it was given to `evaluate`; images are read from it once more.
        language: en or ja; figures in JSON are the same.

    Raises:
        ValueError: the first run is gone, or `data` is not the source that was tested.
        UnusableImageError: an image can no longer be used.
        OSError: the files cannot be written.
    """
    model: Model[ScoringNetwork] = model_on("cpu", evaluation.runs[0])
    if evaluation.per_run[0].precision != precision_of(model):
        model = in_bfloat16(model)
    splits = open_for_testing(data, model.classes)
    source = splits.source(evaluation.split)
    return _write_evaluation_page(evaluation, Path(folder), source=source, model=model, language=language)


def _write_evaluation_page(
    evaluation: Evaluation, folder: Path, *, source: Source, model: Model[ScoringNetwork], language: Language
) -> Path:
    """Write the page and the figures, given the split that was tested and the model of the first run."""
    averaged = {
        "runs": len(evaluation.runs) > 1,
        "scales": len(evaluation.scales) > 1,
        "crops": evaluation.protocol == "crops",
    }
    values = {
        "evaluation": evaluation,
        "protocol": PROTOCOLS[evaluation.protocol],
        "fused": averaged["runs"],
        "averaged": [over for over, is_so in averaged.items() if is_so],
        "pixels": [scale_in_pixels(q, model.net.architecture.crop) for q in evaluation.scales],
        "errors": [*evaluation.per_run, *([evaluation.fused] if averaged["runs"] else [])],
        "classes": _worst_classes(evaluation),
        "confusion": confusion_figure(evaluation),
        "reliability": _reliability(evaluation),
        "examples": examples(evaluation, source, model),
        "command": command(),
        "versions": versions(),
        "unusable": list(evaluation.unusable.items())[:_UNUSABLE],
    }
    page = write_page(folder, f"evaluation/{_HTML}", values, beside={_RESULTS: evaluation.to_dict()}, language=language)
    if evaluation.fused.top1_wrong:
        buffer = io.BytesIO()
        sheet_of(evaluation, source).save(buffer, "JPEG", quality=_QUALITY)
        atomic.write_bytes(folder / _WRONG_IMAGES, buffer.getvalue())
    else:
        (folder / _WRONG_IMAGES).unlink(missing_ok=True)
    return page


def _worst_classes(evaluation: Evaluation) -> list[ClassErrors]:
    """Return the errors of single classes, the worst first: of all or, of many, the worst."""
    worst = sorted(evaluation.per_class, key=lambda one: -one.top1_error)
    return worst if len(worst) <= _ALL_CLASSES else worst[:_WORST_CLASSES]


def _reliability(evaluation: Evaluation) -> Reliability:
    low, high = evaluation.top1_error_ci95
    return Reliability(
        chart=reliability_chart(evaluation.calibration),
        confidence=100 * float(evaluation.images.posteriors.max(axis=1).mean()),
        accuracy=100 - evaluation.top1_error,
        interval=(100 - high, 100 - low),
    )
