"""One image's truth and results, and the ground truth of a whole batch as padded tensors."""

from typing import NamedTuple

import torch
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence


class DetDataSample(BaseDataElement):
    """What the pipeline hands the model for one image, and what the model hands back.

    Fields, each an ``InstanceData``:
        gt_instances: ``bboxes`` (n, 4) xyxy in pixels of the network's input, ``labels`` (n,) int64 in 0..K-1.
        ignored_instances: the same, for crowd regions.
        pred_instances: ``bboxes`` (n, 4) xyxy in pixels of the original image, ``scores`` (n,), ``labels`` (n,).

    Metainfo: ``img_id``, ``img_path``, ``img_shape`` (height, width) after resizing, ``ori_shape`` (height, width)
    before, ``scale_factor`` (x, y) from original to network input, ``flip``; the preprocessor adds
    ``batch_input_shape`` (height, width) after padding.
    """

    @property
    def gt_instances(self) -> InstanceData:
        """Ground truth the model is trained on."""
        return self._gt_instances

    @gt_instances.setter
    def gt_instances(self, value: InstanceData) -> None:
        self.set_field(value, '_gt_instances', dtype=InstanceData)

    @property
    def ignored_instances(self) -> InstanceData:
        """Ground truth that is neither object nor background: COCO's crowds."""
        return self._ignored_instances

    @ignored_instances.setter
    def ignored_instances(self, value: InstanceData) -> None:
        self.set_field(value, '_ignored_instances', dtype=InstanceData)

    @property
    def pred_instances(self) -> InstanceData:
        """Detections, best score first."""
        return self._pred_instances

    @pred_instances.setter
    def pred_instances(self, value: InstanceData) -> None:
        self.set_field(value, '_pred_instances', dtype=InstanceData)


class GroundTruth(NamedTuple):
    """Ground truth of B images, padded to the largest count G, at least 1.

    Attributes:
        boxes: (B, G, 4) xyxy, zeros where padded.
        labels: (B, G) int64, 0 where padded.
        valid: (B, G) bool, False where padded.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor


def batch_ground_truth(data_samples: list[DetDataSample]) -> GroundTruth:
    """Stack the ``gt_instances`` of a batch; images without boxes give rows without a valid entry.

    G is at least 1, so that indexing by a padded entry stays legal in a batch without any box.
    """
    boxes = pad_sequence([sample.gt_instances.bboxes for sample in data_samples], batch_first=True).float()
    labels = pad_sequence([sample.gt_instances.labels for sample in data_samples], batch_first=True)
    counts = torch.tensor([len(sample.gt_instances.labels) for sample in data_samples])
    if boxes.shape[1] == 0:
        boxes, labels = F.pad(boxes, (0, 0, 0, 1)), F.pad(labels, (0, 1))
    valid = torch.arange(boxes.shape[1]) < counts[:, None]
    return GroundTruth(boxes, labels, valid.to(boxes.device, non_blocking=True))
