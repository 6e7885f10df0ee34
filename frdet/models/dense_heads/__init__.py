"""Dense heads: predictions at every cell of the feature maps."""

from frdet.models.dense_heads.rpn_head import RPNHead

__all__ = ['RPNHead']
