"""Detectors of one stage: a head on the feature maps gives the boxes, such as RetinaNet and FCOS."""

from typing import Any

from torch import Tensor

from frdet.errors import ConfigError
from frdet.models.detectors.base import Detector
from frdet.models.task_modules import Detections
from frdet.registry import DENSE_HEADS, DETECTORS, build_parts
from frdet.structures import GroundTruth


@DETECTORS.register_module()
class SingleStageDetector(Detector):
    """Features, then a head that classifies and places every box at once.

    Args:
        bbox_head: feature maps -> losses or detections: ``RetinaHead``, ``FCOSHead``, or a head of your own.
        kwargs: arguments of ``Detector``: ``backbone``, ``neck``, ``data_preprocessor``, ``compile``.

    Raises:
        ConfigError: the head has no classes, because it is made for proposals.
    """

    parts = dict(bbox_head=DENSE_HEADS)

    def __init__(self, *, bbox_head: dict, **kwargs: Any):
        super().__init__(**kwargs)
        build_parts(self, bbox_head=bbox_head)
        if not hasattr(self.bbox_head, 'num_classes'):
            raise ConfigError(
                f'model.bbox_head is a {type(self.bbox_head).__name__}, which has no classes: expected a head that '
                'gives detections, such as RetinaHead or FCOSHead. RPNHead is the rpn_head of a FasterRCNN'
            )

    def losses(self, features: tuple[Tensor, ...], truth: GroundTruth, image_sizes: Tensor) -> dict[str, Tensor]:
        """The losses of the head."""
        return self.bbox_head.loss(features, truth, image_sizes)

    def detect(self, features: tuple[Tensor, ...], image_sizes: Tensor) -> Detections:
        """The detections of the head."""
        return self.bbox_head.predict(features, image_sizes)

    def raw(self, features: tuple[Tensor, ...]) -> Any:
        """What the head predicts at every cell, by levels."""
        return self.bbox_head(features)
