"""Every registry of frdet, one commented line each.

A registry maps the string after ``type=`` in a config to a class. There is one for each kind of component, so a
component in the wrong place is an error that says where it belongs. Those under "MMEngine's" are children of MMEngine's
registries of the same name: what MMEngine itself ships is found through them as well.
"""

import difflib
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.registry import DefaultScope
from mmengine.registry import Registry as MMEngineRegistry

from frdet.errors import ConfigError

SCOPE = 'frdet'


class Registry(MMEngineRegistry):
    """MMEngine's registry with errors that name what is near, what is elsewhere and what import is missing."""

    #: Every frdet registry, in the order of definition.
    all: list['Registry'] = []

    def __init__(self, name: str, *, parent: MMEngineRegistry | None = None, locations: list[str] | None = None):
        super().__init__(name, parent=parent, scope=SCOPE, locations=locations or [])
        Registry.all.append(self)

    def get(self, key: str) -> type:
        """The class registered as ``key``, here or in MMEngine's registry of this kind.

        ``package.Name`` reaches the registries of another MMEngine package, such as ``mmpretrain.ConvNeXt``.

        Raises:
            ConfigError: no such name; the message names this registry, the nearest names, and the registry that does
                hold the name.
        """
        if not isinstance(key, str):
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
        """An instance of ``cfg['type']`` built with the other keys of ``cfg``; what is already built is returned as is.

        Raises:
            ConfigError: ``cfg`` is no dict with a ``type``, the name is unknown, or an argument is unknown or missing.
        """
        if not isinstance(cfg, dict):
            if cfg is None or isinstance(cfg, (str, int, float, list, tuple)):
                raise ConfigError(f'{self.name}: expected a dict with a `type`, found {cfg!r}')
            return cfg
        if 'type' not in cfg:
            raise ConfigError(f'{self.name}: the dict has no `type`: {dict(cfg)!r}')
        kind = cfg['type']
        target: Callable = kind if callable(kind) else self.get(kind)
        check_arguments(self.name, target, {k for k in cfg if k not in ('type', '_scope_')} | set(defaults))
        scope = kind.rpartition('.')[0] if isinstance(kind, str) else ''
        with DefaultScope.overwrite_default_scope(scope or None):
            return super().build({**defaults, **cfg})

    def _miss(self, key: str) -> str:
        name = key.rpartition('.')[2]
        here = set(self.module_dict) | set(self.parent.module_dict if self.parent else ())
        message = f'{key!r} is not in the registry of {self.name}s'
        if holders := [r for r in Registry.all if r is not self and name in _names(r)]:
            return f'{message}: it is a {holders[0].name}, and stands where a {self.name} belongs'
        if near := difflib.get_close_matches(name, here, n=3):
            message += f': did you mean {" or ".join(near)}?'
        return (
            f'{message}\nYour own class needs a register_module decorator and its module named in the config: '
            "custom_imports = dict(imports=['my_module'])"
        )


def _names(registry: Registry) -> set[str]:
    registry.import_from_location()
    return set(registry.module_dict)


def _from_other_package(key: str, package: str, registry: Registry) -> type | None:
    """Look ``key`` up as MMEngine would: in the package's child of this kind's root, else of MODELS."""
    try:
        import_module(f'{package}.registry')
    except ModuleNotFoundError as error:
        if error.name not in (package, package.partition('.')[0], f'{package}.registry'):
            raise
        raise ConfigError(
            f'{key!r} names the package {package!r}, which cannot be imported: install it, or drop the prefix'
        ) from None
    root = registry.root if registry.parent is not None else mmengine_registry.MODELS
    with DefaultScope.overwrite_default_scope(package):
        return root.get(key)


def check_arguments(kind: str, target: Callable, given: set[str]) -> None:
    """Raise ConfigError if ``target`` does not take a keyword in ``given``, or lacks one it needs.

    Arguments are read from the signatures up the method resolution order as long as ``**kwargs`` are passed on.
    """
    accepted, required, open_ended = arguments_of(target)
    name = getattr(target, '__name__', str(target))
    for key in sorted(given - accepted):
        # What takes any keyword is still given a misspelt one more often than one that merely looks alike.
        near = difflib.get_close_matches(key, accepted, n=3, cutoff=0.85 if open_ended else 0.6)
        if open_ended and not near:
            continue
        hint = f'did you mean {" or ".join(near)}?' if near else f'it takes {", ".join(sorted(accepted))}'
        raise ConfigError(f'{kind} {name} has no argument {key!r}: {hint}')
    if missing := sorted(required - given):
        raise ConfigError(f'{kind} {name} needs {", ".join(missing)}')


def arguments_of(target: Callable) -> tuple[set[str], set[str], bool]:
    """Names a callable accepts, those it requires, and whether it takes any other name too."""
    classes = target.__mro__ if inspect.isclass(target) else (target,)
    accepted: set[str] = set()
    required: set[str] = set()
    positional = False  # a class below takes *args, and may pass the next one's arguments that way
    for cls in classes:
        function = cls.__dict__.get('__init__') if inspect.isclass(cls) else cls
        if function is None:
            continue
        if not inspect.isfunction(function):
            return accepted, required, True
        parameters = list(inspect.signature(function).parameters.values())
        parameters = parameters[1:] if inspect.isclass(cls) else parameters
        for p in parameters:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in accepted:
                accepted.add(p.name)
                if p.default is p.empty and not (positional and p.kind is p.POSITIONAL_OR_KEYWORD):
                    required.add(p.name)
        positional = positional or any(p.kind is p.VAR_POSITIONAL for p in parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return accepted, required, False
    return accepted, required, True


# The parts of a detector.
DETECTORS = Registry('detector', parent=mmengine_registry.MODELS, locations=['frdet.models'])
PREPROCESSORS = Registry('preprocessor', locations=['frdet.models'])  # normalise, pad and batch, on the device
BACKBONES = Registry('backbone', locations=['frdet.models'])  # image -> feature maps of several strides
NECKS = Registry('neck', locations=['frdet.models'])  # feature maps -> feature maps, as FPN
DENSE_HEADS = Registry('dense head', locations=['frdet.models'])  # predictions at every cell, as RPN
ROI_HEADS = Registry('RoI head', locations=['frdet.models'])  # proposals -> detections
ROI_EXTRACTORS = Registry('RoI extractor', locations=['frdet.models'])  # RoIs and feature maps -> pooled features
BBOX_HEADS = Registry('bbox head', locations=['frdet.models'])  # pooled features -> class scores and box deltas
ASSIGNERS = Registry('assigner', locations=['frdet.models'])  # boxes and ground truth -> positive, negative, ignored
SAMPLERS = Registry('sampler', locations=['frdet.models'])  # which of the assigned boxes are trained on
BOX_CODERS = Registry('box coder', locations=['frdet.models'])  # boxes <-> deltas
ANCHOR_GENERATORS = Registry('anchor generator', locations=['frdet.models'])  # feature map sizes -> anchors
LOSSES = Registry('loss', locations=['frdet.models'])
NORMS = Registry('norm layer', locations=['frdet.models'])

# Data, MMEngine's.
DATASETS = Registry('dataset', parent=mmengine_registry.DATASETS, locations=['frdet.datasets'])
TRANSFORMS = Registry('transform', parent=mmengine_registry.TRANSFORMS, locations=['frdet.datasets'])
DATA_SAMPLERS = Registry('data sampler', parent=mmengine_registry.DATA_SAMPLERS, locations=['frdet.datasets'])

# Training and evaluation, MMEngine's.
METRICS = Registry('metric', parent=mmengine_registry.METRICS, locations=['frdet.evaluation'])
HOOKS = Registry('hook', parent=mmengine_registry.HOOKS, locations=['frdet.engine'])
LOOPS = Registry('loop', parent=mmengine_registry.LOOPS, locations=['frdet.engine'])
OPTIMIZERS = Registry('optimizer', parent=mmengine_registry.OPTIMIZERS, locations=['frdet.engine'])
OPTIM_WRAPPERS = Registry('optimizer wrapper', parent=mmengine_registry.OPTIM_WRAPPERS, locations=['frdet.engine'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=mmengine_registry.OPTIM_WRAPPER_CONSTRUCTORS,
    locations=['frdet.engine'],
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler', parent=mmengine_registry.PARAM_SCHEDULERS, locations=['frdet.engine']
)
WEIGHT_INITIALIZERS = Registry(
    'weight initializer', parent=mmengine_registry.WEIGHT_INITIALIZERS, locations=['frdet.interop']
)
LOG_PROCESSORS = Registry('log processor', parent=mmengine_registry.LOG_PROCESSORS, locations=['frdet.engine'])
VISUALIZERS = Registry('visualizer', parent=mmengine_registry.VISUALIZERS, locations=['frdet.visualization'])
VISBACKENDS = Registry('visualizer backend', parent=mmengine_registry.VISBACKENDS, locations=['frdet.visualization'])
