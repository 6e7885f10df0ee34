"""Faster R-CNN (Ren et al. 2015) with a Feature Pyramid Network. Start reading here.

With a mask head in its RoI head it is Mask R-CNN (He et al. 2017).
"""

from typing import Any

from torch import Tensor

from frdet.models.detectors.base import Detector
from frdet.models.task_modules import Detections
from frdet.registry import DENSE_HEADS, DETECTORS, ROI_HEADS, build_parts
from frdet.structures import GroundTruth


@DETECTORS.register_module()
class FasterRCNN(Detector):
    """Two stages on shared features: a region proposal network, then a classifier and box refiner on its proposals.

    Args:
        rpn_head: feature maps -> proposals.
        roi_head: feature maps and proposals -> detections.
        kwargs: arguments of ``Detector``: ``backbone``, ``neck``, ``data_preprocessor``, ``compile``.
    """

    parts = dict(rpn_head=DENSE_HEADS, roi_head=ROI_HEADS)

    def __init__(self, *, rpn_head: dict, roi_head: dict, **kwargs: Any):
        super().__init__(**kwargs)
        build_parts(self, rpn_head=rpn_head, roi_head=roi_head)

    def losses(self, features: tuple[Tensor, ...], truth: GroundTruth, image_sizes: Tensor) -> dict[str, Tensor]:
        """Losses of both stages, with ``loss_mask`` if there is a mask head, and numbers that are only logged."""
        rpn_losses, proposals = self.rpn_head.loss(features, truth, image_sizes)
        roi_losses = self.roi_head.loss(features, proposals, truth)
        return {**rpn_losses, **roi_losses}

    def detect(self, features: tuple[Tensor, ...], image_sizes: Tensor) -> Detections:
        """Detections of the second stage, on the proposals of the first."""
        proposals = self.rpn_head.predict(features, image_sizes)
        return self.roi_head.predict(features, proposals, image_sizes)

    def raw(self, features: tuple[Tensor, ...]) -> Any:
        """The RPN's logits and deltas."""
        return self.rpn_head(features)
