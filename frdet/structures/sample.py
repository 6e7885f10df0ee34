"""The ground truth and results of an image, and the ground truth of a batch as padded tensors."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from frdet.errors import DataError


class DetDataSample(BaseDataElement):
    """An image's ground truth, made by the pipeline, and its detections, added by the model.

    Attributes:
        gt_instances: ``bboxes`` (n, 4) xyxy in pixels of the network's input, ``labels`` (n,) int64 in 0..K-1, and
            ``masks`` (n, height, width) uint8, 1 inside the object, if the data set gives masks.
        ignored_instances: ``bboxes`` and ``labels`` of crowd regions, which are neither object nor background.
        pred_instances: ``bboxes`` (n, 4) xyxy in pixels of the original image, ``scores`` (n,), ``labels`` (n,),
            and ``masks`` (n, height, width) bool of the original image from a detector with masks; best score first.

    Metainfo: ``img_id``, ``img_path``, ``img_shape`` (height, width) after resizing, ``ori_shape`` (height, width)
    before, ``scale_factor`` (x, y) from original to network input, ``flip`` (whether the input is mirrored left to
    right). The preprocessor adds ``batch_input_shape`` (height, width) after padding. ``to_original`` and
    ``to_network`` convert boxes between the two images.
    """

    gt_instances: InstanceData
    ignored_instances: InstanceData
    pred_instances: InstanceData

    def set_field(self, value: Any, name: str, dtype: Any = None, field_type: str = 'data') -> None:
        """Set a field, which ``sample.name = value`` does, too. The three fields above must be ``InstanceData``."""
        super().set_field(value, name, InstanceData if name in DetDataSample.__annotations__ else dtype, field_type)


class GroundTruth(NamedTuple):
    """Ground truth of B images, padded to G, the largest count and at least 1.

    Attributes:
        boxes: (B, G, 4) xyxy, zeros where padded.
        labels: (B, G) int64, 0 where padded.
        valid: (B, G) bool, False where padded.
        masks: (T, H, W) uint8, the masks of all T objects of the batch, image after image, in images that are padded at
            right and bottom to one size. T is at least 1. The last row and column of an image are repeated once in the
            padding, so that values interpolated near its border are its own. None: the samples have no masks.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    masks: Tensor | None = None

    def mask_index(self, gt_index: Tensor) -> Tensor:
        """The positions in ``masks`` of the objects ``gt_index`` (B, S) of each image; any for an image without."""
        counts = self.valid.sum(dim=1)
        last = (counts.sum() - 1).clamp(min=0)
        return (gt_index + (counts.cumsum(0) - counts)[:, None]).minimum(last)


def batch_ground_truth(data_samples: list[DetDataSample]) -> GroundTruth:
    """Stack the ``gt_instances`` of a batch. The row of an image without boxes has no valid entry.

    G is at least 1, so that index 0 is legal in a batch without any box.
    """
    boxes = pad_sequence([sample.gt_instances.bboxes for sample in data_samples], batch_first=True).float()
    labels = pad_sequence([sample.gt_instances.labels.long() for sample in data_samples], batch_first=True)
    counts = torch.tensor([len(sample.gt_instances.labels) for sample in data_samples])
    if boxes.shape[1] == 0:
        boxes, labels = F.pad(boxes, (0, 0, 0, 1)), F.pad(labels, (0, 1))
    valid = torch.arange(boxes.shape[1]) < counts[:, None]
    return GroundTruth(boxes, labels, valid.to(boxes.device, non_blocking=True), _batch_masks(data_samples))


def _batch_masks(data_samples: list[DetDataSample]) -> Tensor | None:
    if not all('masks' in sample.gt_instances for sample in data_samples):
        return None
    masks = [sample.gt_instances.masks for sample in data_samples]
    count, (height, width) = sum(map(len, masks)), (max(m.shape[axis] for m in masks) for axis in (1, 2))
    batch = masks[0].new_zeros(max(count, 1), height, width)
    for target, own in zip(batch[:count].split([len(m) for m in masks]), masks, strict=True):
        height, width = own.shape[1:]
        target[:, :height, :width] = own
        target[:, height : height + 1, :width] = own[:, -1:]
        target[:, : height + 1, width : width + 1] = target[:, : height + 1, width - 1 : width]
    return batch


def check_scale(sample: DetDataSample) -> None:
    """Raise DataError for a sample that was cut or padded after loading: only resizing and flipping can be undone."""
    scale = sample.get('scale_factor')
    if scale is None:
        return
    expected = [round(side * factor) for side, factor in zip(sample.ori_shape[:2], scale[::-1], strict=True)]
    if any(abs(found - side) > 1 for found, side in zip(sample.img_shape[:2], expected, strict=True)):
        raise DataError(
            f'{sample.get("img_path") or "An image"}: img_shape is {tuple(sample.img_shape[:2])}, and ori_shape '
            f'{tuple(sample.ori_shape[:2])} times scale_factor {tuple(scale)} is {tuple(expected)} (height, width), so '
            'detections cannot be brought back to the original. A transform that resizes must set all three. Cut and '
            'pad in training only, or set ori_shape to the image size that detections are for'
        )


def check_truth(data_samples: Iterable[DetDataSample], num_classes: int | None = None) -> None:
    """Refuse ground truth that would train a detector wrongly in silence.

    Values are checked on the CPU only: on a GPU the host would have to wait for them.

    Args:
        data_samples: samples with ``gt_instances``.
        num_classes: labels must be smaller; None: only negative labels are wrong.

    Raises:
        DataError: boxes are not finite or not (n, 4), or labels are not integers, not (n,) or out of range.
    """
    for sample in data_samples:
        if (problem := _problem(sample, num_classes)) is not None:
            name = sample.get('img_path') or f'image {sample.get("img_id", "without an id")}'
            raise DataError(f'Ground truth of {name}: {problem}')


def _problem(sample: DetDataSample, num_classes: int | None) -> str | None:
    truth = sample.get('gt_instances', {})
    boxes, labels = truth.get('bboxes'), truth.get('labels')
    if not isinstance(boxes, Tensor) or not isinstance(labels, Tensor):
        return f'gt_instances has {", ".join(truth.keys()) or "nothing"}: expected the tensors bboxes and labels'
    if boxes.dim() != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
        return f'boxes {tuple(boxes.shape)} and labels {tuple(labels.shape)}: expected (n, 4) and (n,)'
    if labels.is_floating_point() or labels.dtype == torch.bool:
        return f'labels are of {labels.dtype}: expected int64, the number of each class from 0'
    if boxes.is_cpu and not boxes.isfinite().all():
        return f'found the box {boxes[~boxes.isfinite().all(dim=1)][0].tolist()}: expected finite x1, y1, x2, y2'
    masks = truth.get('masks')
    size = tuple(sample.get('img_shape', ()))[:2]
    if masks is not None and (masks.dim() != 3 or (len(boxes), *(size or masks.shape[1:])) != tuple(masks.shape)):
        return f'masks {tuple(masks.shape)}: expected ({len(boxes)}, {", ".join(map(str, size))}), one for each box'
    for label in labels.tolist() if labels.is_cpu else ():
        if label < 0 or (num_classes is not None and label >= num_classes):
            most = ' or more' if num_classes is None else f' to {num_classes - 1}, as there are {num_classes} classes'
            return f'found the label {label}: expected 0{most}'
    return None
