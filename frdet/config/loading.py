"""Reading a config file and the files that it inherits from as one config."""

import ast
import logging
import re
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from frdet.config.origins import base_files, config_origins, no_file, origin_finder, shown_path
from frdet.config.overrides import apply_overrides, parse_overrides
from frdet.config.safe import read_safely, refuse_imports
from frdet.config.variables import refuse_stale_variables, refuse_used_variables
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
        raise ConfigError(no_file(path))
    read = read_safely if safe else _read
    cfg = read(path)
    refuse_stale_variables(cfg, read)
    if unset := next(_without_default('', cfg), None):
        raise ConfigError(
            f'{origin_finder(cfg)(unset) or path}: {unset} names an environment variable without a default: '
            "write '{{$NAME:default}}'"
        )
    changes = overrides if isinstance(overrides, dict) else parse_overrides(overrides or [])
    imports = {key: value for key, value in changes.items() if key.partition('.')[0] == 'custom_imports'}
    apply_overrides(cfg, imports)
    if safe:
        refuse_imports(cfg)
    _import_custom(cfg, path)
    refuse_used_variables(cfg, changes)
    # After the imports: they register the classes that say which arguments a component takes.
    apply_overrides(cfg, {key: value for key, value in changes.items() if key not in imports})
    if safe:
        refuse_imports(cfg)
    return cfg


def _read(path: Path) -> Config:
    for file in base_files(path):
        try:
            ast.parse(file.read_bytes())
        except (SyntaxError, ValueError) as error:
            if file.suffix == '.py':
                line = getattr(error, 'lineno', None)
                raise ConfigError(f'{file}{f":{line}" if line else ""} is no Python: {error.args[0]}') from None
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
    origins = {key: str(origin) for key, origin in config_origins(path).items() if key.rpartition('.')[2] == name}
    key = next((key for key, origin in origins.items() if origin.rpartition(':')[0] == shown_path(path)), name)
    origin = f' ({origins[key]})' if key in origins else ''
    return f'{key}{origin}: found a dict, the base has a {kind}: write a {kind}, or put _delete_=True into the dict'


def _line(error: BaseException) -> str:
    """File and line of a module's top level that raised ``error``; '' if there is none."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.name == '<module>']
    return f' ({frames[-1].filename}:{frames[-1].lineno})' if frames else ''


def _without_default(key: str, node: Any) -> Iterator[str]:
    """Key paths of strings such as ``{{$NAME}}``, which MMEngine does not fill in."""
    if isinstance(node, str):
        yield from [key] if '{{$' in node.replace(' ', '') else []
        return
    if isinstance(node, (list, tuple)):
        items = [(str(i), value) for i, value in enumerate(node)]
    else:
        items = list(node.items()) if isinstance(node, (dict, Config)) else []
    for name, value in items:
        yield from _without_default(f'{key}.{name}' if key else str(name), value)


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
