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
        if not inspect.isclass(thing):
            return typechecker(thing, jaxtyped) if _stated(thing) else thing
        if _stated(vars(thing).get("__init__")):
            thing.__init__ = typechecker(thing.__init__, jaxtyped)
        return thing

    return decorated


def check_shapes(function, jaxtyped):
    """Wrap a function whose parameters or result state shapes, so that each call is checked.

    `B` is one number within a call: jaxtyping's context remembers it. What fits depends on types and shapes alone, so
    jaxtyping is asked once about those that come again: to ask at every call takes nearly three times as long.
    """
    stated = _stated(function)
    of_result = stated.pop("return", None)
    parameters = list(inspect.signature(function).parameters)
    places = [(parameters.index(name), name) for name in stated]
    hints = [*stated.items(), ("its result", of_result)]
    fitting = set()

    def check(key, values):
        try:
            if key in fitting:
                return
        except TypeError:  # sizes that torch.export leaves open
            key = None
        with jaxtyped("context"):
            for (name, hint), value in zip(hints, values, strict=False):
                if value is not _LEFT_OUT:
                    _check(function, name, value, hint)
        if key is not None:
            fitting.add(key)

    @functools.wraps(function)
    def checked(*args, **kwargs):
        values = [args[place] if place < len(args) else kwargs.get(name, _LEFT_OUT) for place, name in places]
        key = tuple([_form(value) for value in values])
        check(key, values)
        result = function(*args, **kwargs)
        if of_result is not None:
            check((key, _form(result)), [*values, result])
        return result

    return checked


_LEFT_OUT = object()


def _form(value):
    """Return what decides whether a value fits: its type and, of an array, that of its numbers and its shape."""
    try:
        return type(value), value.dtype, value.shape
    except AttributeError:
        return type(value)


def _stated(function):
    """Return the shapes of a function's parameters and of its result."""
    return {name: hint for name, hint in getattr(function, "__annotations__", {}).items() if _states_a_shape(hint)}


def _states_a_shape(hint):
    if isinstance(hint, UnionType):
        return any(map(_states_a_shape, get_args(hint)))
    return isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)


def _check(function, name, value, hint):
    if not isinstance(value, hint):
        found = f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else type(value).__name__
        raise jaxtyping.TypeCheckError(f"{function.__qualname__}: {name} is {found}, not {hint}")
