"""The verb `scan`."""

from verydeep.commands.options import ImageOptions, JsonFile
from verydeep.images.sources.default import DIGITS
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Runtime
from verydeep.presentation.terminal import show


def scan(
    source: str = DIGITS,
    *,
    json_file: JsonFile = None,
    workers: int = 0,
    images: ImageOptions = Tolerance(),
) -> None:
    """Look through all images of a source before training on it: unusable ones, classes, sizes, duplicates.

    Args:
        source: The images (see below).
        json_file: Write everything found to this file as well (- for standard output instead of the tables).
        workers: Processes that read and decode; 0 does it in the main process.
    """
    from verydeep.images.scan import scan as scan_source
    from verydeep.images.scan import scan_tables

    scanned = scan_source(source, tolerance=images, workers=Runtime(workers=workers).workers)
    show(scanned.to_dict(), json_file, *scan_tables(scanned, max_bad=images.max_bad))
