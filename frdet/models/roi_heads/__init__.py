"""RoI heads: proposals -> detections."""

from frdet.models.roi_heads.cascade_roi_head import CascadeRoIHead
from frdet.models.roi_heads.double_head import DoubleConvFCBBoxHead
from frdet.models.roi_heads.mask_head import FCNMaskHead
from frdet.models.roi_heads.standard_roi_head import FCBBoxHead, MultiScaleRoIAlign, StandardRoIHead

__all__ = [
    'CascadeRoIHead',
    'DoubleConvFCBBoxHead',
    'FCBBoxHead',
    'FCNMaskHead',
    'MultiScaleRoIAlign',
    'StandardRoIHead',
]
