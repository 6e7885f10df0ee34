"""Which kind of component belongs where in a config, and which keys a dict there may have."""

import inspect
from collections.abc import Callable
from typing import Any

from frdet import registry
from frdet.registry import Registry, arguments_of

#: Keys of a config that MMEngine's Runner reads. Any other name at the top is a variable of the config's own.
RUNNER_KEYS = {
    'auto_scale_lr', 'custom_hooks', 'custom_imports', 'default_hooks', 'default_scope', 'env_cfg', 'experiment_name',
    'launcher', 'load_from', 'log_level', 'log_processor', 'model', 'model_wrapper_cfg', 'optim_wrapper',
    'param_scheduler', 'randomness', 'resume', 'runner_type', 'sync_bn', 'test_cfg', 'test_dataloader',
    'test_evaluator', 'train_cfg', 'train_dataloader', 'val_cfg', 'val_dataloader', 'val_evaluator', 'visualizer',
    'work_dir',
}  # fmt: skip

#: The kind of component under a key, wherever the key stands.
PLACES: dict[str, Registry] = {
    'model': registry.DETECTORS,
    'data_preprocessor': registry.PREPROCESSORS,
    'backbone': registry.BACKBONES,
    'neck': registry.NECKS,
    'rpn_head': registry.DENSE_HEADS,
    'roi_head': registry.ROI_HEADS,
    'roi_extractor': registry.ROI_EXTRACTORS,
    'bbox_head': registry.BBOX_HEADS,
    'assigner': registry.ASSIGNERS,
    'sampler': registry.SAMPLERS,
    'box_coder': registry.BOX_CODERS,
    'anchor_generator': registry.ANCHOR_GENERATORS,
    'norm': registry.NORMS,
    'loss_cls': registry.LOSSES,
    'loss_bbox': registry.LOSSES,
    'init_cfg': registry.WEIGHT_INITIALIZERS,
    'dataset': registry.DATASETS,
    'datasets': registry.DATASETS,
    'batch_sampler': registry.DATA_SAMPLERS,
    'pipeline': registry.TRANSFORMS,
    'transforms': registry.TRANSFORMS,
    'default_hooks': registry.HOOKS,
    'custom_hooks': registry.HOOKS,
    'optim_wrapper': registry.OPTIM_WRAPPERS,
    'optimizer': registry.OPTIMIZERS,
    'param_scheduler': registry.PARAM_SCHEDULERS,
    'train_cfg': registry.LOOPS,
    'val_cfg': registry.LOOPS,
    'test_cfg': registry.LOOPS,
    'val_evaluator': registry.METRICS,
    'test_evaluator': registry.METRICS,
    'metrics': registry.METRICS,
    'visualizer': registry.VISUALIZERS,
    'vis_backends': registry.VISBACKENDS,
    'log_processor': registry.LOG_PROCESSORS,
}

#: Arguments that MMEngine or the component around it passes, so that a config need not.
PASSED: dict[str, set[str]] = {
    'data sampler': {'dataset', 'seed', 'sampler', 'batch_size'},
    'norm layer': {'num_features', 'num_channels'},
    'optimizer': {'params'},
    'optimizer wrapper': {'optimizer'},
    'parameter scheduler': {'optimizer'},
    'loop': {'runner', 'dataloader', 'evaluator'},
    'visualizer': {'name', 'save_dir'},
    'visualizer backend': {'save_dir'},
}

#: Keys beside a component's arguments.
BESIDE: dict[str, set[str]] = {
    'optimizer wrapper': {'constructor', 'paramwise_cfg', 'loss_scale', 'dtype'},
    'parameter scheduler': {'convert_to_iter_based'},
    'weight initializer': {'layer', 'override'},
    'loop': {'by_epoch', 'fp16'},
}

#: Keys of dicts that are no components.
PLAIN: dict[str, set[str]] = {
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'randomness': {'seed', 'deterministic', 'diff_rank_seed'},
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'custom_imports': {'imports', 'allow_failed_imports'},
    'mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'dist_cfg': {'backend', 'timeout'},
    'clip_grad': {'type', 'max_norm', 'norm_type', 'error_if_nonfinite', 'foreach', 'clip_value'},
    'train_cfg': {'by_epoch', 'max_epochs', 'max_iters', 'val_begin', 'val_interval', 'dynamic_intervals'},
    'val_cfg': {'fp16'},
    'test_cfg': {'fp16'},
}

HOOK_SLOTS = {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint', 'visualization'}


def place_registry(place: str) -> Registry | None:
    """The registry that belongs at a dotted place such as ``model.rpn_head.sampler``; None where any may stand."""
    parts = [p for p in place.split('.') if not p.isdigit()]
    if not parts:
        return None
    if parts[0] == 'default_hooks':
        return registry.HOOKS if len(parts) == 2 else None
    if parts[-1] == 'sampler' and parts[0].endswith('_dataloader'):
        return registry.DATA_SAMPLERS
    if parts[-1].startswith('loss_') and parts[0] == 'model':
        return registry.LOSSES
    return PLACES.get(parts[-1])


def component_class(node: Any, place: str) -> Callable | None:
    """The class of the component that ``node`` describes, None if it is none or unknown."""
    kind = node.get('type') if isinstance(node, dict) else None
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    found = place_registry(place)
    for candidate in [found] if found is not None else Registry.all:
        try:
            return candidate.get(kind)
        except Exception:
            continue
    return None


def known_keys(node: Any, place: str) -> set[str]:
    """Keys a dict at ``place`` may have, beyond those it has."""
    name = place.rpartition('.')[2]
    cls = component_class(node, place)
    if cls is not None:
        found = place_registry(place)
        accepted, _, _ = arguments_of(cls)
        return accepted | {'type'} | (BESIDE.get(found.name, set()) if found is not None else set())
    if name.endswith('_dataloader'):
        return dataloader_keys()
    if name == 'default_hooks':
        return HOOK_SLOTS
    return PLAIN.get(name, set())


def dataloader_keys() -> set[str]:
    """Arguments of torch's DataLoader and what MMEngine's Runner takes beside them."""
    from torch.utils.data import DataLoader

    return set(inspect.signature(DataLoader.__init__).parameters) - {'self'} | {'num_batch_per_epoch'}
