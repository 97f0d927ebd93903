"""The verb `features`."""

from pathlib import Path
from typing import Literal

from verydeep.commands.options import ImageOptions, JsonFile, OutputFile, RuntimeOptions, named_scales
from verydeep.descriptors.tables import feature_tables
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import rank_of_environment
from verydeep.machine.runtime import Runtime
from verydeep.presentation.terminal import show


def features(
    run: Path,
    source: str,
    *,
    out: OutputFile,
    layers: str = "relu7",
    scales: str = "single",
    pool: Literal["avg", "stack", "none"] = "avg",
    mirror: bool | None = None,
    normalise: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
    split: str | None = None,
    json_file: JsonFile = None,
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
) -> None:
    """Write what layers make of each image, as vectors for search, comparison or another classifier.

    A command that was stopped goes on when it is given again: what is computed is kept in OUT.parts until OUT stands.

    Args:
        run: A run folder.
        source: A folder, tar shards, hub:NAME or digits (see verydeep --help), of any classes; or a folder of images.
        out: The file to write, .safetensors or .parquet.
        layers: With commas, by the paper's names: fc7 is before the ReLU, relu7 after it, pool5 the last pooling.
        scales: Test scales Q for a crop of 224, such as 256,384,512; single: the training scale; paper: the three that
            follow from it.
        pool: avg: the average over positions and scales; stack: over positions, the scales one after the other; none:
            the layer as it is, of the crop in the middle.
        mirror: Average with the mirror image. If not said: if the run was trained with mirrored images.
        normalise: Divide each vector by its Euclidean length.
        dtype: Of the numbers in the file.
        split: train, val, test or all; of a source with splits it must be said.
        json_file: Write what the file holds to this file as well (- for standard output instead of the table).
    """
    from verydeep.descriptors.features import Descriptor
    from verydeep.descriptors.files import write_features

    assert out is not None
    if out == json_file:
        raise ValueError(f"{out} cannot hold both the features and what is told of them")
    descriptor = Descriptor(
        layers=tuple(layers.split(",")),
        scales=named_scales(scales),
        pool=pool,
        mirror=mirror,
        normalise=normalise,
        dtype=dtype,
    )
    found = write_features(run, source, out, descriptor=descriptor, split=split, runtime=runtime, tolerance=images)
    if not rank_of_environment():
        show(found.to_dict(), json_file, *feature_tables(found.to_dict()))
