"""Parameter names of frdet and of other projects, related by pairs of templates that read in both directions."""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

#: The last parts of a parameter's name.
KINDS = 'weight|bias|running_mean|running_var|num_batches_tracked'
_NUMBER = re.compile(r'\{(\d)\}')


class Rule(NamedTuple):
    """A layer's name in both projects; ``{0}`` stands for a number, ``{2}`` for the same number plus 2."""

    ours: str
    theirs: str


#: The layers of a ResNet. frdet uses torchvision's names, the others are detectron2's.
RESNET = (
    Rule('conv1', 'stem.conv1'),
    Rule('bn1', 'stem.conv1.norm'),
    Rule('layer{0}.{0}.conv{0}', 'res{1}.{0}.conv{0}'),
    Rule('layer{0}.{0}.bn{0}', 'res{1}.{0}.conv{0}.norm'),
    Rule('layer{0}.{0}.downsample.0', 'res{1}.{0}.shortcut'),
    Rule('layer{0}.{0}.downsample.1', 'res{1}.{0}.shortcut.norm'),
)


def to_ours(name: str, rules: Iterable[Rule]) -> str | None:
    """Return frdet's name of the parameter ``name``; None if no rule covers it."""
    return next((new for rule in rules if (new := _rename(name, rule.theirs, rule.ours))), None)


def to_theirs(name: str, rules: Iterable[Rule]) -> str | None:
    """Return the other project's name of frdet's parameter ``name``, by the first rule that covers it, or None."""
    return next((new for rule in rules if (new := _rename(name, rule.ours, rule.theirs))), None)


def _rename(name: str, source: str, target: str) -> str | None:
    match = _pattern(source).fullmatch(name)
    if match is None:
        return None
    *found, kind = match.groups()
    # ``counts`` are the numbers without what the source adds to them; the target's own addition is in its braces.
    counts = iter([int(n) - int(add) for n, add in zip(found, re.findall(_NUMBER, source), strict=True)])
    new = re.sub(_NUMBER, lambda add: str(next(counts) + int(add[1])), target)
    return None if '-' in new else new + kind


@functools.cache
def _pattern(template: str) -> re.Pattern:
    literal = [re.escape(part) for part in re.split(r'\{\d\}', template)]
    return re.compile(r'(\d+)'.join(literal) + rf'(\.(?:{KINDS}))')


def few(names: Sequence[str]) -> str:
    """Return the first three names, and the number of the other ones, for an error message."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
