"""The weights in a checkpoint: nested mappings, one or two of which are state dicts."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from verydeep.networks.architecture import STAGE_CHANNELS

_DEEPEST = 4
"""Levels of nested mappings that are searched."""

_SHOWN = 5
"""Keys that a message names."""

_USUAL = ("state_dict", "model_state_dict", "model", "net")
"""Keys that mean the weights themselves where several mappings hold some."""

_AVERAGED = ("ema", "averaged", "swa", "shadow")
"""Parts of keys that mean averaged weights."""


def state_dict_of(content: Any, *, ema: bool) -> tuple[dict[str, Tensor], bool, tuple[str, ...]]:
    """Return the state dict in a checkpoint, whether its key says that it is averaged, and notes about others.

    Args:
        content: contents of the file.
        ema: whether to take averaged weights where there are raw ones, too.

    Raises:
        ValueError: no state dict, several, or no averaged one where it is asked for; keys that were found are named.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not a state dict")
    found = dict(_state_dicts(content, "", _DEEPEST))
    if not found:
        keys = [str(key) for key in content]
        if not any(isinstance(value, Tensor) for value in content.values()):
            named = ", ".join(keys[:_SHOWN]) or "nothing"
            raise ValueError(f"it holds no weights: its keys are {named}{' ...' if len(keys) > _SHOWN else ''}")
        return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}, False, ()
    chosen, note = (next(iter(found)), ()) if len(found) == 1 else chosen_of(tuple(found), ema=ema)
    return found[chosen], _is_averaged(chosen), note


def chosen_of(names: tuple[str, ...], *, ema: bool) -> tuple[str, tuple[str, ...]]:
    """Return the wanted one of several sets of weights, raw or averaged, and a note about the other.

    Raises:
        ValueError: there are several, or none.
    """
    averaged = [name for name in names if _is_averaged(name)]
    raw = [name for name in names if name not in averaged]
    usual = [name for name in raw if name.rpartition(".")[2] in _USUAL]
    fitting, others = (averaged, raw) if ema or not raw else (usual if len(usual) == 1 else raw, averaged)
    if not fitting:
        raise ValueError(f"it has no averaged weights (EMA), only {', '.join(map(repr, raw))}: leave out --ema")
    if len(fitting) > 1:
        raise ValueError(f"it holds several networks, {', '.join(map(repr, fitting))}: save one of them")
    if not others:
        left = [name for name in names if name not in fitting]
        named = ", ".join(map(repr, left))
        return fitting[0], (
            f"{fitting[0]!r} was taken; {named} was left out: save it alone to take it",
        ) if left else ()
    kind, way = ("raw", "without --ema they are taken") if fitting == averaged else ("averaged", "--ema takes them")
    return fitting[0], (f"{fitting[0]!r} was taken; {kind} weights are in {', '.join(map(repr, others))}: {way}",)


def _is_averaged(name: str) -> bool:
    """Return whether a key or a prefix means averaged weights."""
    return any(part in _AVERAGED for part in name.lower().replace(".", "_").split("_"))


def _state_dicts(content: Mapping[Any, Any], name: str, deepest: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the mappings that hold at least as many convolutions as the paper's smallest network, by their keys."""
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if sum(value.ndim == 4 for value in tensors.values()) >= len(STAGE_CHANNELS):
        yield name, {key: value.detach() for key, value in tensors.items()}
    elif deepest:
        for key, value in content.items():
            if isinstance(value, Mapping):
                yield from _state_dicts(value, f"{name}.{key}" if name else str(key), deepest - 1)
