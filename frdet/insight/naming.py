"""Names in tables and plots: cut where they are long, and told apart where they are equal."""

import os
from collections.abc import Sequence
from pathlib import Path

from frdet.errors import ConfigError

MOST_LETTERS = 32  # of the name of a class in a plot


def short(names: Sequence[str]) -> list[str]:
    """Names, cut in the middle so that they leave room for the plot."""
    half = (MOST_LETTERS - 3) // 2
    return [name if len(name) <= MOST_LETTERS else f'{name[:half]}...{name[-half:]}' for name in names]


def run_names(paths: Sequence[str | Path]) -> list[str]:
    """The last part of every path, or as many last parts as make the names differ."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError('A run is compared with itself: give different work dirs')
