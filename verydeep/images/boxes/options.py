"""Where boxes come from, and which may be left out (needs neither NumPy nor Pillow)."""

from dataclasses import dataclass
from pathlib import Path

from verydeep.images.annotations.units import BoxUnits


@dataclass(frozen=True, kw_only=True)
class BoxOptions:
    """Files of boxes, and which boxes must be good."""

    boxes: tuple[Path | str, ...]
    """File of boxes, in pixels of the upright image: .csv or .tsv (file,x0,y0,x1,y1,class, or a first line that names
    these columns), .json (COCO), or a folder of .xml (Pascal VOC, ILSVRC) or .txt (YOLO); several count as one. An
    image is named by as much of its path as tells it apart, one of hub:NAME by its file or as train/0. Images with
    several boxes of their class are left out."""

    box_units: BoxUnits | None = None
    """pixels (of the upright image), or relative: shares of its width and height, 0..1, as YOLO's always are. Must be
    said where all boxes of a file lie within 0..1."""

    skip_bad_boxes: bool = False
    """Leave out, and list, images that have no box, or whose box has no area, is not in the image or belongs to an
    image of another size."""
