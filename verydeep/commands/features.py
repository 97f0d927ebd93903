"""The verb `features`."""

import json
from pathlib import Path

from verydeep.commands.options import DescriptorOptions, ImageOptions, JsonFile, RequiredFile, RuntimeOptions
from verydeep.commands.outputs import say_replaced
from verydeep.descriptors.descriptor import Descriptor
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Runtime
from verydeep.machine.torchrun import rank_of_environment
from verydeep.presentation.terminal import say_next, show

_READERS = {
    ".safetensors": "from safetensors.numpy import load_file",
    ".parquet": "from pyarrow.parquet import read_table",
}
"""Readers of each kind of file, which are installed where it was written."""


def features(
    run: Path,
    source: str,
    *,
    out: RequiredFile,
    split: str | None = None,
    json_file: JsonFile = None,
    descriptor: DescriptorOptions = Descriptor(),
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
) -> None:
    """Write activations of layers for each image, as vectors for search, comparison or another classifier.

    The same command continues one that was stopped: its work is kept in OUT.parts until OUT is complete.

    Args:
        run: A run folder, or a file that verydeep export wrote, which has the speed of its runtime.
        source: The images (see below), of any classes; or a folder of images without classes.
        out: The file to write, .safetensors or .parquet.
        split: train, val, test or all; required for a source with splits.
        json_file: Write a summary of the file to this file as well (- for standard output instead of the table).
    """
    from verydeep.descriptors.file_formats import check_kind
    from verydeep.descriptors.files import feature_tables, write_features

    check_kind(out)
    say_replaced(out)
    written = write_features(run, source, out, descriptor=descriptor, split=split, runtime=runtime, tolerance=images)
    if not rank_of_environment():
        show(written.to_dict(), json_file, *feature_tables(written))
    name = json.dumps(str(out), ensure_ascii=False)  # in double quotes: the shell's are single
    say_next([out], "python", "-c", f"{_READERS[out.suffix]} as read; print(read({name}))")
