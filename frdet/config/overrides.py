"""``--cfg-options``: changing single values of a config, with the same checks as for the config itself."""

import ast
from collections.abc import Iterable, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from frdet.config.origins import mark_overridden
from frdet.config.schema import FREE, PLAIN, declared_at, keys_at
from frdet.config.values import NOTHING, Declared, fields_of, fits, found, mismatch
from frdet.errors import ConfigError, did_you_mean


def parse_overrides(items: Sequence[str]) -> dict[str, Any]:
    """``['a.b=1', ...]`` as a dict from key paths to values.

    A value is a Python literal (number, list, tuple, dict, None, True, quoted string), ``dict(a=1)``, or values with
    commas between them (a list). Anything else is a string. Words in brackets need no quotes. ``true`` and ``false``
    are booleans.

    Raises:
        ConfigError: an item has no ``=`` or an empty key.
    """
    parsed: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition('=')
        if not equals or not all(key.split('.')):
            raise ConfigError(f'Override {item!r}: expected KEY=VALUE, as in train_dataloader.batch_size=6')
        parsed[key] = _parse_value(value)
    return parsed


def _parse_value(text: str) -> Any:
    text = text.strip()
    try:
        node = ast.parse(text, mode='eval').body
        value = _literal(node)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        if ',' in text and not any(c in text for c in '[](){}\'"'):
            return [_parse_value(part) for part in text.split(',') if part.strip()]
        return text
    bare = isinstance(node, ast.Tuple) and node.elts and node.elts[0].col_offset == 0  # without brackets
    return list(value) if bare else value


def _literal(node: ast.expr) -> Any:
    """As ``ast.literal_eval``, but ``dict(a=1)`` is a dict, and a word without quotes is a string."""
    if isinstance(node, ast.Name):
        return {'true': True, 'false': False}.get(node.id.lower(), node.id)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict' and not node.args:
        return {k.arg or ast.literal_eval(k): _literal(k.value) for k in node.keywords}  # ``**`` is no literal
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_literal(e) for e in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        return {_literal(k): _literal(v) for k, v in zip(node.keys, node.values, strict=True)}  # type: ignore[arg-type]
    return ast.literal_eval(node)


def apply_overrides(cfg: Config, overrides: dict[str, Any]) -> None:
    """Set values in ``cfg``, in place: ``{'model.backbone.depth': 18}``. A number in a key path is the index of a list.

    A dict is merged into the former dict. If it has the ``type`` of another component, it replaces the former dict.
    ``model.backbone.type=...`` alone keeps the arguments. Types are set first, because other keys may belong to the new
    component.

    Raises:
        ConfigError: a key does not exist, or a value has neither the declared type nor the type of the former value.
    """
    for key, value in sorted(overrides.items(), key=lambda item: not item[0].endswith('.type')):
        _place(cfg, key.split('.'), value, key, Declared())
        mark_overridden(cfg, key, value)


def _place(node: Any, path: Sequence[str], value: Any, key: str, said: Declared, key_path: str = '') -> Any:
    """``node``, at ``key_path`` and declared as ``said``, with ``value`` at ``path`` inside it."""
    if not path:
        return _checked(node, value, key, said)
    part, *rest = path
    inner = f'{key_path}.{part}' if key_path else part
    if isinstance(node, (list, tuple)):
        index = _index(node, part, key_path, key)
        changed = _place(node[index], rest, value, key, Declared(), inner)
        if isinstance(node, tuple):
            return _checked(node, (*node[:index], changed, *node[index + 1 :]), key_path, said)
        node[index] = changed
    elif not isinstance(node, (dict, Config)):
        raise ConfigError(f'Override {key}: {key_path} is {node!r}, and has no {part!r} inside')
    elif not rest:
        _set(node, part, value, key_path, key, said)
    else:
        own = declared_at(node, part, key_path)
        if node.get(part) is None:  # an empty dict is put there if a dict is allowed
            if part not in node and part not in keys_at(node, key_path):
                raise _unknown(part, node, key_path, key)
            if own.annotation is not NOTHING and not any(fits(one, own.annotation) for one in ({}, {'type': ''})):
                raise ConfigError(f'Override {key}: {inner} is {node.get(part)!r}, and has no keys')
            node[part] = ConfigDict()
        node[part] = _place(node[part], rest, value, key, own, inner)
    return node


def _set(node: Any, name: str, value: Any, key_path: str, key: str, inside: Declared) -> None:
    fields, _ = fields_of(inside.annotation) or ({}, ())
    said = Declared(fields[name]) if name in fields else declared_at(node, name, key_path)
    if name in node:
        node[name] = _checked(node[name], value, key, said)
        return
    # An empty dict, or one whose keys the user names, has no known keys to compare with.
    own = key_path.rpartition('.')[2] in FREE or (key_path and not node and key_path not in PLAIN)
    hook = key_path == 'default_hooks' and isinstance(value, dict) and 'type' in value
    if not own and not hook and name not in {*keys_at(node, key_path), *fields}:
        raise _unknown(name, node, key_path, key, fields)
    node[name] = _checked(NOTHING, value, key, said)


def _checked(old: Any, new: Any, key: str, said: Declared) -> Any:
    """``new`` as the config will hold it: a dict is merged into the old dict.

    Raises:
        ConfigError: ``new`` is of a wrong type, or has a key that does not exist.
    """
    if expected := mismatch(new, said, old):
        raise ConfigError(f'Override {key}: {found(new)}, expected {expected}')
    if not isinstance(new, dict) or not isinstance(old, dict):
        return ConfigDict(value=new)['value']  # converts dicts inside lists, too
    if 'type' in new and new['type'] != old.get('type') or new.get('_delete_'):
        return ConfigDict({k: v for k, v in new.items() if k != '_delete_'})
    for name, value in new.items():
        if name != '_delete_':
            _set(old, str(name), value, key, f'{key}.{name}', said)
    return old


def _index(node: Sequence, part: str, key_path: str, key: str) -> int:
    try:
        return range(len(node))[int(part)]
    except (ValueError, IndexError):
        raise ConfigError(f'Override {key}: {key_path} is a list of {len(node)}, {part!r} is no index of it') from None


def _unknown(part: str, node: Any, key_path: str, key: str, fields: Iterable[str] = ()) -> ConfigError:
    there = {str(k) for k in node if not str(k).startswith('_')}
    names = there.union(keys_at(node, key_path), fields)
    hint = did_you_mean(part, names) or f'it has {", ".join(sorted(names)[:12]) or "no keys"}'
    return ConfigError(f'Override {key}: {key_path or "the config"} has no {part!r}: {hint}')
