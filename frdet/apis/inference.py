"""Building a trained detector, and running it on images of users."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log

from frdet.apis.classes import declared_classes, resolve_num_classes, tested_data
from frdet.apis.exported import OnnxDetector
from frdet.apis.images import ChannelOrder, Image, batches, is_single, prepare
from frdet.checkpoints import load_strictly
from frdet.config import apply_overrides, check_config, load_config, parse_overrides, read_text
from frdet.datasets.wrappers import entry, leaves
from frdet.engine import load_checkpoint, predict_in_bfloat16, with_layout
from frdet.errors import CheckpointError, ConfigError, DataError
from frdet.models.detectors import other_counts
from frdet.registry import DETECTORS, TRANSFORMS, in_config_scope
from frdet.structures import DetDataSample

CONFIGS = ('.py', '.yaml', '.yml', '.json')


def init_detector(
    config: str | Path | Config | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    cfg_options: dict[str, Any] | list[str] | None = None,
    amp: bool = False,
) -> Any:
    """A detector ready for ``inference_detector``: ``init_detector('epoch_12.pth')``, or with a config before it.

    Args:
        config: a config or the path of one. It may be left out if the checkpoint was written by a training of frdet:
            such a checkpoint holds its config, which is read as data. No code in it runs.
        checkpoint: path or address of the weights, or an ONNX file of ``export_detector``, which takes no config, runs
            on the CPU, and cannot be changed. With a config, None leaves the weights random, and the log says so.
        device: None takes a GPU if there is one.
        cfg_options: changes of the config, like ``--cfg-options`` of the tools.
        amp: compute in bfloat16 where it is safe.

    Returns:
        The model in evaluation mode, or an ``OnnxDetector``. ``model.cfg`` is its config,
        ``model.dataset_meta['classes']`` names the labels.

    Raises:
        ConfigError: the config is wrong, has another number of classes than the checkpoint, or there is no such device.
        CheckpointError: the checkpoint cannot be read, does not fit, or holds no config although none is given.
        ExportError: ONNX Runtime is missing, or refuses the file.
    """
    config, checkpoint = _told_apart(config, checkpoint)
    if checkpoint is not None and Path(checkpoint).suffix.lower() == '.onnx':
        if config is not None or cfg_options or amp or str(device or 'cpu') != 'cpu':
            raise ConfigError(
                f'{checkpoint} is a whole detector, which runs on the CPU: give no config, no options, no amp and no '
                'other device; a checkpoint takes all of them'
            )
        return OnnxDetector(checkpoint)
    device = _device(device)
    loaded: dict[str, Any] | None = None
    if isinstance(config, Config):
        cfg = config.copy()
        if cfg_options:
            raise ConfigError('cfg_options need the path of a config: change the given Config itself')
    elif config is not None:
        cfg = load_config(config, cfg_options)
    else:
        loaded = load_checkpoint(str(checkpoint))
        cfg = _saved_config(str(checkpoint), loaded['meta'], cfg_options)
    check_config(cfg)
    if checkpoint is None:
        print_log('No checkpoint is given: weights and detections are random', 'current', logging.WARNING)
    elif loaded is None:
        loaded = load_checkpoint(str(checkpoint))
    model = _build(cfg, str(checkpoint), loaded)
    if config is None and loaded is not None and 'category_ids' in loaded['meta']:
        model.dataset_meta['category_ids'] = loaded['meta']['category_ids']
    if amp:
        predict_in_bfloat16(model)
    return model.to(device).eval()


def _told_apart(config: Any, checkpoint: Any) -> tuple[Any, Any]:
    """Config and checkpoint: a checkpoint may stand alone in the place of the config."""
    if config is None and checkpoint is None:
        raise ConfigError('No checkpoint is given: expected the path of one, such as epoch_12.pth')
    for given in (config, checkpoint):
        if not isinstance(given, (str, os.PathLike, Config, type(None))):
            raise ConfigError(f'Found an object of type {type(given).__name__}: expected the path of a checkpoint')
    if checkpoint is not None and Path(checkpoint).suffix.lower() in CONFIGS:
        raise ConfigError(f'{checkpoint} is a config: give the checkpoint after it, such as epoch_12.pth')
    if config is None or isinstance(config, Config) or Path(config).suffix.lower() in CONFIGS:
        return config, checkpoint
    if checkpoint is not None:
        raise ConfigError(
            f'{config} stands where a config belongs, and {checkpoint} where its checkpoint belongs: give a .py file '
            'first, or the checkpoint alone and all else by name'
        )
    return None, config


def _saved_config(checkpoint: str, meta: dict[str, Any], options: dict[str, Any] | list[str] | None) -> Config:
    """The config that training wrote into a checkpoint, read as data: the file may come from anywhere."""
    if not isinstance(text := meta.get('cfg'), str):
        raise CheckpointError(
            f'{checkpoint} does not hold the config of its training: give the path of the config before it'
        )
    try:
        cfg = read_text(text, 'its config')
        check_config(cfg)
    except ConfigError as error:
        raise ConfigError(
            f'{checkpoint} cannot be used without a config file: {error}.\nGive the path of the config before it. Or '
            'first import the modules that define its components, if you trust them'
        ) from error
    apply_overrides(cfg, options if isinstance(options, dict) else parse_overrides(options or []))
    return cfg


@in_config_scope
def _build(cfg: Config, checkpoint: str, loaded: dict[str, Any] | None) -> Any:
    meta = dict(loaded['meta'].get('dataset_meta') or {}) if loaded is not None else {}
    resolve_num_classes(cfg, lambda: meta['classes'] if 'classes' in meta else _classes(cfg))
    model = DETECTORS.build(cfg.model)
    if loaded is not None:
        if 'classes' in meta and (others := other_counts(model, len(meta['classes']))):
            raise ConfigError(
                f'{checkpoint} was trained on {len(meta["classes"])} classes, the config has {others}, or give its own '
                'checkpoint'
            )
        load_strictly(model, loaded['state_dict'], with_layout(checkpoint, loaded))
    model.dataset_meta = meta if 'classes' in meta else {'classes': _classes(cfg, model)}
    model.cfg = cfg
    return model


def _classes(cfg: Config, model: Any = None) -> tuple[str, ...]:
    """Class names for a checkpoint without names: from the test data, or else the numbers of the labels."""
    try:
        classes = declared_classes(cfg)
    except DataError as error:
        print_log(f'Class names are unknown, labels are shown as numbers: {error}', logger='current')
        return tuple(str(label) for label in range(getattr(model, 'num_classes', None) or 0))
    if model is not None and (others := other_counts(model, len(classes))):
        raise ConfigError(f'The test data have {len(classes)} classes, the model {others}')
    return classes


def _device(name: str | torch.device | None) -> torch.device:
    if name is None:
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):  # torch's message is a page long, or about drivers
        there = ['cpu', *(f'cuda:{k}' for k in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))]
        raise ConfigError(f'Device {str(name)!r} cannot be used: torch can use {", ".join(there)} here') from None
    return device


@overload
def inference_detector(
    model: Any, images: Image, batch_size: int = 1, *, channel_order: ChannelOrder = 'bgr'
) -> DetDataSample: ...


@overload
def inference_detector(
    model: Any, images: Iterable[Image], batch_size: int = 1, *, channel_order: ChannelOrder = 'bgr'
) -> list[DetDataSample]: ...


def inference_detector(
    model: Any, images: Image | Iterable[Image], batch_size: int = 1, *, channel_order: ChannelOrder = 'bgr'
) -> DetDataSample | list[DetDataSample]:
    """Detections in one image, or in each of several.

    Args:
        model: a model of ``init_detector``.
        images: a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W) of uint8; or several images: a list, a
            generator, an array (N, H, W, 3) or a tensor (N, 3, H, W).
        batch_size: number of images to compute together.
        channel_order: order of the channels of arrays and tensors: 'bgr', like OpenCV, or 'rgb'. Other images do not
            need it.

    Returns:
        A ``DetDataSample``, or a list of them for several images. ``pred_instances`` has ``bboxes`` (n, 4) xyxy in
        pixels of the image, ``scores`` (n,) and ``labels`` (n,), sorted by falling score; from a detector with masks
        also ``masks`` (n, height, width) bool. For many large images use ``DetInferencer``, which keeps masks small.

    Raises:
        ConfigError: ``batch_size`` is less than 1, ``channel_order`` is unknown, or ``model`` has no ``cfg``.
        DataError: an image is missing, is broken, or has a wrong type.
    """
    if not hasattr(model, 'cfg'):
        raise ConfigError('The model has no cfg, which has the pipeline of test images: take it from init_detector')
    prepared = prepare(images, pipeline_of(model.cfg), channel_order)
    samples = [sample for batch in batches(prepared, batch_size) for sample in predict(model, batch)]
    return samples[0] if is_single(images) else samples


def predict(model: Any, batch: Sequence[dict[str, Any]]) -> list[DetDataSample]:
    """Detections in a batch of results of ``pipeline_of``: ``inputs`` (3, H, W) BGR, and ``data_samples``."""
    with torch.no_grad():
        return model.test_step(pseudo_collate(batch))


@in_config_scope
def pipeline_of(cfg: Config) -> Compose:
    """The transforms of the test data, built; see ``steps_of``."""
    return Compose([TRANSFORMS.build(step) for step in steps_of(cfg)])


def steps_of(cfg: Config) -> list[Any]:
    """The transforms of the test data. Joined data sets must have the same transforms.

    Raises:
        ConfigError: a data set has no pipeline, or pipelines differ.
    """
    found = [entry(leaf, 'pipeline') for leaf in leaves(tested_data(cfg), having='pipeline')]
    if not found or any(pipeline is None for pipeline in found):
        raise ConfigError('test_dataloader.dataset has no pipeline to prepare images: give it one')
    if any(pipeline != found[0] for pipeline in found):
        raise ConfigError(
            'The data sets joined in test_dataloader have different pipelines, and an image needs one of '
            'them: give all the same pipeline, or a config with only one of the data sets'
        )
    return list(getattr(found[0], 'transforms', found[0]))
