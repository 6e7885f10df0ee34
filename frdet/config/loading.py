"""From a config file, and the files it inherits from, to one config."""

import difflib
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config

from frdet.config.overrides import apply_overrides, parse_overrides
from frdet.errors import ConfigError


def load_config(path: str | Path, overrides: dict[str, Any] | Sequence[str] | None = None) -> Config:
    """Read a Python config with its ``_base_`` files, import what ``custom_imports`` names, apply overrides.

    Configs are Python and run as such: read only those you trust.

    Args:
        path: the config file.
        overrides: ``'a.b=1'`` strings as of ``--cfg-options``, or a dict from dotted keys to values.

    Raises:
        ConfigError: the file or a base is missing or does not run, an import fails, an override is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(_missing(path))
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
    except FileNotFoundError as error:
        raise ConfigError(f'{path}: a file in its _base_ does not exist: {error}') from None
    except SyntaxError as error:
        raise ConfigError(f'{path} is no Python: {error.msg} (line {error.lineno} of it or of a _base_)') from None
    except Exception as error:
        # A config's own lines run at module level.
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.name == '<module>']
        where = f' ({frames[-1].filename}:{frames[-1].lineno})' if frames else ''
        raise ConfigError(f'{path} cannot be read{where}: {type(error).__name__}: {error}') from error
    _import_custom(cfg, path)
    if overrides:
        apply_overrides(cfg, overrides if isinstance(overrides, dict) else parse_overrides(overrides))
    return cfg


def dump_config(cfg: Config) -> str:
    """The whole config as Python text, which reads back as the same config."""
    return cfg.pretty_text


def _missing(path: Path) -> str:
    message = f'Config {path} does not exist'
    folder = path.parent
    if not folder.is_dir():
        return f'{message}, nor does the folder {folder}'
    names = sorted(p.name for p in folder.glob('*.py'))
    near = difflib.get_close_matches(path.name, names, n=3)
    if near:
        return f'{message}: did you mean {" or ".join(str(folder / name) for name in near)}?'
    return f'{message}; {folder} holds {", ".join(names[:8]) or "no config"}'


def _import_custom(cfg: Config, path: Path) -> None:
    custom = cfg.get('custom_imports') or {}
    names = custom.get('imports', [])
    for name in [names] if isinstance(names, str) else names:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if custom.get('allow_failed_imports', False):
                continue
            inside = '' if error.name == name.partition('.')[0] else f' (it imports {error.name}, which is missing)'
            raise ConfigError(
                f'{path}: custom_imports names the module {name!r}, which cannot be imported{inside}: '
                'its folder must be on PYTHONPATH'
            ) from None
