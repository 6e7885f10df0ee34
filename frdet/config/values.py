"""Whether a value is of the type that its place in a config asks for."""

import inspect
import re
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

#: Nothing is known: no annotation, no default, no value before.
NOTHING = inspect.Parameter.empty


class Declared(NamedTuple):
    """What a signature says of one argument."""

    annotation: Any = NOTHING
    default: Any = NOTHING


def declared(target: Callable, name: str) -> Declared:
    """What ``target``, or the class it passes its keywords on to, says of its argument ``name``."""
    for cls in inspect.getmro(target) if inspect.isclass(target) else (target,):
        function = cls.__dict__.get('__init__') if inspect.isclass(cls) else cls
        if inspect.isfunction(function) and name in (parameters := inspect.signature(function).parameters):
            return Declared(_annotations(function).get(name, NOTHING), parameters[name].default)
    return Declared()


@lru_cache(maxsize=1024)
def _annotations(function: Callable) -> dict[str, Any]:
    raw = getattr(inspect.unwrap(function), '__annotations__', {})
    found = {}
    for name, annotation in raw.items():
        one = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found.update(typing.get_type_hints(one, globalns=getattr(function, '__globals__', {})))
        except Exception:  # a name that only type checkers import
            continue
    return found


def mismatch(value: Any, said: Declared, old: Any = NOTHING) -> str | None:
    """What was expected instead of ``value``, in words; None if it fits, or if nothing tells.

    Args:
        value: what the config has there.
        said: what the place declares. ``x: str = None`` takes None, too.
        old: the value that is replaced. One that contradicts the annotation has been found to work: it then counts.
    """
    if value is None and (said.default is None or old is None):
        return None
    believed = old is NOTHING or old is None or fits(old, said.annotation)
    if said.annotation is not NOTHING and believed:
        return None if fits(value, said.annotation) else _shown(said.annotation)
    if old is not NOTHING:
        return None if _same_kind(old, value) else _like(old)
    # A default alone says little: stride=1 may well take a pair. But no word is a number.
    scalar = (int, float, str)
    if isinstance(said.default, scalar) and isinstance(value, scalar) and not isinstance(said.default, bool):
        return None if _same_kind(said.default, value) else _like(said.default)
    return None


def fields_of(annotation: Any) -> tuple[dict[str, Any], set[str]] | None:
    """Types of the keys of a ``TypedDict``, which may be optional, and those it must have; None of anything else."""
    for one in (annotation, *typing.get_args(annotation)):
        if typing.is_typeddict(one):
            return typing.get_type_hints(one), set(one.__required_keys__)
    return None


def found(value: Any) -> str:
    """``value`` and its type, as an error shows them."""
    return f'found {reprlib.repr(value)} ({"dict" if isinstance(value, dict) else type(value).__name__})'


def fits(value: Any, annotation: Any) -> bool:
    """Whether ``value`` is what ``annotation`` says, as far as plain values tell.

    A dict with a ``type`` stands for the object that is built from it; a list will do for a tuple, an int for a float.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, a) for a in args)
    if origin is typing.Literal:
        return value in args
    cls = type(None) if annotation is None else origin or annotation
    cls = dict if typing.is_typeddict(cls) else cls
    plain = isinstance(value, (str, bool, int, float, list, tuple, dict, type(None)))
    if not inspect.isclass(cls) or cls in (object, Any, NOTHING) or not plain:
        return True
    if isinstance(value, dict) and 'type' in value:
        return not issubclass(cls, (Sequence, int, float, type(None)))
    if isinstance(value, bool) or cls is bool:
        return isinstance(value, bool) and cls is bool
    if cls in (int, float):
        return isinstance(value, (int, float) if cls is float else int)
    if isinstance(value, str):
        return cls is str
    if isinstance(value, (list, tuple)) and (cls in (list, tuple) or issubclass(cls, Sequence)):
        return _items_fit(value, cls, args)
    if isinstance(value, dict) and len(args) == 2 and issubclass(cls, Mapping):
        return all(fits(k, args[0]) and fits(v, args[1]) for k, v in value.items())
    return isinstance(value, cls)


def _items_fit(value: Sequence, cls: type, args: tuple) -> bool:
    if cls is tuple and len(args) > 1 and args[-1] is not Ellipsis:
        return len(value) == len(args) and all(map(fits, value, args))
    return not args or all(fits(v, args[0]) for v in value)


def _same_kind(old: Any, new: Any) -> bool:
    """Whether ``new`` may replace ``old`` where nothing is declared: a number a number, a list or tuple either."""
    if old is None or new is None:
        return True
    for kinds in (bool, (int, float), str, (list, tuple), dict):
        if isinstance(old, kinds):
            return isinstance(new, kinds) and (kinds is bool or not isinstance(new, bool))
    return True


def _like(old: Any) -> str:
    return 'a dict' if isinstance(old, dict) else f'{type(old).__name__}, as {reprlib.repr(old)}'


def _shown(annotation: Any) -> str:
    if fields_of(annotation) is not None:
        return 'a dict'
    if inspect.isclass(annotation) and not typing.get_args(annotation):
        return annotation.__name__
    return re.sub(r'\b(?:\w+\.)+', '', str(annotation))
