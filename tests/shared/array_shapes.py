"""Check at run time the shapes that public functions state in their types."""

import functools
import inspect
from types import UnionType
from typing import get_args

from jaxtyping import AbstractArray


def check_shapes(function):
    """Wrap a function whose parameters or result state shapes, so that each call is checked; leave others as they are.

    It is the type checker that jaxtyping's import hook calls, which sees to it that `B` is one number within a call.
    """
    stated = {name: hint for name, hint in getattr(function, "__annotations__", {}).items() if _states_a_shape(hint)}
    if not stated:
        return function
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args, **kwargs):
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            _check(function, name, value, stated.get(name))
        result = function(*args, **kwargs)
        _check(function, "its result", result, stated.get("return"))
        return result

    return checked


def _states_a_shape(hint):
    if isinstance(hint, UnionType):
        return any(map(_states_a_shape, get_args(hint)))
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def _check(function, name, value, hint):
    if hint is not None and not isinstance(value, hint):
        found = f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else type(value).__name__
        raise TypeError(f"{function.__qualname__}: {name} is {found}, not {hint}")
