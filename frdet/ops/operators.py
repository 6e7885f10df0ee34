"""The operators: NMS and matching of boxes, RoIAlign, enlarging of images.

K RoIs, N images or boxes, C channels, L levels. Boxes are (x1, y1, x2, y2) in pixels. IoU is computed in float32 (in
float64 for float64 boxes, except in ``max_iou``). An empty box, or a box with NaN, has IoU 0 with every box: it
suppresses no box, is never suppressed, and matches nothing.

RoIAlign gives feature maps gradients, the same bits in every run, and RoIs none. No other operator has derivatives.
Second derivatives and forward-mode derivatives are refused.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from frdet.ops import fallback, loading
from frdet.ops.registration import refuse_other_derivatives


class MaxIoU(NamedTuple):
    """Result of ``max_iou`` for B images with N boxes and G ground truths each. B is missing if the inputs have none.

    Attributes:
        iou: (B, N) float32, the best IoU of each box; 0 without ground truth.
        index: (B, N) int64, the ground truth with this IoU, the first of equals; 0 without ground truth.
        gt_iou: (B, G) float32, the best IoU of each ground truth; 0 where padded.
        best_of: (B, N) int64, the last ground truth whose best IoU is the IoU with this box. Only ground truths whose
            best IoU is above 0 and at least ``min_gt_iou`` count; -1 if there is none.
    """

    iou: Tensor
    index: Tensor  # type: ignore[assignment]  # the field, not tuple.index
    gt_iou: Tensor
    best_of: Tensor


def _kernels(tensor: Tensor) -> Any:
    """The operators of the extension, or those of the same names and arguments in ``fallback.py``."""
    return torch.ops.frdet if loading.is_native(tensor) else fallback


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,) in the same dtype.
        iou_threshold: a box is dropped if its IoU with a kept box of higher score is above this.

    Returns:
        Indices (K,) int64 of the kept boxes, best score first. Equal scores keep their input order; NaN scores come
        first.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit.
    """
    return _kernels(boxes).nms(boxes, scores, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """NMS within each group: boxes (N, 4) of different ``idxs`` (N,) integers never suppress each other.

    The boxes are not shifted apart, as is common, because that would round their IoU. Returns and raises as ``nms``.
    """
    return _kernels(boxes).batched_nms(boxes, scores, idxs.long(), iou_threshold)


def batched_nms_mask(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """``batched_nms`` with a result of fixed size: a mask (N,) bool of the kept boxes, in the input's order.

    A box whose score is -inf is never kept and suppresses nothing. On CUDA nothing is copied to the host.
    """
    return _kernels(boxes).batched_nms_mask(boxes, scores, idxs.long(), iou_threshold)


def max_iou(boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor | None = None, min_gt_iou: float = 0.0) -> MaxIoU:
    """The best IoU of every box and of every ground truth, in float32, without the matrix of all IoUs.

    Args:
        boxes: (N, 4), shared by all images, or (B, N, 4).
        gt_boxes: (G, 4), or (B, G, 4) padded.
        gt_valid: (G,) or (B, G) bool, False where padded; None: nothing is padded.
        min_gt_iou: see ``MaxIoU.best_of``.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit, or a derivative is asked for.
    """
    refuse_other_derivatives('max_iou', boxes, gt_boxes)
    kernel = _kernels(boxes).max_iou
    if gt_boxes.dim() == 2:
        valid = None if gt_valid is None else gt_valid[None]
        return MaxIoU(*(x[0] for x in kernel(boxes, gt_boxes[None], valid, min_gt_iou)))
    return MaxIoU(*kernel(boxes, gt_boxes, gt_valid, min_gt_iou))


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
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
    return _kernels(input).roi_align(input, _as_rois(boxes), spatial_scale, height, width, sampling_ratio, aligned)


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
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
    return _kernels(rois).multiscale_roi_align(
        *(list(features), _as_rois(rois), list(spatial_scales), height, width, sampling_ratio, aligned),
        *(canonical_size, canonical_level, min_level, eps_inside, eps_outside),
    )


def enlarge(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resizing to the same or a larger size. The result equals Pillow's bit for bit.

    Args:
        image: (H, W, 3) uint8.
        height, width: at least H and W.

    Returns:
        (3, height, width) uint8, contiguous.

    Raises:
        RuntimeError: the image has another shape or dtype, or would shrink.
    """
    return _kernels(image).enlarge(image, height, width)
