"""Derivatives that the operators lack are refused in words. Runs with the extension and without."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from frdet import ops
from frdet.ops import loading

X = torch.arange(96.0).reshape(1, 2, 6, 8)
BOXES = torch.tensor([[1.0, 1, 5, 4], [0, 0, 7, 5]])
ROIS = torch.cat([torch.zeros(2, 1), BOXES], dim=1)

#: Each operator as a function of one tensor, and that tensor.
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    'roi_align': (lambda x: ops.roi_align(x, ROIS, 2), X),
    'roi_align of RoIs': (lambda rois: ops.roi_align(X, rois, 2), ROIS),
    'roi_align of boxes': (lambda boxes: ops.roi_align(X, [boxes], 2), BOXES),
    'multiscale_roi_align': (lambda x: ops.multiscale_roi_align([X, x], ROIS, 2, [1.0, 0.5]), X),
    'multiscale_roi_align of RoIs': (lambda rois: ops.multiscale_roi_align([X, X], rois, 2, [1.0, 0.5]), ROIS),
    'max_iou': (lambda boxes: ops.max_iou(boxes, BOXES).iou, BOXES),
    'max_iou of ground truth': (lambda boxes: ops.max_iou(BOXES, boxes).gt_iou, BOXES),
}


def dual(f: Callable[[Tensor], Tensor], x: Tensor) -> Any:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


def jvp(f: Callable[[Tensor], Tensor], x: Tensor) -> Any:
    return torch.func.jvp(f, (x,), (torch.ones_like(x),))


def hidden(f: Callable[[Tensor], Tensor], x: Tensor) -> Any:
    """The tangent belongs to the outer of two transforms."""
    return jvp(lambda outer: jvp(lambda inner: f(outer) * inner.sum(), x)[1], x)


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Any]] = {
    'dual numbers': dual,
    'jvp': jvp,
    'jvp in jvp': hidden,
    'linearize': lambda f, x: torch.func.linearize(f, x)[1](torch.ones_like(x)),
    'jacfwd': lambda f, x: torch.func.jacfwd(f)(x),
    'jacrev': lambda f, x: torch.func.jacrev(f)(x),
    'vjp': lambda f, x: torch.func.vjp(f, x),
    'grad': lambda f, x: torch.func.grad(lambda x: f(x).sum())(x),
    'grad of each': lambda f, x: torch.func.vmap(torch.func.grad(lambda x: f(x).sum()))(x[None]),
    'hessian': lambda f, x: torch.func.hessian(lambda x: f(x).square().sum())(x),
}


@pytest.mark.parametrize('transform', TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize('name', FUNCTIONS)
def test_other_derivatives_are_refused(name: str, transform: Callable[..., Any]) -> None:
    function, x = FUNCTIONS[name]
    with pytest.raises(RuntimeError, match=rf'^{name.split()[0]} has no forward-mode derivative'):
        transform(function, x)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_what_is_not_differentiated_may_stand_in_a_transform(name: str) -> None:
    function, x = FUNCTIONS[name]
    expected = function(x)
    value, tangent = torch.func.jvp(lambda factor: function(x) * factor, (torch.tensor(3.0),), (torch.tensor(1.0),))
    torch.testing.assert_close(value, expected * 3)
    torch.testing.assert_close(tangent, expected)
    gradient = torch.func.grad(lambda factor: (function(x) * factor).sum())(torch.tensor(3.0))
    torch.testing.assert_close(gradient, expected.sum())


@pytest.mark.skipif('cpu' not in loading.status().loaded, reason='in plain torch the IoU has its gradient')
def test_the_gradient_of_matching_is_refused() -> None:
    boxes = BOXES.clone().requires_grad_()
    with pytest.raises(RuntimeError, match='max_iou has no derivative'):
        ops.max_iou(boxes, BOXES).iou.sum().backward()


def test_rois_are_in_no_graph() -> None:
    """PyTorch then says so itself, instead of a gradient of zero."""
    x, rois = X.clone().requires_grad_(), ROIS.clone().requires_grad_()
    with pytest.raises(RuntimeError, match='not have been used in the graph'):
        torch.autograd.grad(ops.roi_align(x, rois, 2).sum(), rois)
