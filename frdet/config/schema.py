"""Which kind of component belongs where in a config, and which keys a dict there may have."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry as MMEngineRegistry

from frdet import registry
from frdet.config.values import Declared, declared
from frdet.registry import Registry, arguments_of, parts_of

#: Keys of a config that MMEngine's Runner reads. Any other name at the top is a variable of the config's own.
RUNNER_KEYS = {
    'activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_hooks', 'custom_imports', 'data_preprocessor',
    'default_hooks', 'default_scope', 'efficient_conv_bn_eval', 'env_cfg', 'experiment_name',
    'find_unused_parameters', 'launcher', 'load_from', 'log_level', 'log_processor', 'model', 'model_wrapper_cfg',
    'optim_wrapper', 'param_scheduler', 'randomness', 'resume', 'runner_type', 'sync_bn', 'test_cfg',
    'test_dataloader', 'test_evaluator', 'train_cfg', 'train_dataloader', 'val_cfg', 'val_dataloader',
    'val_evaluator', 'visualizer', 'work_dir',
}  # fmt: skip

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

#: The kind of component at a key of the config itself, or in the list there.
TOP: dict[str, Registry] = {
    'model': registry.DETECTORS,
    'data_preprocessor': registry.PREPROCESSORS,
    'custom_hooks': registry.HOOKS,
    'optim_wrapper': registry.OPTIM_WRAPPERS,
    'param_scheduler': registry.PARAM_SCHEDULERS,
    'train_cfg': registry.LOOPS,
    'val_cfg': registry.LOOPS,
    'test_cfg': registry.LOOPS,
    'val_evaluator': registry.METRICS,
    'test_evaluator': registry.METRICS,
    'visualizer': registry.VISUALIZERS,
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

#: What MMEngine builds where a dict has no ``type``.
DEFAULT_TYPES = {
    'optim_wrapper': 'OptimWrapper',
    'log_processor': 'LogProcessor',
    'model_wrapper_cfg': 'MMDistributedDataParallel',
}

#: Arguments that MMEngine or the component around it passes, so that a config need not.
PASSED: dict[str, set[str]] = {
    'data sampler': {'dataset', 'seed', 'sampler', 'batch_size'},
    'evaluator': {'metrics'},
    'model wrapper': {'module'},
    'neck': {'in_channels'},
    'norm layer': {'num_features', 'num_channels'},
    'optimizer': {'params'},
    'optimizer wrapper': {'optimizer'},
    'parameter scheduler': {'optimizer'},
    'loop': {'runner', 'dataloader', 'evaluator'},
    'visualizer': {'name', 'save_dir'},
    'visualizer backend': {'save_dir'},
}

#: Keys beside a component's arguments, and their types.
BESIDE: dict[str, dict[str, Any]] = {
    'hook': {'priority': int | str},
    'optimizer wrapper': {
        'constructor': str,
        'paramwise_cfg': dict | None,
        'loss_scale': float | str | dict,  # of MMEngine's AmpOptimWrapper, which may be chosen with --amp
        'dtype': str | None,
    },
    'parameter scheduler': {'convert_to_iter_based': bool},
    'weight initializer': {'layer': str | list[str], 'override': dict | list[dict]},
}

_LOOP = {'by_epoch': bool, 'val_begin': int, 'val_interval': int, 'dynamic_intervals': list | None}

#: Dicts that are no components: keys and types. In a dict under another key that is no component, any key may stand.
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

#: The slots of MMEngine's default hooks; a config may add more.
HOOK_SLOTS = {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint', 'visualization'}

#: The least a number may be, by key path.
_LEAST = {
    **{f'{loader}.batch_size': 1 for loader in DATALOADERS},
    **{f'{loader}.num_workers': 0 for loader in DATALOADERS},
    'auto_scale_lr.base_batch_size': 1,
    'optim_wrapper.optimizer.lr': 0,
    'train_cfg.max_epochs': 1,
    'train_cfg.max_iters': 1,
    'train_cfg.val_interval': 1,
}

#: Dicts whose keys the user names.
FREE = ('metainfo', 'custom_keys', 'backend_args')


def least(key_path: str) -> int | None:
    """The least that the number at ``key_path`` may be, where that is known."""
    parts = key_path.split('.')
    is_of_head = parts[0] == 'model' and parts[-1] == 'num_classes' and 'backbone' not in parts
    return 1 if is_of_head else _LEAST.get(key_path)


def registry_at(key_path: str) -> Registry | None:
    """The registry that belongs at a key path such as ``train_dataloader.sampler``; None where any may stand.

    Inside ``model`` the components say it; see ``registry_of_part``.
    """
    parts = [p for p in key_path.split('.') if not p.isdigit()]
    top, last = (parts[0], parts[-1]) if parts else ('', '')
    if len(parts) == 1:
        return TOP.get(top)
    if top == 'model':
        return registry.WEIGHT_INITIALIZERS if last == 'init_cfg' else None
    if top in DATALOADERS:
        return IN_DATALOADER.get(last)
    if top == 'default_hooks' and len(parts) == 2:
        return registry.HOOKS
    if top in ('val_evaluator', 'test_evaluator') and last == 'metrics':
        return registry.METRICS
    return {
        'optim_wrapper.optimizer': registry.OPTIMIZERS,
        'visualizer.vis_backends': registry.VISBACKENDS,
    }.get('.'.join(parts))


def registry_of_part(component: Callable | None, name: str, key_path: str) -> Registry | None:
    """The registry of the part ``name``, at ``key_path``, of a component: the one that its class declares, if it does.

    Raises:
        ConfigError: the class declares its parts wrongly; see ``parts_of``.
    """
    declared_parts = parts_of(component) if component is not None else {}
    return declared_parts.get(name) or registry_at(key_path)


def find_component(kind: Any, here: Registry | None) -> Callable | None:
    """What is registered as ``kind`` in the registry ``here``; where any may stand (None), in any registry.

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
    """The class of the component that ``node`` describes, None if it is none or unknown.

    ``here`` is the registry of its kind, where that is known beside the key path.
    """
    if key_path in PLAIN and key_path not in TOP or not isinstance(node, dict):
        return None
    kind = node.get('type', DEFAULT_TYPES.get(key_path))
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    try:
        return find_component(kind, here or registry_at(key_path))
    except Exception:  # said where the component itself is checked
        return None


def known_keys(node: Any, key_path: str) -> set[str]:
    """Keys a dict at ``key_path`` may have, beyond those it has."""
    if not key_path:
        return RUNNER_KEYS
    if key_path in DATALOADERS:
        return dataloader_keys()
    if key_path == 'default_hooks':
        return HOOK_SLOTS
    if (cls := component_class(node, key_path)) is not None:
        here = registry_at(key_path)
        accepted, _, _ = arguments_of(cls)
        return accepted | {'type'} | (set(BESIDE.get(here.name, {})) if here is not None else set())
    return set(PLAIN.get(key_path, {}))


def declared_at(node: Any, name: str, key_path: str, here: Registry | None = None) -> Declared:
    """What is known of the type of the value under ``name`` in the dict at ``key_path``; ``''`` is the config itself.

    ``here`` is as of ``component_class``.
    """
    if name in ('type', '_delete_', '_scope_'):
        return Declared()
    if name == 'init_cfg':
        return Declared(dict | list | None)  # MMEngine's modules take several, whatever theirs in between say
    if not key_path:
        from mmengine.runner import Runner

        said = Declared(dict | None) if name == 'default_hooks' else declared(Runner, name)
        return said._replace(default=None)  # the tools and the Runner fill in what is None
    if key_path in DATALOADERS:
        from torch.utils.data import DataLoader

        # What is a component there, MMEngine builds, from a dict.
        return Declared(dict) if name == 'dataset' else declared(DataLoader, name)
    here = here or registry_at(key_path)
    if (cls := component_class(node, key_path, here)) is not None:
        beside = BESIDE.get(here.name, {}) if here is not None else {}
        accepted = arguments_of(cls)[0]
        return Declared(beside[name]) if name in beside and name not in accepted else declared(cls, name)
    annotation = PLAIN.get(key_path, {}).get(name)
    return Declared() if annotation is None else Declared(annotation)


def dataloader_keys() -> set[str]:
    """Arguments of torch's DataLoader and what MMEngine's Runner takes beside them."""
    from torch.utils.data import DataLoader

    return set(inspect.signature(DataLoader.__init__).parameters) - {'self'} | {'num_batch_per_epoch'}
