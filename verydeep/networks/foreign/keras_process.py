"""Reads a Keras file in a process of its own: a program for `keras_file`, which needs nothing of this package.

HDF5's library was not written for files that may be damaged: some that were made by mutating small ones let it run for
ever, and it may end its process. So it gets one that can be lost, with limited memory.

Arguments: the file, and how many bytes its arrays may have. What is read goes to standard output as safetensors, each
array as NUMBER/LAYER.KIND; what is wrong to standard error, with the exit status 3.
"""

import io
import math
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

REFUSED = 3

_IN_ARCHIVE = "model.weights.h5"

_LONGEST_NAMES = 2**20
"""Bytes of an attribute with names."""

_DEEPEST = 8
"""Networks within networks that are looked into."""

_OF_ITS_OWN = 4 * 2**30
"""Bytes of addresses that Python and its libraries may have beside the arrays."""


def arrays_of(path: Path, allowed: int) -> dict[str, Any]:
    """The arrays of a file, in the order of the layers.

    Raises:
        ValueError: not Keras', damaged, larger than allowed, or layers with other arrays than a kernel and a bias.
    """
    import h5py
    import numpy as np

    opened: Any = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_IN_ARCHIVE).file_size > allowed:
                raise ValueError(f"{_IN_ARCHIVE} in it claims to hold more than it can")
            opened = io.BytesIO(archive.read(_IN_ARCHIVE))
    arrays: dict[str, Any] = {}
    with h5py.File(opened, "r") as file:
        for number, (layer, values) in enumerate(_layers(file)):
            for value in values:
                allowed -= value.nbytes
                if allowed < 0 or value.id.get_storage_size() == 0 or value.external or value.is_virtual:
                    raise ValueError(f"{layer} claims to hold more than there is in the file")
            kinds = [{1: "bias", 2: "kernel", 4: "kernel"}.get(value.ndim, "") for value in values]
            if kinds not in (["kernel"], ["kernel", "bias"]):
                raise ValueError(f"the layer {layer} has arrays of {[list(value.shape) for value in values]}: no VGG's")
            for kind, value in zip(kinds, values, strict=True):
                arrays[f"{number:04}/{layer}.{kind}"] = np.ascontiguousarray(value[()])
    return arrays


def _layers(file: Any) -> Iterator[tuple[str, list[Any]]]:
    """Layers with arrays, in order."""
    root = _child(file, "model_weights") if "model_weights" in file else file
    if "nb_layers" in root.attrs:
        raise ValueError("it is of Keras' first version, in Theano's order of axes: not read")
    if "layer_names" in root.attrs:
        for name in _names(root, "layer_names"):
            group = _child(root, name)
            yield from _grouped(name, group, _names(group, "weight_names"))
    else:
        yield from _of_keras_3(root, _DEEPEST)


def _grouped(name: str, group: Any, weights: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """The layers of a group: one, or those of a network within the network."""
    found: dict[str, list[Any]] = {}
    for weight in weights:
        *above, _ = weight.split("/")
        found.setdefault(above[-1] if above else name, []).append(_child(group, weight))
    yield from found.items()


def _of_keras_3(group: Any, deepest: int) -> Iterator[tuple[str, list[Any]]]:
    """Layers of `layers/CLASS_N/vars`; newer files have their names as an attribute."""
    for name in sorted(group, key=_natural):
        child = _child(group, name)
        if not hasattr(child, "keys") or name == "optimizer":
            continue
        if name == "vars":
            values = [_child(child, number) for number in sorted(child, key=_natural)]
            if values:
                named = _names(child, "name") if "name" in child.attrs else [group.name.rpartition("/")[2]]
                yield named[0], values
        elif deepest:
            yield from _of_keras_3(child, deepest - 1)


def _natural(name: str) -> tuple[str, int]:
    """`conv2d`, `conv2d_1`, ..., `conv2d_10`."""
    match = re.fullmatch(r"(.*?)_?(\d{0,9})", name, flags=re.DOTALL)
    return (name, 0) if match is None else (match[1], int(match[2] or 0))


def _child(group: Any, path: str) -> Any:
    """What is called so in the file; links to other files are not followed."""
    import h5py

    for part in path.split("/"):
        if not hasattr(group, "keys") or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"it has no {path}")
        group = group[part]
    return group


def _names(holder: Any, attribute: str) -> list[str]:
    """An attribute that holds one name or several."""
    found = holder.attrs.get_id(attribute)
    if math.prod(found.shape) * found.dtype.itemsize > _LONGEST_NAMES:
        raise ValueError(f"its {attribute} claim to be longer than any network's")
    value = holder.attrs[attribute]
    names = [value] if isinstance(value, str | bytes) else list(value)
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _main(path: str, allowed: str) -> None:
    from safetensors.numpy import save

    with suppress(ImportError):  # where there are no limits, as on Windows
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = _OF_ITS_OWN + 4 * int(allowed)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
    try:
        found = save(arrays_of(Path(path), int(allowed)))
    except Exception as error:  # h5py raises almost anything at damaged files
        print(str(error) or type(error).__name__, file=sys.stderr)
        sys.exit(REFUSED)
    sys.stdout.buffer.write(found)


if __name__ == "__main__":
    _main(*sys.argv[1:])
