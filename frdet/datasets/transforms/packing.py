"""From an image and its fields to the input of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData

from frdet.datasets.transforms.geometry import field_names, select_objects
from frdet.datasets.transforms.masks import draw_masks
from frdet.errors import ConfigError
from frdet.registry import TRANSFORMS
from frdet.structures import DetDataSample

META_KEYS = ('img_id', 'img_path', 'img_shape', 'ori_shape', 'scale_factor', 'flip')


@TRANSFORMS.register_module()
@dataclass(kw_only=True)
class FilterBoxes:
    """Drops objects whose box has a side of at most ``min_side`` pixels. Put it after the transforms that move boxes.

    An image that loses all its objects stays, and is trained on as background, as in detectron2.
    """

    min_side: float = 1e-5

    def __post_init__(self) -> None:
        if self.min_side < 0:
            raise ConfigError(f'min_side is {self.min_side!r}: expected 0 or more pixels')

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        boxes = results['gt_bboxes']
        keep = (boxes[:, 2:] - boxes[:, :2] > self.min_side).all(axis=1)
        results.update(select_objects(results, keep, field_names(results)))
        return results


@TRANSFORMS.register_module()
@dataclass(kw_only=True)
class PackDetInputs:
    """The last transform. It returns ``inputs``, uint8 (3, H, W) BGR, and ``data_samples``, a ``DetDataSample``.

    Crowd boxes become ``ignored_instances``, other boxes ``gt_instances``. Both are empty without ground truth. The
    field ``gt_masks`` becomes ``gt_instances.masks``, (n, H, W) uint8.

    Args:
        meta_keys: keys of the image's dict that become metainfo of the sample. Default keys may be missing in the dict,
            other keys must be in it.
        instance_keys: fields to pack besides boxes and labels, under their names without ``gt_``: ``gt_keypoints``
            becomes ``gt_instances.keypoints``. An image with boxes must have these fields.

    Raises:
        ConfigError: ``meta_keys`` lacks a key that brings detections back to the original image, or an image lacks a
            key.
    """

    meta_keys: Sequence[str] = META_KEYS
    instance_keys: Sequence[str] = ()

    def __post_init__(self) -> None:
        if missing := [key for key in ('img_shape', 'ori_shape', 'flip') if key not in self.meta_keys]:
            raise ConfigError(
                f'meta_keys has no {missing[0]}: expected img_shape, ori_shape and flip in it, which bring detections '
                'back to the original image'
            )

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        optional = META_KEYS if 'gt_bboxes' in results else (*META_KEYS, *self.instance_keys)
        if missing := {*self.meta_keys, *self.instance_keys} - {*results, *optional}:
            raise ConfigError(
                f'{results.get("img_path", "An image")} has no {min(missing)}, which PackDetInputs is to pack: '
                f'expected one of {", ".join(results)}'
            )
        boxes = np.asarray(results.get('gt_bboxes', ()), dtype=np.float32).reshape(-1, 4)
        labels = np.asarray(results.get('gt_labels', np.zeros(len(boxes))), dtype=np.int64)
        crowd = np.asarray(results.get('gt_crowd', np.zeros(len(boxes))), dtype=bool)
        truth = {**results, 'gt_bboxes': boxes, 'gt_labels': labels}
        sample = DetDataSample(metainfo={key: results[key] for key in self.meta_keys if key in results})
        sample.gt_instances = self._instances(truth, ~crowd)
        sample.ignored_instances = self._instances(truth, crowd)
        if 'gt_masks' in results:
            masks = select_objects(truth, ~crowd, ['gt_masks'])['gt_masks']
            sample.gt_instances.masks = torch.from_numpy(draw_masks(masks, results['img'].shape[:2]))
        image = np.require(results['img'].transpose(2, 0, 1), requirements=['C', 'W'])
        return {'inputs': torch.from_numpy(image), 'data_samples': sample}

    def _instances(self, truth: dict[str, Any], keep: np.ndarray) -> InstanceData:
        names = [
            name for name in ('gt_bboxes', 'gt_labels', *self.instance_keys) if name in truth and name != 'gt_masks'
        ]
        values = select_objects(truth, keep, names)
        return InstanceData(**{name.removeprefix('gt_'): torch.from_numpy(values[name]) for name in names})
