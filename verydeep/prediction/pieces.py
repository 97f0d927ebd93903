"""Pieces of a source, each a few seconds' worth of images, from processes that decode and start once for all."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import islice

from verydeep.images.rescaled import Rescaled, rescaled_images
from verydeep.images.sources.source import Source

FIRST_IMAGES, _MOST_IMAGES = 8, 4096
"""Images of each process in a piece: in the first one, and at most."""

SECONDS_BETWEEN_RESULTS = 4.0
"""Approximate: in larger pieces people would see nothing happen for long, in smaller ones batches would be small."""

Decoder = Callable[[int, Sequence[int]], Generator[Rescaled]]
"""Yields the next images with their shorter side at so many pixels, under these indices; each once at each side."""


def next_piece(images: int, seconds: float, *, most: int = _MOST_IMAGES) -> int:
    """Return how many images each process has in the next piece, after so many in this one took so many seconds."""
    if seconds > 2 * SECONDS_BETWEEN_RESULTS:
        return max(images // 2, FIRST_IMAGES)
    return min(2 * images, most) if seconds < SECONDS_BETWEEN_RESULTS / 2 else images


@contextmanager
def decoding(source: Source, *, share: Sequence[int], workers: int, max_pixels: int) -> Iterator[Decoder]:
    """Decode a source's images in the order of `share`; for each side, the workers start once for all pieces.

    Raises:
        WorkerDiedError: a worker was killed, for example; raised by the decoder.
    """
    images: dict[int, Generator[Rescaled]] = {}

    def decoder(side: int, indices: Sequence[int]) -> Generator[Rescaled]:
        if side not in images:
            rescaled = rescaled_images(source, side, indices=share, max_pixels=max_pixels, workers=workers)
            images[side] = stack.enter_context(closing(rescaled))
        # Strict: who asks twice for the same images at one side runs out of them, and must not go without.
        for index, (_, image) in zip(indices, islice(images[side], len(indices)), strict=True):
            yield index, image

    with ExitStack() as stack:
        yield decoder
