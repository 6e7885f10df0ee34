"""One stage of an RoI head: sampling of RoIs, their scores and deltas, and the losses.

The functions take a stage: an object with the parts of ``StandardRoIHead``, which is one itself. A cascade has several.
Shapes: B images, N boxes an image, S samples an image, R RoIs, K classes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from frdet.models.losses import box_loss
from frdet.models.task_modules import AssignResult, Proposals, SampleResult
from frdet.models.task_modules.targets import IGNORED, POSITIVE
from frdet.structures import GroundTruth, clip_boxes


class RoISample(NamedTuple):
    """The RoIs that a stage is trained on.

    Attributes:
        boxes: (B, S, 4).
        gt_boxes: (B, S, 4), the ground truth of a positive RoI, any box for others.
        labels: (B, S) int64, K for background.
        positive, valid: (B, S) bool, False where padded.
        index: (B, S) int64, the place of the RoI among the boxes that were sampled from.
        gt_index: (B, S) int64, the ground truth of a positive RoI, any legal index for others.
    """

    boxes: Tensor
    gt_boxes: Tensor
    labels: Tensor
    positive: Tensor
    valid: Tensor
    index: Tensor  # type: ignore[assignment]  # the field, not tuple.index
    gt_index: Tensor


def add_truth(boxes: Tensor, legal: Tensor, truth: GroundTruth) -> tuple[Tensor, Tensor]:
    """Boxes (B, N + G, 4) and whether they are legal (B, N + G), with the ground truth as the last G."""
    return torch.cat([boxes, truth.boxes], dim=1), torch.cat([legal, truth.valid], dim=1)


@torch.no_grad()
def sample_rois(stage: Any, features: Sequence[Tensor], boxes: Tensor, legal: Tensor, truth: GroundTruth) -> RoISample:
    """Assign boxes (B, N, 4) to the ground truth, and sample the RoIs to train on from the ``legal`` (B, N)."""
    assigned = stage.assigner.assign_batch(boxes, truth)
    assigned = assigned._replace(label=assigned.label.masked_fill(~legal, IGNORED))
    if not getattr(stage.sampler, 'uses_loss', False):
        return gather_sample(stage, boxes, assigned, stage.sampler.sample_batch(assigned), truth)
    labels = truth.labels.gather(1, assigned.gt_index)
    labels = labels.masked_fill(assigned.label != POSITIVE, stage.bbox_head.num_classes)
    scores, _ = roi_outputs(stage, features, with_image_index(boxes))
    loss = stage.loss_cls.elementwise(scores, labels.flatten()).view(labels.shape)
    return gather_sample(stage, boxes, assigned, stage.sampler.sample_batch(assigned, loss), truth)


def gather_sample(
    stage: Any, boxes: Tensor, assigned: AssignResult, sampled: SampleResult, truth: GroundTruth
) -> RoISample:
    """The sampled ones of the assigned boxes (B, N, 4), with their ground truth."""
    gt_index = assigned.gt_index.gather(1, sampled.index)
    return RoISample(
        boxes.gather(1, sampled.index[..., None].expand(-1, -1, 4)),
        truth.boxes.gather(1, gt_index[..., None].expand(-1, -1, 4)),
        truth.labels.gather(1, gt_index).masked_fill(~sampled.positive, stage.bbox_head.num_classes),
        sampled.positive,
        sampled.valid,
        sampled.index,
        gt_index,
    )


def roi_outputs(
    stage: Any, features: Sequence[Tensor], rois: Tensor, gradient_scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Pool RoIs (R, 5), and give class scores (R, K + 1) and deltas (R, K, 4), or (R, 1, 4).

    Args:
        stage: see above. If its box head has a ``reg_roi_scale_factor``, the head also gets the features of RoIs that
            are larger by this factor.
        features: maps (B, C, H_l, W_l), finest first.
        rois: (R, 5), index of the image and box.
        gradient_scale: factor of the gradients that reach the pooled features from the box head.
    """
    pooled = [stage.roi_extractor(features, rois)]
    if (factor := getattr(stage.bbox_head, 'reg_roi_scale_factor', None)) is not None:
        pooled.append(stage.roi_extractor(features, rois, roi_scale_factor=factor))
    for one in pooled if gradient_scale != 1.0 else ():
        if one.requires_grad:
            one.register_hook(lambda gradient: gradient * gradient_scale)
    return stage.bbox_head(*pooled)


def roi_losses(stage: Any, scores: Tensor, deltas: Tensor, sample: RoISample) -> dict[str, Tensor]:
    """Losses of scores (R, K + 1) and deltas (R, K, 4), or (R, 1, 4), of the R = B * S RoIs of a sample."""
    boxes, gt_boxes, labels, positive, valid, *_ = (x.flatten(0, 1) for x in sample)
    num_samples = valid.sum().clamp(min=1)
    with torch.no_grad():
        correct = (scores.argmax(dim=1) == labels) & valid
    return {
        'loss_cls': stage.loss_cls(scores, labels, valid, num_samples),
        'loss_bbox': box_loss(
            stage.loss_bbox, stage.box_coder, deltas_of(deltas, labels), boxes, gt_boxes, positive, num_samples
        ),
        'acc': 100 * correct.sum() / num_samples,
        'roi_num_pos': positive.sum() / len(sample.valid),
    }


def mask_loss(
    mask_head: Any, features: Sequence[Tensor], sample: RoISample, truth: GroundTruth, sampler: Any
) -> dict[str, Tensor]:
    """The loss of a mask head on the positive RoIs of a sample of ``sampler``.

    Positives come first in a sample, and a sampler knows how many there can be. The head need not look at the others.
    """
    fraction = getattr(sampler, 'pos_fraction', None)
    most = sample.labels.shape[1] if fraction is None else max(1, int(fraction * sampler.num))
    boxes, _, labels, positive, _, _, gt_index = (x[:, :most] for x in sample)
    return mask_head.loss(features, boxes, labels, gt_index, positive, truth)


def deltas_of(deltas: Tensor, labels: Tensor) -> Tensor:
    """The deltas (R, 4) of the class ``labels`` (R,) among (R, K, 4), or the only ones of (R, 1, 4)."""
    if deltas.shape[1] == 1:
        return deltas.squeeze(1)
    own_class = labels.clamp(max=deltas.shape[1] - 1)  # any class for background
    return deltas.gather(1, own_class[:, None, None].expand(-1, 1, 4)).squeeze(1)


def decode_clipped(coder: Any, boxes: Tensor, deltas: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (..., 4) moved by deltas, cut to images of ``sizes`` (..., 2), and NaN where they are infinite."""
    moved = coder.decode(boxes, deltas)
    moved = moved.masked_fill(moved.isinf(), torch.nan)  # clipping would make it finite; NaN is dropped later
    return clip_boxes(moved, sizes)


def for_valid(proposals: Proposals, run: Callable[[Tensor], tuple[Tensor, ...]]) -> list[Tensor]:
    """Results (B, P, ...) of ``run``, which maps RoIs (R, 5) to results (R, ...); zeros where padded."""
    rois, valid = with_image_index(proposals.boxes), proposals.valid
    if torch.compiler.is_exporting() or valid.is_meta:  # neither a graph nor the meta device knows values
        return [x.unflatten(0, valid.shape) for x in run(rois)]
    return [x.new_zeros(valid.shape + x.shape[1:]).index_put_((valid,), x) for x in run(rois[valid.flatten()])]


def with_image_index(boxes: Tensor) -> Tensor:
    """(B, N, 4) -> (B * N, 5), with the index of the image in front."""
    index = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
    return torch.cat([index[:, None, None].expand(-1, boxes.shape[1], 1), boxes], dim=2).flatten(0, 1)
