"""The simplified test of boxes (appendix A.2): the box of the true class, from the centre crop."""

from collections.abc import Callable
from contextlib import closing

import numpy as np
import torch
from jaxtyping import Float

from verydeep.images.boxes.geometry import boxes_in_image, clipped, rescaled_boxes
from verydeep.images.decode import Size
from verydeep.images.loader import centre_batches
from verydeep.images.on_device import to_device
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import RescaledImages
from verydeep.images.sources.source import Source
from verydeep.images.views import centre_location, rescaled_size
from verydeep.localisation.windows import CROPS_AT_ONCE, image_size
from verydeep.networks.scales import middle_scale, scale_in_pixels
from verydeep.runs.model import Model


def centre_crop_boxes(
    model: Model,
    source: Source,
    *,
    quarantine: Quarantine,
    workers: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> Float[np.ndarray, "N 4"]:
    """Return the box (x0, y0, x1, y1) of each image's true class, from its centre crop at S.

    Boxes are in pixels of the image and cut off at its borders; those of images that cannot be used are NaN. The
    source's labels are those of the model's classes.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        WorkerDiedError: a worker was killed, for example.
    """
    net, crop = model.net.eval(), model.net.architecture.crop
    scale = scale_in_pixels(middle_scale(model.scale), crop)
    images = RescaledImages(source, max_pixels=quarantine.tolerance.max_pixels, once=True)
    batches = centre_batches(
        images, crop=crop, scale=scale, batch=CROPS_AT_ONCE, quarantine=quarantine, workers=workers
    )
    boxes = np.full((len(source), 4), np.nan)
    with closing(batches):
        for first, batch in zip(range(0, len(source), CROPS_AT_ONCE), batches, strict=True):
            given = to_device(batch, net.mean_rgb.device)
            with torch.inference_mode():
                outputs = net(given.images).float().cpu()
            heads = outputs.unflatten(1, (-1, 4)).numpy()  # of a batch that may be empty
            for position, head, label in zip(given.positions.tolist(), heads, given.labels.tolist(), strict=True):
                size = image_size(source, first + position, quarantine)
                if size is not None:
                    boxes[first + position] = _in_image(head[label % len(head)], size, crop, scale)
            advance(min(CROPS_AT_ONCE, len(source) - first))
    return boxes


def _in_image(box: Float[np.ndarray, "4"], size: Size, crop: int, scale: int) -> Float[np.ndarray, "4"]:
    """Return a box of the centre crop of an image rescaled to `scale` in pixels of the image of `size`."""
    whole = rescaled_size(size, scale)
    top, left = centre_location(whole, crop)
    return clipped(rescaled_boxes(boxes_in_image(box, crop, top=top, left=left), whole, size), size)
