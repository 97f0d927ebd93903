"""Outcomes of an image that is sent: an answer, a refusal, or a failure of the service."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from verydeep.images.decode import Size, UnusableImageError
from verydeep.prediction.predict import Prediction
from verydeep.transfer_learning.classify import Classification


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """The score map of one class, and where its positions lie in the image as the network saw it."""

    name: str
    """Name of the class."""
    values: Float[np.ndarray, "h w"]
    """Posterior at each position."""
    stride: int
    """Pixels from one position to the next."""
    window: int
    """Side in pixels of the window that a position sees."""
    offset: tuple[int, int]
    """First pixel of the first position's window, from the upper edge and from the left one."""
    size: Size


class MapPicture(NamedTuple):
    """The score map of one class, to be laid over its image."""

    address: str
    least: float
    greatest: float
    positions: tuple[int, int]
    """Rows and columns of the map."""


class PagePicture(NamedTuple):
    """An image as the page shows it."""

    address: str
    size: Size
    maps: tuple[MapPicture, ...]
    """One for each class of the answer, if it has maps."""


@dataclass(frozen=True, kw_only=True)
class ImageAnswer:
    """The model's answer for an image."""

    prediction: Prediction | Classification
    """Without an `error`."""
    maps: tuple[ClassMap, ...] = ()
    """One for each class, if they were asked for."""
    picture: PagePicture | None = None
    """For the page."""
    error: ClassVar[None] = None

    @property
    def image(self) -> str:
        """Its name."""
        return self.prediction.image

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes in falling order."""
        return self.prediction.classes

    @property
    def numbers(self) -> tuple[float, ...]:
        """Probability or score of each class."""
        found = self.prediction
        return found.probabilities if isinstance(found, Prediction) else found.scores


@dataclass(frozen=True, kw_only=True)
class RefusedImage:
    """An image that cannot be used."""

    refusal: UnusableImageError

    @property
    def image(self) -> str:
        """Its name."""
        return self.refusal.name

    @property
    def error(self) -> str:
        """Why, for whoever has sent it."""
        return self.refusal.reason


@dataclass(frozen=True, kw_only=True)
class FailedImage:
    """An image that the service failed to process."""

    image: str
    """Its name."""
    error: str = "the service failed to process it: its log says why"
    """For whoever has sent it."""


ImageOutcome = ImageAnswer | RefusedImage | FailedImage

Numbers = Literal["probabilities", "scores"]
"""Kind of the numbers beside the classes of an answer."""


@dataclass(frozen=True, kw_only=True)
class RequestOutcomes:
    """The outcomes of the images of a request."""

    images: tuple[ImageOutcome, ...]
    """In their order."""

    @property
    def answers(self) -> list[ImageAnswer]:
        """The model's answers among them."""
        return [one for one in self.images if isinstance(one, ImageAnswer)]

    @property
    def refusals(self) -> list[UnusableImageError]:
        """Why other images cannot be used."""
        return [one.refusal for one in self.images if isinstance(one, RefusedImage)]

    @property
    def failed(self) -> bool:
        """Whether the service failed to process one."""
        return any(isinstance(one, FailedImage) for one in self.images)
