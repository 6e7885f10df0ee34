"""Finding all that is wrong with annotation files and images, where reading them stops at the first mistake."""

import warnings
from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """``check_data`` and ``DataReport``, which have moved, for one more release."""
    if name not in ('check_data', 'DataReport'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    warnings.warn(f'{name} is in frdet.apis.checking now', DeprecationWarning, stacklevel=2)
    return getattr(import_module('frdet.apis.checking'), name)
