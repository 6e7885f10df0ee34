"""Finding what is wrong in a config before anything is built or read."""

import difflib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from frdet.config.origins import origin_finder
from frdet.config.places import (
    BESIDE,
    DATALOADERS,
    DEFAULT_TYPES,
    PASSED,
    PLAIN,
    RUNNER_KEYS,
    TOP,
    dataloader_keys,
    declared_at,
    find_component,
    least,
    place_registry,
)
from frdet.config.values import Declared, fields_of, found, mismatch
from frdet.errors import ConfigError
from frdet.registry import OPTIM_WRAPPER_CONSTRUCTORS, SCOPE, Registry, arguments_of, check_arguments

LOG_LEVELS = ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'NOTSET')
#: Constructors of the optimizer wrapper whose ``paramwise_cfg`` has the keys that MMEngine documents.
_DOCUMENTED_CONSTRUCTORS = (None, 'DefaultOptimWrapperConstructor', 'GroupedOptimWrapperConstructor')


def check_config(cfg: Config) -> None:
    """Raise on the first mistake in ``cfg``; no data is read.

    At every depth: a name that is registered nowhere or belongs elsewhere, an argument that a component does not take
    or lacks, a value of another type than a component or the Runner declares, a key that a data loader or a setting of
    the Runner does not have. At the top, where configs keep variables of their own, a name is a mistake if it is nearly
    one of the Runner's.

    Raises:
        ConfigError: the message names the place, the nearest names, and the file and line where it was written.
    """
    import mmengine.runner  # noqa: F401  its hooks, loops and schedulers register themselves

    checker = _Checker(origin_finder(cfg))
    for key, value in cfg.items():
        if key in RUNNER_KEYS:
            checker.check_value(cfg, key, '')
            checker.check(value, key)
            if key == 'default_scope' and value and not _is_package(value):
                raise checker.error(key, f'found {value!r}, which is no installed package: expected {SCOPE!r}')
            if key == 'log_level' and value not in LOG_LEVELS:
                raise checker.error(key, f'found {value!r}, expected one of {", ".join(LOG_LEVELS)}')
        elif meant := _meant(key, value):
            raise checker.error(key, f'unknown key: did you mean {meant}?')


def _is_package(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier() and find_spec(name) is not None


class _Checker:
    """Walks through a config; ``place`` is the dotted key of what is looked at."""

    def __init__(self, origin: Callable[[str], str]):
        self.origin = origin

    def check(self, value: Any, place: str) -> None:
        """Check ``value`` and all inside it; raises ConfigError on the first mistake."""
        if isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                self.check_item(item, f'{place}.{i}')
            return
        if not isinstance(value, dict):
            if _is_misplaced(value, place):
                raise self.error(place, f'{found(value)}, expected {_a_component(place_registry(place))}')
            return
        if place in PLAIN and not (place in TOP and 'type' in value):
            self.check_setting(value, place)
        elif place in DATALOADERS:
            self.check_keys(value, place, dataloader_keys())
            if 'dataset' not in value:
                raise self.error(place, 'has no dataset: it needs dataset=dict(type=...)')
        elif 'type' in value or self.default_type(value, place):
            if not self.check_component(value, place):
                return
        elif place == 'optim_wrapper' and 'constructor' in value:
            return  # several optimizers, under names of that constructor's
        elif (registry := place_registry(place)) is not None and not _is_no_loss(place):
            raise self.error(place, f'found {dict(value)!r}, expected {_a_component(registry)}')
        for key, inner in value.items():
            inside = f'{place}.{key}'
            if inside == 'optim_wrapper.paramwise_cfg' and value.get('constructor') not in _DOCUMENTED_CONSTRUCTORS:
                continue  # it has keys of its own
            self.check_value(value, key, place)
            self.check(inner, inside)

    def check_item(self, item: Any, place: str) -> None:
        """An item of a list: where components belong, nothing else that can be written in a config will do."""
        registry = place_registry(place)
        if registry is not None and isinstance(item, (str, int, float)):
            raise self.error(place, f'{found(item)}, expected {_a_component(registry)}')
        self.check(item, place)

    def check_value(self, node: Any, key: str, place: str) -> None:
        value, said, inside = node[key], declared_at(node, key, place), f'{place}.{key}' if place else key
        if expected := mismatch(value, said):
            raise self.error(inside, f'{found(value)}, expected {expected}')
        if (lowest := least(inside)) is not None and isinstance(value, (int, float)) and value < lowest:
            raise self.error(inside, f'{found(value)}, expected at least {lowest}')
        if isinstance(value, dict) and (fields := fields_of(said.annotation)) is not None:
            self.check_fields(value, inside, *fields)

    def check_fields(self, node: dict, place: str, types: dict[str, Any], required: set[str]) -> None:
        """A dict of which the component around it declares every key."""
        self.check_keys(node, place, set(types))
        if missing := sorted(required - set(node)):
            raise self.error(place, f'has no {", ".join(missing)}: it takes {", ".join(sorted(types))}')
        for key, value in node.items():
            if expected := mismatch(value, Declared(types.get(key, Any))):
                raise self.error(f'{place}.{key}', f'{found(value)}, expected {expected}')

    def check_component(self, node: dict, place: str) -> bool:
        """Whether what stands inside is to be checked, too: another package's components follow its own rules."""
        registry = place_registry(place)
        if place in ('val_evaluator', 'test_evaluator') and 'metrics' in node:
            registry = None  # an Evaluator, around metrics
        name = registry.name if registry is not None else 'component'
        kind = node.get('type', self.default_type(node, place))
        culprit = 'type'
        try:
            target = kind if callable(kind) else find_component(kind, place if registry is not None else '')
            if target is None:
                raise ConfigError(_nowhere(str(kind)))
            given = {k for k in node if k not in ('type', '_scope_')}
            accepted, required, _ = arguments_of(target)
            passed = required if name == 'function' else PASSED.get(name, set()) & accepted
            unknown = given - accepted - set(BESIDE.get(name, {}))
            culprit = min(unknown, default='type')
            check_arguments(name, target, given - (set(BESIDE.get(name, {})) - accepted) | passed)
            if constructor := node.get('constructor') if place == 'optim_wrapper' else None:
                culprit = 'constructor'
                OPTIM_WRAPPER_CONSTRUCTORS.get(constructor)
        except ConfigError as error:
            message = str(error)
            if culprit not in ('type', 'constructor') and self.is_left_over(place, culprit):
                message += (
                    "\nThe base has it, whose component is another: _delete_=True in the dict drops the base's keys"
                )
            raise self.error(f'{place}.{culprit}', message, shown=place) from None
        scope = kind.rpartition('.')[0] if isinstance(kind, str) else ''
        return scope in ('', SCOPE, 'mmengine') and '_scope_' not in node

    def is_left_over(self, place: str, key: str) -> bool:
        """Whether ``key`` was written in another file than the ``type`` beside it."""
        files = [self.origin(f'{place}.{name}').rpartition(':')[0] for name in ('type', key)]
        return all(files) and files[0] != files[1]

    def check_setting(self, node: dict, place: str) -> None:
        self.check_keys(node, place, set(PLAIN[place]))
        if place == 'train_cfg' and 'by_epoch' not in node:
            raise self.error(place, f'found {dict(node)!r}, expected a `type`, or `by_epoch`')

    def check_keys(self, node: dict, place: str, known: set[str]) -> None:
        for key in node:
            if key not in known and not str(key).startswith('_'):
                near = difflib.get_close_matches(str(key), known, n=3)
                hint = f'did you mean {" or ".join(near)}?' if near else f'it takes {", ".join(sorted(known))}'
                raise self.error(f'{place}.{key}', f'unknown key: {hint}')

    def default_type(self, node: dict, place: str) -> str | None:
        """What MMEngine builds from a dict without a ``type``, if anything."""
        if place in ('val_evaluator', 'test_evaluator') and 'metrics' in node:
            return 'Evaluator'
        if place == 'optim_wrapper' and 'optimizer' not in node:
            return None
        return DEFAULT_TYPES.get(place)

    def error(self, place: str, message: str, shown: str | None = None) -> ConfigError:
        origin = self.origin(place)
        where = f' ({origin})' if origin else ''
        return ConfigError(f'{shown or place}{where}: {message}')


def _is_misplaced(value: Any, place: str) -> bool:
    """Whether a plain value stands where MMEngine builds a component from a dict."""
    parts = place.split('.')
    built = len(parts) == 2 and parts[0] in (*DATALOADERS, 'default_hooks') or place == 'optim_wrapper.optimizer'
    return built and isinstance(value, (str, int, float)) and place_registry(place) is not None


def _is_no_loss(place: str) -> bool:
    """A plugin may have a dict such as ``loss_weights``; what is always a loss, in the shipped heads, is not one."""
    name = place.rpartition('.')[2]
    return name.startswith('loss_') and name not in ('loss_cls', 'loss_bbox')


def _a_component(registry: Registry | None) -> str:
    return f'a dict with a `type` of the {registry.plural if registry is not None else "components"}'


def _meant(key: str, value: Any) -> str | None:
    """The Runner's key of which ``key`` is a misspelling, rather than a variable of the config's own.

    It is one if it begins as that key does, is nearly as it and holds what that key would hold; or has its very letters
    in another order. So ``mode = 'fast'`` and ``eval_cfg`` are variables. A name that begins with ``_`` is one, too.
    """
    if key.startswith('_'):
        return None
    for known in difflib.get_close_matches(key, RUNNER_KEYS, n=3, cutoff=0.8):
        if sorted(key) == sorted(known):
            return known
        nearly = difflib.SequenceMatcher(None, known, key).ratio() >= 0.87
        if nearly and key[0] == known[0] and not mismatch(value, declared_at({}, known, '')):
            return known
    return None


def _nowhere(kind: str) -> str:
    names = {name for registry in Registry.all for name in registry.module_dict}
    near = difflib.get_close_matches(kind, names, n=3)
    hint = f': did you mean {" or ".join(near)}?' if near else ''
    return f'{kind!r} is in no registry{hint}'
