"""Reading what to search: a study file with ranges of values instead of variants.

Such a file::

    base = '../quickstart/demo.py'  # relative to this file
    space = {
        'optim_wrapper.optimizer.lr': dict(low=1e-4, high=1e-2, log=True),
        'train_dataloader.batch_size': dict(low=4, high=16, step=4),  # whole numbers, as low, high and step are
        'model.neck.fuse_type': ['sum', 'avg'],  # one of these
    }
    trials = 20
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from frdet.apis.ablation.reading import is_less_better, read_settings
from frdet.config import check_config, load_config
from frdet.config.origins import no_file
from frdet.config.text import as_code
from frdet.config.values import Declared, found, mismatch
from frdet.errors import ConfigError, did_you_mean

#: Settings of a study file with ranges, with their types and defaults.
SETTINGS: dict[str, Declared] = {
    'base': Declared(str, None),
    'space': Declared(dict, {}),
    'trials': Declared(int, 20),
    'metric': Declared(str, 'coco/bbox_mAP'),
    'less_is_better': Declared(bool | None, None),
    'seed': Declared(int, 0),
    'options': Declared(dict, {}),
}
_RANGE = {'low': Declared(float), 'high': Declared(float), 'step': Declared(float | None), 'log': Declared(bool)}


class Range(NamedTuple):
    """Numbers from ``low`` to ``high``, both included; whole numbers if low, high and step are."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def ends(self) -> tuple[float, ...]:
        return self.low, self.high

    @property
    def written(self) -> dict[str, Any]:
        """As in a study file."""
        return {key: value for key, value in self._asdict().items() if value is not None and value is not False}

    def suggest(self, trial: Any, key: str) -> float:
        """The value of a trial of Optuna."""
        if all(isinstance(value, int) for value in (self.low, self.high, self.step or 1)):
            return trial.suggest_int(key, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)


class Choice(NamedTuple):
    """One of several values."""

    ends: tuple[Any, ...]

    @property
    def written(self) -> list[Any]:
        """As in a study file."""
        return list(self.ends)

    def suggest(self, trial: Any, key: str) -> Any:
        """The value of a trial of Optuna, which stores texts only."""
        texts = [as_code(value) for value in self.ends]
        return self.ends[texts.index(trial.suggest_categorical(key, texts))]


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        base: path of the config that all trials change.
        space: key path -> values.
        trials: how many trainings.
        metric: the name of the metric value of the last validation that is to be best.
        less_is_better: whether a smaller metric value is a better one.
        seed: of all trainings, and of the search.
        options: overrides of all trials.
    """

    base: Path
    space: Mapping[str, Range | Choice]
    trials: int
    metric: str
    less_is_better: bool
    seed: int
    options: Mapping[str, Any]

    def config(self, values: Mapping[str, Any]) -> Config:
        """The config of a trial.

        Raises:
            ConfigError: it cannot have these values.
        """
        cfg = load_config(self.base, {**self.options, **values})
        check_config(cfg)
        return cfg

    def settings(self) -> dict[str, str]:
        """What all trials of a search have in common, as text; ``trials`` may grow."""
        given = {'metric': self.metric, 'less_is_better': self.less_is_better, 'seed': self.seed}
        spaces = {f'space {key!r}': one.written for key, one in self.space.items()}
        return {key: as_code(value) for key, value in {**given, **spaces}.items()}


def read_search(path: str | Path, **changes: Any) -> Search:
    """Read a study file with ranges.

    Args:
        changes: replace settings of the file, and add to its ``options``; those that are None do not.

    Raises:
        ConfigError: the file is wrong, or the base cannot have the first or last value of a range, or one of a list.
    """
    path = Path(path)
    given = read_settings(path, SETTINGS)
    changes['options'] = {**given.get('options', {}), **(changes.get('options') or {})}
    settings = {key: one.default for key, one in SETTINGS.items()}
    settings.update(given, **{key: value for key, value in changes.items() if value is not None})
    for key in ('trials', 'seed'):
        if settings[key] < (key == 'trials'):
            raise ConfigError(f'{path}: {key} is {settings[key]}: expected at least {int(key == "trials")}')
    if not settings['space']:
        raise ConfigError(f"{path} has no space: give key paths with ranges, as 'a.b': dict(low=1, high=8)")
    if twice := settings['options'].keys() & settings['space'].keys():
        raise ConfigError(f'{path}: {min(twice)} is in options and in space: leave it out of one')
    settings['less_is_better'] = is_less_better(settings)
    settings['base'] = path.parent / settings['base']
    if not settings['base'].is_file():
        raise ConfigError(f'{path}: base: {no_file(settings["base"])}')
    settings['space'] = {key: _values(f'{path}: space {key!r}', value) for key, value in settings['space'].items()}
    search = Search(**settings)
    for key, one in search.space.items():
        for value in one.ends:
            try:
                search.config({key: value})
            except ConfigError as error:
                raise ConfigError(f'{path}: space: {error}') from error
    return search


def _values(where: str, given: Any) -> Range | Choice:
    if isinstance(given, (list, tuple)) and given:
        return Choice(tuple(given))
    if not isinstance(given, dict):
        raise ConfigError(f'{where}: {found(given)}, expected dict(low=..., high=...) or a list of values')
    for key, value in given.items():
        if key not in _RANGE:
            hint = did_you_mean(key, _RANGE) or f'it takes {", ".join(_RANGE)}'
            raise ConfigError(f'{where}: unknown {key!r}: {hint}')
        if expected := mismatch(value, _RANGE[key]):
            raise ConfigError(f'{where}: {key}: {found(value)}, expected {expected}')
    if missing := {'low', 'high'} - given.keys():
        raise ConfigError(f'{where} has no {" and no ".join(sorted(missing))}')
    one = Range(**given)
    if not -math.inf < one.low < one.high < math.inf:
        raise ConfigError(f'{where}: low is {one.low} and high is {one.high}: expected low < high')
    if one.log and one.low <= 0:
        raise ConfigError(f'{where}: low is {one.low}: with log=True it must be more than 0')
    if one.log and one.step is not None:
        raise ConfigError(f'{where}: log=True and step exclude each other: leave one out')
    if one.step is not None:
        count = (one.high - one.low) / one.step if one.step > 0 else 0
        if count < 1 or abs(count - round(count)) > 1e-6:
            raise ConfigError(f'{where}: step is {one.step}: expected that high is reached from low in whole steps')
    return one
