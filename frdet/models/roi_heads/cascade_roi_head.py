"""Cascade R-CNN's second stage: box heads in a row, each on the boxes that the one before has refined.

Shapes: B images, N boxes and G ground truths an image, S samples an image, R RoIs, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from frdet.errors import ConfigError
from frdet.models.roi_heads.stage import (
    RoISample,
    add_truth,
    decode_clipped,
    deltas_of,
    for_valid,
    mask_loss,
    roi_losses,
    roi_outputs,
    sample_rois,
    with_image_index,
)
from frdet.models.task_modules import AssignResult, Detections, Proposals, SampleResult, select_batch
from frdet.models.task_modules.targets import IGNORED, POSITIVE
from frdet.registry import (
    ASSIGNERS,
    BBOX_HEADS,
    BOX_CODERS,
    LOSSES,
    MASK_HEADS,
    ROI_EXTRACTORS,
    ROI_HEADS,
    SAMPLERS,
    SUPPRESSIONS,
    build_parts,
)
from frdet.structures import GroundTruth


class Stage(NamedTuple):
    """The parts of one stage."""

    roi_extractor: Any
    bbox_head: Any
    box_coder: Any
    assigner: Any
    sampler: Any
    loss_cls: Any
    loss_bbox: Any


class AllSampler:
    """Takes every box that is not ignored."""

    def sample_batch(self, assigned: AssignResult) -> SampleResult:
        """See ``BaseSampler.sample_batch``."""
        label = assigned.label
        index = torch.arange(label.shape[1], device=label.device).expand_as(label)
        return SampleResult(index, label == POSITIVE, label != IGNORED)


@ROI_HEADS.register_module()
class CascadeRoIHead(BaseModule):
    """Stages that ask for a higher and higher IoU, each on the refined boxes of the stage before.

    Cascade R-CNN (Cai and Vasconcelos 2018, section 4). The rules are detectron2's or, where an argument says so,
    MMDetection's. Both read the detections from the boxes of the last stage and the mean scores of all stages.

    Args:
        num_stages: number of stages.
        roi_extractor, bbox_head, box_coder, assigner, sampler, loss_cls, loss_bbox: the parts of the stages, as in
            ``StandardRoIHead``: a list with one for each stage, or one config, from which every stage gets its own.
        stage_loss_weights: factors of the losses of each stage.
        add_gt_as_proposals: the ground truth is added to the boxes before they are sampled.
        resample: every stage samples from the refined boxes, with fresh ground truth in place of refined ground truth
            (MMDetection). If False, later stages are trained on all that the first sample has become (detectron2).
        drop_empty: refined boxes without area are not trained on (detectron2).
        scale_gradients: gradients of the features are divided by ``num_stages`` (detectron2, as the authors' code).
        average: what the detections average over the stages: 'probabilities' (detectron2) or 'logits' (MMDetection).
        score_thr, nms_iou_thr, max_per_image, min_side: see ``StandardRoIHead``.
        nms: the rule by which detections suppress others; None is ``NMS``.
        mask_head: one config for a head that is trained on the sample of the first stage (detectron2), or a list with
            one for each stage, whose masks are averaged (MMDetection).
        init_cfg: MMEngine's.

    Raises:
        ConfigError: a list has another length than ``num_stages``, or ``average`` is unknown. In training: the
            proposals come without the sizes of the images.
    """

    parts = dict(
        roi_extractor=ROI_EXTRACTORS, bbox_head=BBOX_HEADS, box_coder=BOX_CODERS, assigner=ASSIGNERS, sampler=SAMPLERS,
        loss_cls=LOSSES, loss_bbox=LOSSES, nms=SUPPRESSIONS, mask_head=MASK_HEADS,
    )  # fmt: skip
    #: See ``StandardRoIHead``.
    stage_keys: Mapping[str, str] = {
        'score threshold': 'score_thr',
        'class NMS': 'nms_iou_thr',
        'detections cut': 'max_per_image',
    }

    def __init__(
        self,
        *,
        num_stages: int,
        roi_extractor: dict | list[dict],
        bbox_head: dict | list[dict],
        box_coder: dict | list[dict],
        assigner: dict | list[dict],
        sampler: dict | list[dict],
        loss_cls: dict | list[dict],
        loss_bbox: dict | list[dict],
        stage_loss_weights: Sequence[float],
        add_gt_as_proposals: bool,
        resample: bool,
        drop_empty: bool,
        scale_gradients: bool,
        average: str,
        score_thr: float,
        nms_iou_thr: float,
        max_per_image: int,
        min_side: float = 0.0,
        nms: dict | None = None,
        mask_head: dict | list[dict] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        if average not in ('probabilities', 'logits'):
            raise ConfigError(f"CascadeRoIHead: average is {average!r}, expected 'probabilities' or 'logits'")
        of_stages = Stage(roi_extractor, bbox_head, box_coder, assigner, sampler, loss_cls, loss_bbox)._asdict()
        given: dict[str, Any] = {name: x if _is_list(x) else [x] * num_stages for name, x in of_stages.items()}
        for name, several in {**given, 'stage_loss_weights': stage_loss_weights, 'mask_head': mask_head}.items():
            if _is_list(several) and len(several) != num_stages:
                raise ConfigError(
                    f'CascadeRoIHead: num_stages is {num_stages}, but {name} has {len(several)} entries: expected one '
                    'for each stage'
                )
        build_parts(self, **given, nms=nms or dict(type='NMS'), mask_head=mask_head)
        if not _is_list(bbox_head):
            self.bbox_head.num_classes = self.bbox_head[0].num_classes  # the config has this number once
        self.num_stages = num_stages
        self.stage_loss_weights = tuple(stage_loss_weights)
        self.add_gt_as_proposals = add_gt_as_proposals
        self.resample = resample
        self.drop_empty = drop_empty
        self.gradient_scale = 1 / num_stages if scale_gradients else 1.0
        self.average = average
        self.score_thr = score_thr
        self.nms_iou_thr = nms_iou_thr
        self.max_per_image = max_per_image
        self.min_side = min_side

    def stage(self, number: int) -> Stage:
        """The parts of the stage with this number, from 0."""
        return Stage(*(getattr(self, name)[number] for name in Stage._fields))

    def forward(self, features: Sequence[Tensor], rois: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        """Maps (B, C, H_l, W_l) and RoIs (R, 5) -> class scores (R, K + 1) and deltas (R, K, 4) of a stage."""
        return roi_outputs(self.stage(stage), features, rois, self.gradient_scale)

    def loss(self, features: Sequence[Tensor], proposals: Proposals, truth: GroundTruth) -> dict[str, Tensor]:
        """Losses of all stages, ``s0.loss_cls`` and so on, of a batch with ground truth (B, G)."""
        if proposals.image_sizes is None:
            raise ConfigError(
                'CascadeRoIHead cuts refined boxes to the image, and the proposals have no image_sizes: the RPN head '
                'must set Proposals.image_sizes, as select_proposals does'
            )
        boxes, legal = proposals.boxes, proposals.valid
        losses: dict[str, Tensor] = {}
        for number, weight in enumerate(self.stage_loss_weights):
            stage, num_boxes = self.stage(number), boxes.shape[1]
            if number > 0 and not self.resample:
                stage = stage._replace(sampler=AllSampler())
            elif self.add_gt_as_proposals:
                boxes, legal = add_truth(boxes, legal, truth)
            sample = sample_rois(stage, features, boxes, legal, truth)
            scores, deltas = self(features, with_image_index(sample.boxes), number)
            of_stage = {**roi_losses(stage, scores, deltas, sample), **self._mask_loss(number, features, sample, truth)}
            losses |= {f's{number}.{name}': weight * x if 'loss' in name else x for name, x in of_stage.items()}
            boxes = self._refine(stage, sample, scores, deltas, proposals.image_sizes)
            legal = sample.valid & (sample.index < num_boxes) if self.resample else sample.valid
            if self.drop_empty:
                legal = legal & (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
        return losses

    def _mask_loss(
        self, number: int, features: Sequence[Tensor], sample: RoISample, truth: GroundTruth
    ) -> dict[str, Tensor]:
        heads = self._mask_heads()
        if number >= len(heads):
            return {}
        # Only the sampler puts positives first; see AllSampler.
        sampler = self.sampler[number] if number == 0 or self.resample else None
        return mask_loss(heads[number], features, sample, truth, sampler)

    def _mask_heads(self) -> list[Any]:
        if self.mask_head is None:
            return []
        return list(self.mask_head) if isinstance(self.mask_head, nn.ModuleList) else [self.mask_head]

    @torch.no_grad()
    def _refine(self, stage: Stage, sample: RoISample, scores: Tensor, deltas: Tensor, image_sizes: Tensor) -> Tensor:
        """The boxes (B, S, 4) of the next stage: moved for their own class, or the best one of background."""
        labels = sample.labels.flatten()
        labels = torch.where(labels == stage.bbox_head.num_classes, scores[:, :-1].argmax(dim=1), labels)
        own = deltas_of(deltas, labels).view_as(sample.boxes)
        return decode_clipped(stage.box_coder, sample.boxes, own, image_sizes[:, None])

    def predict(self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Tensor) -> Detections:
        """Detections in pixels of the network's input; ``image_sizes`` (B, 2) as (height, width)."""
        boxes, probabilities = for_valid(proposals, lambda rois: self._run_stages(features, rois, image_sizes))
        found = select_batch(
            boxes, probabilities, proposals.valid, score_thr=self.score_thr, nms_iou_thr=self.nms_iou_thr,
            num=self.max_per_image, min_side=self.min_side, nms=self.nms,
        )  # fmt: skip
        masks: list[Any] = [head.predict(features, found).masks for head in self._mask_heads()]
        return found._replace(masks=torch.stack(masks).mean(dim=0)) if masks else found

    def _run_stages(self, features: Sequence[Tensor], rois: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor]:
        """RoIs (R, 5) -> clipped boxes (R, K, 4), or (R, 1, 4), of the last stage, and mean probabilities (R, K)."""
        sizes, means_logits = image_sizes[rois[:, 0].long()], self.average == 'logits'
        mean: Any = 0
        for number, coder in enumerate(self.box_coder):
            scores, deltas = self(features, rois, number)
            mean = mean + (scores if means_logits else scores.softmax(dim=1)) / self.num_stages
            if number + 1 < self.num_stages:
                best = deltas_of(deltas, scores[:, :-1].argmax(dim=1))
                rois = torch.cat([rois[:, :1], decode_clipped(coder, rois[:, 1:], best, sizes)], dim=1)
        boxes = decode_clipped(self.box_coder[-1], rois[:, None, 1:], deltas, sizes[:, None])
        return boxes, (mean.softmax(dim=1) if means_logits else mean)[:, :-1]


def _is_list(part: Any) -> bool:
    return isinstance(part, (list, tuple))
