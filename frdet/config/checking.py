"""Finding the mistakes of a config before anything is built or read."""

import difflib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from frdet.config import schema
from frdet.config.origins import origin_finder
from frdet.config.values import Declared, fields_of, found, mismatch
from frdet.errors import ConfigError, did_you_mean
from frdet.registry import OPTIM_WRAPPER_CONSTRUCTORS, SCOPE, Registry, arguments_of, check_arguments

LOG_LEVELS = ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'NOTSET')
#: Constructors of the optimizer wrapper whose ``paramwise_cfg`` has the keys that MMEngine documents.
_DOCUMENTED_CONSTRUCTORS = (None, 'DefaultOptimWrapperConstructor', 'GroupedOptimWrapperConstructor')


def check_config(cfg: Config) -> None:
    """Raise an error for the first mistake in ``cfg``. No data is read.

    These are mistakes, at every depth: a name that is not registered, or is of another kind of component; an argument
    that a component does not take, or one that is missing; a value of another type than declared; an unknown key of a
    data loader or of a setting of the Runner. At the top level a config may have variables of its own: there a name is
    a mistake only if it nearly is a key of the Runner.

    Raises:
        ConfigError: the message names the key path, the nearest names, and the file and line of the mistake.
    """
    import mmengine.runner  # noqa: F401  its hooks, loops and schedulers register themselves

    checker = _Checker(origin_finder(cfg))
    for key, value in cfg.items():
        if key in schema.RUNNER_KEYS:
            checker.check_value(cfg, key, '')
            checker.check(value, key, schema.registry_at(key))
            is_name = isinstance(value, str) and value.isidentifier()
            if key == 'default_scope' and value and not (is_name and find_spec(value)):
                raise checker.error(key, f'found {value!r}, which is no installed package: expected {SCOPE!r}')
            if key == 'log_level' and value not in LOG_LEVELS:
                raise checker.error(key, f'found {value!r}, expected one of {", ".join(LOG_LEVELS)}')
        elif meant := _meant(key, value):
            raise checker.error(key, f'unknown key: did you mean {meant}?')


class _Checker:
    """Walks through a config. ``here`` is the registry of the components that belong at ``key_path``."""

    def __init__(self, origin: Callable[[str], str]):
        self.origin = origin

    def check(self, value: Any, key_path: str, here: Registry | None) -> None:
        """Check ``value`` and all values inside it."""
        if isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                if here is not None and isinstance(item, (str, int, float)):
                    raise self.error(f'{key_path}.{i}', f'{found(item)}, expected {_a_component(here)}')
                self.check(item, f'{key_path}.{i}', here)
            return
        if not isinstance(value, dict):
            if _is_misplaced(value, key_path):
                raise self.error(key_path, f'{found(value)}, expected {_a_component(here)}')
            return
        target = None
        is_component = key_path in schema.TOP and 'type' in value
        if key_path in (*schema.DATALOADERS, *schema.PLAIN) and not is_component:
            self.check_keys(value, key_path, set(schema.keys_at(value, key_path)))
            if key_path == 'train_cfg' and 'by_epoch' not in value:
                raise self.error(key_path, f'found {dict(value)!r}, expected a `type`, or `by_epoch`')
            if key_path in schema.DATALOADERS and 'dataset' not in value:
                raise self.error(key_path, 'has no dataset: it needs dataset=dict(type=...)')
        elif 'type' in value or self.default_type(value, key_path):
            target = self.check_component(value, key_path, here)
            if target is None:
                return
        elif key_path == 'optim_wrapper' and 'constructor' in value:
            return  # several optimizers, under names that this constructor defines
        elif here is not None:
            raise self.error(key_path, f'found {dict(value)!r}, expected {_a_component(here)}')
        for key, inner in value.items():
            inside = f'{key_path}.{key}'
            if inside == 'optim_wrapper.paramwise_cfg' and value.get('constructor') not in _DOCUMENTED_CONSTRUCTORS:
                continue  # this constructor has other keys
            self.check_value(value, key, key_path, here)
            try:
                there = schema.registry_of_part(target, key, inside)
            except ConfigError as error:
                raise self.error(f'{key_path}.type', str(error), shown=key_path) from None
            self.check(inner, inside, there)

    def check_value(self, node: Any, key: str, key_path: str, here: Registry | None = None) -> None:
        """Check the value under ``key`` in ``node`` against its declared type."""
        value, said = node[key], schema.declared_at(node, key, key_path, here)
        inside = f'{key_path}.{key}' if key_path else key
        if expected := mismatch(value, said):
            raise self.error(inside, f'{found(value)}, expected {expected}')
        if (lowest := schema.least(inside)) is not None and isinstance(value, (int, float)) and value < lowest:
            raise self.error(inside, f'{found(value)}, expected at least {lowest}')
        if isinstance(value, dict) and (fields := fields_of(said.annotation)) is not None:
            self.check_fields(value, inside, *fields)

    def check_fields(self, node: dict, key_path: str, types: dict[str, Any], required: set[str]) -> None:
        """Check a dict whose keys and types are declared by the component around it."""
        self.check_keys(node, key_path, set(types))
        if missing := sorted(required - set(node)):
            raise self.error(key_path, f'has no {", ".join(missing)}: it takes {", ".join(sorted(types))}')
        for key, value in node.items():
            if expected := mismatch(value, Declared(types.get(key, Any))):
                raise self.error(f'{key_path}.{key}', f'{found(value)}, expected {expected}')

    def check_component(self, node: dict, key_path: str, here: Registry | None) -> Callable | None:
        """Check a component. Returns its class, or None for a class of another package, which has its own rules."""
        if self.default_type(node, key_path) == 'Evaluator':
            here = None  # it is no metric, but contains metrics
        name = here.name if here is not None else 'component'
        kind = node.get('type', self.default_type(node, key_path))
        culprit = 'type'
        try:
            target = kind if callable(kind) else schema.find_component(kind, here)
            if target is None:
                known = {name for registry in Registry.all for name in registry.module_dict}
                raise ConfigError(
                    f'{str(kind)!r} is in no registry: {did_you_mean(str(kind), known)}'.removesuffix(': ')
                )
            given = {k for k in node if k not in ('type', '_scope_')}
            accepted, required, _ = arguments_of(target)
            passed = required if name == 'function' else schema.PASSED.get(name, set()) & accepted
            given -= set(schema.BESIDE.get(name, {})) - accepted
            culprit = min(given - accepted, default='type')
            check_arguments(name, target, given | passed)
            if constructor := node.get('constructor') if key_path == 'optim_wrapper' else None:
                culprit = 'constructor'
                OPTIM_WRAPPER_CONSTRUCTORS.get(constructor)
        except ConfigError as error:
            message = str(error)
            if culprit not in ('type', 'constructor') and self.is_left_over(key_path, culprit):
                message += "\nThe base sets it for another component: _delete_=True in the dict drops the base's keys"
            raise self.error(f'{key_path}.{culprit}', message, shown=key_path) from None
        scope = kind.rpartition('.')[0] if isinstance(kind, str) else ''
        return target if scope in ('', SCOPE, 'mmengine') and '_scope_' not in node else None

    def is_left_over(self, key_path: str, key: str) -> bool:
        """Whether ``key`` is written in another file than the ``type`` beside it."""
        files = [self.origin(f'{key_path}.{name}').rpartition(':')[0] for name in ('type', key)]
        return all(files) and files[0] != files[1]

    def check_keys(self, node: dict, key_path: str, known: set[str]) -> None:
        for key in node:
            if key not in known and not str(key).startswith('_'):
                hint = did_you_mean(str(key), known) or f'it takes {", ".join(sorted(known))}'
                raise self.error(f'{key_path}.{key}', f'unknown key: {hint}')

    def default_type(self, node: dict, key_path: str) -> str | None:
        """The type that MMEngine builds from a dict without a ``type``, if any."""
        if key_path in ('val_evaluator', 'test_evaluator') and 'metrics' in node:
            return 'Evaluator'
        if key_path == 'optim_wrapper' and 'optimizer' not in node:
            return None
        return schema.DEFAULT_TYPES.get(key_path)

    def error(self, key_path: str, message: str, shown: str | None = None) -> ConfigError:
        origin = self.origin(key_path)
        where = f' ({origin})' if origin else ''
        return ConfigError(f'{shown or key_path}{where}: {message}')


def _is_misplaced(value: Any, key_path: str) -> bool:
    """Whether ``value`` is a plain value at a key path where MMEngine builds a component from a dict."""
    parts = key_path.split('.')
    is_inside = len(parts) == 2 and parts[0] in (*schema.DATALOADERS, 'default_hooks')
    built = is_inside or key_path == 'optim_wrapper.optimizer'
    return built and isinstance(value, (str, int, float)) and schema.registry_at(key_path) is not None


def _a_component(registry: Registry | None) -> str:
    return f'a dict with a `type` of the {registry.plural if registry is not None else "components"}'


def _meant(key: str, value: Any) -> str | None:
    """The Runner's key that ``key`` misspells; None if it is a variable of the config.

    It is a misspelling if it has the letters of the Runner's key in another order, or if it is nearly that key, begins
    with the same letter and has a value that fits. Examples of variables are ``mode = 'fast'``, ``eval_cfg``, ``_x``.
    """
    if key.startswith('_'):
        return None
    for known in difflib.get_close_matches(key, schema.RUNNER_KEYS, n=3, cutoff=0.8):
        if sorted(key) == sorted(known):
            return known
        nearly = difflib.SequenceMatcher(None, known, key).ratio() >= 0.87
        if nearly and key[0] == known[0] and not mismatch(value, schema.declared_at({}, known, '')):
            return known
    return None
