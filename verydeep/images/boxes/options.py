"""Where boxes come from (needs neither NumPy nor Pillow)."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class BoxOptions:
    """Files of boxes, and which boxes must be good."""

    boxes: tuple[Path | str, ...]
    """File of boxes, in pixels of the upright image: .csv (file,x0,y0,x1,y1,class, or a first line that names these
    columns), .json (COCO), or a folder of .xml (Pascal VOC, ILSVRC); several count as one. An image is named by as much
    of its path as tells it apart, one of hub:NAME by its file or as train/0. Images with several boxes of their class
    are left out."""

    skip_bad_boxes: bool = False
    """Leave out, and list, images that have no box, or whose box has no area, is not in the image or belongs to an
    image of another size."""
