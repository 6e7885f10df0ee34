"""The detector as a function of tensors, for the export.

Shapes: N images, H x W pixels, D detections an image.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ExportedDetector(nn.Module):
    """A ``Detector`` with its preprocessing, whose inputs and outputs are tensors; see ``forward``."""

    def __init__(self, detector: Any):
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, D, 4), scores (N, D) and labels (N, D) in a batch, as ``Detector.predict`` finds them.

        Args:
            images: (N, 3, H, W) float32, BGR from 0 to 255, resized as in testing. Images of several sizes lie at the
                top left; the padding is not used.
            image_sizes: (N, 2) int64, (height, width) of each image.
        """
        features = self.detector.extract_features(self._normalised(images, image_sizes))
        return tuple(self.detector.detect(features, image_sizes.float()))

    def _normalised(self, images: Tensor, image_sizes: Tensor) -> Tensor:
        """The batch after ``DetPreprocessor``."""
        rule = self.detector.data_preprocessor
        if rule.bgr_to_rgb:
            images = images.flip(1)
        height, width = images.shape[2:]
        y = torch.arange(height, device=images.device) < image_sizes[:, :1]
        x = torch.arange(width, device=images.device) < image_sizes[:, 1:]
        inputs = ((images - rule.mean) / rule.std).masked_fill(~(y[:, None, :, None] & x[:, None, None, :]), 0)
        d = rule.pad_size_divisor
        inputs = F.pad(inputs, (0, (width + d - 1) // d * d - width, 0, (height + d - 1) // d * d - height))
        return inputs.to(memory_format=torch.channels_last)
