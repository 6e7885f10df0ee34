"""Where in its files each value of a config was written, found by reading the files as text."""

import ast
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config


class Origin(NamedTuple):
    """A line of a config file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f'{self.file}:{self.line}'


#: Attribute of a config that holds the dotted keys its overrides set.
_OVERRIDDEN = '_frdet_overridden'


def config_origins(path: str | Path) -> dict[str, Origin]:
    """Dotted key -> the line that set it, for a config and all it inherits from; the last to set a key wins."""
    origins: dict[str, Origin] = {}
    for file in base_files(path):
        assigned = _assigned(file)
        for name, value in assigned.items():
            if name != '_base_':
                _collect(name, value, value.lineno, _shown(file), origins, assigned)
    return origins


def mark_overridden(cfg: Config, key: str, value: Any) -> None:
    """Note that an override set the dotted ``key`` of ``cfg``, of a dict its keys: the files' lines hold no more."""
    changed = [leaf for leaf, _ in _leaves(key, value)]
    object.__setattr__(cfg, _OVERRIDDEN, (*_overridden(cfg), *changed))  # beside the config's keys, not among them


def origin_finder(cfg: Config) -> Callable[[str], str]:
    """Of a dotted key, where its value was written: ``FILE:LINE``, ``override``, or '' if that is not found."""
    origins = config_origins(cfg.filename) if cfg.filename else {}
    overridden = _overridden(cfg)
    return lambda key: _find(key, origins, overridden)


def origin_table(cfg: Config) -> str:
    """Every value of ``cfg``, a line each: dotted key, value, and the file and line that set it, or ``override``."""
    find = origin_finder(cfg)
    rows = [(f'{key} = {value!r}', find(key)) for key, value in _leaves('', cfg)]
    width = min(max((len(text) for text, _ in rows), default=0), 90)
    return '\n'.join(f'{text:<{width}}  # {where}' if where else text for text, where in rows)


def _overridden(cfg: Config) -> tuple[str, ...]:
    return vars(cfg).get(_OVERRIDDEN, ())


def _find(key: str, origins: dict[str, Origin], overridden: tuple[str, ...]) -> str:
    if any(key == o or key.startswith(f'{o}.') for o in overridden):
        return 'override'
    while key and key not in origins:
        key = key.rpartition('.')[0]
    return str(origins.get(key, ''))


def _leaves(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, (dict, Config)) and len(node):
        items: Iterable[tuple[str, Any]] = node.items()
    elif isinstance(node, (list, tuple)) and any(isinstance(v, dict) for v in node):
        items = ((str(i), v) for i, v in enumerate(node))
    else:
        yield key, node
        return
    for name, value in items:
        yield from _leaves(f'{key}.{name}' if key else name, value)


def base_files(path: str | Path) -> list[Path]:
    """A config and the files it inherits from that exist, in the order they are merged: the config is the last."""
    files: list[Path] = []
    _add_files(Path(path).resolve(), files, ())
    return files


def _add_files(path: Path, files: list[Path], below: tuple[Path, ...]) -> None:
    if path in below or not path.is_file():
        return
    for base in _bases(_assigned(path).get('_base_')):
        _add_files((path.parent / base).resolve(), files, (*below, path))
    files.append(path)


def _assigned(path: Path) -> dict[str, ast.expr]:
    """The names that a file assigns at its top level; none if it is no Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # MMEngine reads YAML and JSON, too
        return {}
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def _bases(node: ast.expr | None) -> list[str]:
    try:
        value = ast.literal_eval(node) if node is not None else []
    except ValueError:  # computed
        return []
    if not isinstance(value, (str, list, tuple)):
        return []
    return [b for b in ([value] if isinstance(value, str) else value) if isinstance(b, str)]


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _collect(
    key: str, node: ast.expr, line: int, file: str, origins: dict[str, Origin], assigned: dict[str, ast.expr]
) -> None:
    items = _items(node, assigned)
    if any(name == '_delete_' for name, _ in items) or isinstance(node, (ast.List, ast.Tuple)):
        for old in [k for k in origins if k.startswith(f'{key}.')]:
            del origins[old]
    origins[key] = Origin(file, line)
    for name, value in items:
        if name != '_delete_':
            _collect(f'{key}.{name}', value, value.lineno, file, origins, assigned)


def _items(node: ast.expr, assigned: dict[str, ast.expr]) -> list[tuple[str, ast.expr]]:
    if isinstance(node, ast.Name) and node.id in assigned and assigned[node.id] is not node:
        return _items(assigned[node.id], {k: v for k, v in assigned.items() if k != node.id})
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        items = []
        for keyword in node.keywords:
            items += [(keyword.arg, keyword.value)] if keyword.arg else _items(keyword.value, assigned)
        return items
    if isinstance(node, ast.Dict):
        return [(str(k.value), v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)]
    if isinstance(node, (ast.List, ast.Tuple)):
        return [(str(i), value) for i, value in enumerate(node.elts)]
    return []
