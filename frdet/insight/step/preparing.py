"""Builds the inputs of a training step as training does: images from the pipeline, the model, the optimiser."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from frdet.apis.classes import resolve_num_classes
from frdet.checkpoints import load_strictly
from frdet.config import check_config
from frdet.engine import load_checkpoint, with_layout
from frdet.engine.hooks.check_setup import check_classes
from frdet.engine.optim import scale_lr
from frdet.errors import ConfigError, DataError
from frdet.models.detectors import Detector
from frdet.progress import track
from frdet.registry import DATASETS, DETECTORS, in_config_scope


@dataclass(frozen=True)
class Prepared:
    """A training step before it is made."""

    cfg: Config
    model: Any  # in training mode, on its device
    weights: str  # their origin, in words
    optim_wrapper: OptimWrapper  # its learning rate is scaled as in training
    dataset: Any
    records: list[dict[str, Any]]  # the data of each image before the pipeline
    items: list[dict[str, Any]]  # results of the pipeline: ``inputs`` and ``data_samples``
    classes: tuple[str, ...]  # names of the labels


@in_config_scope
def prepare(cfg: Config, checkpoint: str | None, images: Sequence[str], seed: int) -> Prepared:
    """Build the inputs of the step. See ``inspect_step`` for arguments and errors."""
    check_config(cfg)
    for name in ('train_dataloader', 'optim_wrapper'):
        if not cfg.get(name):
            raise ConfigError(f'The config has no {name}: give a config for training')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if len(dataset) == 0:
        raise DataError('The training data of the config are empty: check ann_file, metainfo.classes and filter_cfg')
    classes = tuple((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())
    resolve_num_classes(cfg, lambda: classes)
    indices = _find(dataset, images) if images else [0]
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    model, weights = _model(cfg, checkpoint)
    check_classes(model, dataset, 'train_dataloader')
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    scale_lr(wrapper, cfg.get('auto_scale_lr'), batch_size(cfg))
    return Prepared(
        cfg=cfg,
        model=model,
        weights=weights,
        optim_wrapper=wrapper,
        records=[dataset.get_data_info(i) for i in indices],
        items=[dataset[i] for i in indices],
        dataset=dataset,
        classes=classes,
    )


def batch_size(cfg: Config) -> int:
    """Number of images that one process loads for an iteration."""
    loader = cfg.train_dataloader
    return int(loader.get('batch_size') or (loader.get('batch_sampler') or {}).get('batch_size') or 1)


def _find(dataset: Any, images: Sequence[str]) -> list[int]:
    wanted = dict.fromkeys(map(str, images))
    found: dict[str, int] = {}
    for index in track(range(len(dataset)), 'Looking for the images'):
        img_id = str(dataset.get_data_info(index).get('img_id'))
        if img_id in wanted:
            found.setdefault(img_id, index)
            if len(found) == len(wanted):
                break
    if missing := [img_id for img_id in wanted if img_id not in found]:
        few = ', '.join(str(dataset.get_data_info(i).get('img_id')) for i in range(min(5, len(dataset))))
        raise DataError(
            f'No image {", ".join(missing)} among the {len(dataset)} of the training data, whose ids begin {few}: '
            'give ids from there (images without boxes may have been left out by filter_cfg)'
        )
    return [found[img_id] for img_id in wanted]


def _model(cfg: Config, checkpoint: str | None) -> tuple[nn.Module, str]:
    model: Any = DETECTORS.build(cfg.model)
    if not isinstance(model, BaseModel):
        raise ConfigError(f'model.type={cfg.model.type!r} is no BaseModel of MMEngine: derive it from Detector')
    if isinstance(model, Detector):
        model.compile_features = False  # compiled code does not call hooks
    source = checkpoint or cfg.get('load_from')
    if source is not None:
        loaded = load_checkpoint(str(source))
        load_strictly(model, loaded['state_dict'], with_layout(str(source), loaded))
        weights = f'the checkpoint {source}'
    else:
        model.init_weights()
        given = {name: _pretrained(module) for name, module in model.named_modules() if _pretrained(module)}
        parts = ', '.join(f'{name or "model"} from {source}' for name, source in given.items())
        weights = f'pretrained: {parts}; the rest random' if parts else 'random'
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return model.to(device).train(), weights


def _pretrained(module: nn.Module) -> str | None:
    init_cfg = getattr(module, 'init_cfg', None)
    is_it = isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained'
    return str(init_cfg['checkpoint']) if is_it and isinstance(init_cfg, dict) else None
