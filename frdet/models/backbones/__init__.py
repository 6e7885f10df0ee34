"""Backbones: image -> feature maps, finest first."""

from frdet.models.backbones.resnet import ResNet

__all__ = ['ResNet']
