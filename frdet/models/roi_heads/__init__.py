"""RoI heads: proposals -> detections."""

from frdet.models.roi_heads.mask_head import FCNMaskHead
from frdet.models.roi_heads.standard_roi_head import FCBBoxHead, MultiScaleRoIAlign, StandardRoIHead

__all__ = ['FCBBoxHead', 'FCNMaskHead', 'MultiScaleRoIAlign', 'StandardRoIHead']
