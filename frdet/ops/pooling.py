"""RoIAlign of one feature map, and of all levels of a pyramid.

K RoIs, N images, C channels, L levels, (h, w) bins. Feature maps get gradients, the same bits in every run; RoIs get
none. Second derivatives and forward-mode derivatives are refused.
"""

import torch
from torch import Tensor

from frdet.ops import fallback, loading
from frdet.ops.registration import refuse_other_derivatives


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def _as_rois(boxes: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """(K, 5) of at least 32 bits: 16 bits hold no half pixels above 1024 (float16) or 128 (bfloat16)."""
    if not isinstance(boxes, Tensor):
        numbers = [boxes[i].new_full((len(boxes[i]), 1), i) for i in range(len(boxes))]
        boxes = torch.cat([torch.cat(list(pair), dim=1) for pair in zip(numbers, boxes, strict=True)])
    return boxes.float() if boxes.dtype in (torch.bfloat16, torch.float16) else boxes


def roi_align(
    input: Tensor,
    boxes: Tensor | list[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """RoIAlign (Mask R-CNN, section 3) with torchvision's signature and values.

    Args:
        input: (N, C, H, W); fastest in ``channels_last`` memory format.
        boxes: (K, 5) as (image index, x1, y1, x2, y2), or N tensors (L, 4), in image pixels; float32, or float64 for a
            float64 input. A RoI with a coordinate that is not finite gives zeros.
        output_size: number of bins as (height, width), or one number for both.
        spatial_scale: feature map pixels per image pixel, 1 / stride.
        sampling_ratio: number of samples of a bin along each axis; 0 or less: ceil(bin size).
        aligned: shift by half a pixel, so that integers are pixel centres instead of corners.

    Returns:
        (K, C, output height, output width) in the dtype of ``input``, contiguous.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit, an image index is out of range, or a derivative other than
            by ``backward()`` is asked for. On CUDA the GPU checks the index: it prints the message, and the next call
            that waits for the GPU fails.
    """
    refuse_other_derivatives('roi_align', input, *([boxes] if isinstance(boxes, Tensor) else boxes))
    rois = _as_rois(boxes)
    height, width = _pair(output_size)
    if loading.is_native(input):
        return torch.ops.frdet.roi_align(input, rois, spatial_scale, height, width, sampling_ratio, aligned)
    return fallback.roi_align(input, rois, (height, width), spatial_scale, sampling_ratio, aligned)


def multiscale_roi_align(
    features: list[Tensor],
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scales: list[float],
    sampling_ratio: int = -1,
    aligned: bool = True,
    canonical_size: float = 224.0,
    canonical_level: float = 4.0,
    min_level: int = 2,
    eps_inside: float = 1e-8,
    eps_outside: float = 0.0,
) -> Tensor:
    """RoIAlign of each RoI on the FPN level its size asks for (FPN, equation 1).

    level = floor(canonical_level + log2(sqrt(area) / canonical_size + eps_inside) + eps_outside), clamped to the given
    levels. The two small numbers are (1e-8, 0) in detectron2 and (0, 1e-6) in torchvision.

    Args:
        features: L maps (N, C, H_l, W_l), finest first; the first is level ``min_level``. At most 8 on CUDA.
        rois: (K, 5) as (image index, x1, y1, x2, y2) in image pixels.
        output_size, sampling_ratio, aligned: see ``roi_align``.
        spatial_scales: L numbers, 1 / stride of each map.

    Returns:
        (K, C, output height, output width), in the order of ``rois``. Raises as ``roi_align``.
    """
    refuse_other_derivatives('multiscale_roi_align', *features, rois)
    rois = _as_rois(rois)
    height, width = _pair(output_size)
    rule = (canonical_size, canonical_level, min_level, eps_inside, eps_outside)
    if loading.is_native(rois):
        return torch.ops.frdet.multiscale_roi_align(
            list(features), rois, list(spatial_scales), height, width, sampling_ratio, aligned, *rule
        )
    return fallback.multiscale_roi_align(
        features, rois, (height, width), spatial_scales, sampling_ratio, aligned, *rule
    )
