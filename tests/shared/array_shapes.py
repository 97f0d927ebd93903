"""Check at run time the shapes that functions state in their types."""

import functools
import inspect
from pathlib import Path
from types import UnionType
from typing import get_args

import jaxtyping


def check_all_shapes(package):
    """Check shapes at every call of the functions of a package, once it is imported, that state some.

    jaxtyping would decorate all functions, also those without shapes: each call then takes longer, and so does import.
    """
    jaxtyping.jaxtyped = functools.partial(_decorator, jaxtyping.jaxtyped)
    folder = Path(__file__).parents[2] / package
    stating = [path for path in folder.rglob("*.py") if "jaxtyping" in path.read_text(encoding="utf-8")]
    modules = [".".join(path.relative_to(folder.parent).with_suffix("").parts) for path in stating]
    jaxtyping.install_import_hook(modules, f"{__name__}.{check_shapes.__name__}")


def _decorator(jaxtyped, *, typechecker):
    """Return the decorator that jaxtyping's import hook puts on every function and class of a module."""

    def decorated(thing):
        function = vars(thing).get("__init__") if inspect.isclass(thing) else thing
        return jaxtyped(thing, typechecker=typechecker) if _stated(function) else thing

    return decorated


def check_shapes(function):
    """Wrap a function whose parameters or result state shapes, so that each call is checked.

    It is the type checker that jaxtyping calls, which sees to it that `B` is one number within a call.
    """
    stated = _stated(function)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args, **kwargs):
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            _check(function, name, value, stated.get(name))
        result = function(*args, **kwargs)
        _check(function, "its result", result, stated.get("return"))
        return result

    return checked


def _stated(function):
    """Return the shapes of a function's parameters and of its result."""
    return {name: hint for name, hint in getattr(function, "__annotations__", {}).items() if _states_a_shape(hint)}


def _states_a_shape(hint):
    if isinstance(hint, UnionType):
        return any(map(_states_a_shape, get_args(hint)))
    return isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)


def _check(function, name, value, hint):
    if hint is not None and not isinstance(value, hint):
        found = f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else type(value).__name__
        raise TypeError(f"{function.__qualname__}: {name} is {found}, not {hint}")
