"""From an image and its boxes to what the model takes."""

from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData

from frdet.errors import ConfigError
from frdet.registry import TRANSFORMS
from frdet.structures import DetDataSample

META_KEYS = ('img_id', 'img_path', 'img_shape', 'ori_shape', 'scale_factor', 'flip')


@TRANSFORMS.register_module()
class FilterBoxes:
    """Drops boxes of which a side is not longer than ``min_side`` pixels; place it after what changes boxes.

    An image that loses all its boxes stays: it is trained on as background, as in detectron2.
    """

    def __init__(self, *, min_side: float = 1e-5):
        if min_side < 0:
            raise ConfigError(f'min_side is {min_side!r}: expected 0 or more pixels')
        self.min_side = min_side

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        boxes = results['gt_bboxes']
        keep = (boxes[:, 2:] - boxes[:, :2] > self.min_side).all(axis=1)
        for key in ('gt_bboxes', 'gt_labels', 'gt_crowd'):
            if key in results:
                results[key] = results[key][keep]
        return results

    def __repr__(self) -> str:
        return f'FilterBoxes(min_side={self.min_side})'


@TRANSFORMS.register_module()
class PackDetInputs:
    """The last step: ``inputs``, uint8 (3, H, W) BGR, and ``data_samples``, a ``DetDataSample``.

    Crowd boxes become ``ignored_instances``, the others ``gt_instances``; both are empty where there is no truth.
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        boxes = np.asarray(results.get('gt_bboxes', np.zeros((0, 4))), dtype=np.float32).reshape(-1, 4)
        labels = np.asarray(results.get('gt_labels', np.zeros(len(boxes))), dtype=np.int64)
        crowd = np.asarray(results.get('gt_crowd', np.zeros(len(boxes))), dtype=bool)
        sample = DetDataSample(metainfo={key: results[key] for key in META_KEYS if key in results})
        sample.gt_instances = _instances(boxes[~crowd], labels[~crowd])
        sample.ignored_instances = _instances(boxes[crowd], labels[crowd])
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        if not image.flags.writeable:
            image = image.copy()
        return {'inputs': torch.from_numpy(image), 'data_samples': sample}

    def __repr__(self) -> str:
        return 'PackDetInputs()'


def _instances(boxes: np.ndarray, labels: np.ndarray) -> InstanceData:
    return InstanceData(bboxes=torch.from_numpy(boxes), labels=torch.from_numpy(labels))
