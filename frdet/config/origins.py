"""Where in its files each value of a config was written, found by reading the files as text."""

import ast
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config


class Origin(NamedTuple):
    """A line of a config file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f'{self.file}:{self.line}'


def config_origins(path: str | Path) -> dict[str, Origin]:
    """Dotted key -> the line that set it, for a config and all it inherits from; the last to set a key wins."""
    origins: dict[str, Origin] = {}
    _collect_file(Path(path), origins, set())
    return origins


def origin_table(cfg: Config, overrides: Collection[str] = ()) -> str:
    """Every value of ``cfg``, a line each: dotted key, value, and the file and line that set it, or ``override``.

    Args:
        cfg: a config read from a file.
        overrides: dotted keys that were changed after reading.
    """
    origins = config_origins(cfg.filename)
    rows = []
    for key, value in _leaves('', cfg):
        changed = any(key == o or key.startswith(f'{o}.') for o in overrides)
        rows.append((f'{key} = {value!r}', 'override' if changed else str(_nearest(key, origins) or '')))
    width = min(max((len(text) for text, _ in rows), default=0), 90)
    return '\n'.join(f'{text:<{width}}  # {where}' if where else text for text, where in rows)


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


def _nearest(key: str, origins: dict[str, Origin]) -> Origin | None:
    while key and key not in origins:
        key = key.rpartition('.')[0]
    return origins.get(key)


def _collect_file(path: Path, origins: dict[str, Origin], seen: set[Path]) -> None:
    path = path.resolve()
    if path in seen or not path.is_file():
        return
    seen.add(path)
    tree = ast.parse(path.read_text(encoding='utf-8'))
    assigned = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for base in _bases(assigned.get('_base_')):
        _collect_file(path.parent / base, origins, seen)
    for name, value in assigned.items():
        if name != '_base_':
            _collect(name, value, value.lineno, _shown(path), origins, assigned)


def _bases(node: ast.expr | None) -> list[str]:
    try:
        value = ast.literal_eval(node) if node is not None else []
    except ValueError:
        return []
    return [value] if isinstance(value, str) else list(value)


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
