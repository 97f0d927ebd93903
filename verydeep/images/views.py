"""What the network is shown of an image: pure functions of pixels [H, W, 3] and a random generator."""

import numpy as np
from PIL import Image

from verydeep.images.decode import MAX_PIXELS, Pixels, UndecodableImageError


def rescale(image: Pixels, shorter_side: int, name: str = "image") -> Pixels:
    """The image with its shorter side at `shorter_side` pixels and its proportions kept (isotropic).

    Bilinear; when shrinking, the filter widens with the factor (antialiasing). `name` stands in error messages.

    Raises:
        UndecodableImageError: so elongated an image that the result would have over 100 million pixels.
    """
    height, width = image.shape[:2]
    shortest = min(height, width)
    if shortest == shorter_side:
        return image
    new_width, new_height = (round(side * shorter_side / shortest) for side in (width, height))
    if new_width * new_height > MAX_PIXELS:
        raise UndecodableImageError(
            f"{name}: {width} x {height} is too elongated to be rescaled to a shorter side of {shorter_side}"
        )
    return np.array(Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR))


def random_scale(low: int, high: int, rng: np.random.Generator) -> int:
    """S in pixels, uniform over the whole numbers from `low` to `high`, both included (section 3.1)."""
    return int(rng.integers(low, high, endpoint=True))


def crop(image: Pixels, size: int, *, top: int, left: int) -> Pixels:
    """The `size` x `size` pixels whose upper left corner is at (top, left).

    Raises:
        ValueError: they are not all inside the image.
    """
    height, width = image.shape[:2]
    if not (0 <= top <= height - size and 0 <= left <= width - size):
        raise ValueError(f"a crop of {size} at ({top}, {left}) is not inside an image of {height} x {width}")
    return image[top : top + size, left : left + size]


def centre_crop(image: Pixels, size: int) -> Pixels:
    """The `size` x `size` pixels in the middle."""
    height, width = image.shape[:2]
    return crop(image, size, top=(height - size) // 2, left=(width - size) // 2)


def random_crop(image: Pixels, size: int, rng: np.random.Generator) -> Pixels:
    """A `size` x `size` crop at a place drawn uniformly from all there are."""
    height, width = image.shape[:2]
    top = int(rng.integers(0, max(0, height - size), endpoint=True))
    left = int(rng.integers(0, max(0, width - size), endpoint=True))
    return crop(image, size, top=top, left=left)


def mirror(image: Pixels) -> Pixels:
    """The image with left and right exchanged."""
    return image[:, ::-1]


def random_flip(image: Pixels, rng: np.random.Generator) -> Pixels:
    """The image or, half of the time, its mirror."""
    return mirror(image) if rng.random() < 0.5 else image
