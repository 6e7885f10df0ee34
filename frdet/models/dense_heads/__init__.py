"""Dense heads: predictions at every cell of the feature maps."""

from frdet.models.dense_heads.fcos_head import FCOSHead
from frdet.models.dense_heads.retina_head import RetinaHead
from frdet.models.dense_heads.rpn_head import RPNHead

__all__ = ['FCOSHead', 'RPNHead', 'RetinaHead']
