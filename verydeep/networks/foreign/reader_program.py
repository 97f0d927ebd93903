"""Program that reads a Keras, MATLAB or NumPy file in a process of its own; it needs nothing of this package.

The compiled libraries for these formats were not written for files that may be damaged. Small files that were mutated
made HDF5's run for ever and SciPy's end its process with a segmentation fault; either may also ask for any amount of
memory. So they run where that does no harm, with limited memory.

Arguments: the kind of file (`keras`, `matlab` or `numpy`), the file, and how many bytes its arrays may have in all.
Standard output receives safetensors; for a file that is refused, standard error says why, and the exit status is 3.
"""

import importlib
import io
import json
import math
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

REFUSED = 3

VARIABLES = "variables"
"""Array that describes a MATLAB file's variables: JSON in UTF-8, in which a number is the name of another array."""

CONFIGURATION = "configuration"
"""Array with a Keras model's configuration: JSON in UTF-8; empty for weights alone."""

_IN_ARCHIVE, _CONFIGURATION_IN_ARCHIVE = "model.weights.h5", "config.json"

_LONGEST_CONFIGURATION = 2**24
"""Bytes."""

_LONGEST_NAMES = 2**20
"""Bytes of an attribute with names."""

_DEEPEST = 8
"""Levels of networks within networks that are searched."""

_MATLAB_VARIABLES = ("layers", "meta", "normalization", "classes")
"""Those of MatConvNet's simple networks; older ones have the last two beside the layers."""

_TOO_LARGE = "it claims to hold many times as much as its size allows"

_NPY = b"\x93NUMPY"

_HDF5 = b"\x89HDF\r\n\x1a\n"

_COPIES = 4
"""Copies of all arrays that a library and the writing of safetensors hold at once, at most."""

_SPARE = 2**27
"""Bytes of address space for everything else."""


def _keras_arrays(path: Path, allowed: int) -> dict[str, Any]:
    """Read the arrays of a Keras file: `NUMBER/LAYER.NUMBER`, with the layers numbered in order, and `CONFIGURATION`.

    Arrays of whole numbers, such as the states of generators, are left out.

    Raises:
        ValueError: not Keras', damaged, or larger than allowed.
    """
    import h5py
    import numpy as np

    opened, told = _keras_archive(path, allowed) if zipfile.is_zipfile(path) else (path, b"")
    arrays: dict[str, Any] = {}
    with h5py.File(opened, "r") as file:
        if "model_config" in file.attrs:
            told = "".join(_names(file, "model_config")).encode()
        for number, (layer, values) in enumerate(_keras_layers(file)):
            for position, value in enumerate(values):
                if value.dtype.kind not in "fV":
                    continue
                allowed -= value.nbytes
                if allowed < 0 or value.id.get_storage_size() == 0 or value.external or value.is_virtual:
                    raise ValueError(f"{layer} claims to hold more than there is in the file")
                arrays[f"{number:04}/{layer}.{position}"] = np.ascontiguousarray(value[()])
    return {**arrays, CONFIGURATION: np.frombuffer(told, dtype=np.uint8)}


def _keras_archive(path: Path, allowed: int) -> tuple[io.BytesIO, bytes]:
    """Return the HDF5 file and the configuration in Keras 3's archive."""
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo(_IN_ARCHIVE).file_size > allowed:
            raise ValueError(f"{_IN_ARCHIVE} in it claims to hold more than it can")
        weights, told = io.BytesIO(archive.read(_IN_ARCHIVE)), b""
        if _CONFIGURATION_IN_ARCHIVE in archive.namelist():
            if archive.getinfo(_CONFIGURATION_IN_ARCHIVE).file_size > _LONGEST_CONFIGURATION:
                raise ValueError(f"{_CONFIGURATION_IN_ARCHIVE} in it claims to be longer than any network's")
            told = archive.read(_CONFIGURATION_IN_ARCHIVE)
    return weights, told


def _keras_layers(file: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield the layers that have arrays, in order."""
    root = _child(file, "model_weights") if "model_weights" in file else file
    if "nb_layers" in root.attrs:
        raise ValueError("it is of Keras' first version, in Theano's order of axes, which is not read")
    if "layer_names" in root.attrs:
        for name in _names(root, "layer_names"):
            group = _child(root, name)
            yield from _legacy_layers(name, group, _names(group, "weight_names"))
    else:
        yield from _keras_3_layers(root, _DEEPEST)


def _legacy_layers(name: str, group: Any, weights: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the layers of a group: one, or those of a network within the network."""
    layers: dict[str, list[Any]] = {}
    for weight in weights:
        *above, _ = weight.split("/")
        layers.setdefault(above[-1] if above else name, []).append(_child(group, weight))
    yield from layers.items()


def _keras_3_layers(group: Any, deepest: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield the layers of `layers/CLASS_N/vars`; newer files have their names as an attribute."""
    for name in sorted(group, key=_natural):
        child = _child(group, name)
        if not hasattr(child, "keys") or name in ("optimizer", "seed_generator"):
            continue
        if name == "vars":
            values = [_child(child, number) for number in sorted(child, key=_natural)]
            if values:
                place = "/".join(
                    part for part in group.name.strip("/").split("/") if part not in ("layers", "model_weights")
                )
                yield _names(child, "name")[0] if "name" in child.attrs else place, values
        elif deepest:
            yield from _keras_3_layers(child, deepest - 1)


def _natural(name: str) -> tuple[str, int]:
    """Return a key that sorts `conv2d`, `conv2d_1`, ..., `conv2d_10` so."""
    match = re.fullmatch(r"(.*?)_?(\d{0,9})", name, flags=re.DOTALL)
    return (name, 0) if match is None else (match[1], int(match[2] or 0))


def _child(group: Any, path: str) -> Any:
    """Return the group or array under a path; links to other files are not followed."""
    import h5py

    for part in path.split("/"):
        if not hasattr(group, "keys") or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"it has no {path}")
        group = group[part]
    return group


def _names(holder: Any, attribute: str) -> list[str]:
    """Return the names of an attribute that holds one or several."""
    stored = holder.attrs.get_id(attribute)
    if math.prod(stored.shape) * stored.dtype.itemsize > _LONGEST_NAMES:
        raise ValueError(f"its {attribute} claim to be longer than any network's")
    value = holder.attrs[attribute]
    names = [value] if isinstance(value, str | bytes) else list(value)
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _matlab_arrays(path: Path, allowed: int) -> dict[str, Any]:
    """Read the variables of MatConvNet's networks: their arrays under numbers, and `VARIABLES`, which describes them.

    In that description text is text, a structure a list of objects, a cell array a list, an array its number, and
    everything else null.

    Raises:
        ValueError: another format, damaged, or larger than allowed.
    """
    import numpy as np
    from scipy.io import loadmat

    with path.open("rb") as file:
        start = file.read(520)
    if _HDF5 in (start[:8], start[512:]):
        raise ValueError("it is of MATLAB's version 7.3: save it with -v7")
    if start[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is not a MATLAB file of version 5 to 7")
    try:
        found = loadmat(path, variable_names=_MATLAB_VARIABLES)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"it is cut off or damaged ({error})") from error
    arrays: dict[str, Any] = {}
    told = {name: _described(found[name], arrays) for name in _MATLAB_VARIABLES if name in found}
    if sum(array.nbytes for array in arrays.values()) > allowed:
        raise ValueError(_TOO_LARGE)
    return {**arrays, VARIABLES: np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)}


def _described(value: Any, arrays: dict[str, Any]) -> Any:
    """Describe a variable, and add its arrays to `arrays`."""
    import numpy as np

    if not isinstance(value, np.ndarray):
        return None
    if value.dtype.names:
        elements = value.flatten(order="F")
        return [{name: _described(element[name], arrays) for name in value.dtype.names} for element in elements]
    if value.dtype == object:
        return [_described(element, arrays) for element in value.flatten(order="F")]
    if value.dtype.kind == "U":
        return "".join(value.flatten().tolist())
    if value.dtype.kind not in "biuf":
        return None
    arrays[str(len(arrays))] = value.astype(value.dtype.newbyteorder("="), order="C")
    return len(arrays) - 1


def _numpy_arrays(path: Path, allowed: int) -> dict[str, Any]:
    """Read the arrays of a `.npz`, or of a `.npy` of a dictionary, as `LAYER.NUMBER`.

    Raises:
        ValueError: another format, damaged, larger than allowed, or a pickle that holds more than arrays.
    """
    with path.open("rb") as file:
        start = file.read(len(_NPY))
    if start == _NPY:
        return _numbered(_pickled_arrays(path, allowed))
    if not zipfile.is_zipfile(path):
        raise ValueError("it is neither a .npz nor a .npy file")
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > allowed:
            raise ValueError(_TOO_LARGE)
    import numpy as np

    layers: dict[str, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            layer, _, kind = re.sub(r"[/.:]", "_", name).rpartition("_")
            layers.setdefault(layer or kind, {})[kind] = file[name]
    return _numbered(layers)


def _numbered(layers: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of layers, weights before biases, under numbers."""
    arrays: dict[str, Any] = {}
    for number, (layer, told) in enumerate(layers.items()):
        values = list(told.values()) if isinstance(told, dict) else told
        if not isinstance(values, list) or not all(hasattr(value, "ndim") for value in values):
            raise ValueError(f"its entry {layer} holds no arrays")
        for position, value in enumerate(sorted(values, key=lambda value: -value.ndim)):
            arrays[f"{number:04}/{layer}.{position}"] = value.astype(value.dtype, order="C")
    return arrays


def _pickled_arrays(path: Path, allowed: int) -> dict[str, Any]:
    """Read a dictionary of arrays that `numpy.save` pickled, without NumPy's own way to rebuild them.

    The unpickler knows three names, and gives stand-ins of ours for them, which only keep their arguments.
    """
    import pickle

    import numpy as np

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.partition(".")[0] == "numpy" and name in ("ndarray", "dtype", "_reconstruct"):
                return _Kept
            raise ValueError(f"it holds {module}.{name} and would run its code; only arrays are read")

    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        if kind != np.dtype(object) or shape != ():
            raise ValueError("it holds one array, where the weights of many layers are expected")
        outer = Reader(file, encoding="latin1").load()
    if not isinstance(outer, _Kept) or not outer.state or not isinstance(outer.state[4], list):
        raise ValueError("it holds no dictionary of arrays")
    content = outer.state[4][0]
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, where a dictionary of layers is expected")
    left = [allowed]
    return {str(layer): _rebuilt(told, left) for layer, told in content.items()}


class _Kept:
    """A stand-in for a pickled array or dtype, which keeps its arguments and its state."""

    def __init__(self, *made_with: Any) -> None:
        self.made_with = made_with
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _rebuilt(told: Any, left: list[int]) -> Any:
    """Return a list or dictionary with arrays in place of their stand-ins."""
    import numpy as np

    if isinstance(told, list | tuple):
        return [_rebuilt(value, left) for value in told]
    if isinstance(told, dict):
        return {str(name): _rebuilt(value, left) for name, value in told.items()}
    if not isinstance(told, _Kept) or not isinstance(told.state, tuple) or len(told.state) != 5:
        raise ValueError("it contains something other than arrays")
    _, shape, kind, fortran, content = told.state
    name = kind.made_with[0] if isinstance(kind, _Kept) and kind.made_with else None
    if name not in ("f4", "f8", "f2") or (isinstance(kind.state, tuple) and kind.state[1] not in ("<", "=", "|")):
        raise ValueError(f"it holds an array of {name}, where weights are fractions")
    content = content.encode("latin1") if isinstance(content, str) else content  # Python 2's bytes
    left[0] -= len(content)
    if left[0] < 0 or math.prod(shape) * int(name[1]) != len(content):
        raise ValueError("an array in it has another size than it claims")
    return np.frombuffer(content, dtype=f"<{name}").reshape(shape, order="F" if fortran else "C")


_READERS: dict[str, tuple[str, Callable[[Path, int], dict[str, Any]]]] = {
    "keras": ("h5py", _keras_arrays),
    "matlab": ("scipy.io", _matlab_arrays),
    "numpy": ("numpy", _numpy_arrays),
}
"""Library and function for each kind of file."""


def _limit_memory(allowed: int) -> None:
    """Limit the address space to its present size and the arrays' needs, where the system knows such limits."""
    with suppress(ImportError, OSError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = pages * resource.getpagesize() + _SPARE + _COPIES * allowed
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def _main(kind: str, path: str, allowed: str) -> None:
    from safetensors.numpy import save

    library, read = _READERS[kind]
    importlib.import_module(library)  # takes address space too, which the limit is not for
    _limit_memory(int(allowed))
    try:
        content = save(read(Path(path), int(allowed)))
    except Exception as error:  # the libraries raise almost anything at damaged files
        reason = _TOO_LARGE if isinstance(error, MemoryError) else str(error) or type(error).__name__
        print(reason, file=sys.stderr)
        sys.exit(REFUSED)
    sys.stdout.buffer.write(content)


if __name__ == "__main__":
    _main(*sys.argv[1:])
