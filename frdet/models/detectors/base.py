"""The base class of detectors. A family adds its parts and two methods, ``losses`` and ``detect``."""

import functools
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NoReturn

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from frdet.errors import ConfigError, ExportError, defined
from frdet.models.preprocessor import DetPreprocessor
from frdet.models.task_modules import Detections
from frdet.registry import BACKBONES, NECKS, PREPROCESSORS, SCOPE, arguments_of, build_parts
from frdet.structures import (
    DetDataSample,
    GroundTruth,
    batch_ground_truth,
    check_scale,
    check_truth,
    paste_masks,
    to_original,
)


class Detector(BaseModel):
    """Images -> features -> losses or detections.

    A family derives from this class, builds its heads by ``build_parts``, and writes ``losses`` and ``detect``.
    Training, testing, inference, fine-tuning and export need nothing else.

    Args:
        backbone: images (N, 3, H, W) -> feature maps.
        neck: feature maps -> feature maps. None uses the backbone's maps. A neck without ``in_channels`` gets
            ``backbone.out_channels``.
        data_preprocessor: the data loader's batch -> network input.
        compile: run backbone and neck through ``torch.compile``. The first batch then takes a minute or two more.
            Without a C++ compiler they run uncompiled, with a warning.
        init_cfg: MMEngine's.
    """

    parts = dict(data_preprocessor=PREPROCESSORS, backbone=BACKBONES, neck=NECKS)

    def __init__(
        self,
        *,
        backbone: dict,
        neck: dict | None = None,
        data_preprocessor: dict,
        compile: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(PREPROCESSORS.build(data_preprocessor), init_cfg)
        build_parts(self, backbone=backbone)
        build_parts(self, neck=_with_channels(neck, self.backbone))
        self.compile_features = compile
        #: Predict in bfloat16 where it is safe, as training does under ``--amp``.
        self.predicts_in_bfloat16 = False

    def __setattr__(self, name: str, value: Any) -> None:
        """Convert every part to ``channels_last``, and give the preprocessor the number of classes."""
        if isinstance(value, nn.Module):
            value.to(memory_format=torch.channels_last)
        super().__setattr__(name, value)
        if isinstance(value, nn.Module) and isinstance(self.data_preprocessor, DetPreprocessor):
            self.data_preprocessor.num_classes = self.num_classes

    @property
    def num_classes(self) -> int | None:
        """K of the first head that has a ``num_classes``; None if no head has one."""
        return next(iter(class_counts(self).values()), None)

    @num_classes.setter
    def num_classes(self, value: int | None) -> None:
        """Set by a detector whose own layers depend on the classes."""
        self.__dict__['num_classes'] = value

    def losses(self, features: tuple[Tensor, ...], truth: GroundTruth, image_sizes: Tensor) -> dict[str, Tensor]:
        """Scalars by name. The sum of all with ``loss`` in their name is trained on; the others are only logged.

        Args:
            features: maps (N, C_l, H_l, W_l), finest first.
            truth: the ground truth of the batch.
            image_sizes: (N, 2) float32, height and width of each image before padding.
        """
        raise self._lacks('losses(features, truth, image_sizes)')

    def detect(self, features: tuple[Tensor, ...], image_sizes: Tensor) -> Detections:
        """Detections in pixels of the network's input, in shapes that do not depend on the values; see ``losses``."""
        raise self._lacks('detect(features, image_sizes)')

    def _lacks(self, method: str) -> ConfigError:
        return ConfigError(
            f'{defined(type(self))} has no method {method}: expected one in every class that is derived from Detector'
        )

    def paste_masks(self, masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks on grids over their boxes -> masks of the original image; see ``frdet.structures.paste_masks``.

        The first part with a method ``paste``, which is the mask head, does it by its own rule.
        """
        head = mask_head_of(self)
        return paste_masks(masks, boxes, size) if head is None else head.paste(masks, boxes, size)

    def raw(self, features: tuple[Tensor, ...]) -> Any:
        """The second result of ``mode='tensor'``, beside the features: for example the outputs of a head."""
        return None

    def init_weights(self) -> None:
        """Load the weights that ``init_cfg`` of the parts names. Random weights are drawn when a part is built."""
        with DefaultScope.overwrite_default_scope(SCOPE):
            super().init_weights()

    def forward(self, inputs: Tensor, data_samples: list[DetDataSample] | None = None, mode: str = 'tensor') -> Any:
        """MMEngine's entry. ``mode`` is 'loss', 'predict' or 'tensor': the feature maps and the result of ``raw``."""
        if mode == 'loss':
            return self.loss(inputs, data_samples or [])
        if mode == 'predict':
            with torch.autocast(inputs.device.type, torch.bfloat16) if self.predicts_in_bfloat16 else nullcontext():
                return self.predict(inputs, data_samples or [])
        if mode == 'tensor':
            features = self.extract_features(inputs)
            return features, self.raw(features)
        raise ValueError(f"mode is {mode!r}, expected 'loss', 'predict' or 'tensor'")

    def extract_features(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) -> feature maps, finest first.

        Raises:
            ExportError: ``torch.jit.trace`` calls it.
        """
        if torch.jit.is_tracing():
            self.__prepare_scriptable__()
        run = compiled_features() if self.compile_features else _features
        return run(self.backbone, self.neck, inputs)

    def __prepare_scriptable__(self) -> NoReturn:
        """``torch.jit.script`` calls this method before anything else."""
        raise ExportError(
            'TorchScript cannot hold a detector: a trace keeps the image size and the number of boxes of its example. '
            'Export it to ONNX or with torch.export: tools/export_onnx.py, or frdet.apis.export_detector'
        )

    def loss(self, inputs: Tensor, data_samples: list[DetDataSample]) -> dict[str, Tensor]:
        """``losses`` of a batch of normalised images (N, 3, H, W) with their ground truth.

        Raises:
            DataError: the ground truth cannot be trained on; see ``check_truth``.
        """
        num_classes = self.num_classes
        check_truth(data_samples, num_classes)
        truth = batch_ground_truth(data_samples)
        if truth.labels.is_cuda and num_classes is not None:  # the GPU checks: the host does not wait
            legal = (truth.labels >= 0) & (truth.labels < num_classes)
            torch._assert_async(legal.all(), f'Ground truth has labels outside 0 to {num_classes - 1}')
        return self.losses(self.extract_features(inputs), truth, _image_sizes(inputs, data_samples))

    def predict(self, inputs: Tensor, data_samples: list[DetDataSample]) -> list[DetDataSample]:
        """Detections in a batch of normalised images (N, 3, H, W).

        Returns:
            ``data_samples`` with ``pred_instances``: boxes in pixels of the original image, best score first.

        Raises:
            ConfigError: ``detect`` of a user's class returns something else than ``Detections`` of the batch.
            DataError: a sample's shapes and scale contradict each other; see ``check_scale``.
        """
        for sample in data_samples:
            check_scale(sample)
        result = self.detect(self.extract_features(inputs), _image_sizes(inputs, data_samples))
        self._check_detections(result, len(data_samples))
        found = Detections(*result)
        for i, sample in enumerate(data_samples):
            there = (found.labels[i] >= 0).nonzero().squeeze(1)
            instances = InstanceData(bboxes=found.boxes[i][there], scores=found.scores[i][there])
            instances.labels = found.labels[i][there]
            if found.masks is not None:
                instances.masks = found.masks[i][there]
            sample.pred_instances = to_original(
                instances,
                sample.img_shape,
                sample.ori_shape,
                flip=bool(sample.get('flip', False)),
                paste=self.paste_masks,
            )
        return data_samples

    def _check_detections(self, found: Any, count: int) -> None:
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in found or () if x is not None]
        expected = (count, *(shapes[-1][1:2] if shapes else ()))
        masks = [] if len(shapes) < 4 else [(*expected, *shapes[3][-2:])]
        if shapes != [(*expected, 4), expected, expected, *masks]:
            raise ConfigError(
                f'detect of {defined(type(self))} returns {shapes}: expected Detections of {count} images, boxes '
                '(B, D, 4), scores (B, D), labels (B, D), and masks (B, D, M, M) if there are any'
            )


def bare(model: nn.Module) -> Any:
    """The model without its wrapper, such as DistributedDataParallel."""
    return model.module if is_model_wrapper(model) else model


def mask_head_of(model: nn.Module) -> Any:
    """The first part of a model that has a method ``paste``; None if there is none."""
    return next((part for part in model.modules() if hasattr(part, 'paste')), None)


def class_counts(model: nn.Module) -> dict[str, int]:
    """The numbers of classes of a model's heads, by the key path that sets each in a config.

    In a ``Detector`` every module with a ``num_classes`` counts, except in backbone, neck, preprocessor, and a list
    that has a ``num_classes`` itself. Of another model only its own ``num_classes`` counts.
    """
    own = vars(model).get('num_classes') if isinstance(model, Detector) else getattr(model, 'num_classes', None)
    found = {'model.num_classes': own} if isinstance(own, int) else {}
    for name, part in model.named_children() if isinstance(model, Detector) else ():
        if name not in ('data_preprocessor', 'backbone', 'neck'):
            for inner, module in part.named_modules(prefix=name):
                is_told = f'model.{inner.rpartition(".")[0]}.num_classes' in found
                if isinstance(count := getattr(module, 'num_classes', None), int) and not is_told:
                    found[f'model.{inner}.num_classes'] = count
    return found


def other_counts(model: nn.Module, expected: int) -> str | None:
    """In words: the numbers of classes that differ from ``expected``, and the keys to set. None if none differs."""
    others = {key_path: count for key_path, count in class_counts(model).items() if count != expected}
    found = ' and '.join(str(count) for count in dict.fromkeys(others.values()))
    return f'{found}: set {" and ".join(f"{key_path}={expected}" for key_path in others)}' if others else None


def _with_channels(neck: Any, backbone: nn.Module) -> Any:
    """A neck's config. Its ``in_channels`` is filled in if the neck takes it and the config does not give it."""
    if not isinstance(neck, dict) or 'type' not in neck or neck.get('in_channels') is not None:
        return neck
    kind = neck['type'] if callable(neck['type']) else NECKS.get(neck['type'])
    if 'in_channels' not in arguments_of(kind)[0]:
        return neck
    if (channels := getattr(backbone, 'out_channels', None)) is None:
        raise ConfigError(
            f'model.neck.in_channels is not given, and {type(backbone).__name__} has no out_channels: set one of '
            "them to the channels of the backbone's maps, finest first"
        )
    return {**neck, 'in_channels': channels}


def _features(backbone: nn.Module, neck: nn.Module | None, inputs: Tensor) -> tuple[Tensor, ...]:
    features = backbone(inputs)
    return neck(features) if neck is not None else features


@functools.cache
def compiled_features() -> Callable[..., tuple[Tensor, ...]]:
    """``_features``, compiled at its first call, once for all models. Without a C++ compiler it stays as it is.

    It is no method: that of a copied model, such as the average of its weights, would still run on the original model.
    """
    compiler = os.environ.get('CXX') or 'g++'
    if shutil.which(compiler) is None:
        text = f'compile=True is left out: there is no C++ compiler {compiler}. Install one, or set CXX'
        print_log(text, 'current', logging.WARNING)
        return _features
    return torch.compile(_features)


def _image_sizes(inputs: Tensor, data_samples: list[DetDataSample]) -> Tensor:
    """(N, 2) float32: height and width of each image before padding."""
    return torch.tensor([s.img_shape[:2] for s in data_samples], dtype=torch.float32).to(
        inputs.device, non_blocking=True
    )
