"""``--cfg-options``: changing single values of a config, with the same care as the config itself."""

import ast
import difflib
import inspect
import types
import typing
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from frdet.config.places import RUNNER_KEYS, component_class, known_keys
from frdet.errors import ConfigError


def parse_overrides(items: Sequence[str]) -> dict[str, Any]:
    """``['a.b=1', ...]`` as a dict from dotted keys to values.

    A value is a Python literal (number, list, tuple, dict, None, True, quoted string), ``dict(a=1)``, numbers or words
    joined by commas (a list), or else the string itself.

    Raises:
        ConfigError: an item has no ``=`` or an empty key.
    """
    parsed: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition('=')
        if not equals or not key or not all(key.split('.')):
            raise ConfigError(f'Override {item!r}: expected KEY=VALUE, as in train_dataloader.batch_size=6')
        parsed[key] = _parse_value(value)
    return parsed


def _parse_value(text: str) -> Any:
    for source in (text, f'[{text}]' if ',' in text else None):
        if source is None:
            continue
        try:
            return _literal(ast.parse(source.strip(), mode='eval').body)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    if ',' in text and not any(c in text for c in '[](){}\'"'):
        return [_parse_value(part.strip()) for part in text.split(',')]
    return text


def _literal(node: ast.expr) -> Any:
    """As ``ast.literal_eval``, and ``dict(a=1)`` too."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {k.arg: _literal(k.value) for k in node.keywords if k.arg}
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_literal(e) for e in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        return {_literal(k): _literal(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
    return ast.literal_eval(node)


def apply_overrides(cfg: Config, overrides: dict[str, Any]) -> None:
    """Set values in ``cfg``, in place; ``{'model.backbone.depth': 18}``, a number in a key indexes a list.

    A dict is merged into the dict that is there, unless its ``type`` is another component's: then it replaces it.

    Raises:
        ConfigError: a key does not exist, or a value is of another type than the one it replaces.
    """
    for key, value in overrides.items():
        _apply(cfg, key, value)


def _apply(cfg: Config, key: str, value: Any) -> None:
    node: Any = cfg
    *path, last = key.split('.')
    for depth, part in enumerate(path):
        place = '.'.join(path[:depth])
        if isinstance(node, (list, tuple)):
            node = node[_index(node, part, place, key)]
        elif isinstance(node, (dict, Config)):
            if part not in node:
                if not (depth == 0 and part in RUNNER_KEYS) and part not in known_keys(node, place):
                    raise _unknown(part, node, place, key)
                node[part] = ConfigDict()
            elif node[part] is None:
                node[part] = ConfigDict()
            node = node[part]
        else:
            raise ConfigError(f'Override {key}: {place} is {node!r}, and has no {part!r} inside')
    place = '.'.join(path)
    if isinstance(node, (list, tuple)):
        index = _index(node, last, place, key)
        merged = _merged(node[index], value, key, None)
        if isinstance(node, tuple):
            changed = (*node[:index], merged, *node[index + 1 :])
            _apply(cfg, place, changed)
        else:
            node[index] = merged
        return
    if not isinstance(node, (dict, Config)):
        raise ConfigError(f'Override {key}: {place} is {node!r}, and has no {last!r} inside')
    annotation = _annotation(node, last, place)
    if last in node:
        node[last] = _merged(node[last], value, key, annotation)
        return
    free = bool(path) and not node  # a dict that this override begins, as dataset.metainfo, may hold anything
    if last not in known_keys(node, place) and not free and not (not path and last in RUNNER_KEYS):
        raise _unknown(last, node, place, key)
    if annotation is not None and not _fits(value, annotation):
        raise _wrong_type(key, value, _name(annotation))
    node[last] = value


def _merged(old: Any, new: Any, key: str, annotation: Any) -> Any:
    if annotation is not None:
        if not _fits(new, annotation):
            raise _wrong_type(key, new, _name(annotation))
    elif not _same_kind(old, new):
        raise _wrong_type(key, new, f'{type(old).__name__}, as {old!r}' if not isinstance(old, dict) else 'a dict')
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    if 'type' in new and new['type'] != old.get('type') or new.get('_delete_'):
        return ConfigDict({k: v for k, v in new.items() if k != '_delete_'})
    for inner, value in new.items():
        if inner in old:
            old[inner] = _merged(old[inner], value, f'{key}.{inner}', _annotation(old, inner, key))
        elif inner in known_keys(old, key):
            old[inner] = value
        else:
            raise _unknown(inner, old, key, f'{key}.{inner}')
    return old


def _index(node: Sequence, part: str, place: str, key: str) -> int:
    if not part.lstrip('-').isdigit() or not -len(node) <= int(part) < len(node):
        raise ConfigError(f'Override {key}: {place} is a list of {len(node)}, {part!r} is no index of it')
    return int(part) % len(node)


def _unknown(part: str, node: Any, place: str, key: str) -> ConfigError:
    names = {str(k) for k in node if not str(k).startswith('_')} | known_keys(node, place)
    if not place:
        names |= RUNNER_KEYS
    near = difflib.get_close_matches(part, names, n=3)
    hint = f'did you mean {" or ".join(near)}?' if near else f'it has {", ".join(sorted(names)[:12])}'
    return ConfigError(f'Override {key}: {place or "the config"} has no {part!r}: {hint}')


def _wrong_type(key: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f'Override {key}: found {value!r} ({type(value).__name__}), expected {expected}')


def _annotation(node: Any, name: str, place: str) -> Any:
    """What the component that ``node`` describes says of its argument ``name``; None if it says nothing."""
    cls = component_class(node, place)
    if cls is None or not inspect.isclass(cls):
        return None
    for base in cls.__mro__:
        init = base.__dict__.get('__init__')
        if init is not None and name in getattr(init, '__annotations__', {}):
            try:
                return typing.get_type_hints(init).get(name)
            except Exception:  # a name that only type checkers import
                return None
    return None


def _name(annotation: Any) -> str:
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation).replace('typing.', '')


def _fits(value: Any, annotation: Any) -> bool:
    """Whether ``value`` is what ``annotation`` says, as far as plain types tell."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, a) for a in args)
    if origin is typing.Literal:
        return value in args
    if annotation is Any or isinstance(annotation, (str, typing.TypeVar)):
        return True
    cls = origin or annotation
    if annotation is None or cls is type(None):
        return value is None
    if not inspect.isclass(cls):
        return True
    if cls in (int, float):
        return isinstance(value, (int, float) if cls is float else int) and not isinstance(value, bool)
    if isinstance(value, (str, bytes)) and cls is not str:
        return cls is object
    if isinstance(value, (list, tuple)) and issubclass(cls, Sequence):
        inner = [a for a in args if a is not Ellipsis]
        return len(inner) != 1 or all(_fits(v, inner[0]) for v in value)
    if cls in (list, tuple):
        return isinstance(value, (list, tuple))
    if isinstance(value, (str, bool, int, float, list, tuple, dict, type(None))):
        # A config's dict stands for the component that is built from it.
        return isinstance(value, cls) or (isinstance(value, dict) and 'type' in value)
    return True


def _same_kind(old: Any, new: Any) -> bool:
    if old is None or new is None:
        return True
    if isinstance(old, bool) or isinstance(new, bool):
        return isinstance(old, bool) and isinstance(new, bool)
    for kind in (float, int):
        if isinstance(old, kind):
            return isinstance(new, (int, float) if kind is float else int)
    for kinds in ((str,), (list, tuple), (dict,)):
        if isinstance(old, kinds):
            return isinstance(new, kinds)
    return True
