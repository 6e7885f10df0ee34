"""Reading what to compare: config files on the command line, or a study file.

A study file is Python, read as a config is::

    base = '../faster_rcnn/r50_fpn_1x_cocoval.py'  # relative to this file
    variants = dict(
        giou='../faster_rcnn/r50_fpn_1x_cocoval_giou.py',
        average={'model.neck.fuse_type': 'avg'},
    )
    grids = dict(rates={'optim_wrapper.optimizer.lr': [0.01, 0.02], 'train_dataloader.batch_size': [8, 16]})
    seeds = 3
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from frdet.config import check_config, load_config
from frdet.config.origins import base_files, config_origins, leaves, no_file, origin_finder, shown_path
from frdet.config.schema import RUNNER_KEYS
from frdet.config.values import Declared, found, mismatch
from frdet.errors import ConfigError, did_you_mean

#: Settings of a study file with their types and defaults. ``options`` are overrides of the base and all variants.
SETTINGS: dict[str, Declared] = {
    'base': Declared(str, None),
    'variants': Declared(dict, {}),
    'grids': Declared(dict, {}),
    'seeds': Declared(int | list[int], 3),
    'metric': Declared(str, 'coco/bbox_mAP'),
    'less_is_better': Declared(bool | None, None),
    'options': Declared(dict, {}),
    'allow': Declared(list[str], []),
    'budget': Declared(float | None, None),
    'bootstrap': Declared(int, 500),
}
#: Keys in which the runs of a study differ by themselves, or that say where a run is made and not what it computes.
OUTSIDE = ('work_dir', 'visualizer', 'vis_backends', 'resume', 'launcher', 'log_level', 'randomness.seed')


SHOWN = 5  # keys in a message


class Variant(NamedTuple):
    """A config to compare. ``differences`` are key path -> (value in the base, value here), as text, or None."""

    name: str
    cfg: Config
    differences: dict[str, tuple[str | None, str | None]]


class Plan(NamedTuple):
    """What is to be compared.

    Attributes:
        variants: the base first.
        seeds: of each variant.
        metric, less_is_better, bootstrap: see ``Study``.
        budget: hours that all runs may take together; None for no limit.
        notes: sentences for the user.
    """

    variants: list[Variant]
    seeds: tuple[int, ...]
    metric: str
    less_is_better: bool
    bootstrap: int
    budget: float | None
    notes: list[str]


def read_study(path: str | Path, **changes: Any) -> Plan:
    """Read a study file. ``changes`` replace its settings, and add to its ``options``; those that are None do not.

    Raises:
        ConfigError: the file or a config in it is wrong, or a variant differs from the base in nothing, or in keys that
            it does not set.
    """
    path = Path(path)
    given = read_settings(path, SETTINGS)
    changes['options'] = {**given.get('options', {}), **changes.get('options', {})}
    settings = _settings({**given, **{key: value for key, value in changes.items() if value is not None}})
    variants: dict[str, Any] = {
        name: path.parent / value if isinstance(value, str) else value for name, value in settings['variants'].items()
    }
    return _plan(path.parent / settings['base'], variants, settings)


def read_settings(path: Path, known: Mapping[str, Declared]) -> dict[str, Any]:
    """The settings in a study file.

    Raises:
        ConfigError: a setting is not in ``known``, has a wrong type, or there is no base.
    """
    cfg = load_config(path)
    given = {key: value for key, value in cfg.items() if not key.startswith('_')}
    find = origin_finder(cfg)
    for key, value in given.items():
        where = f'{key} ({find(key) or path})'
        if key not in known:
            hint = did_you_mean(key, known) or f'it takes {", ".join(known)}'
            hint = 'ranges are for --search STUDY.py' if key == 'space' else hint
            raise ConfigError(f'{where}: unknown setting of a study: {hint}')
        if expected := mismatch(value, known[key]):
            raise ConfigError(f'{where}: {found(value)}, expected {expected}')
    if given.get('base') is None:
        raise ConfigError(
            f'{path} has no base, so it is no study; to compare configs, give two or more: BASE.py VARIANT.py'
        )
    return given


def read_configs(paths: Sequence[str | Path], **changes: Any) -> Plan:
    """The base and its variants as config files; ``changes`` and errors as for ``read_study``."""
    base, *others = map(Path, paths)
    if not others:
        raise ConfigError(f'{base} alone has nothing to be compared with: give BASE.py VARIANT.py ..., or a study file')
    own, *names = _names([base, *others])
    # The variants of r50.py are often r50_giou.py and r50_average.py: giou and average are enough.
    variants = {name.removeprefix(f'{own}_'): path for name, path in zip(names, others, strict=True)}
    settings = _settings({key: value for key, value in changes.items() if value is not None})
    return _plan(base, variants, settings)


def is_study(path: str | Path) -> bool:
    """Whether a file is a study: it sets ``base`` and no model. ConfigError if there is no such file."""
    if not Path(path).is_file():
        raise ConfigError(no_file(Path(path)))
    keys = {key.partition('.')[0] for key in config_origins(path)}
    return 'base' in keys and 'model' not in keys


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    settings = {**{key: one.default for key, one in SETTINGS.items()}, **given}
    settings['seeds'] = _seeds(settings['seeds'])
    settings['less_is_better'] = is_less_better(settings)
    if settings['bootstrap'] < 0:
        raise ConfigError(f'bootstrap is {settings["bootstrap"]}: expected a number of draws, or 0 for none')
    return settings


def is_less_better(settings: Mapping[str, Any]) -> bool:
    """What ``less_is_better`` says, or else whether the metric is a loss, as ``CheckpointHook.save_best`` has it."""
    given = settings['less_is_better']
    return 'loss' in settings['metric'] if given is None else given


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    listed = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if len(listed) < 2:
        raise ConfigError(
            f'{len(listed)} seed{"s" * (len(listed) != 1)}: an interval needs the spread of two or more runs'
        )
    if len(set(listed)) < len(listed) or min(listed) < 0:
        raise ConfigError(f'seeds are {list(listed)}: expected different numbers from 0')
    return listed


def _plan(base_path: Path, given: Mapping[str, Any], settings: Mapping[str, Any]) -> Plan:
    options, notes = dict(settings['options']), []
    base = _load('the base', base_path, options)
    name = _names([base_path])[0]
    variants = [Variant(name, base, {})]
    combined = {**given, **_combinations(settings['grids'])}
    if not combined:
        raise ConfigError('The study has no variants and no grids: there is nothing to compare with the base')
    for name, value in combined.items():
        if not re.fullmatch(r'[\w.=+-]+', name) or name.startswith('.') or name in (v.name for v in variants):
            raise ConfigError(
                f'Variant {name!r}: a name is a folder, expected letters, digits, - and _, and another name than the '
                'other variants and the base have'
            )
        if isinstance(value, Path):
            cfg, declared = _load(f'variant {name}', value, options), None
        elif isinstance(value, dict):
            cfg, declared = _load(f'variant {name}', base_path, {**options, **value}), set(value)
        else:
            raise ConfigError(f'Variant {name}: {found(value)}, expected the path of a config, or a dict of overrides')
        changed = differences(base, cfg)
        if not changed and name not in given:
            notes.append(f'{name} is the base itself, and is left out')
            continue
        if not changed:
            raise ConfigError(f'Variant {name} differs from the base in nothing, so there is nothing to compare')
        _refuse_undeclared(name, changed, cfg, base_path, declared, settings['allow'])
        variants.append(Variant(name, cfg, changed))
    if len(variants) < 2:
        raise ConfigError('Every combination of the grids is the base itself: there is nothing to compare')
    keys = ('seeds', 'metric', 'less_is_better', 'bootstrap', 'budget')
    return Plan(variants, **{key: settings[key] for key in keys}, notes=notes)


def _load(name: str, path: Path, options: Mapping[str, Any]) -> Config:
    if not path.is_file():
        raise ConfigError(f'{name[0].upper()}{name[1:]}: {no_file(path)}')
    try:
        cfg = load_config(path, dict(options))
        check_config(cfg)
    except ConfigError as error:
        raise ConfigError(f'{name[0].upper()}{name[1:]}: {error}') from error
    return cfg


def _names(paths: Sequence[Path]) -> list[str]:
    """The names of configs without folder and ending; with as many folders as make them differ."""
    parts = [(*path.resolve().parts[1:-1], path.stem) for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ['-'.join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f'A config is given twice: {", ".join(map(str, paths))}')


def _combinations(grids: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The overrides of every combination of values in each grid, by names such as ``samples-num=256-lr=0.01``."""
    found_in = {}
    for name, grid in grids.items():
        if not isinstance(grid, dict) or not grid or not all(isinstance(v, (list, tuple)) and v for v in grid.values()):
            raise ConfigError(f'Grid {name}: {found(grid)}, expected a dict from key paths to lists of values')
        short = short_names(list(grid))
        for values in itertools.product(*grid.values()):
            words = [f'{key}={_word(value)}' for key, value in zip(short, values, strict=True)]
            found_in['-'.join([name, *words])] = dict(zip(grid, values, strict=True))
    return found_in


def short_names(keys: Sequence[str]) -> list[str]:
    """The last parts of key paths, as few as make them differ."""
    for count in range(1, max(key.count('.') for key in keys) + 2):
        names = ['.'.join(key.split('.')[-count:]) for key in keys]
        if len(set(names)) == len(names):
            break
    return names


def _word(value: Any) -> str:
    """A value in the name of a folder."""
    text = value.get('type') or list(value.values()) if isinstance(value, dict) else value
    return re.sub(r'[^\w.+-]+', '_', str(text)).strip('_')


def differences(base: Config, other: Config) -> dict[str, tuple[str | None, str | None]]:
    """Key path -> the two values as text, of the keys that affect a training; variables of a config do not."""
    sides = [
        {
            key: repr(value)
            for key, value in leaves('', cfg)
            if key.split('.')[0] in RUNNER_KEYS and not any(key == o or key.startswith(f'{o}.') for o in OUTSIDE)
        }
        for cfg in (base, other)
    ]
    keys = dict.fromkeys(key for side in sides for key in side)
    pairs = {key: (sides[0].get(key), sides[1].get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _refuse_undeclared(
    name: str,
    changed: Iterable[str],
    cfg: Config,
    base: Path,
    declared: set[str] | None,
    allowed: Sequence[str],
) -> None:
    """Raise ConfigError if a variant differs from the base in a key that it does not set itself.

    A dict of overrides sets its keys. A file sets the keys in it, and in the files between it and the base.
    """
    find = origin_finder(cfg)
    chain = base_files(cfg.filename)
    own = set(chain) - set(base_files(base)) if base.resolve() in chain else {chain[-1]}
    files = {shown_path(file) for file in own}

    def is_meant(key: str) -> bool:
        if any(key == one or key.startswith(f'{one}.') for one in allowed):
            return True
        if declared is not None:
            return any(key == one or key.startswith(f'{one}.') for one in declared)
        return (find(key).rpartition(':')[0] or next(iter(files))) in files

    if surprises := [key for key in changed if not is_meant(key)]:
        count = f'{len(surprises)} key{"s" * (len(surprises) > 1)}'
        rows = [f'    {key} ({find(key) or "not there"})' for key in surprises[:SHOWN]]
        listed = '\n'.join([*rows, *(['    ...'] if len(surprises) > SHOWN else [])])
        raise ConfigError(
            f'Variant {name} differs from the base also in {count} that it does not set itself:\n'
            f'{listed}\nLet it inherit from the base ({shown_path(base)}), or allow these keys: --allow {surprises[0]}'
        )
