"""Rules by which a scored box suppresses others of the same object."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from frdet import ops
from frdet.errors import ConfigError, ExportError
from frdet.registry import SUPPRESSIONS
from frdet.structures import box_iou

#: Boxes (B, N, 4), scores (B, N) and labels (B, N), and an IoU -> scores (B, N). A dropped box has the score -inf.
Suppression = Callable[[Tensor, Tensor, Tensor, float], Tensor]


@SUPPRESSIONS.register_module()
@dataclass(kw_only=True, eq=False)
class NMS:
    """A box is dropped if its IoU with a box of its class that stays and has a higher score is above the threshold.

    Args:
        class_agnostic: a box also suppresses those of other classes. Then no two detections overlap by more than the
            threshold: right where two objects never share a place, and one object is found as several classes.
    """

    class_agnostic: bool = False

    def __call__(self, boxes: Tensor, scores: Tensor, labels: Tensor, iou_thr: float) -> Tensor:
        """See ``Suppression``."""
        group = _groups(labels, self.class_agnostic)
        keep = ops.batched_nms_mask(boxes.flatten(0, 1), scores.flatten(), group.flatten(), iou_thr)
        return scores.masked_fill(~keep.view_as(scores), -torch.inf)


@SUPPRESSIONS.register_module()
@dataclass(kw_only=True, eq=False)
class SoftNMS:
    """The boxes that NMS would drop stay with lower scores (Bodla et al. 2017, figure 2). It needs no new training.

    The best box of a class stays as it is. The scores of the others are multiplied by a factor that falls with their
    IoU with it. Then the best of the others stays, and so on. The paper reports +1.1 AP for Faster R-CNN on COCO.

    Args:
        method: 'linear': the factor is 1 - IoU from the threshold on, else 1 (equation 2); 'gaussian': it is
            exp(-IoU^2 / sigma), whatever the threshold (equation 3).
        sigma: of 'gaussian'.
        min_score: boxes whose score falls below this are dropped.
        class_agnostic: see ``NMS``.

    Raises:
        ConfigError: an argument has a wrong value.
    """

    method: str = 'linear'
    sigma: float = 0.5
    min_score: float = 1e-3
    class_agnostic: bool = False

    def __post_init__(self) -> None:
        if self.method not in ('linear', 'gaussian'):
            raise ConfigError(f"SoftNMS: method is {self.method!r}, expected 'linear' or 'gaussian'")
        if self.sigma <= 0 or self.min_score < 0:
            raise ConfigError(
                f'SoftNMS: sigma is {self.sigma}, min_score {self.min_score}: expected a positive sigma and a score '
                'from 0 up'
            )

    def __call__(self, boxes: Tensor, scores: Tensor, labels: Tensor, iou_thr: float) -> Tensor:
        """See ``Suppression``.

        Raises:
            ExportError: the detector is being exported: the number of steps depends on the values.
        """
        if torch.compiler.is_exporting():
            raise ExportError("SoftNMS cannot be exported: export the detector with nms=dict(type='NMS') instead")
        if scores.is_meta:
            return scores
        index, row, column = self._candidates(scores, _groups(labels, self.class_agnostic))
        shape = [int(x.amax()) + 1 if len(x) else 0 for x in (row, column)]
        left = scores.new_full(shape, -torch.inf).index_put_((row, column), scores.flatten()[index])
        places = boxes.new_zeros(*shape, 4).index_put_((row, column), boxes.flatten(0, 1)[index])
        final = self._decay(places, left, iou_thr)[row, column]
        return torch.full_like(scores, -torch.inf).flatten().index_put_((index,), final).view_as(scores)

    def _candidates(self, scores: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The boxes of sufficient score: their places in B * N, the numbers of their groups, and those within these."""
        index = (scores.flatten() >= self.min_score).nonzero().squeeze(1)
        _, row, count = group.flatten()[index].unique(return_inverse=True, return_counts=True)
        order = row.argsort(stable=True)
        row = row[order]
        return index[order], row, torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]

    def _decay(self, boxes: Tensor, scores: Tensor, iou_thr: float) -> Tensor:
        """Scores (G, N) of boxes (G, N, 4) in G groups -> the final scores. All groups take a step at once."""
        done = torch.zeros_like(scores, dtype=torch.bool)
        for _ in range(scores.shape[1]):
            best = scores.masked_fill(done, -torch.inf).argmax(dim=1, keepdim=True)
            done = done.scatter(1, best, True)
            iou = box_iou(boxes.gather(1, best[..., None].expand(-1, -1, 4)), boxes).squeeze(1)
            if self.method == 'linear':
                factor = torch.where(iou >= iou_thr, 1 - iou, 1)
            else:
                factor = torch.exp(-iou.square() / self.sigma)
            scores = torch.where(done, scores, scores * factor)
            scores = scores.masked_fill(~(scores >= self.min_score), -torch.inf)  # -inf * 0 is NaN
        return scores


def _groups(labels: Tensor, class_agnostic: bool) -> Tensor:
    """(B, N): the boxes that may suppress each other have the same number, those of an image, or of a class in it."""
    group = torch.arange(labels.shape[0], device=labels.device)[:, None].expand_as(labels)
    return group if class_agnostic else group + labels.shape[0] * labels
