"""``torch.compile``, left out with a warning where there is no C++ compiler."""

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import print_log


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, which is compiled at its first call, once for all models. Without a compiler it stays as it is.

    Args:
        function: a function at the top level of a file, not a method: a method of a copied model, such as the average
            of its weights, would still run on the original model.
    """
    compiler = os.environ.get('CXX') or 'g++'
    if shutil.which(compiler) is None:
        print_log(
            f'compile=True is left out: there is no C++ compiler {compiler}. Install one, or set CXX', 'current', 30
        )
        return function
    return torch.compile(function)
