"""Features of each RoI, pooled from the level that fits its size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from frdet import ops
from frdet.registry import ROI_EXTRACTORS


@ROI_EXTRACTORS.register_module()
class MultiScaleRoIAlign(nn.Module):
    """RoIAlign on the FPN level floor(canonical_level + log2(sqrt(area) / canonical_size)) (FPN, equation 1).

    Args:
        strides: strides of the levels to pool from, finest first. Feature maps after these (p6) are not used.
        output_size: number of bins in height and in width.
        sampling_ratio: number of samples of a bin along each axis; 0 adapts it to the RoI's size.
        aligned: half-pixel centres (detectron2, MMDetection) or not (torchvision).
        canonical_size, canonical_level: an RoI with sides of 224 pixels goes to level 4.
        min_level: number of the level with the first stride.
        eps_inside, eps_outside: added to the ratio and to its logarithm. Here detectron2 and torchvision differ.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int],
        output_size: int = 7,
        sampling_ratio: int = 0,
        aligned: bool = True,
        canonical_size: float = 224.0,
        canonical_level: float = 4.0,
        min_level: int = 2,
        eps_inside: float = 1e-8,
        eps_outside: float = 0.0,
    ):
        super().__init__()
        self.spatial_scales = [1 / stride for stride in strides]
        self.output_size = output_size
        self.rule = (sampling_ratio, aligned, canonical_size, canonical_level, min_level, eps_inside, eps_outside)

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Maps (B, C, H_l, W_l) and RoIs (R, 5) as (image index, xyxy) -> (R, C, output_size, output_size)."""
        rois = rois.to(torch.promote_types(rois.dtype, features[0].dtype))  # float64 for a float64 model
        used = list(features[: len(self.spatial_scales)])
        return ops.multiscale_roi_align(used, rois, self.output_size, self.spatial_scales, *self.rule)
