"""Whether a value of a config has the type that the component or the Runner declares."""

import inspect
import re
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

#: There is no annotation, no default, or no former value.
NOTHING = inspect.Parameter.empty


class Declared(NamedTuple):
    """The annotation and the default of an argument in a signature."""

    annotation: Any = NOTHING
    default: Any = NOTHING


@lru_cache(maxsize=1024)
def declared(target: Callable) -> dict[str, Declared]:
    """The declarations of the arguments of ``target``, the arguments of its base classes included."""
    found: dict[str, Declared] = {}
    for cls in reversed(inspect.getmro(target)) if inspect.isclass(target) else (target,):
        function = vars(cls).get('__init__') if inspect.isclass(cls) else cls
        if inspect.isfunction(function):
            parameters, hints = inspect.signature(function).parameters, _annotations(function)
            found.update({name: Declared(hints.get(name, NOTHING), p.default) for name, p in parameters.items()})
    found.pop('self', None)
    return found


def _annotations(function: Callable) -> dict[str, Any]:
    raw = getattr(inspect.unwrap(function), '__annotations__', {})
    found = {}
    for name, annotation in raw.items():
        one = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found.update(typing.get_type_hints(one, globalns=getattr(function, '__globals__', {})))
        except Exception:  # a type that is imported for type checkers only
            continue
    return found


def mismatch(value: Any, said: Declared, old: Any = NOTHING) -> str | None:
    """In words, what was expected instead of ``value``. None if ``value`` fits, or if no type is known.

    The declaration ``x: str = None`` allows None, too. If the value ``old``, which is replaced, contradicts the
    annotation, its own type is expected, because the config worked with it.
    """
    if value is None and (said.default is None or old is None):
        return None
    believed = old is NOTHING or old is None or fits(old, said.annotation)
    if said.annotation is not NOTHING and believed:
        return None if fits(value, said.annotation) else _shown(said.annotation)
    if old is NOTHING:
        # A default says little: stride=1 may allow a pair, too. But a number and a string never replace each other.
        old, scalar = said.default, (int, float, str)
        if isinstance(old, bool) or not (isinstance(old, scalar) and isinstance(value, scalar)):
            return None
    if _same_kind(old, value):
        return None
    return 'a dict' if isinstance(old, dict) else f'{type(old).__name__}, as {reprlib.repr(old)}'


def fields_of(annotation: Any) -> tuple[dict[str, Any], set[str]] | None:
    """Key types and required keys of a ``TypedDict``, also in a union such as ``T | None``. Else None."""
    for one in (annotation, *typing.get_args(annotation)):
        if typing.is_typeddict(one):
            return typing.get_type_hints(one), set(one.__required_keys__)
    return None


def found(value: Any) -> str:
    """The words of an error for a wrong ``value``: ``found 3 (int)``."""
    return f'found {reprlib.repr(value)} ({"dict" if isinstance(value, dict) else type(value).__name__})'


def fits(value: Any, annotation: Any) -> bool:
    """Whether ``value`` fits ``annotation``, as far as a plain value shows it.

    A dict with a ``type`` stands for the object that is built from it. A list fits a tuple, an int fits a float.
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
        if cls is tuple and len(args) > 1 and args[-1] is not Ellipsis:
            return len(value) == len(args) and all(map(fits, value, args))
        return not args or all(fits(v, args[0]) for v in value)
    if isinstance(value, dict) and len(args) == 2 and issubclass(cls, Mapping):
        return all(fits(k, args[0]) and fits(v, args[1]) for k, v in value.items())
    return isinstance(value, cls)


def _same_kind(old: Any, new: Any) -> bool:
    """Whether ``new`` may replace ``old`` if no type is declared: int and float are one kind, list and tuple, too."""
    if old is None or new is None:
        return True
    for kinds in (bool, (int, float), str, (list, tuple), dict):
        if isinstance(old, kinds):
            return isinstance(new, kinds) and (kinds is bool or not isinstance(new, bool))
    return True


def _shown(annotation: Any) -> str:
    if fields_of(annotation) is not None:
        return 'a dict'
    if inspect.isclass(annotation) and not typing.get_args(annotation):
        return annotation.__name__
    return re.sub(r'\b(?:\w+\.)+', '', str(annotation))
