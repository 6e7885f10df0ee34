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


def _some_indices(boxes: Tensor, *args: Any) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(count, dtype=torch.int64)


def _mask(boxes: Tensor, scores: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool, memory_format=torch.contiguous_format)


def _matches(boxes: Tensor, gt_boxes: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, num_gt, count = gt_boxes.shape[0], gt_boxes.shape[1], boxes.shape[-2]
    iou = boxes.new_empty(batch, count, dtype=torch.float32)
    index = boxes.new_empty(batch, count, dtype=torch.int64)
    return iou, index, boxes.new_empty(batch, num_gt, dtype=torch.float32), torch.empty_like(index)


def _pooled(input: Tensor, rois: Tensor, scale: Any, height: int, width: int, *args: Any) -> Tensor:
    return input.new_empty(rois.shape[0], input.shape[1], height, width)


def _like_input(grad: Tensor, shape: Sequence[int], channels_last: bool) -> Tensor:
    memory_format = CHANNELS_LAST if channels_last else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=grad.dtype, device=grad.device, memory_format=memory_format)


def _like_inputs(grad: Tensor, shapes: Sequence[int], channels_last: bool) -> list[Tensor]:
    return [_like_input(grad, shapes[i : i + 4], channels_last) for i in range(0, len(shapes), 4)]


#: For each operator, a function of its arguments that makes empty tensors of the result's shapes and dtypes.
_FAKES: dict[str, Callable[..., Any]] = {
    'nms': _some_indices,
    'batched_nms': _some_indices,
    'batched_nms_mask': _mask,
    'max_iou': _matches,
    'enlarge': lambda image, height, width: image.new_empty(3, height, width),
    'roi_align': _pooled,
    'multiscale_roi_align': lambda features, *args: _pooled(features[0], *args),
    'roi_align_backward': lambda grad, *args: _like_input(grad, *args[-2:]),
    'multiscale_roi_align_backward': lambda grad, *args: _like_inputs(grad, *args[-2:]),
}


def _register_gradient(name: str) -> None:
    """Of RoIAlign on one map, or on the maps of all levels."""

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        features, rois, *ctx.parameters = inputs
        maps = [features] if isinstance(features, Tensor) else features
        ctx.shapes = [size for feature in maps for size in feature.shape]
        ctx.channels_last = all(feature.is_contiguous(memory_format=CHANNELS_LAST) for feature in maps)
        ctx.save_for_backward(rois)

    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (rois,) = ctx.saved_tensors
        kernel = getattr(torch.ops.frdet, f'{name}_backward')
        result = kernel(grad, rois, *ctx.parameters, ctx.shapes, ctx.channels_last)
        return result, None, *(None for _ in ctx.parameters)

    register_autograd(f'frdet::{name}', backward, setup_context=keep)
    _refuse(
        f'{name}_backward',
        f'{name} has no second derivative, and one was asked for: call backward() or grad() without create_graph=True '
        'through it',
    )


def _refuse(name: str, message: str) -> None:
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(message)

    register_autograd(f'frdet::{name}', backward)


if loading.status().loaded:
    for name, fake in _FAKES.items():
        register_fake(f'frdet::{name}', fake)
    _register_gradient('roi_align')
    _register_gradient('multiscale_roi_align')
    _refuse(
        'max_iou', 'max_iou has no derivative, and one was asked for: use box_iou of frdet.structures, which has one'
    )
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
