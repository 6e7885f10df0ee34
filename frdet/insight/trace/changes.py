"""Other values of the settings that decide where objects are lost, each as a change of the config."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from frdet.config.text import as_code
from frdet.insight.trace.model import Stage, Summary
from frdet.insight.trace.stages import (
    ANCHOR_TOP_K,
    CLASS_NMS,
    CUT,
    FOUND,
    NO_ANCHOR,
    PROPOSAL_NMS,
    PROPOSAL_SIZE,
    PROPOSAL_TOP_K,
    RESIZING,
    RPN_SCORE,
    SCORE,
)
from frdet.registry import TRANSFORMS

#: Transforms that resize, and their settings in pixels.
RESIZERS = {'ResizeShortestEdge': ('short_side', 'max_size'), 'Resize': ('scale',)}
_LARGER = (1.25, 1.5)
_ANCHOR_SIZES = (0.5, 0.7, 1.4)
_LEAST_SCORE = 0.001


@dataclass(frozen=True)
class Change:
    """Other values in a config.

    Attributes:
        stage: name of the stage that they decide.
        words: what changes: 'model.rpn_head.nms_iou_thr: 0.7 -> 0.8'.
        values: the new values by key path.
    """

    stage: str
    words: str
    values: Mapping[str, Any]

    @property
    def lines(self) -> str:
        """Lines of a config that inherits the old values. A list inside needs words for ``--cfg-options`` instead."""
        if any(part.isdigit() for key in self.values for part in key.split('.')):
            words = (shlex.quote(f'{key}={as_code(value)}') for key, value in self.values.items())
            return f'--cfg-options {" ".join(words)}'
        nested: dict[str, Any] = {}
        for key, value in self.values.items():
            *parents, last = key.split('.')
            inside = nested
            for parent in parents:
                inside = inside.setdefault(parent, {})
            inside[last] = value
        return '\n'.join(f'{name} = {as_code(value, before=len(name) + 3)}' for name, value in nested.items())


def changes_of(cfg: Config, summary: Summary, split: str) -> list[Change]:
    """A few other values for each setting of a stage that loses objects, then larger inputs.

    Without a lost object there is none.
    """
    if summary.counts.get(FOUND, 0) == summary.objects:
        return []
    stages = [stage for stage in summary.stages if summary.counts.get(stage.name, 0)]
    larger = (_larger_input(cfg, f'{split}_dataloader', factor) for factor in _LARGER)
    return [*(one for stage in stages for one in _of_stage(stage)), *filter(None, larger)]


def _of_stage(stage: Stage) -> Iterator[Change]:
    for key, value in stage.keys.items():
        if stage.name == NO_ANCHOR and isinstance(value, Sequence):
            for factor in _ANCHOR_SIZES:
                yield Change(stage.name, f'{key}: all times {factor:g}', {key: _times(value, factor)})
        elif stage.name in _OTHERS and isinstance(value, (int, float)):
            for other in _OTHERS[stage.name](value):
                yield Change(stage.name, f'{key}: {value:g} -> {other:g}', {key: other})


def _times(sizes: Any, factor: float) -> Any:
    """Numbers in nested lists, each times ``factor``. There are as many as before, so that the weights still fit."""
    if isinstance(sizes, Sequence):
        return tuple(_times(one, factor) for one in sizes)
    return round(sizes * factor, 2)


def _counts(*factors: int) -> Callable[[float], list[float]]:
    return lambda count: [count * factor for factor in factors]


def _overlaps(threshold: float) -> list[float]:
    near = (round(threshold + step, 4) for step in (-0.1, 0.1, 0.2))
    return [one for one in near if 0 < one < 1]


def _lower_scores(threshold: float) -> list[float]:
    lower = {round(threshold / 5, 4): None, _LEAST_SCORE: None}  # each once, in this order
    return [one for one in lower if _LEAST_SCORE <= one < threshold]


def _no_side(side: float) -> list[float]:
    return [0.0] if side > 0 else []


#: Stage -> other values of a setting.
_OTHERS: dict[str, Callable[[float], list[float]]] = {
    RPN_SCORE: _counts(2, 4),
    ANCHOR_TOP_K: _counts(2, 4),
    PROPOSAL_SIZE: _no_side,
    PROPOSAL_NMS: _overlaps,
    PROPOSAL_TOP_K: _counts(2, 4),
    SCORE: _lower_scores,
    CLASS_NMS: _overlaps,
    CUT: _counts(2, 3),
}


def _larger_input(cfg: Config, loader: str, factor: float) -> Change | None:
    """Every resizing of the data, with its pixels times ``factor``; None if nothing is resized."""
    values: dict[str, Any] = {}
    words = []
    for key, step in resizing_steps(cfg[loader].dataset, f'{loader}.dataset'):
        kind = TRANSFORMS.get(step['type'])
        old = {name: step.get(name, getattr(kind, name, None)) for name in RESIZERS[step['type']]}
        new = {name: _pixels(value, factor) for name, value in old.items()}
        values |= {f'{key}.{name}': value for name, value in new.items()}
        words.append(f'{key}: ' + ', '.join(f'{name} {as_code(old[name])} -> {as_code(new[name])}' for name in old))
    return Change(RESIZING, '; '.join(words), values) if values else None


def resizing_steps(node: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The transforms in ``node`` that resize, with their key paths; in data sets that are joined, too."""
    if isinstance(node, Mapping) and node.get('type') in RESIZERS:
        yield key, node
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for name, inner in items:
        yield from resizing_steps(inner, f'{key}.{name}')


def _pixels(value: Any, factor: float) -> Any:
    return round(value * factor) if isinstance(value, int) else tuple(round(one * factor) for one in value)
