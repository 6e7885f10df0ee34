"""Variables of a config: names that a file assigns and uses in other values, which are computed when the file runs."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from frdet.config.origins import Origin, base_files, parsed, plain_names, shown_path
from frdet.config.schema import RUNNER_KEYS
from frdet.errors import ConfigError


class _Names(NamedTuple):
    """The names at the top level of a file, each with the last line that has it.

    Attributes:
        changed: names that the file assigns, or changes in place, as by ``norm['eps'] = 0``.
        used: names that it uses in other values.
        of_bases: names that it uses in other values as ``_base_.NAME``.
    """

    changed: dict[str, int]
    used: dict[str, int]
    of_bases: dict[str, int]


def refuse_used_variables(cfg: Config, changes: dict[str, Any]) -> None:
    """Raise ConfigError for an override of a variable: it comes too late for the values that use the variable."""
    names = [_names(file) for file in base_files(cfg.filename)] if changes and cfg.filename else []
    used = {name for file in names for name in (*file.used, *file.of_bases)} - RUNNER_KEYS
    for key in changes:
        if (name := key.partition('.')[0]) in cfg and name in used:
            raise ConfigError(
                f'Override {key}: {name} is a variable of the config, and other values were made of it when the file '
                f'ran: nothing would change; override {_made_of(cfg, name, cfg[name])}'
            )


def refuse_stale_variables(cfg: Config, read: Callable[[Path], Config]) -> None:
    """Raise ConfigError if a file changes a variable after a base of it has used the variable in other values.

    The change is allowed if the file, or a later file, uses the variable itself.

    Args:
        cfg: a config as read from its files, before overrides.
        read: the function that has read ``cfg``.
    """
    files = base_files(cfg.filename) if cfg.filename else []
    names = [_names(file) for file in files]
    for name in {name for file in names[1:] for name in file.changed} & cfg.keys() - RUNNER_KEYS:
        last = max(i for i, file in enumerate(names) if name in file.changed)
        line = names[last].changed[name]
        if names[last].used.get(name, 0) >= line or any(name in {**f.used, **f.of_bases} for f in names[last + 1 :]):
            continue
        for file, before in zip(files[:last], names, strict=False):
            use = {**before.of_bases, **before.used}.get(name)
            if use is None:
                continue
            old = read(file).get(name)
            # A class in a new-style config of MMEngine is equal to itself only: its text is compared, too.
            if old != cfg[name] and repr(old) != repr(cfg[name]):
                raise ConfigError(
                    f'{Origin(shown_path(files[last]), line)}: {name} is a variable, and other values were made of it '
                    f'in {Origin(shown_path(file), use)}, before this file runs: nothing would change; '
                    f'set {_made_of(cfg, name, old)} here; {name} may be used for it'
                )


def _made_of(cfg: Config, name: str, value: Any) -> str:
    """In words, the key paths of ``cfg`` that have the value of a variable."""
    held = [key for key in _key_paths('', cfg, value) if key != name]
    return ' and '.join(held[:3]) or 'the values made of it'


def _key_paths(key: str, node: Any, value: Any) -> Iterator[str]:
    if key and type(node) is type(value) and node == value:
        yield key
        return
    items = enumerate(node) if isinstance(node, (list, tuple)) else node.items() if hasattr(node, 'items') else ()
    for name, inner in items:
        yield from _key_paths(f'{key}.{name}' if key else str(name), inner, value)


def _names(file: Path) -> _Names:
    names = _Names({}, {}, {})
    if file.suffix != '.py':
        text = file.read_text(encoding='utf-8', errors='replace')
        names.changed.update(dict.fromkeys(plain_names(file), 1))
        names.of_bases.update({name: 1 + text.count('\n', 0, at) for name, at in _templates(text)})
        return names
    for statement, inside in _statements(parsed(file), False):
        _add_statement(statement, inside, names)
    return names


def _add_statement(statement: ast.stmt, in_function: bool, names: _Names) -> None:
    nodes = list(_own_nodes(statement))
    line = statement.lineno
    changed = set() if in_function else _changed(statement, nodes)
    names.changed.update(dict.fromkeys(changed, line))
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == '_base_':
            names.of_bases[node.attr] = node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.of_bases.update({name: node.lineno for name, _ in _templates(node.value)})
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in changed:
            names.used[node.id] = node.lineno


def _templates(text: str) -> Iterator[tuple[str, int]]:
    """Names in ``{{_base_.NAME}}`` within a string, and their positions."""
    return ((found[1], found.start()) for found in re.finditer(r'\{\{\s*_base_\.(\w+)', text))


def _statements(node: ast.AST, in_function: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Every statement, and whether it is in a function or a class, whose names are not variables of the config."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child, in_function
        scope = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        yield from _statements(child, in_function or scope)


def _own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes of a statement, without the nodes of statements inside it."""
    for child in ast.iter_child_nodes(statement):
        if not isinstance(child, ast.stmt):
            yield child
            yield from _own_nodes(child)  # type: ignore[arg-type]


def _changed(statement: ast.stmt, nodes: list[ast.AST]) -> set[str]:
    """Names that a statement assigns, or changes in place: by an item, an attribute, or a call of a method."""
    changed = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    targets = [n for n in nodes if isinstance(n, (ast.Attribute, ast.Subscript)) and isinstance(n.ctx, ast.Store)]
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        targets += [statement.value.func] if isinstance(statement.value.func, ast.Attribute) else []
    return changed | {root.id for target in targets if isinstance(root := _root(target), ast.Name)}


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node
