"""frdet's operators, and torchvision's of DCNv2, written in ONNX operators, opset 18, for ``torch.onnx.export``.

It needs onnxscript. Shapes: K RoIs, L maps, (h, w) bins; N boxes, m of them with a score, in G groups.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision  # noqa: F401  # it registers its operators
from onnxscript import opset18
from onnxscript.onnx_types import BOOL, DOUBLE, FLOAT, INT64

OPSET = 18
op: Any = opset18  # its stubs know no arithmetic of values
LOWEST = torch.finfo(torch.float32).min


def translations() -> dict[Callable, Callable]:
    """The ``custom_translation_table`` of the exporter."""
    return {
        torch.ops.frdet.batched_nms_mask.default: batched_nms_mask,
        torch.ops.frdet.multiscale_roi_align.default: multiscale_roi_align,
        torch.ops.torchvision.deform_conv2d.default: deform_conv2d,
    }


def batched_nms_mask(boxes: FLOAT, scores: FLOAT, idxs: INT64, iou_threshold: float) -> BOOL:
    """One NonMaxSuppression with a class for each group. A class has the score -inf for boxes of other groups.

    ONNX has no groups, and shifting the boxes apart would round their IoU. Only boxes with a score are used, so that
    the (G, m) scores stay small.
    """
    candidates = op.Squeeze(op.NonZero(op.Greater(scores, LOWEST)), [0])
    groups = op.Range(0, op.ReduceMax(idxs, keepdims=0) + 1, 1)
    is_own = op.Equal(op.Unsqueeze(groups, [1]), op.Unsqueeze(op.Gather(idxs, candidates), [0]))
    own_scores = op.Where(is_own, op.Unsqueeze(op.Gather(scores, candidates), [0]), -math.inf)
    selected = op.NonMaxSuppression(
        op.Unsqueeze(op.Gather(boxes, candidates), [0]),  # x and y are exchanged, which changes no IoU
        op.Unsqueeze(own_scores, [0]),
        op.Shape(candidates),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[LOWEST]),
    )
    kept = op.Gather(candidates, op.Gather(selected, 2, axis=1))
    none = op.ConstantOfShape(op.Shape(scores))
    return op.ScatterElements(none, kept, op.CastLike(op.ConstantOfShape(op.Shape(kept)), none) + 1.0) > 0.5


def multiscale_roi_align(
    features: Sequence[FLOAT],
    rois: FLOAT,
    spatial_scales: Sequence[float],
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_size: float,
    canonical_level: float,
    min_level: int,
    eps_inside: float,
    eps_outside: float,
) -> FLOAT:
    """One RoiAlign for each map and the RoIs of its level. The results are put back into the order of the RoIs."""
    image = op.Cast(op.Gather(rois, 0, axis=1), to=INT64.dtype)
    boxes = op.Slice(rois, [1], [5], [1])
    # The index of each RoI's map, (K,), with the rule and the rounding of ``choose_level`` in ops/geometry.h.
    x1, y1, x2, y2 = (op.Gather(boxes, i, axis=1) for i in range(4))
    side = op.Sqrt(op.Max((x2 - x1) * (y2 - y1), 0.0))
    log_ratio = op.Log(op.Cast(side / canonical_size + eps_inside, to=DOUBLE.dtype))
    log_two = op.Log(op.Cast(op.Constant(value_float=2.0), to=DOUBLE.dtype))
    level = op.Cast(op.Div(log_ratio, log_two), to=FLOAT.dtype)
    level = op.Floor(level + canonical_level + eps_outside) - float(min_level)
    level = op.Clip(level, 0.0, float(len(features) - 1))
    chosen, pooled = [], []
    for i, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        chosen.append(op.Squeeze(op.NonZero(op.Equal(level, float(i))), [0]))
        pooled.append(
            op.RoiAlign(
                feature,
                op.Gather(boxes, chosen[i]),
                op.Gather(image, chosen[i]),
                coordinate_transformation_mode='half_pixel' if aligned else 'output_half_pixel',
                output_height=height,
                output_width=width,
                sampling_ratio=max(sampling_ratio, 0),
                spatial_scale=scale,
            )
        )
    order = op.Concat(*chosen, axis=0)
    place = op.Range(0, op.Squeeze(op.Shape(order)), 1)
    return op.Gather(op.Concat(*pooled, axis=0), op.ScatterElements(place, order, place))


def deform_conv2d(
    images: FLOAT,
    weight: Any,
    offset: FLOAT,
    mask: FLOAT,
    bias: FLOAT,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> FLOAT:
    """One GridSample of all S samples of the kernel, times their factors, and a 1x1 convolution of S * C channels.

    ONNX has DeformConv from opset 19 on. Shapes: B images, G groups of offsets, (h, w) of the result.
    """
    assert groups == 1 and use_mask, 'DCNv2 has one group of channels, and factors'
    _, channels, height, width = (int(side) for side in weight.shape)
    samples = height * width
    size = op.Shape(offset, start=2)
    moved = op.Reshape(offset, _sizes(-1, samples, 2, size))  # (B * G, S, 2, h, w)
    places: list[Any] = []
    for axis, (stride, pad, dilation) in enumerate(((stride_h, pad_h, dilation_h), (stride_w, pad_w, dilation_w))):
        in_kernel = [float((i // width if axis == 0 else i % width) * dilation - pad) for i in range(samples)]
        start = op.Cast(op.Range(0, op.Gather(size, axis), 1), to=FLOAT.dtype) * float(stride)
        start = op.Unsqueeze(start, [1]) if axis == 0 else start
        pixel = op.Gather(moved, axis, axis=2) + op.Reshape(op.Constant(value_floats=in_kernel), [-1, 1, 1]) + start
        side = op.Cast(op.Gather(op.Shape(images), axis + 2), to=FLOAT.dtype)
        places.insert(0, op.Unsqueeze((pixel * 2.0 + 1.0) / side - 1.0, [-1]))  # x comes first
    grid = op.Reshape(op.Concat(*places, axis=-1), _sizes(0, -1, op.Slice(size, [1], [2]), 2))
    grouped = op.Reshape(images, _sizes(-1, channels // offset_groups, op.Shape(images, start=2)))
    sampled = op.GridSample(grouped, grid, mode='bilinear', padding_mode='zeros', align_corners=0)
    sampled = op.Reshape(sampled, _sizes(0, 0, samples, size))
    sampled = sampled * op.Reshape(mask, _sizes(-1, 1, samples, size))
    sampled = op.Reshape(sampled, _sizes(-1, channels * samples, size))
    return op.Conv(sampled, op.Reshape(weight, [0, -1, 1, 1]), bias)


def _sizes(*parts: Any) -> Any:
    """One vector of sizes: each part is a number or such a vector."""
    return op.Concat(*(op.Constant(value_ints=[one]) if isinstance(one, int) else one for one in parts), axis=0)
