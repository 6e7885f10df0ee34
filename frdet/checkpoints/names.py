"""Renaming parameters between frdet and another project, by pairs of templates that read in both directions."""

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

#: What a layer's or a norm's name is followed by.
KINDS = 'weight|bias|running_mean|running_var|num_batches_tracked'


class Rule(NamedTuple):
    """A layer's name in both projects.

    ``{0}`` stands for a number; ``{2}`` for the same number plus 2. Numbers keep their order.
    """

    ours: str
    theirs: str


#: A ResNet: frdet's names, which are torchvision's, and detectron2's.
RESNET = (
    Rule('conv1', 'stem.conv1'),
    Rule('bn1', 'stem.conv1.norm'),
    Rule('layer{0}.{0}.conv{0}', 'res{1}.{0}.conv{0}'),
    Rule('layer{0}.{0}.bn{0}', 'res{1}.{0}.conv{0}.norm'),
    Rule('layer{0}.{0}.downsample.0', 'res{1}.{0}.shortcut'),
    Rule('layer{0}.{0}.downsample.1', 'res{1}.{0}.shortcut.norm'),
)


def to_ours(name: str, rules: Iterable[Rule]) -> str | None:
    """frdet's name of the parameter ``name``; None if no rule covers it."""
    return next((new for rule in rules if (new := _rename(name, rule.theirs, rule.ours))), None)


def to_theirs(name: str, rules: Iterable[Rule]) -> str | None:
    """The other project's name of frdet's parameter ``name``, by the first rule; None if no rule covers it."""
    return next((new for rule in rules if (new := _rename(name, rule.ours, rule.theirs))), None)


def _rename(name: str, source: str, target: str) -> str | None:
    match = _pattern(source).fullmatch(name)
    if match is None:
        return None
    *found, kind = match.groups()
    numbers = [int(n) - a + b for n, a, b in zip(found, _offsets(source), _offsets(target), strict=True)]
    if min(numbers, default=0) < 0:
        return None
    counted = iter(numbers)
    return re.sub(r'\{\d\}', lambda _: str(next(counted)), target) + kind


@functools.cache
def _pattern(template: str) -> re.Pattern:
    literal = [re.escape(part) for part in re.split(r'\{\d\}', template)]
    return re.compile(r'(\d+)'.join(literal) + rf'(\.(?:{KINDS}))')


@functools.cache
def _offsets(template: str) -> list[int]:
    return [int(n) for n in re.findall(r'\{(\d)\}', template)]
