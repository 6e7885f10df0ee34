"""Traces every object of a data set through a detector."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from torch import nn

from frdet.apis import test_detector
from frdet.errors import ConfigError
from frdet.insight.trace.changes import RESIZERS, resizing_steps
from frdet.insight.trace.hook import TraceHook
from frdet.insight.trace.model import Stage, Summary
from frdet.insight.trace.stages import ABOUT, OWN_STAGE, RESIZING
from frdet.models.task_modules.observing import observing


def trace_objects(
    cfg: Config,
    checkpoint: str | None,
    out: str | Path,
    *,
    iou: float = 0.5,
    min_size: float = 8.0,
    split: str = 'test',
    amp: bool = False,
    launcher: str = 'none',
    cards: int = 12,
) -> Summary:
    """Test a detector, and find the stage that lost each object that it does not find.

    Args:
        cfg: a whole config, which is changed.
        checkpoint: path or address of the weights; None: the weights that a training starts from.
        out: folder of the results, which is made: ``trace.json``, ``objects.csv``, ``detections.csv``, ``cards.json``.
        iou: from which IoU on a detection finds an object.
        min_size: an object that is smaller is lost at resizing, unless a box fits it at a later stage. It is the square
            root of the area in pixels of the network's input.
        split: 'test' or 'val', the data to test.
        amp, launcher: see ``test_detector``.
        cards: number of objects of each stage whose surroundings are kept.

    Returns:
        The summary, on the first process.

    Raises:
        UserError: config, data or checkpoint are wrong, the data have no annotation, or ``out`` cannot be written.
    """
    if not 0 < iou <= 1:
        raise ConfigError(
            f'The IoU of a detection that finds an object is {iou:g}: expected more than 0, and at most 1'
        )
    if split not in ('test', 'val'):
        raise ConfigError(f'split is {split!r}: expected test or val')
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'{folder} cannot be made a folder ({error.strerror}): choose another --out') from None
    if split == 'val':
        cfg.test_dataloader, cfg.test_evaluator = cfg.get('val_dataloader'), cfg.get('val_evaluator')
        cfg.test_cfg = cfg.get('test_cfg') or dict(type='TestLoop')
    config = cfg.filename or 'given as an object'
    hook = TraceHook(folder, iou=iou, min_size=min_size, cards=cards, starts=checkpoint is None)
    with observing(hook.events.append):
        test_detector(cfg, checkpoint, amp=amp, launcher=launcher, more_hooks=[hook])
    keys = stage_keys(hook.model, cfg, f'{split}_dataloader')
    notes = ['No checkpoint: these are the weights that a training starts from'] if checkpoint is None else []
    if hook.unknown is not None:
        notes.append(f'{type(hook.model).__name__} {hook.unknown}')
    summary = Summary(
        config=str(config),
        checkpoint=checkpoint,
        detector=type(hook.model).__name__,
        iou=iou,
        min_size=min_size,
        classes=list(hook.truth.classes),
        images=hook.images,
        stages=[Stage(name, ABOUT.get(name, OWN_STAGE), keys.get(name, {})) for name in hook.stages],
        counts={name: hook.counts[name] for name in hook.stages},
        false_positives=dict(hook.kinds),
        metrics={name: float(value) for name, value in hook.metrics.items()},
        notes=notes,
        split=split,
    )
    if is_main_process():
        summary.save(folder)
    return summary


def stage_keys(model: nn.Module, cfg: Config, loader: str) -> dict[str, dict[str, Any]]:
    """For each stage the key paths and values of its settings: those of ``stage_keys`` of the parts, and the size."""
    found: dict[str, dict[str, Any]] = {RESIZING: dict(_sizes(cfg, loader))}
    for name, module in model.named_modules():
        for stage, key in (getattr(module, 'stage_keys', None) or {}).items():
            path = '.'.join(part for part in ('model', name, key) if part)
            found.setdefault(stage, {})[path] = _value_at(cfg, path, default=getattr(module, key, None))
    return found


def _value_at(cfg: Any, path: str, *, default: Any) -> Any:
    for part in path.split('.'):
        try:
            cfg = cfg[int(part)] if isinstance(cfg, (list, tuple)) else cfg[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return default
    return cfg.to_dict() if hasattr(cfg, 'to_dict') else cfg


def _sizes(cfg: Config, loader: str) -> Iterator[tuple[str, Any]]:
    """The sizes of the transforms that resize in the pipeline of ``loader``."""
    for path, step in resizing_steps(cfg.get(loader) or {}, loader):
        yield from ((f'{path}.{name}', step[name]) for name in RESIZERS[step['type']] if name in step)
