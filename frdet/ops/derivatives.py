"""An error for derivatives that the operators do not have. Without it PyTorch would take them for zero."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


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
