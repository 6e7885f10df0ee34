"""The schema of a config: the kind of component at each key path, and the keys that a dict may have."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry as MMEngineRegistry

from frdet import registry
from frdet.config.values import Declared, declared
from frdet.registry import Registry, arguments_of, parts_of

#: The keys that MMEngine's Runner reads. Any other name at the top level of a config is a variable.
RUNNER_KEYS = {
    'activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_hooks', 'custom_imports', 'data_preprocessor',
    'default_hooks', 'default_scope', 'efficient_conv_bn_eval', 'env_cfg', 'experiment_name',
    'find_unused_parameters', 'launcher', 'load_from', 'log_level', 'log_processor', 'model', 'model_wrapper_cfg',
    'optim_wrapper', 'param_scheduler', 'randomness', 'resume', 'runner_type', 'sync_bn', 'test_cfg',
    'test_dataloader', 'test_evaluator', 'train_cfg', 'train_dataloader', 'val_cfg', 'val_dataloader',
    'val_evaluator', 'visualizer', 'work_dir',
}  # fmt: skip

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

#: The kind of component at a key path, or in the list there.
TOP: dict[str, Registry] = {
    'model': registry.DETECTORS,
    'data_preprocessor': registry.PREPROCESSORS,
    'custom_hooks': registry.HOOKS,
    'optim_wrapper': registry.OPTIM_WRAPPERS,
    'optim_wrapper.optimizer': registry.OPTIMIZERS,
    'param_scheduler': registry.PARAM_SCHEDULERS,
    'train_cfg': registry.LOOPS,
    'val_cfg': registry.LOOPS,
    'test_cfg': registry.LOOPS,
    'val_evaluator': registry.METRICS,
    'val_evaluator.metrics': registry.METRICS,
    'test_evaluator': registry.METRICS,
    'test_evaluator.metrics': registry.METRICS,
    'visualizer': registry.VISUALIZERS,
    'visualizer.vis_backends': registry.VISBACKENDS,
    'log_processor': registry.LOG_PROCESSORS,
    'model_wrapper_cfg': registry.MODEL_WRAPPERS,
}

#: The kind of component under a key of a data loader, at any depth.
IN_DATALOADER: dict[str, Registry] = {
    'dataset': registry.DATASETS,
    'datasets': registry.DATASETS,
    'sampler': registry.DATA_SAMPLERS,
    'batch_sampler': registry.DATA_SAMPLERS,
    'collate_fn': registry.FUNCTIONS,
    'worker_init_fn': registry.FUNCTIONS,
    'pipeline': registry.TRANSFORMS,
    'transforms': registry.TRANSFORMS,
}

#: The types that MMEngine builds from a dict without a ``type``.
DEFAULT_TYPES = {
    'optim_wrapper': 'OptimWrapper',
    'log_processor': 'LogProcessor',
    'model_wrapper_cfg': 'MMDistributedDataParallel',
}

#: Required arguments that MMEngine or another component passes, so a config may leave them out.
PASSED: dict[str, set[str]] = {
    'data sampler': {'dataset', 'seed', 'sampler', 'batch_size'},
    'evaluator': {'metrics'},
    'model wrapper': {'module'},
    'neck': {'in_channels'},
    'norm layer': {'num_features', 'num_channels'},
    'convolution': {'in_channels', 'out_channels', 'kernel_size'},
    'optimizer': {'params'},
    'optimizer wrapper': {'optimizer'},
    'parameter scheduler': {'optimizer'},
    'loop': {'runner', 'dataloader', 'evaluator'},
    'visualizer': {'name', 'save_dir'},
    'visualizer backend': {'save_dir'},
}

#: Keys beside the arguments of a component, and their types.
BESIDE: dict[str, dict[str, Any]] = {
    'hook': {'priority': int | str},
    'optimizer wrapper': {
        'constructor': str,
        'paramwise_cfg': dict | None,
        'loss_scale': float | str | dict,  # for AmpOptimWrapper, which --amp chooses
        'dtype': str | None,
    },
    'parameter scheduler': {'convert_to_iter_based': bool},
    'weight initializer': {'layer': str | list[str], 'override': dict | list[dict]},
}

#: Types of arguments that frdet resolves before a component is built, instead of those in its signature.
RESOLVED: dict[str, dict[str, Any]] = {
    'parameter scheduler': {'begin': float, 'end': float, 'milestones': list[float]},  # shares of the run
}

_LOOP = {'by_epoch': bool, 'val_begin': int, 'val_interval': int, 'dynamic_intervals': list | None}

#: Keys and types of dicts that are not components. Other dicts that are not components may have any key.
PLAIN: dict[str, dict[str, Any]] = {
    'auto_scale_lr': {'enable': bool, 'base_batch_size': int},
    'randomness': {'seed': int | None, 'deterministic': bool, 'diff_rank_seed': bool},
    'env_cfg': {'cudnn_benchmark': bool, 'mp_cfg': dict, 'dist_cfg': dict, 'resource_limit': int},
    'env_cfg.mp_cfg': {'mp_start_method': str | None, 'opencv_num_threads': int},
    'env_cfg.dist_cfg': {
        'backend': str, 'timeout': float, 'port': int | None, 'init_backend': str, 'init_method': str | None
    },
    'custom_imports': {'imports': str | list[str], 'allow_failed_imports': bool},
    'optim_wrapper.clip_grad': {
        'type': str, 'max_norm': float, 'norm_type': float | str, 'error_if_nonfinite': bool,
        'foreach': bool | None, 'clip_value': float,
    },
    'optim_wrapper.paramwise_cfg': {
        'freeze': list[str], 'custom_keys': dict, 'bias_lr_mult': float, 'bias_decay_mult': float,
        'norm_decay_mult': float, 'flat_decay_mult': float, 'dwconv_decay_mult': float, 'dcn_offset_lr_mult': float,
        'bypass_duplicate': bool,
    },
    'train_cfg': {**_LOOP, 'max_epochs': int, 'max_iters': int},
    'val_cfg': {'fp16': bool},
    'test_cfg': {'fp16': bool},
}  # fmt: skip

#: The names of the hooks that MMEngine registers unless a config sets them to None; a config may add more.
HOOK_SLOTS = {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'}

#: The smallest number allowed at a key path.
_LEAST = {
    **{f'{loader}.batch_size': 1 for loader in DATALOADERS},
    **{f'{loader}.num_workers': 0 for loader in DATALOADERS},
    'auto_scale_lr.base_batch_size': 1,
    'optim_wrapper.optimizer.lr': 0,
    'train_cfg.max_epochs': 1,
    'train_cfg.max_iters': 1,
    'train_cfg.val_interval': 1,
}

#: Dicts with keys that the user chooses.
FREE = ('metainfo', 'custom_keys', 'backend_args')


def least(key_path: str) -> int | None:
    """The smallest number allowed at ``key_path``; None if there is no limit."""
    parts = key_path.split('.')
    is_of_head = parts[0] == 'model' and parts[-1] == 'num_classes' and 'backbone' not in parts
    return 1 if is_of_head else _LEAST.get(key_path)


def registry_at(key_path: str) -> Registry | None:
    """The registry for a key path such as ``train_dataloader.sampler``; None where any component is allowed.

    Inside ``model`` the components declare it; see ``registry_of_part``.
    """
    parts = [p for p in key_path.split('.') if not p.isdigit()] or ['']
    top, *inside = parts
    if top == 'model' and inside:
        return registry.WEIGHT_INITIALIZERS if inside[-1] == 'init_cfg' else None
    if top in DATALOADERS:
        return IN_DATALOADER.get(parts[-1])
    if top == 'default_hooks' and len(inside) == 1:
        return registry.HOOKS
    return TOP.get('.'.join(parts))


def registry_of_part(component: Callable | None, name: str, key_path: str) -> Registry | None:
    """The registry of the part ``name`` of a component: as its class declares, or else as ``key_path`` says.

    Raises:
        ConfigError: the class declares its parts in a wrong way; see ``parts_of``.
    """
    return (parts_of(component).get(name) if component is not None else None) or registry_at(key_path)


def find_component(kind: Any, here: Registry | None) -> Callable | None:
    """The class or function registered as ``kind`` in the registry ``here``, or in any registry if it is None.

    Raises:
        ConfigError: ``kind`` is not in ``here``.
    """
    if here is not None:
        return here.get(kind)
    for candidate in [*Registry.all, *_roots()]:
        if isinstance(candidate, Registry):
            candidate.import_from_location()
        if kind in candidate.module_dict:
            return candidate.module_dict[kind]
    return registry.DETECTORS.get(kind) if '.' in str(kind) else None


@lru_cache(maxsize=1)
def _roots() -> tuple[MMEngineRegistry, ...]:
    return tuple(r for r in vars(mmengine_registry).values() if isinstance(r, MMEngineRegistry))


def component_class(node: Any, key_path: str, here: Registry | None = None) -> Callable | None:
    """The class of the component that ``node`` describes; None if it is unknown or not a component.

    ``here`` is the registry of its kind; None: ``registry_at`` the key path.
    """
    if key_path in PLAIN and key_path not in TOP or not isinstance(node, dict):
        return None
    kind = node.get('type', DEFAULT_TYPES.get(key_path))
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    try:
        return find_component(kind, here or registry_at(key_path))
    except Exception:  # the check of the component itself reports it
        return None


def keys_at(node: Any, key_path: str, here: Registry | None = None) -> dict[str, Declared]:
    """The keys that the dict at ``key_path`` may have, with their declared types; ``''`` is the top level.

    ``component_class`` explains ``here``.
    """
    if not key_path:
        from mmengine.runner import Runner

        said = {**declared(Runner), 'default_hooks': Declared(dict | None)}
        # The tools and the Runner fill in values that are None.
        return {key: said.get(key, Declared())._replace(default=None) for key in RUNNER_KEYS}
    if key_path in DATALOADERS:
        from torch.utils.data import DataLoader

        # MMEngine builds the data set from a dict, and reads a key of its own.
        return {**declared(DataLoader), 'dataset': Declared(dict), 'num_batch_per_epoch': Declared()}
    if key_path == 'default_hooks':
        return dict.fromkeys([*HOOK_SLOTS, 'visualization'], Declared())
    here = here or registry_at(key_path)
    if (cls := component_class(node, key_path, here)) is not None:
        said = declared(cls)
        beside, resolved = ((t.get(here.name, {}) if here is not None else {}) for t in (BESIDE, RESOLVED))
        own = {name: said.get(name, Declared()) for name in arguments_of(cls)[0]}
        own.update({name: Declared(kind) for name, kind in resolved.items() if name in own})
        return {'type': Declared(), **{name: Declared(kind) for name, kind in beside.items()}, **own}
    return {name: Declared(kind) for name, kind in PLAIN.get(key_path, {}).items()}


def declared_at(node: Any, name: str, key_path: str, here: Registry | None = None) -> Declared:
    """The declared type of the value under ``name`` in the dict at ``key_path``; see ``keys_at``."""
    if name == 'init_cfg':
        return Declared(dict | list | None)  # MMEngine takes several, whatever a class declares
    if name in ('type', '_delete_', '_scope_'):
        return Declared()
    return keys_at(node, key_path, here).get(name, Declared())
