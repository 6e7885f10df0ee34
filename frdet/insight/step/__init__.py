"""Makes one training step of a config and shows it on an HTML page.

``prepare`` builds the data, model and optimiser, ``recording`` makes the step and fills the ``record``, ``findings``
looks for problems, and the ``page_`` modules draw the page. Any BaseModel of MMEngine is accepted. Sections about boxes
appear if the model has parts with such boxes.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.runner import set_random_seed
from torch import nn

from frdet.apis.classes import resolve_num_classes
from frdet.checkpoints import load_strictly
from frdet.checkpoints.fit import fit_to_start
from frdet.config import check_config
from frdet.engine import load_checkpoint, with_layout
from frdet.engine.hooks.check_setup import check_classes
from frdet.engine.optim import scale_lr
from frdet.errors import ConfigError, DataError
from frdet.insight.page import Page
from frdet.insight.step.findings import find_warnings
from frdet.insight.step.page_boxes import add_anchors, add_data, add_proposals, add_rois
from frdet.insight.step.page_layers import add_activations, add_losses, add_parts, add_updates
from frdet.insight.step.record import ANCHORS, DATA, PROPOSALS, ROIS, Prepared, Record
from frdet.insight.step.recording import record_step
from frdet.models.detectors import Detector
from frdet.progress import Bar, track
from frdet.registry import DATASETS, DETECTORS, in_config_scope

__all__ = ['inspect_step']

_SECTIONS = {
    'The parts': add_parts,
    DATA: add_data,
    ANCHORS: add_anchors,
    PROPOSALS: add_proposals,
    ROIS: add_rois,
    'Losses': add_losses,
    'Activations': add_activations,
    'Updates': add_updates,
}


def inspect_step(
    cfg: Config,
    *,
    checkpoint: str | None = None,
    images: Sequence[str] = (),
    split: str = 'train',
    seed: int = 0,
) -> tuple[Page, Record]:
    """Make one training step on images of the config. No file is written.

    Args:
        cfg: a whole config.
        checkpoint: path or address of the weights; without it, ``load_from`` or the weights that training starts from.
        images: image ids; without them, the first image is taken.
        split: train, val or test: the data of which the images are, with their own pipeline.
        seed: seed of the random transforms, of random weights and of the samplers.

    Returns:
        The page, and the record of the step that it shows.

    Raises:
        ConfigError: the config is wrong, or its model is no BaseModel of MMEngine.
        DataError: the data are missing or empty, or lack an image of ``images``.
        CheckpointError: the checkpoint is unreadable or does not fit.
    """
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # MMEngine logs a line about every parameter
    try:
        prepared = prepare(cfg, checkpoint, images, seed, split)
        with Bar('Making the step', 1 + len(_SECTIONS)) as bar:
            record = record_step(prepared)
            bar.advance(description='Drawing the page')
            return _page(record, bar), record
    finally:
        logger.setLevel(level)


@in_config_scope
def prepare(cfg: Config, checkpoint: str | None, images: Sequence[str], seed: int, split: str = 'train') -> Prepared:
    """Build the inputs of the step as training does. See ``inspect_step`` for arguments and errors."""
    check_config(cfg)
    for name in ('train_dataloader', 'optim_wrapper'):
        if not cfg.get(name):
            raise ConfigError(f'The config has no {name}: give a config for training')
    loader = f'{split}_dataloader'
    if not cfg.get(loader):
        raise ConfigError(f'The config has no {loader}: choose another split')
    dataset = DATASETS.build(cfg[loader].dataset)
    if len(dataset) == 0:
        raise DataError(f'The data of {loader} are empty: check ann_file, metainfo.classes and filter_cfg')
    classes = tuple((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())
    resolve_num_classes(cfg, lambda: classes)
    indices = _find(dataset, images, loader) if images else [0]
    set_random_seed(seed)
    model, weights = _model(cfg, checkpoint)
    check_classes(model, dataset, loader)
    prepared = Prepared(
        cfg=cfg,
        model=model,
        weights=weights,
        optim_wrapper=build_optim_wrapper(model, cfg.optim_wrapper),
        dataset=dataset,
        records=[dataset.get_data_info(i) for i in indices],
        items=[dataset[i] for i in indices],
        classes=classes,
    )
    scale_lr(prepared.optim_wrapper, cfg.get('auto_scale_lr'), prepared.batch_size)
    return prepared


def _find(dataset: Any, images: Sequence[str], loader: str) -> list[int]:
    """The places of images in a data set by their ids; an id that is given twice counts once."""
    wanted = dict.fromkeys(map(str, images))
    places: dict[str, int] = {}
    for index in track(range(len(dataset)), 'Looking for the images'):
        places.setdefault(str(dataset.get_data_info(index).get('img_id')), index)
        if places.keys() >= wanted.keys():
            return [places[img_id] for img_id in wanted]
    raise DataError(
        f'No image {", ".join(img_id for img_id in wanted if img_id not in places)} among the {len(dataset)} of '
        f'{loader}, whose ids begin {", ".join(list(places)[:5])}: '
        'give ids from there, or another --split (images without boxes may have been left out by filter_cfg)'
    )


def _model(cfg: Config, checkpoint: str | None) -> tuple[nn.Module, str]:
    """The model in training mode on its device, and the origin of its weights in words."""
    model: Any = DETECTORS.build(cfg.model)
    if not isinstance(model, BaseModel):
        raise ConfigError(f'model.type={cfg.model.type!r} is no BaseModel of MMEngine: derive it from Detector')
    if isinstance(model, Detector):
        model.compile_features = False  # compiled code does not call hooks
    if (source := checkpoint or cfg.get('load_from')) is not None:
        loaded = load_checkpoint(str(source))
        state, name = loaded['state_dict'], with_layout(str(source), loaded)
        load_strictly(model, state if checkpoint else fit_to_start(model, state, name), name)
        weights = f'the checkpoint {source}'
    else:
        model.init_weights()
        pretrained = [
            f'{name or "model"} from {init["checkpoint"]}'
            for name, module in model.named_modules()
            if isinstance(init := getattr(module, 'init_cfg', None), dict) and init.get('type') == 'Pretrained'
        ]
        weights = f'pretrained: {", ".join(pretrained)}; the rest random' if pretrained else 'random'
    return model.to('cuda' if torch.cuda.is_available() else 'cpu').train(), weights


def _page(record: Record, bar: Bar) -> Page:
    prepared = record.prepared
    names = ', '.join(record.image_name(i) for i in range(len(record.samples)))
    page = Page(
        'One training step',
        f'What the training of this config does with {names}: forward, losses, backward, optimiser step.',
        facts={
            'config': prepared.cfg.filename or 'given as an object',
            'detector': type(prepared.model).__name__,
            'weights': prepared.weights,
            'images': len(record.samples),
            'learning rate': record.lr,
            'device': next(prepared.model.parameters()).device.type,
            **({'not shown': record.not_shown} if record.not_shown else {}),
        },
        warnings=find_warnings(record),
    )
    for title, add in _SECTIONS.items():
        if title not in record.absent:
            add(page, record)
        bar.advance()
    return page
