"""Running a trained detector on images."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log
from torch import nn

from frdet.apis.classes import declared_classes, resolve_num_classes, tested_data
from frdet.apis.images import ChannelOrder, Image, as_record, is_single, named_as_given
from frdet.checkpoints import load_strictly
from frdet.config import check_config, load_config
from frdet.datasets.wrappers import entry, leaves
from frdet.engine import load_checkpoint, predict_in_bfloat16, with_layout
from frdet.errors import ConfigError, DataError
from frdet.models.detectors import other_counts
from frdet.registry import DETECTORS, TRANSFORMS, in_config_scope
from frdet.structures import DetDataSample

Item = TypeVar('Item')


def init_detector(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    cfg_options: dict[str, Any] | list[str] | None = None,
    amp: bool = False,
) -> nn.Module:
    """A detector ready for ``inference_detector``.

    Args:
        config: a config or the path of one.
        checkpoint: path or address of the weights; None leaves them random.
        device: None takes a GPU if there is one.
        cfg_options: changes of the config, like ``--cfg-options`` of the tools.
        amp: compute in bfloat16 where it is safe.

    Returns:
        The model in evaluation mode: ``model.cfg`` is its config, ``model.dataset_meta['classes']`` names the labels.

    Raises:
        ConfigError: the config is wrong, has another number of classes than the checkpoint, or there is no such device.
        CheckpointError: the checkpoint cannot be read or does not fit.
    """
    device = _device(device)
    if isinstance(config, Config):
        cfg = config.copy()
        if cfg_options:
            raise ConfigError('cfg_options need the path of a config: change the given Config itself')
    else:
        cfg = load_config(config, cfg_options)
    check_config(cfg)
    model = _build(cfg, checkpoint)
    if amp:
        predict_in_bfloat16(model)
    return model.to(device).eval()


@in_config_scope
def _build(cfg: Config, checkpoint: str | Path | None) -> nn.Module:
    loaded = load_checkpoint(str(checkpoint)) if checkpoint is not None else None
    meta = dict(loaded['meta'].get('dataset_meta') or {}) if loaded is not None else {}
    resolve_num_classes(cfg, lambda: meta['classes'] if 'classes' in meta else _classes(cfg))
    model = DETECTORS.build(cfg.model)
    if loaded is not None:
        if 'classes' in meta and (others := other_counts(model, len(meta['classes']))):
            raise ConfigError(
                f'{checkpoint} was trained on {len(meta["classes"])} classes, the config has {others}, or give its own '
                'checkpoint'
            )
        load_strictly(model, loaded['state_dict'], with_layout(str(checkpoint), loaded))
    model.dataset_meta = meta if 'classes' in meta else {'classes': _classes(cfg, model)}
    model.cfg = cfg
    return model


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
        images: a path, a PIL image, or an array (H, W, 3) of uint8; or several images: a list, a generator, or an array
            (N, H, W, 3).
        batch_size: number of images to compute together.
        channel_order: order of the channels of arrays: 'bgr', like OpenCV, or 'rgb'. Other images do not need it.

    Returns:
        A ``DetDataSample``, or a list of them for several images. ``pred_instances`` has ``bboxes`` (n, 4) xyxy in
        pixels of the image, ``scores`` (n,) and ``labels`` (n,), sorted by falling score.

    Raises:
        ConfigError: ``batch_size`` is less than 1, ``channel_order`` is unknown, or ``model`` has no ``cfg``.
        DataError: an image is missing, is broken, or has a wrong type.
    """
    if not hasattr(model, 'cfg'):
        raise ConfigError('The model has no cfg, which has the pipeline of test images: take it from init_detector')
    single = is_single(images)
    every: Any = [images] if single else images
    samples: list[DetDataSample] = []
    for batch in batches(prepare(model.cfg, every, channel_order), batch_size):
        samples += predict(model, batch)
    return samples[0] if single else samples


def batches(items: Iterable[Item], batch_size: int) -> Iterator[list[Item]]:
    """``items`` in lists of ``batch_size``, made as they are asked for. The last list may be shorter.

    Raises:
        ConfigError: ``batch_size`` is no positive number. This is raised at once.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ConfigError(f'batch_size is {batch_size!r}: expected at least 1 image')
    rest = iter(items)
    return iter(lambda: list(itertools.islice(rest, batch_size)), [])


def predict(model: Any, batch: Sequence[dict[str, Any]]) -> list[DetDataSample]:
    """Detections in a batch of images from ``prepare``."""
    with torch.no_grad():
        return model.test_step(pseudo_collate(batch))


def prepare(cfg: Config, images: Iterable[Image], channel_order: ChannelOrder = 'bgr') -> Iterator[dict[str, Any]]:
    """Each image after the test pipeline of ``cfg``: ``inputs`` (3, H, W) BGR, and ``data_samples``."""
    pipeline = build_pipeline(cfg)
    for number, image in enumerate(images):
        with named_as_given(image, number):
            data = pipeline(as_record(image, number, channel_order))
        yield data


@in_config_scope
def build_pipeline(cfg: Config) -> Compose:
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
    return Compose([TRANSFORMS.build(step) for step in getattr(found[0], 'transforms', found[0])])


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
