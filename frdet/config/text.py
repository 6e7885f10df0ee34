"""A config as Python text."""

import math
from keyword import iskeyword
from numbers import Number
from typing import Any

from mmengine.config import Config

WIDTH = 120  # the longest line that can be broken


def dump_config(cfg: Config) -> str:
    """The whole config as Python text, with sorted keys, ``type`` first.

    Reading the text gives the same config, but for objects without a literal, such as paths, which are read as strings.
    """
    return ''.join(f'{key} = {as_code(value, before=len(key) + 3)}\n' for key, value in sorted(cfg.to_dict().items()))


class QuickConfig(Config):
    """A config that writes its text in a millisecond.

    MMEngine formats the text with yapf, which takes half a second, eight times at the start of a run and once for each
    checkpoint.
    """

    def __init__(self, cfg: Config) -> None:
        self.__setstate__(cfg.__getstate__())

    @property
    def pretty_text(self) -> str:
        """The text that MMEngine logs and writes into the work dir and the checkpoints."""
        return dump_config(self)


def as_code(value: Any, indent: int = 0, before: int = 0) -> str:
    """A value as code with sorted keys. Lines begin at column ``indent``, the first after ``before`` characters."""
    if not isinstance(value, (dict, list, tuple)):
        return _plain(value)
    left, right = ('[', ']') if isinstance(value, list) else ('(', ')')
    deeper = indent + 4
    if isinstance(value, dict):
        is_call = all(isinstance(key, str) and key.isidentifier() and not iskeyword(key) for key in value)
        left, right = ('dict(', ')') if is_call else ('{', '}')
        texts = {f'{key}=' if is_call else f'{key!r}: ': item for key, item in value.items()}
        items = [key + as_code(texts[key], deeper, len(key)) for key in sorted(texts, key=_order)]
    else:
        items = [as_code(item, deeper) for item in value]
    line = left + ', '.join(items) + (',' if left == '(' and len(items) == 1 else '') + right
    if '\n' not in line and indent + before + len(line) < WIDTH:  # a comma may follow
        return line
    lines = ''.join(f'{" " * deeper}{item},\n' for item in items)
    return f'{left}\n{lines}{" " * indent}{right}'


def _plain(value: Any) -> str:
    """A value without parts. An object that Python has no literal for, such as a path, becomes a string."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    return str(value) if isinstance(value, (Number, bytes, set, type(None))) else repr(str(value))


def _order(key: str) -> tuple[bool, str]:
    return key not in ('type=', "'type': "), key
