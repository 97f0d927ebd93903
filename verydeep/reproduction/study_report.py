"""Studies as pages: each with its figure, observations, the paper's words, and its numbers as JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verydeep.machine import atomic
from verydeep.presentation.pages import render
from verydeep.presentation.translation import DEFAULT_LANGUAGE, Language
from verydeep.reproduction.files import STUDIES
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.plan_file import last_command
from verydeep.reproduction.studies import STUDIES_BY_NAME, Study, StudyName
from verydeep.reproduction.study_charts import errors_by_images, errors_on_both, loss_curves, norms_of_layers
from verydeep.reproduction.study_runs import StudyRun, study_runs
from verydeep.reproduction.study_tables import (
    StudyTable,
    gradients_table,
    images_table,
    initialisation_table,
    regularisation_table,
)
from verydeep.reproduction.study_texts import (
    gradients_seen,
    images_seen,
    initialisation_seen,
    limits_of,
    regularisation_seen,
)
from verydeep.runs.record import read_record


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """How a study is shown: texts, table and figure from its runs and the number of classes."""

    seen: Callable[[Sequence[StudyRun], int], list[str]]
    table: Callable[[Sequence[StudyRun]], StudyTable]
    figure: Callable[[Sequence[StudyRun], int], str]
    label: str
    """Description of the figure, for those who do not see it."""
    caption: str


_SHOWN: Mapping[StudyName, _Shown] = {
    "initialisation": _Shown(
        seen=initialisation_seen,
        table=initialisation_table,
        figure=lambda runs, classes: loss_curves(runs, classes=classes),
        label="Training loss over the epochs for every network and its first weights; the table has the last values.",
        caption="The thin line is the loss of giving all classes the same probability. A curve that is missing, or "
        "ends early, is of a training that diverged, or higher than the panel.",
    ),
    "gradients": _Shown(
        seen=gradients_seen,
        table=gradients_table,
        figure=lambda runs, _: norms_of_layers(runs),
        label="Size of every layer's outputs and gradients in the first step, and of the first layer's gradient over "
        "the steps; first and last layers are in the table.",
        caption="Logarithmic. Outputs: root mean square before the ReLU. Gradient: its norm divided by that of the "
        "layer's weights, that is, the share of the weights that a step at a learning rate of 1 would change. Exact "
        "zeros have no place on such an axis and are missing.",
    ),
    "regularisation": _Shown(
        seen=regularisation_seen,
        table=regularisation_table,
        figure=lambda runs, _: errors_on_both(runs),
        label="Errors on training and on test images of every network; the values are in the table.",
        caption="Dense evaluation at one scale, of training images too, without augmentation.",
    ),
    "images": _Shown(
        seen=images_seen,
        table=images_table,
        figure=lambda runs, _: errors_by_images(runs),
        label="Test error against the number of training images for A and D; the values are in the table.",
        caption="Points are trainings, lines join their means. A smaller sample is part of every larger one.",
    ),
}


def study_page(out: Path, name: StudyName) -> Path:
    """Return the path of a study's page in the folder of a grid."""
    return out / STUDIES / f"{name}.html"


def write_studies(
    out: Path, *, grid: Grid, folders: Mapping[int, Path], source: str, language: Language = DEFAULT_LANGUAGE
) -> None:
    """Write a page (HTML and Markdown), a picture and a JSON file for every study of a grid into `out`/studies.

    Args:
        out: the folder of the grid.
        grid: which studies, of which networks.
        folders: the folder with the runs of each seed.
        source: the images' name.
        language: en or ja; figures in JSON are the same in both.
    """
    for study in (STUDIES_BY_NAME[name] for name in dict.fromkeys(grid.studies)):
        runs = study_runs(study, grid=grid, folders=folders, out=out)
        _write_study(out / STUDIES, study, runs, folders, source, language)


def _write_study(
    out: Path, study: Study, runs: Sequence[StudyRun], folders: Mapping[int, Path], source: str, language: Language
) -> None:
    shown = _SHOWN[study.name]
    classes = len(read_record(next(iter(folders.values())) / runs[0].training.name).classes)
    figure, table = shown.figure(runs, classes), shown.table(runs)
    values = {
        "study": study,
        "shown": shown,
        "source": source,
        "seen": shown.seen(runs, classes),
        "limits": limits_of(runs),
        "figure": figure,
        "table": table,
        "seeds": list(folders),
        "command": last_command(out.parent),
    }
    numbers = {
        "study": study.name,
        "asks": study.asks,
        "section": study.section,
        "paper_says": study.paper_says,
        "seen": values["seen"],
        "limits": values["limits"],
        "source": source,
        "classes": classes,
        "seeds": values["seeds"],
        "command": values["command"],
        "runs": [run.to_dict(norms=study.name == "gradients") for run in runs],
    }
    out.mkdir(exist_ok=True)
    atomic.write_text(out / f"{study.name}.svg", figure)
    atomic.write_json(out / f"{study.name}.json", numbers)
    for page in ("md", "html"):
        atomic.write_text(out / f"{study.name}.{page}", render(f"reproduction/study.{page}", values, language))
