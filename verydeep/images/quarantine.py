"""Images that cannot be used: listed and left out, until there are too many to go on."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from verydeep.images.decode import UnusableImageError
from verydeep.images.tolerance import Tolerance, TooManyBadImagesError
from verydeep.machine import atomic
from verydeep.machine.documents import read_json_lines
from verydeep.numbers import counted, number, trimmed

_NONE_BAD = Tolerance(max_bad=0)
"""An image that cannot be used is an error."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A line of a quarantine list."""

    split: str
    image: str
    reason: str


class Quarantine:
    """The images of one split that cannot be used, each with its reason.

    With a `file` they are also appended to it, one JSON object per line, and those that it lists are known already.
    While `waits` is set they are only collected in `waiting`, until `settle` is given those of all processes.
    """

    def __init__(
        self,
        images: int,
        tolerance: Tolerance = _NONE_BAD,
        *,
        split: str = "given",
        file: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.waits = False
        self.waiting: list[UnusableImageError] = []
        self.images, self.tolerance, self.split, self.file, self.say = images, tolerance, split, file, say
        self.reasons: dict[str, str] = {
            entry["image"]: entry["reason"] for entry in read_quarantine(file) if entry["split"] == split
        }

    @property
    def _of_split(self) -> str:
        return "" if self.split == "all" else f"{self.split} "

    def add(self, refusal: UnusableImageError) -> None:
        """Add an image, unless it is there already.

        Raises:
            TooManyBadImagesError: there are now more than is tolerated.
        """
        if self.waits:
            self.waiting.append(refusal)
        else:
            self._add(refusal.name, refusal.reason)

    def settle(self, refusals: Iterable[UnusableImageError]) -> None:
        """Add the images that waited here and in other processes.

        Raises:
            TooManyBadImagesError: there are more than is tolerated.
        """
        self.waiting.clear()
        for refusal in refusals:
            self._add(refusal.name, refusal.reason)

    def add_known(self, reasons: Mapping[str, str]) -> None:
        """Add images whose reasons were kept when they were refused.

        Raises:
            TooManyBadImagesError: as `add`.
        """
        for name, reason in reasons.items():
            self._add(name, reason)

    def _add(self, name: str, reason: str) -> None:
        if name not in self.reasons:
            self.reasons[name] = reason
            self.say(f"left out {self._of_split}image {name}: {reason}")
            if self.file is not None:
                entry = {"split": self.split, "image": name, "reason": reason}
                atomic.append_json(self.file, entry)
        bad = len(self.reasons)
        if 100 * bad > self.tolerance.max_bad * self.images:
            listed = f", listed in {self.file}" if self.file is not None else ""
            raise TooManyBadImagesError(
                f"{number(bad)} of {counted(self.images, f'{self._of_split}image')} cannot be used so far, more than "
                f"{trimmed(self.tolerance.max_bad)}%{listed} (the last is {name}: {reason}): allow more with "
                "--max-bad, or fix or remove them (verydeep scan finds them all) and start over"
            )


def read_quarantine(file: Path | None) -> list[dict[str, str]]:
    """Read the entries of a quarantine list (split, image, reason); none where there is no such file.

    Raises:
        ValueError: it cannot be read.
    """
    if file is None or not file.exists():
        return []
    entries, _ = read_json_lines(file, _Entry)  # other lines were torn by a crash; their images will be found again
    return [asdict(entry) for entry in entries]
