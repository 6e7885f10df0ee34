"""Registers the rest of the operators with torch, beside the kernels: shapes of results, gradients, autocast.

The schemas are in ``ops/schema.cpp``. Importing this module registers everything, if the extension is loaded.

N images, C channels, K RoIs, (h, w) bins; B images, N boxes and G ground truths in matching.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import register_autocast, register_autograd, register_fake

from frdet.ops import loading

CHANNELS_LAST = torch.channels_last


def _register_fakes() -> None:
    @register_fake('frdet::nms')
    def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        return _some_indices(boxes)

    @register_fake('frdet::batched_nms')
    def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
        return _some_indices(boxes)

    @register_fake('frdet::batched_nms_mask')
    def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
        return torch.empty_like(scores, dtype=torch.bool, memory_format=torch.contiguous_format)

    @register_fake('frdet::max_iou')
    def _(
        boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor | None, min_gt_iou: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, num_gt, count = gt_boxes.shape[0], gt_boxes.shape[1], boxes.shape[-2]
        iou = boxes.new_empty(batch, count, dtype=torch.float32)
        index = boxes.new_empty(batch, count, dtype=torch.int64)
        return iou, index, boxes.new_empty(batch, num_gt, dtype=torch.float32), torch.empty_like(index)

    @register_fake('frdet::enlarge')
    def _(image: Tensor, height: int, width: int) -> Tensor:
        return image.new_empty(3, height, width)

    @register_fake('frdet::roi_align')
    def _(input: Tensor, rois: Tensor, scale: float, height: int, width: int, *args: Any) -> Tensor:
        return input.new_empty(rois.shape[0], input.shape[1], height, width)

    @register_fake('frdet::multiscale_roi_align')
    def _(features: list[Tensor], rois: Tensor, scales: list[float], height: int, width: int, *args: Any) -> Tensor:
        return features[0].new_empty(rois.shape[0], features[0].shape[1], height, width)

    @register_fake('frdet::roi_align_backward')
    def _(grad: Tensor, rois: Tensor, *args: Any) -> Tensor:
        shape, channels_last = args[-2:]
        return _like_input(grad, shape, channels_last)

    @register_fake('frdet::multiscale_roi_align_backward')
    def _(grad: Tensor, rois: Tensor, *args: Any) -> list[Tensor]:
        shapes, channels_last = args[-2:]
        return [_like_input(grad, shapes[i : i + 4], channels_last) for i in range(0, len(shapes), 4)]


def _some_indices(boxes: Tensor) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(count, dtype=torch.int64)


def _like_input(grad: Tensor, shape: Sequence[int], channels_last: bool) -> Tensor:
    memory_format = CHANNELS_LAST if channels_last else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=grad.dtype, device=grad.device, memory_format=memory_format)


def _is_channels_last(input: Tensor) -> bool:
    return input.is_contiguous(memory_format=CHANNELS_LAST)


def _register_gradients() -> None:
    def keep_one(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, rois, *ctx.parameters = inputs
        ctx.shape, ctx.channels_last = input.shape, _is_channels_last(input)
        ctx.save_for_backward(rois)

    def one(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (rois,) = ctx.saved_tensors
        result = torch.ops.frdet.roi_align_backward(grad, rois, *ctx.parameters, ctx.shape, ctx.channels_last)
        return result, None, *(None for _ in ctx.parameters)

    def keep_many(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        features, rois, *ctx.parameters = inputs
        ctx.shapes = [size for feature in features for size in feature.shape]
        ctx.channels_last = all(_is_channels_last(feature) for feature in features)
        ctx.save_for_backward(rois)

    def many(ctx: Any, grad: Tensor) -> tuple[list[Tensor] | None, ...]:
        (rois,) = ctx.saved_tensors
        backward = torch.ops.frdet.multiscale_roi_align_backward
        results = backward(grad, rois, *ctx.parameters, ctx.shapes, ctx.channels_last)
        return results, None, *(None for _ in ctx.parameters)

    register_autograd('frdet::roi_align', one, setup_context=keep_one)
    register_autograd('frdet::multiscale_roi_align', many, setup_context=keep_many)
    for name in ('roi_align', 'multiscale_roi_align'):
        register_autograd(
            f'frdet::{name}_backward',
            _refuse(
                f'{name} has no second derivative, and one was asked for: call backward() or grad() without '
                'create_graph=True through it'
            ),
        )
    register_autograd(
        'frdet::max_iou',
        _refuse('max_iou has no derivative, and one was asked for: use box_iou of frdet.structures, which has one'),
    )


def _refuse(message: str) -> Callable[..., Any]:
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(message)

    return backward


if loading.status().loaded:
    _register_fakes()
    _register_gradients()
    # Boxes and scores are compared in float32. RoIAlign takes features in the dtype that autocast gave them.
    for device_type in ('cpu', 'cuda'):
        for name in ('nms', 'batched_nms', 'batched_nms_mask', 'max_iou'):
            register_autocast(f'frdet::{name}', device_type, torch.float32)


def refuse_other_derivatives(name: str, *tensors: Tensor) -> None:
    """Raise RuntimeError if a tensor has a tangent, or is differentiated by ``torch.func``.

    Args:
        name: name of the operator, for the message.
        tensors: all tensors that its result depends on.
    """
    if torch.compiler.is_compiling():
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None or _is_tracked(tensor) for tensor in tensors):
        raise RuntimeError(
            f'{name} has no forward-mode derivative (jvp, jacfwd, dual numbers) and no derivative by torch.func (grad, '
            'vjp), and one was asked for: use loss.backward() or torch.autograd.grad'
        )


def _is_tracked(tensor: Tensor) -> bool:
    """Whether a transform of ``torch.func`` differentiates by ``tensor``, also one outside of another transform."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_gradtrackingtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False
