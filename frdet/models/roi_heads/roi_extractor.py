"""Features of each RoI, from the level that fits its size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from frdet import ops
from frdet.registry import ROI_EXTRACTORS


@ROI_EXTRACTORS.register_module()
class MultiScaleRoIAlign(nn.Module):
    """RoIAlign on the FPN level floor(canonical_level + log2(sqrt(area) / canonical_size)) (FPN, equation 1).

    Args:
        strides: of the levels used, finest first; further feature maps (p6) are not.
        output_size: bins of height and width.
        sampling_ratio: samples a bin and axis; 0 adapts to the RoI's size.
        aligned: half-pixel centres (detectron2, MMDetection) or not (torchvision).
        canonical_size, canonical_level: an RoI with sides of 224 pixels goes to level 4.
        min_level: the level of the first stride.
        eps_inside, eps_outside: added to the ratio and to its logarithm; where detectron2 and torchvision differ.
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
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.canonical_size = canonical_size
        self.canonical_level = canonical_level
        self.min_level = min_level
        self.eps_inside = eps_inside
        self.eps_outside = eps_outside

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Maps (B, C, H_l, W_l) and RoIs (R, 5), image index and xyxy -> (R, C, output_size, output_size)."""
        return ops.multiscale_roi_align(
            list(features[: len(self.spatial_scales)]),
            rois.to(torch.promote_types(rois.dtype, features[0].dtype)),  # float64 for a float64 model
            self.output_size,
            self.spatial_scales,
            self.sampling_ratio,
            self.aligned,
            self.canonical_size,
            self.canonical_level,
            self.min_level,
            self.eps_inside,
            self.eps_outside,
        )
