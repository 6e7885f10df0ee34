"""Every registry of frdet, one commented line each.

A registry maps the string after ``type=`` in a config to a class. Each kind of component has its own registry, so a
component under the wrong key gives an error that names its kind. The registries under "MMEngine's" are children of
MMEngine's registries of the same name, so they also find the components of MMEngine.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from math import inf
from typing import Any, TypeVar, cast

from mmengine import registry as mmengine_registry
from mmengine.registry import DefaultScope
from mmengine.registry import Registry as MMEngineRegistry
from torch import nn

from frdet.errors import ConfigError, defined, did_you_mean

SCOPE = 'frdet'

_scope_of_config: ContextVar[str] = ContextVar('scope_of_config', default=SCOPE)
_Function = TypeVar('_Function', bound=Callable[..., Any])


def in_config_scope(function: _Function) -> _Function:
    """Decorator of a function whose first argument is a config: it builds components in the scope of the config.

    A name without a prefix is then a class of the package in ``default_scope``, or of frdet if the config has none.
    MMEngine has one scope for the whole process. Another project may have set it: it is restored afterwards.
    """

    @functools.wraps(function)
    def wrapped(cfg: Any, *args: Any, **kwargs: Any) -> Any:
        scope = cfg.get('default_scope')
        scope = scope if scope and isinstance(scope, str) else SCOPE  # `check_config` refuses another type
        token = _scope_of_config.set(scope)
        try:
            with DefaultScope.overwrite_default_scope(scope):
                return function(cfg, *args, **kwargs)
        finally:
            _scope_of_config.reset(token)

    return cast(_Function, wrapped)


class Registry(MMEngineRegistry):
    """MMEngine's registry, with errors that name similar names, the right registry, or a missing import."""

    #: Every frdet registry, in the order of definition.
    all: list['Registry'] = []

    def __init__(self, name: str, *locations: str, parent: MMEngineRegistry | None = None):
        super().__init__(name, parent=parent, scope=SCOPE, locations=list(locations))
        Registry.all.append(self)

    @property
    def plural(self) -> str:
        """Its name in the plural."""
        return f'{self.name}es' if self.name.endswith('s') else f'{self.name}s'

    def get(self, key: str) -> type:
        """The class registered as ``key``, here or in MMEngine's registry of this kind.

        ``package.Name`` reaches the registries of another MMEngine package, such as ``mmpretrain.ConvNeXt``.

        Raises:
            ConfigError: no such name. The message says this registry, the nearest names, and the registry that has
                the name.
        """
        if not isinstance(key, str) or not key:
            raise ConfigError(f'{self.name}: expected a name as type, found {key!r}')
        self.import_from_location()
        scope, _, name = key.rpartition('.')
        if scope in ('', SCOPE):
            if name in self.module_dict:
                return self.module_dict[name]
            if self.parent is not None and (found := self.parent.get(name)) is not None:
                return found
        elif (found := _from_other_package(key, scope, self)) is not None:
            return found
        raise ConfigError(self._miss(key))

    def build(self, cfg: Any, **defaults: Any) -> Any:
        """An instance of ``cfg['type']``, with the other keys as arguments. A built object is returned as it is.

        A name without a prefix is looked up in frdet, or in the config's scope; see ``in_config_scope``.

        Raises:
            ConfigError: ``cfg`` is no dict with a ``type``, the name is unknown, or an argument is unknown or missing.
        """
        if cfg is None or isinstance(cfg, (str, int, float, list, tuple)):
            raise ConfigError(f'{self.name}: expected a dict with a `type`, found {cfg!r}')
        if not isinstance(cfg, dict):
            return cfg
        if 'type' not in cfg:
            raise ConfigError(f'{self.name}: the dict has no `type`: {dict(cfg)!r}')
        kind = cfg['type']
        target: Callable = kind if callable(kind) else self.get(kind)
        check_arguments(self.name, target, {k for k in cfg if k not in ('type', '_scope_')} | set(defaults))
        scope = (kind.rpartition('.')[0] if isinstance(kind, str) else '') or _scope_of_config.get()
        current = DefaultScope.get_current_instance()
        is_there = current is not None and current.scope_name == scope
        with DefaultScope.overwrite_default_scope(None if is_there else scope):  # it sleeps if the scope changes
            return super().build({**defaults, **cfg})

    def _miss(self, key: str) -> str:
        name = key.rpartition('.')[2]
        here = set(self.module_dict) | set(self.parent.module_dict if self.parent else ())
        message = f'{key!r} is not in the registry of {self.plural}'
        for other in Registry.all:
            other.import_from_location()
            if other is not self and name in other.module_dict:
                return f'{message}: it is {_a(other.name)}, and stands where {_a(self.name)} belongs'
        if near := did_you_mean(name, here):
            message += f': {near}'
        return (
            f'{message}\nYour own class needs a register_module decorator and its module named in the config: '
            "custom_imports = dict(imports=['my_module'])"
        )


def parts_of(component: Callable) -> dict[str, Registry]:
    """The registry of each part that a component's class and its base classes declare.

    ``parts``, beside the constructor, names the arguments that are components, and the registry of each::

        parts = dict(assigner=ASSIGNERS, heads=BBOX_HEADS)

    Raises:
        ConfigError: ``parts`` is not a dict of registries; the message names the class and its file.
    """
    found: dict[str, Registry] = {}
    for cls in reversed(inspect.getmro(component)) if inspect.isclass(component) else ():
        declared = vars(cls).get('parts')
        if declared is None or not (isinstance(declared, dict) or issubclass(cls, nn.Module)):
            continue  # a class that is not a module may use the name for something else
        given = declared if isinstance(declared, dict) else {'it': declared}
        wrong = [f'{name}={kind!r}' for name, kind in given.items() if not isinstance(kind, MMEngineRegistry)]
        if wrong:
            raise ConfigError(
                f'{cls.__name__}.parts in {inspect.getsourcefile(cls)} has {", ".join(wrong)}: expected the '
                'registry of each part, as parts = dict(assigner=ASSIGNERS), from frdet.registry'
            )
        found.update(given)
    return found


def build_parts(component: Any, **parts: Any) -> None:
    """Build parts of a component, and set them as its attributes.

    Args:
        component: an object whose class declares the registries; see ``parts_of``.
        parts: for each name a config, a built object, a list of these, or None.

    Raises:
        ConfigError: a part is not declared, or cannot be built.
    """
    registries = parts_of(type(component))
    for name, given in parts.items():
        if name not in registries:
            raise ConfigError(
                f'{defined(type(component))} builds the part {name!r}, which its parts do not declare: add {name}=... '
                'with a registry, as parts = dict(assigner=ASSIGNERS)'
            )
        if isinstance(given, (list, tuple)):
            several = [registries[name].build(one) for one in given]
            built: Any = nn.ModuleList(several) if all(isinstance(one, nn.Module) for one in several) else several
        else:
            built = None if given is None else registries[name].build(given)
        setattr(component, name, built)


def _a(name: str) -> str:
    return f'{"an" if name[0] in "aeiou" else "a"} {name}'


def _from_other_package(key: str, package: str, registry: Registry) -> type | None:
    """Look ``key`` up as MMEngine does: in the package's child of the root of ``registry``, or of MODELS."""
    root = registry.root if registry.parent is not None else mmengine_registry.MODELS
    try:
        import_module(f'{package}.registry')
        with DefaultScope.overwrite_default_scope(package):
            return root.get(key)
    except Exception as error:
        top = package.partition('.')[0]
        if not top or find_spec(top) is None:
            reason = 'which is not installed: install it, or drop the prefix'
        elif getattr(error, 'name', None) in (package, f'{package}.registry'):
            reason = f'which has no MMEngine registry ({package}.registry): register the class in a module of your own'
        else:
            reason = f'which is installed and does not import: {type(error).__name__}: {error}'
        raise ConfigError(f'{key!r} names the package {package!r}, {reason}') from error


def check_arguments(kind: str, target: Callable, given: set[str]) -> None:
    """Raise ConfigError if ``target`` does not take a keyword in ``given``, or a required one is missing."""
    accepted, required, open_ended = arguments_of(target)
    name = getattr(target, '__name__', str(target))
    for key in sorted(given - accepted):
        # With ``**kwargs`` any keyword is taken, but a very similar name is more likely a misspelling.
        near = did_you_mean(key, accepted, sure=open_ended)
        if near or not open_ended:
            hint = near or f'it takes {", ".join(sorted(accepted)) or "none"}'
            if owners := _having_part(kind, key):
                hint += f'\n{key} is a part of {" and ".join(owners[:3])}'
            raise ConfigError(f'{kind} {name} has no argument {key!r}: {hint}')
    if missing := sorted(required - given):
        raise ConfigError(f'{kind} {name} needs {", ".join(missing)}')


def _having_part(kind: str, part: str) -> list[str]:
    """The components of a registry that declare a part of this name."""
    found = next((registry for registry in Registry.all if registry.name == kind), None)
    if found is None:
        return []
    declared = {name: getattr(one, 'parts', None) for name, one in found.module_dict.items()}
    return sorted(name for name, parts in declared.items() if isinstance(parts, dict) and part in parts)


def arguments_of(target: Callable) -> tuple[set[str], set[str], bool]:
    """The names that a callable accepts, the names that it requires, and whether it accepts any other name.

    If a constructor takes ``**kwargs``, the arguments of its parent's constructor are accepted, too. Arguments that it
    gives to its parent itself are not required.
    """
    accepted: set[str] = set()
    required: set[str] = set()
    filled: set[str] = set()  # names that a subclass gives to this constructor, and the number of its positions
    positions: float = 0
    open_ended = False
    for cls in inspect.getmro(target) if inspect.isclass(target) else (target,):
        function = vars(cls).get('__init__') if inspect.isclass(cls) else cls
        if function is None:
            continue
        if cls in (object, nn.Module):  # the last constructor takes nothing, whatever its signature
            return accepted, required, open_ended or target.__new__ is not object.__new__
        if not inspect.isfunction(function):
            return accepted, required, True
        parameters = list(inspect.signature(function).parameters.values())
        parameters = parameters[1:] if inspect.isclass(cls) else parameters
        for position, p in enumerate(parameters):
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in accepted:
                accepted.add(p.name)
                if p.default is p.empty and p.name not in filled and position >= positions:
                    required.add(p.name)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return accepted, required, False
        open_ended = True
        names, count = _filled_in(function)
        filled |= names
        positions = inf if positions == inf else count
    return accepted, required, open_ended


@functools.cache
def _filled_in(function: Callable) -> tuple[set[str], float]:
    """The arguments that a constructor may give to its parent: names, and a number of positions.

    Any keyword or string in its body is such a name: ``super().__init__(a=1, **kwargs)`` and ``kwargs['a'] = 1`` count.
    If the code cannot be read, the number is infinite.
    """
    try:
        nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))))
    except (OSError, TypeError, SyntaxError):
        return set(), inf
    calls = [n for n in nodes if isinstance(n, ast.Call) and getattr(n.func, 'attr', '') == '__init__']
    # The constructor's own `*args` is empty: a config gives keywords only.
    own = {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_POSITIONAL}
    positions = [[a for a in call.args if getattr(getattr(a, 'value', None), 'id', '') not in own] for call in calls]
    unbound = any(call.args and not isinstance(getattr(call.func, 'value', None), ast.Call) for call in calls)
    if unbound or any(isinstance(a, ast.Starred) for given in positions for a in given):
        return set(), inf
    keywords = {n.arg for n in nodes if isinstance(n, ast.keyword) and n.arg}
    strings = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return keywords | strings, max(map(len, positions), default=0)


# The parts of a detector.
DETECTORS = Registry('detector', 'frdet.models', parent=mmengine_registry.MODELS)
PREPROCESSORS = Registry('preprocessor', 'frdet.models')  # normalise, pad and batch, on the device
BACKBONES = Registry('backbone', 'frdet.models')  # image -> feature maps of several strides
NECKS = Registry('neck', 'frdet.models')  # feature maps -> feature maps, for example FPN
DENSE_HEADS = Registry('dense head', 'frdet.models')  # predictions at every cell, for example RPN
ROI_HEADS = Registry('RoI head', 'frdet.models')  # proposals -> detections
ROI_EXTRACTORS = Registry('RoI extractor', 'frdet.models')  # RoIs and feature maps -> pooled features
BBOX_HEADS = Registry('bbox head', 'frdet.models')  # pooled features -> class scores and box deltas
MASK_HEADS = Registry('mask head', 'frdet.models')  # feature maps and boxes -> masks inside the boxes
ASSIGNERS = Registry('assigner', 'frdet.models')  # boxes and ground truth -> positive, negative, ignored
SAMPLERS = Registry('sampler', 'frdet.models')  # assigned boxes -> the boxes to train on
BOX_CODERS = Registry('box coder', 'frdet.models')  # boxes <-> deltas
SUPPRESSIONS = Registry('suppression', 'frdet.models')  # scored boxes -> those that stay, for example NMS
ANCHOR_GENERATORS = Registry('anchor generator', 'frdet.models')  # feature map sizes -> anchors
LOSSES = Registry('loss', 'frdet.models')
NORMS = Registry('norm layer', 'frdet.models')
CONVS = Registry('convolution', 'frdet.models')  # in the place of a 3x3 of a backbone

# Data, MMEngine's.
DATASETS = Registry('dataset', 'frdet.datasets', parent=mmengine_registry.DATASETS)
TRANSFORMS = Registry('transform', 'frdet.datasets', parent=mmengine_registry.TRANSFORMS)
DATA_SAMPLERS = Registry('data sampler', 'frdet.datasets', parent=mmengine_registry.DATA_SAMPLERS)

# Training and evaluation, MMEngine's.
METRICS = Registry('metric', 'frdet.evaluation', parent=mmengine_registry.METRICS)
HOOKS = Registry('hook', 'frdet.engine', 'frdet.insight', parent=mmengine_registry.HOOKS)
LOOPS = Registry('loop', 'frdet.engine', parent=mmengine_registry.LOOPS)
OPTIMIZERS = Registry('optimizer', 'frdet.engine', parent=mmengine_registry.OPTIMIZERS)
OPTIM_WRAPPERS = Registry('optimizer wrapper', 'frdet.engine', parent=mmengine_registry.OPTIM_WRAPPERS)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor', 'frdet.engine', parent=mmengine_registry.OPTIM_WRAPPER_CONSTRUCTORS
)
PARAM_SCHEDULERS = Registry('parameter scheduler', 'frdet.engine', parent=mmengine_registry.PARAM_SCHEDULERS)
WEIGHT_INITIALIZERS = Registry('weight initializer', 'frdet.checkpoints', parent=mmengine_registry.WEIGHT_INITIALIZERS)
LOG_PROCESSORS = Registry('log processor', 'frdet.engine', parent=mmengine_registry.LOG_PROCESSORS)
VISUALIZERS = Registry('visualizer', 'frdet.visualization', parent=mmengine_registry.VISUALIZERS)
VISBACKENDS = Registry('visualizer backend', 'frdet.visualization', parent=mmengine_registry.VISBACKENDS)
MODEL_WRAPPERS = Registry('model wrapper', 'frdet.engine', parent=mmengine_registry.MODEL_WRAPPERS)
EVALUATORS = Registry('evaluator', 'frdet.evaluation', parent=mmengine_registry.EVALUATOR)
FUNCTIONS = Registry('function', 'frdet.datasets', parent=mmengine_registry.FUNCTIONS)  # collate_fn
