"""File of predicted boxes: CSV or Parquet, a row for each run and image."""

from pathlib import Path

from verydeep.evaluation.predictions import ID, TRUE, as_text, check_kind, rows_file
from verydeep.localisation.results import Localisation

_SIDES = ("x0", "y0", "x1", "y1")
_TEXTS = ("run", ID, TRUE)
_NUMBERS = (*(f"true_{side}" for side in _SIDES), *_SIDES, "iou")


def write_box_predictions(localisation: Localisation, file: str | Path) -> None:
    """Write what the simplified test predicted, a row for each run and image, in the source's order.

    Columns: run, id, true_class, true_x0 to true_y1, x0 to y1 (pixels of the image) and iou.

    Raises:
        ValueError: a file of another kind, or no library that writes Parquet.
        OSError: the file cannot be written.
    """
    file, images = Path(file), localisation.images
    check_kind(file)
    with rows_file(file, dict.fromkeys(_TEXTS, str) | dict.fromkeys(_NUMBERS, float)) as add:
        for name, boxes, overlaps in zip(localisation.runs, images.predicted, images.overlaps, strict=True):
            add(
                (
                    as_text(name),
                    as_text(images.ids[index]),
                    as_text(images.classes[images.labels[index]]),
                    *images.true[index].tolist(),
                    *boxes[index].tolist(),
                    float(overlaps[index]),
                )
                for index in range(localisation.n)
            )
