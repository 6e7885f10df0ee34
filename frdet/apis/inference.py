"""A trained detector on images."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log
from torch import nn

from frdet.apis.classes import settle_num_classes
from frdet.config import check_config, load_config
from frdet.datasets.coco_json import read_coco
from frdet.engine import load_checkpoint, predict_in_bfloat16, with_layout
from frdet.errors import ConfigError, DataError
from frdet.interop import load_strictly
from frdet.registry import DETECTORS, TRANSFORMS
from frdet.structures import DetDataSample

Image = str | Path | np.ndarray


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
        checkpoint: path or address of its weights; None leaves them random.
        device: where it runs; a GPU if there is one where None.
        cfg_options: overrides, as ``--cfg-options`` of the tools.
        amp: compute in bfloat16 where it is safe.

    Returns:
        The model in evaluation mode: ``model.cfg`` is its config, ``model.dataset_meta['classes']`` names the labels.

    Raises:
        ConfigError: the config is wrong, or its number of classes is not the checkpoint's; or there is no such device.
        CheckpointError: the checkpoint is unreadable or does not fit.
    """
    device = _device(device)
    if isinstance(config, Config):
        cfg = config.copy()
        if cfg_options:
            raise ConfigError('cfg_options apply where config is a path: change the Config itself')
    else:
        cfg = load_config(config, cfg_options)
    check_config(cfg)
    loaded = load_checkpoint(str(checkpoint)) if checkpoint is not None else None
    meta = dict(loaded['meta'].get('dataset_meta') or {}) if loaded is not None else {}
    settle_num_classes(cfg, lambda: meta['classes'] if 'classes' in meta else _classes(cfg, None))
    model = DETECTORS.build(cfg.model)
    if loaded is not None:
        count = _num_classes(model)
        if count is not None and 'classes' in meta and len(meta['classes']) != count:
            raise ConfigError(
                f'{checkpoint} was trained on {len(meta["classes"])} classes, the config has {count}: '
                f'set model.roi_head.bbox_head.num_classes={len(meta["classes"])}, or give its own checkpoint'
            )
        load_strictly(model, loaded['state_dict'], with_layout(str(checkpoint), loaded))
    model.dataset_meta = meta if 'classes' in meta else {'classes': _classes(cfg, _num_classes(model))}
    model.cfg = cfg
    if amp:
        predict_in_bfloat16(model)
    return model.to(device).eval()


def _device(name: str | torch.device | None) -> torch.device:
    if name is None:
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):  # torch's message is a page long, or of drivers where one wants the CPU
        there = ['cpu', *(f'cuda:{k}' for k in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))]
        raise ConfigError(f'Device {str(name)!r} cannot be used: torch can use {", ".join(there)} here') from None
    return device


@overload
def inference_detector(model: Any, images: Image, batch_size: int = 1) -> DetDataSample: ...


@overload
def inference_detector(model: Any, images: Sequence[Image], batch_size: int = 1) -> list[DetDataSample]: ...


def inference_detector(
    model: Any, images: Image | Sequence[Image], batch_size: int = 1
) -> DetDataSample | list[DetDataSample]:
    """Detections in one image, or in each of a list.

    Args:
        model: from ``init_detector``.
        images: a path, an array (H, W, 3) uint8 BGR, or a list of both.
        batch_size: images computed together.

    Returns:
        A ``DetDataSample`` or a list of them: ``pred_instances`` has ``bboxes`` (n, 4) xyxy in pixels of the image,
        ``scores`` (n,), ``labels`` (n,), best score first.

    Raises:
        DataError: an image is missing, broken, or no such array.
    """
    single = isinstance(images, (str, Path, np.ndarray))
    every: Sequence[Any] = [images] if single else images  # type: ignore[assignment]
    prepared = prepare(model.cfg, every)
    samples: list[DetDataSample] = []
    while data := list(itertools.islice(prepared, batch_size)):
        with torch.no_grad():
            samples += model.test_step(pseudo_collate(data))
    return samples[0] if single else samples


def prepare(cfg: Config, images: Sequence[Image]) -> Iterator[dict[str, Any]]:
    """Each image as the test pipeline of ``cfg`` packs it: ``inputs`` (3, H, W) BGR, and ``data_samples``."""
    pipeline = _pipeline(cfg)
    for number, image in enumerate(images):
        yield pipeline(_record(image, number))


def _record(image: Image, number: int) -> dict[str, Any]:
    if not isinstance(image, np.ndarray):
        return {'img_path': str(image), 'img_id': number}
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise DataError(f'Image {number} is an array {image.shape} of {image.dtype}: expected (H, W, 3) of uint8, BGR')
    return {'img': image, 'img_id': number}


def _pipeline(cfg: Config) -> Compose:
    dataset = cfg.test_dataloader.dataset
    while 'pipeline' not in dataset and 'dataset' in dataset:  # wrappers such as RepeatDataset
        dataset = dataset.dataset
    return Compose([TRANSFORMS.build(step) for step in dataset.pipeline])


def _num_classes(model: nn.Module) -> int | None:
    head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
    return getattr(head, 'num_classes', None)


def _classes(cfg: Config, count: int | None) -> tuple[str, ...]:
    """Class names where the checkpoint has none: the config's, else the test annotations', else ``count`` numbers."""
    dataset = cfg.test_dataloader.dataset
    classes = (dataset.get('metainfo') or {}).get('classes')
    if not isinstance(classes, (list, tuple)):
        try:
            classes = list(read_coco(Path(dataset.get('data_root', ''), dataset.get('ann_file', ''))).categories)
        except DataError as error:
            print_log(f'Class names are unknown, labels are shown as numbers: {error}', logger='current')
            classes = [str(label) for label in range(count or 0)]
    if count is not None and len(classes) != count:
        raise ConfigError(
            f'The test data have {len(classes)} classes, the box head {count}: '
            f'set model.roi_head.bbox_head.num_classes={len(classes)}'
        )
    return tuple(classes)
