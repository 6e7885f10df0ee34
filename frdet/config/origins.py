"""The file and line of each value of a config, found by reading its files as text."""

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.fileio import load

from frdet.errors import ConfigError, near_names


class Origin(NamedTuple):
    """A line of a config file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f'{self.file}:{self.line}'


#: Attribute of a config that holds the key paths set by overrides.
_OVERRIDDEN = '_frdet_overridden'


def config_origins(path: str | Path) -> dict[str, Origin]:
    """Key path -> the line that set it last, in a config or a file that it inherits from."""
    origins: dict[str, Origin] = {}
    for file in base_files(path):
        assigned = _assigned(file)
        for name, value in assigned.items():
            if name != '_base_':
                _collect(name, value, shown_path(file), origins, assigned)
    return origins


def mark_overridden(cfg: Config, key: str, value: Any) -> None:
    """Note that an override set ``key`` of ``cfg``, or the keys of a dict there: the lines of files are outdated."""
    changed = (*vars(cfg).get(_OVERRIDDEN, ()), *(leaf for leaf, _ in leaves(key, value)))
    object.__setattr__(cfg, _OVERRIDDEN, changed)  # beside the config's keys, not among them


def origin_finder(cfg: Config) -> Callable[[str], str]:
    """A function from a key path to the origin of its value: ``FILE:LINE``, ``override``, or '' if it is unknown."""
    origins = config_origins(cfg.filename) if cfg.filename else {}
    overridden = vars(cfg).get(_OVERRIDDEN, ())

    def find(key: str) -> str:
        if any(key == o or key.startswith(f'{o}.') for o in overridden):
            return 'override'
        while key and key not in origins:
            key = key.rpartition('.')[0]
        return str(origins.get(key, ''))

    return find


def origin_table(cfg: Config) -> str:
    """A line for each value of ``cfg``: key path, value, and the file and line that set it, or ``override``."""
    find = origin_finder(cfg)
    rows = [(f'{key} = {value!r}', find(key)) for key, value in leaves('', cfg)]
    width = min(max((len(text) for text, _ in rows), default=0), 90)
    return '\n'.join(f'{text:<{width}}  # {where}' if where else text for text, where in rows)


def leaves(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Key path and value of everything in ``node``, at ``key``, that is neither a dict nor a list with a dict."""
    is_list = isinstance(node, (list, tuple))
    is_inner = any(isinstance(v, dict) for v in node) if is_list else isinstance(node, (dict, Config)) and len(node)
    if not is_inner:
        yield key, node
        return
    for name, value in enumerate(node) if is_list else node.items():
        yield from leaves(f'{key}.{name}' if key else str(name), value)


def everything(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Key path and value of ``node``, at ``key``, and of all dicts, lists and values inside it."""
    yield key, node
    items = (
        node.items() if isinstance(node, (dict, Config)) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    )
    for name, value in items:
        yield from everything(f'{key}.{name}' if key else str(name), value)


def base_files(path: str | Path, below: tuple[Path, ...] = ()) -> list[Path]:
    """A config and the files that it inherits from, in the order of merging. The config is last.

    ``below`` are the files that inherit from it.

    Raises:
        ConfigError: a file inherits from a missing file or from itself, or ``_base_`` is not a path or several.
    """
    path, files = Path(path).resolve(), []
    if not path.is_file():  # a config may outlive its file
        return []
    for base, line in _bases(path):
        inherited = (path.parent / base).resolve()
        where = f'{place(path, line)}: _base_'
        if inherited in (*below, path):
            circle = ' <- '.join(shown_path(file) for file in (*below, path, inherited))
            raise ConfigError(f'{where} is a circle, {circle}: no config can inherit from itself')
        if not inherited.is_file():
            raise ConfigError(f'{where}: {no_file(inherited)}')
        files += base_files(inherited, (*below, path))
    return [*files, path]


def no_file(path: Path) -> str:
    """The message that there is no config at ``path``, with the nearest names."""
    names = sorted(p.name for p in (path if path.is_dir() else path.parent).glob('*.py'))
    if path.is_dir():
        return f'Config {path} is a folder: expected a file in it, as {", ".join(names[:8]) or "it has none"}'
    message = f'Config {path} does not exist'
    if not path.parent.is_dir():
        return f'{message}: there is no folder {path.parent}'
    if near := near_names(path.stem, [name.removesuffix('.py') for name in names]):
        return f'{message}: did you mean {" or ".join(f"{path.parent / name}.py" for name in near)}?'
    return f'{message}; {path.parent} holds {", ".join(names[:8]) or "no config"}'


def parse(path: Path) -> ast.Module:
    """A file as Python; see ``parse_text``."""
    return parse_text(path.read_bytes(), str(path))


def parse_text(content: bytes | str, name: str) -> ast.Module:
    """Text as Python.

    Raises:
        ConfigError: it is no Python; the message names the line, and the text by ``name``.
    """
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, 'lineno', None)
        message = getattr(error, 'msg', error)
        raise ConfigError(f'{name}{f":{line}" if line else ""} is no Python: {message}') from None


def parsed(path: Path) -> ast.Module:
    """A file as Python. It is empty if the file is not Python: MMEngine reads YAML and JSON, too."""
    try:
        return parse(path)
    except ConfigError:
        return ast.Module([], [])


def _assigned(path: Path) -> dict[str, ast.expr]:
    """The names that a file assigns at its top level; none if it is not Python."""
    return {
        target.id: node.value
        for node in parsed(path).body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def plain_names(path: Path) -> dict[str, Any]:
    """The content of a config in YAML or JSON; empty for other files, and for YAML with templates of MMEngine."""
    try:
        content = load(path) if path.suffix in ('.yaml', '.yml', '.json') else None
    except Exception:  # reading the config itself reports the error
        content = None
    return content if isinstance(content, dict) else {}


def _bases(path: Path) -> list[tuple[str, int]]:
    """The files that a config inherits from, and the lines that name them. MMEngine finds bases in other packages."""
    node = _assigned(path).get('_base_')
    line = node.lineno if node is not None else 1
    try:
        value = ast.literal_eval(node) if node is not None else plain_names(path).get('_base_', [])
    except ValueError:  # computed
        return []
    bases = base_names(value, str(place(path, line)))
    imported = [  # in MMEngine's new style, ``with read_base(): from .base import *``
        (f'{"../" * (one.level - 1)}{one.module.replace(".", "/")}.py', one.lineno)
        for node in parsed(path).body
        if isinstance(node, ast.With) and 'read_base' in ast.unparse(node.items[0])
        for one in node.body
        if isinstance(one, ast.ImportFrom) and one.level and one.module
    ]
    return [(base, line) for base in bases if '::' not in base] + imported


def base_names(value: Any, where: str) -> Sequence[str]:
    """The value of ``_base_`` as a list; ``where`` is its file, for the ConfigError if it is not a path or several."""
    bases = [value] if isinstance(value, str) else value
    if not isinstance(bases, (list, tuple)) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f'{where}: _base_ is {value!r}, expected the path of a config or a list of them')
    return bases


def place(path: Path, line: int) -> Origin:
    """A line of the file at ``path``."""
    return Origin(shown_path(path), line)


def shown_path(path: Path) -> str:
    """``path`` relative to the working directory if it is inside."""
    path = path.resolve()
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _collect(key: str, node: ast.expr, file: str, origins: dict[str, Origin], assigned: dict[str, ast.expr]) -> None:
    items = _items(node, assigned)
    if any(name == '_delete_' for name, _ in items) or isinstance(node, (ast.List, ast.Tuple, ast.Constant)):
        for old in [k for k in origins if k.startswith(f'{key}.')]:
            del origins[old]
    origins[key] = Origin(file, node.lineno)
    for name, value in items:
        if name != '_delete_':
            _collect(f'{key}.{name}', value, file, origins, assigned)


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
