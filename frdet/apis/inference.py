"""Running a trained detector on images of users: on any form that is accepted; others are errors that name it."""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np
import PIL.Image
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log
from torch import nn

from frdet.apis.classes import declared_classes, resolve_num_classes, tested_data
from frdet.checkpoints import load_strictly
from frdet.config import check_config, load_config
from frdet.datasets.transforms.loading import decode_turned, to_bgr
from frdet.datasets.wrappers import entry, leaves
from frdet.engine import load_checkpoint, predict_in_bfloat16, with_layout
from frdet.errors import BrokenImageError, ConfigError, DataError
from frdet.models.detectors import other_counts
from frdet.registry import DETECTORS, TRANSFORMS, in_config_scope
from frdet.structures import DetDataSample

Item = TypeVar('Item')
Image = str | os.PathLike[str] | np.ndarray | PIL.Image.Image
ChannelOrder = Literal['bgr', 'rgb']

_NO_LIST = (str, bytes, bytearray, memoryview, os.PathLike, torch.Tensor, Mapping, Set)


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
    prepared = prepare(images, pipeline_of(model.cfg), channel_order)
    samples = [sample for batch in batches(prepared, batch_size) for sample in predict(model, batch)]
    return samples[0] if is_single(images) else samples


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
    """Detections in a batch of results of ``pipeline_of``: ``inputs`` (3, H, W) BGR, and ``data_samples``."""
    with torch.no_grad():
        return model.test_step(pseudo_collate(batch))


def prepare(
    images: Any,
    pipeline: Callable[[dict[str, Any]], Item],
    channel_order: ChannelOrder = 'bgr',
    on_broken: Callable[[BrokenImageError], None] | None = None,
) -> Iterator[Item]:
    """The result of ``pipeline`` for the record of each image, or of the only one.

    ``on_broken`` is called with the error of an image that is missing or cannot be decoded, and the image is skipped.
    None raises the error. The error names the image as it was given, and mentions no annotations.
    """
    for number, image in enumerate([images] if is_single(images) else images):
        try:
            prepared = pipeline(as_record(image, number, channel_order))
        except BrokenImageError as error:
            broken = BrokenImageError(_as_given(str(error), image, number))
            if on_broken is None:
                raise broken from None
            on_broken(broken)
        else:
            yield prepared


@in_config_scope
def pipeline_of(cfg: Config) -> Compose:
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


def is_single(images: Any) -> bool:
    """Whether ``images`` is one image or no collection of images. An array (N, H, W, 3) is a collection."""
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return isinstance(images, _NO_LIST) or hasattr(images, 'read') or not isinstance(images, Iterable)


def as_record(image: Any, number: int, channel_order: ChannelOrder = 'bgr') -> dict[str, Any]:
    """A record for the test pipeline: ``img_id``, which is ``number``, and ``img_path`` or ``img`` (H, W, 3) uint8 BGR.

    A PIL image is turned by its EXIF orientation. ``number`` is the position of the image among the given ones.

    Raises:
        ConfigError: ``channel_order`` is unknown.
        DataError: ``image`` has another type.
        BrokenImageError: a PIL image cannot be decoded.
    """
    if channel_order not in ('bgr', 'rgb'):
        raise ConfigError(f"channel_order is {channel_order!r}: expected 'bgr', as OpenCV reads, or 'rgb'")
    if isinstance(image, (str, os.PathLike)):
        return {'img_path': os.fsdecode(image), 'img_id': number}
    if isinstance(image, PIL.Image.Image):
        return {'img': _from_pil(image, number), 'img_id': number}
    if isinstance(image, np.ndarray):
        return {'img': _from_array(image, number, channel_order), 'img_id': number}
    remedy = ''
    if isinstance(image, torch.Tensor):
        remedy = '. Convert a tensor (3, H, W) of uint8 by tensor.permute(1, 2, 0).cpu().numpy()'
    elif isinstance(image, (bytes, bytearray, memoryview)) or hasattr(image, 'read'):
        remedy = '. Decode it first: PIL.Image.open(io.BytesIO(data)), or PIL.Image.open(file)'
    raise DataError(
        f'Image {number} is of type {type(image).__name__}: expected a path, a PIL image, or a NumPy array (H, W, 3) '
        f'of uint8{remedy}'
    )


def _as_given(message: str, image: Any, number: int) -> str:
    path = os.fsdecode(image) if isinstance(image, (str, os.PathLike)) else ''
    if os.path.isdir(path):
        return f'Image {path} is a folder: give the paths of the images in it'
    if re.match(r'[a-zA-Z][\w+.-]+:/', path):
        return f'Image {path} is an address: download it, and give the path of the file'
    if path and not os.path.exists(path):
        return f'Image {path} is not on disk: check the path'
    return message.replace(f' (id {number})', '', 1)


def _from_pil(image: PIL.Image.Image, number: int) -> np.ndarray:
    try:
        return to_bgr(decode_turned(image)[0])
    except Exception as error:  # a decoder that reads garbage may raise anything
        reason = str(error) or type(error).__name__
        raise BrokenImageError(
            f'Image {number}, a PIL image, cannot be decoded ({reason}): its file must be whole, and still be open'
        ) from None


def _from_array(image: np.ndarray, number: int, channel_order: ChannelOrder) -> np.ndarray:
    if image.dtype != np.uint8 or image.size == 0 or image.shape[2:] != (3,):
        raise DataError(
            f'Image {number} is an array {image.shape} of {image.dtype}: expected (H, W, 3) of uint8, '
            f'{channel_order.upper()}{_remedy(image)}'
        )
    # Transforms may need contiguous memory, and may write to it.
    return np.require(image if channel_order == 'bgr' else image[..., ::-1], requirements=['C', 'W'])


def _remedy(image: np.ndarray) -> str:
    remedies = {
        'Convert values from 0 to 1 by (image * 255).round().astype(numpy.uint8)': image.dtype.kind == 'f',
        'Convert 16 bits by (image >> 8).astype(numpy.uint8), as frdet does for files': image.dtype == np.uint16,
        'Drop the alpha channel by image[..., :3]': image.shape[2:] == (4,),
        'Convert a grey image by numpy.dstack([image] * 3)': image.ndim == 2 or image.shape[2:] == (1,),
        'Put the channels last by image.transpose(1, 2, 0)': image.ndim == 3 and image.shape[0] == 3,
    }
    return next((f'. {remedy}' for remedy, helps in remedies.items() if helps), '')
