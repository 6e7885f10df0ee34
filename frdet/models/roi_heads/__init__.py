"""RoI heads: proposals -> detections."""

from frdet.models.roi_heads.bbox_head import FCBBoxHead
from frdet.models.roi_heads.roi_extractor import MultiScaleRoIAlign
from frdet.models.roi_heads.standard_roi_head import StandardRoIHead

__all__ = ['FCBBoxHead', 'MultiScaleRoIAlign', 'StandardRoIHead']
