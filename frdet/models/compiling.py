"""``torch.compile`` where it can work, and a reason where it cannot."""

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import print_log


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` compiled at its first call, once for all models; as it is, with one warning, without a compiler.

    Args:
        function: of a module's file, with modules and tensors as arguments. A method would stay bound to the model
            that was compiled when that is copied, as for an average of its weights.
    """
    compiler = os.environ.get('CXX') or 'g++'
    if shutil.which(compiler) is None:
        print_log(
            f'compile=True is left out: there is no C++ compiler {compiler}. Install one, or set CXX', 'current', 30
        )
        return function
    return torch.compile(function)
