"""Reading a config file and the files that it inherits from as one config.

A file may assign variables: names that it uses in other values, which are computed when the file runs.
"""

import ast
import logging
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.logging import MMLogger

from frdet.config import origins
from frdet.config.overrides import apply_overrides, parse_overrides
from frdet.config.safe import read_safely, refuse_imports
from frdet.config.schema import RUNNER_KEYS
from frdet.errors import ConfigError


def load_config(
    path: str | Path, overrides: dict[str, Any] | Sequence[str] | None = None, *, safe: bool = False
) -> Config:
    """Read a Python config with its ``_base_`` files, import the modules in ``custom_imports``, apply overrides.

    A config is Python code, and is run: read only configs that you trust, or use ``safe``.

    Args:
        path: the config file.
        overrides: ``'a.b=1'`` strings, as in ``--cfg-options``, or a dict from key paths to values.
        safe: run nothing, import nothing; ``read_safely`` says which configs can be read so.

    Raises:
        ConfigError: the file or a base is missing or does not run, an import fails, an override is wrong, or a variable
            is changed after other values were made of it. With ``safe``: the config is more than data.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(origins.no_file(path))
    read = read_safely if safe else _read
    cfg = read(path)
    _refuse_stale_variables(cfg, read)
    texts = ((key, value.replace(' ', '')) for key, value in origins.everything('', cfg) if isinstance(value, str))
    if unset := next((key for key, text in texts if '{{$' in text), None):  # MMEngine fills in those with a default
        raise ConfigError(
            f'{origins.origin_finder(cfg)(unset) or path}: {unset} names an environment variable without a default: '
            "write '{{$NAME:default}}'"
        )
    changes = overrides if isinstance(overrides, dict) else parse_overrides(overrides or [])
    imports = {key: value for key, value in changes.items() if key.partition('.')[0] == 'custom_imports'}
    apply_overrides(cfg, imports)
    if safe:
        refuse_imports(cfg)
    _import_custom(cfg, path)
    _refuse_used_variables(cfg, changes)
    # After the imports: they register the classes that say which arguments a component takes.
    apply_overrides(cfg, {key: value for key, value in changes.items() if key not in imports})
    if safe:
        refuse_imports(cfg)
    return cfg


def dump_config(cfg: Config) -> str:
    """The whole config as Python text. Reading the text gives the same config."""
    return cfg.pretty_text


def _read(path: Path) -> Config:
    for file in origins.base_files(path):
        if file.suffix == '.py':
            origins.parse(file)
    # Without this, MMEngine may take a config that imports anything for a config of its "new style".
    lazy = None if 'read_base' in path.read_text(encoding='utf-8', errors='replace') else False
    logger = MMLogger.get_current_instance()
    logger.addFilter(_is_no_variable)
    try:
        return Config.fromfile(path, import_custom_modules=False, lazy_import=lazy)
    except (Exception, SystemExit) as error:
        message = f'{type(error).__name__}: {error}'
        if isinstance(error, (KeyError, AttributeError)) and '{{_base_.' in path.read_text().replace(' ', ''):
            message = f'its {{{{_base_.<key>}}}} names {error}, a key that no file in _base_ has'
        raise ConfigError(_clash(path, error) or f'{path} cannot be read{_line(error)}: {message}') from error
    finally:
        logger.removeFilter(_is_no_variable)


def _is_no_variable(record: logging.LogRecord) -> bool:
    """MMEngine logs each environment variable that it fills in to stdout, between the output of a tool."""
    return not record.getMessage().startswith('Using env variable')


def _clash(path: Path, error: BaseException) -> str | None:
    """The message for a dict where a base has another type, with file and line; None for any other error."""
    said = re.match(r"(\w+)=.* cannot inherit from base .* of type <class '(\w+)'>", str(error), re.DOTALL)
    if not isinstance(error, TypeError) or said is None:
        return None
    name, kind = said.groups()
    where = {key: str(origin) for key, origin in origins.config_origins(path).items() if key.rpartition('.')[2] == name}
    key = next((key for key, origin in where.items() if origin.rpartition(':')[0] == origins.shown_path(path)), name)
    origin = f' ({where[key]})' if key in where else ''
    return f'{key}{origin}: found a dict, the base has a {kind}: write a {kind}, or put _delete_=True into the dict'


def _line(error: BaseException) -> str:
    """File and line of a module's top level that raised ``error``; '' if there is none."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.name == '<module>']
    return f' ({frames[-1].filename}:{frames[-1].lineno})' if frames else ''


def _import_custom(cfg: Config, path: Path) -> None:
    custom = cfg.get('custom_imports') or {}
    names = custom.get('imports', []) if isinstance(custom, dict) else None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{path}: found custom_imports = {custom!r}, expected dict(imports=['my_module'])")
    for name in names:
        try:
            import_module(name)
        except Exception as error:
            if isinstance(error, ImportError) and custom.get('allow_failed_imports', False):
                continue
            raise ConfigError(
                f'{path}: custom_imports names the module {name!r}, which cannot be imported{_why(name, error)}'
            ) from error


def _why(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        if name == error.name or name.startswith(f'{error.name}.'):
            return ': its folder must be on PYTHONPATH'
        return f': it imports {error.name}, which is missing'
    if isinstance(error, SyntaxError):
        return f' ({error.filename}:{error.lineno}): {error.msg}'
    return f'{_line(error)}: {type(error).__name__}: {error}'


class _Names(NamedTuple):
    """The names at the top level of a file, each with the last line that has it."""

    changed: dict[str, int]  # names that the file assigns, or changes in place, as by ``norm['eps'] = 0``
    used: dict[str, int]  # names that it uses in other values
    of_bases: dict[str, int]  # names that it uses in other values as ``_base_.NAME``


def _refuse_used_variables(cfg: Config, changes: dict[str, Any]) -> None:
    """Raise ConfigError for an override of a variable: it comes too late for the values that use the variable."""
    names = [_names(file) for file in origins.base_files(cfg.filename)] if changes and cfg.filename else []
    used = {name for file in names for name in (*file.used, *file.of_bases)} - RUNNER_KEYS
    for key in changes:
        if (name := key.partition('.')[0]) in cfg and name in used:
            raise ConfigError(
                f'Override {key}: {name} is a variable of the config, and other values were made of it when the file '
                f'ran: nothing would change; override {_made_of(cfg, name, cfg[name])}'
            )


def _refuse_stale_variables(cfg: Config, read: Callable[[Path], Config]) -> None:
    """Raise ConfigError if a file changes a variable after a base of it has used the variable in other values.

    The change is allowed if the file, or a later file, uses the variable itself. ``read`` is the function that has read
    ``cfg``, which has no overrides yet.
    """
    files = origins.base_files(cfg.filename) if cfg.filename else []
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
                    f'{origins.place(files[last], line)}: {name} is a variable, and other values were made of it '
                    f'in {origins.place(file, use)}, before this file runs: nothing would change; '
                    f'set {_made_of(cfg, name, old)} here; {name} may be used for it'
                )


def _made_of(cfg: Config, name: str, value: Any) -> str:
    """In words, the key paths of ``cfg`` that have the value of the variable ``name``."""
    equal = (key for key, inner in origins.everything('', cfg) if type(inner) is type(value) and inner == value)
    return ' and '.join([key for key in equal if key not in ('', name)][:3]) or 'the values made of it'


def _names(file: Path) -> _Names:
    names = _Names({}, {}, {})
    if file.suffix != '.py':
        text = file.read_text(encoding='utf-8', errors='replace')
        names.changed.update(dict.fromkeys(origins.plain_names(file), 1))
        names.of_bases.update({name: 1 + text.count('\n', 0, at) for name, at in _templates(text)})
        return names
    for statement, in_function in _statements(origins.parsed(file), False):
        nodes = list(_own_nodes(statement))
        changed = set() if in_function else _changed(statement, nodes)
        names.changed.update(dict.fromkeys(changed, statement.lineno))
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == '_base_':
                names.of_bases[node.attr] = node.lineno
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.of_bases.update({name: node.lineno for name, _ in _templates(node.value)})
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in changed:
                names.used[node.id] = node.lineno
    return names


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
    targets: list[ast.AST] = [
        n for n in nodes if isinstance(n, (ast.Attribute, ast.Subscript)) and isinstance(n.ctx, ast.Store)
    ]
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        targets += [statement.value.func] if isinstance(statement.value.func, ast.Attribute) else []
    for root in targets:
        while isinstance(root, (ast.Attribute, ast.Subscript)):
            root = root.value
        changed |= {root.id} if isinstance(root, ast.Name) else set()
    return changed
