"""State dicts: PyTorch's and safetensors' files of them."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from verydeep.machine.documents import parse_json, read_json
from verydeep.networks.foreign.checkpoints import state_dict_of
from verydeep.networks.foreign.layouts import TakenWeights, Triple
from verydeep.networks.foreign.named_arrays import NamedArrays
from verydeep.networks.foreign.state_dict_names import vgg_in

SHARDS_INDEX = ".safetensors.index.json"
"""Ending of the file that lists which shard holds which array."""


@dataclass(frozen=True, kw_only=True)
class _ShardsIndex:
    """The index of shards."""

    weight_map: dict[str, str]
    """The file of each array."""


def read_shards(path: Path, taken: TakenWeights) -> NamedArrays:
    """Read the VGG of safetensors shards by their index.

    Raises:
        ValueError: a shard that is missing, elsewhere, or lacks an array; several VGGs, or none.
    """
    from safetensors import safe_open

    shards = _shards(path)
    arrays: dict[str, Tensor] = {}
    for shard, names in shards.items():
        if not path.with_name(shard).is_file():
            raise ValueError(_not_beside(shard))
        with safe_open(path.with_name(shard), framework="pt") as file:
            if missing := sorted({*names} - {*file.keys()}):
                raise ValueError(f"{shard} lacks {missing[0]}, which should be in it")
            arrays |= {name: file.get_tensor(name) for name in names}
    beside = tuple(path.with_name(shard) for shard in sorted(shards))
    return replace(vgg_in(arrays, ema=taken.ema), beside=beside)


def shard_names(path: Path) -> list[str]:
    """Return the names of the shards that an index names, in their order.

    Raises:
        ValueError: damaged, or a shard elsewhere.
        OSError: it cannot be read.
    """
    return sorted(_shards(path))


def _shards(path: Path) -> dict[str, list[str]]:
    """Return the names of the arrays in each shard that an index names."""
    shards: dict[str, list[str]] = {}
    for name, shard in read_json(path, _ShardsIndex).weight_map.items():
        if Path(shard).name != shard:
            raise ValueError(_not_beside(shard))
        shards.setdefault(shard, []).append(name)
    return shards


def _not_beside(shard: str) -> str:
    return f"it names the shard {shard!r}, which is not beside it"


def read_safetensors(path: Path, taken: TakenWeights) -> NamedArrays:
    """Read the VGG of a safetensors file, with mean, std and class names where its metadata have them.

    Raises:
        ValueError: several VGGs, or none.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        told: Mapping[str, str] = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return replace(
        vgg_in(arrays, ema=taken.ema),
        mean=_triple(told.get("mean")),
        std=_triple(told.get("std")),
        classes=_names(told.get("classes")),
    )


def _triple(text: str | None) -> Triple | None:
    """Return numbers as `write_weights` leaves them in metadata; there may be anything in it."""
    try:
        first, second, third = map(float, (text or "").split(","))
    except ValueError:
        return None
    return first, second, third


def _names(text: str | None) -> tuple[str, ...] | None:
    """Return the list of names that `write_weights` leaves in metadata."""
    try:
        return parse_json(text or "", tuple[str, ...])
    except ValueError:
        return None


def read_torch(path: Path, taken: TakenWeights) -> NamedArrays:
    """Read the VGG of a PyTorch file by its restricted unpickler, which knows tensors and plain values only.

    Raises:
        ValueError: damaged, anything that would run code, several VGGs, or none.
    """
    import argparse

    if zipfile.is_zipfile(path):
        _check_stored(path)
    try:
        # PyTorch warns of formats that it then refuses. Training scripts keep their options, a Namespace, beside the
        # weights: a class without code of its own.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(_torch_reason(str(error))) from error
    state, averaged, notes = state_dict_of(content, ema=taken.ema)
    found = vgg_in(state, ema=taken.ema and not averaged)
    return replace(found, notes=(*notes, *found.notes))


def _check_stored(path: Path) -> None:
    """Refuse archives with compressed files, or several in one place, which could hold anything; PyTorch's are plain.

    Raises:
        ValueError: an archive of that kind.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if any("/code/" in member.filename for member in members):
        raise ValueError("it is a TorchScript program, which is never run: save net.state_dict()")
    if packed:
        raise ValueError(f"it is an archive with compressed files ({packed[0]}), not PyTorch's")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("the files in it claim to be larger than it is: damaged, or not PyTorch's")


def _torch_reason(error: str) -> str:
    """Return why PyTorch refused, without its advice to run the file's code."""
    if wanted := re.search(r"GLOBAL ([\w.]+)", error):
        return f"it holds {wanted[1]} and would run its code; only tensors are read: save net.state_dict()"
    if "legacy .tar format" in error:
        return "it is in PyTorch's oldest format, which cannot be read safely: save it again with a newer PyTorch"
    if "TorchScript" in error:
        return "it is a TorchScript program: save net.state_dict()"
    return f"it is cut off, damaged or not PyTorch's ({error.partition('. ')[0][:120]})"
