"""The verb `predict`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from verydeep.images.tolerance import MAX_PIXELS
from verydeep.options import JsonFile
from verydeep.runtime import Device
from verydeep.tables import prediction_table, show


def predict(
    run: Path,
    *images: Annotated[Path, Parameter(json_list=False)],
    top: int = 5,
    device: Device = "auto",
    max_pixels: int = MAX_PIXELS,
    json_file: JsonFile = None,
) -> None:
    """Tell what images show: the most probable classes and their probabilities.

    Args:
        run: A run folder, or a file that verydeep export wrote.
        images: Image files, or folders of them.
        top: How many classes.
        device: Where the network runs; auto takes CUDA, else MPS, else the CPU.
        max_pixels: Larger images are refused.
        json_file: Write the predictions to this file as well (- for standard output instead of the table).
    """
    from verydeep.deployment.predict import predict as predict_images

    if not images:
        raise ValueError("name one or more images, or folders of them")
    options: dict[str, Any] = {"top": top, "device": device, "max_pixels": max_pixels}
    found = [prediction.to_dict() for prediction in predict_images(run, images, **options)]
    show({"predictions": found}, json_file, prediction_table(found))
    failed = sum(prediction["error"] is not None for prediction in found)
    if failed:
        raise OSError(f"{failed} of {len(found)} images could not be used")
