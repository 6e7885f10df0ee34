"""Finding what is wrong in a config before anything is built or read."""

import difflib
from pathlib import Path
from typing import Any

from mmengine.config import Config

from frdet.config.origins import Origin, config_origins
from frdet.config.places import (
    BESIDE,
    PASSED,
    PLAIN,
    RUNNER_KEYS,
    component_class,
    dataloader_keys,
    place_registry,
)
from frdet.errors import ConfigError
from frdet.registry import Registry, arguments_of, check_arguments


def check_config(cfg: Config) -> None:
    """Raise on the first mistake in ``cfg``; no data is read.

    At every depth: a name that is registered nowhere or belongs elsewhere, an argument that a component does not take
    or lacks, a key that a data loader or a setting of the Runner does not have. At the top, where configs keep
    variables of their own, a name is a mistake if it is nearly one of the Runner's.

    Raises:
        ConfigError: the message names the place, the nearest names, and the file and line where it was written.
    """
    import mmengine.runner  # noqa: F401  its hooks, loops and schedulers register themselves

    origins = config_origins(cfg.filename) if cfg.filename and Path(cfg.filename).is_file() else {}
    for key, value in cfg.items():
        if key not in RUNNER_KEYS:
            if near := difflib.get_close_matches(key, RUNNER_KEYS, n=1, cutoff=0.85):
                raise _error(key, origins, f'unknown key: did you mean {near[0]}?')
            continue
        _check(value, key, origins)


def _check(value: Any, place: str, origins: dict[str, Origin]) -> None:
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check(item, f'{place}.{i}', origins)
        return
    if not isinstance(value, dict):
        return
    if 'type' in value and place.rpartition('.')[2] not in ('clip_grad',):
        _check_component(value, place, origins)
    else:
        _check_plain(value, place, origins)
    for key, inner in value.items():
        _check(inner, f'{place}.{key}', origins)


def _check_component(node: dict, place: str, origins: dict[str, Origin]) -> None:
    found = place_registry(place)
    kind = node['type']
    try:
        if found is not None and isinstance(kind, str):
            cls: Any = found.get(kind)
        else:
            cls = component_class(node, place)
            if cls is None:
                raise ConfigError(_nowhere(str(kind)))
        name = found.name if found is not None else 'component'
        given = {k for k in node if k not in ('type', '_scope_')} - BESIDE.get(name, set())
        accepted, _, _ = arguments_of(cls)
        check_arguments(name, cls, given | (PASSED.get(name, set()) & accepted))
    except ConfigError as error:
        wrong = [k for k in node if f'argument {k!r}' in str(error)]
        raise _error(f'{place}.{wrong[0]}' if wrong else f'{place}.type', origins, str(error), shown=place) from None


def _check_plain(node: dict, place: str, origins: dict[str, Origin]) -> None:
    name = place.rpartition('.')[2]
    known = dataloader_keys() if name.endswith('_dataloader') and '.' not in place else PLAIN.get(name)
    if known is None:
        registry = place_registry(place)
        if registry is not None and name != 'default_hooks' and node:
            raise _error(place, origins, f'a {registry.name} needs a `type`, found {dict(node)!r}')
        return
    for key in node:
        if key not in known and not str(key).startswith('_'):
            near = difflib.get_close_matches(str(key), known, n=3)
            hint = f'did you mean {" or ".join(near)}?' if near else f'it takes {", ".join(sorted(known))}'
            raise _error(f'{place}.{key}', origins, f'unknown key: {hint}')


def _nowhere(kind: str) -> str:
    names = {name for registry in Registry.all for name in registry.module_dict}
    near = difflib.get_close_matches(kind, names, n=3)
    hint = f': did you mean {" or ".join(near)}?' if near else ''
    return f'{kind!r} is in no registry{hint}'


def _error(place: str, origins: dict[str, Origin], message: str, shown: str | None = None) -> ConfigError:
    origin = origins.get(place)
    where = f' ({origin})' if origin else ''
    return ConfigError(f'{shown or place}{where}: {message}')
