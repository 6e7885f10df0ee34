"""The start of a run on one screen: what the terminal shows of it, and what only the log file keeps."""

import logging
import os
import platform
from collections.abc import Iterator
from typing import Any

import mmengine
import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

import frdet
from frdet.checkpoints.hooks import CheckpointHook, FitCheckpointHook
from frdet.datasets.base import DetDataset
from frdet.datasets.wrappers import leaves
from frdet.engine.optim import DTYPES
from frdet.models.detectors import bare
from frdet.ops import loading

NAMES = 8  # classes that are named; the other ones are counted
#: MMEngine warns of its own calls of its own former functions, which no user can change.
_NOT_FOR_USERS = ('"FileClient" will be deprecated', '"HardDiskBackend" is the alias')


class ScreenFilter(logging.Filter):
    """Keeps off the terminal what is logged before the run starts, except warnings, errors and the summary.

    The log file gets all of it: the environment, the config and the order of the hooks are about 400 lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the terminal shows ``record``."""
        if str(record.msg).startswith(_NOT_FOR_USERS):
            return False
        return self.started or record.levelno > logging.INFO or getattr(record, 'is_summary', False)


class SummaryHook(Hook):
    """Logs one table about the run before its first step: versions, data, classes, schedule, rate, weights, seed.

    ``DetRunner`` adds it to every run. ``screen`` is the filter of the terminal, which shows everything after that.
    """

    priority = 'LOW'  # after the checks of the setup, before the hooks that log or repeat a validation

    def __init__(self, screen: ScreenFilter):
        self.screen = screen

    def before_train(self, runner: Runner) -> None:
        """Log the summary of a training."""
        parts = [('train', runner.train_dataloader.dataset)]
        if runner.val_loop is not None:
            parts.append(('validation', runner.val_dataloader.dataset))
        seed = f'{runner.seed}, deterministic algorithms only' if runner.deterministic else str(runner.seed)
        self._log(runner, [*_data(parts), *_model(runner), *_schedule(runner), ('seed', seed)])

    def before_val(self, runner: Runner) -> None:
        """Log the summary of a validation that is no part of a training."""
        self._log(runner, [*_data([('validation', runner.val_dataloader.dataset)]), *_model(runner)])

    def before_test(self, runner: Runner) -> None:
        """Log the summary of a test."""
        self._log(runner, [*_data([('test', runner.test_dataloader.dataset)]), *_model(runner)])

    def _log(self, runner: Runner, rows: list[tuple[str, str]]) -> None:
        if not self.screen.started:
            lines = [f'{name:<15} {text}' for name, text in [*_setting(runner), *rows]]
            runner.logger.info('\n' + '\n'.join(lines), extra={'is_summary': True})
            self.screen.started = True


def _setting(runner: Runner) -> Iterator[tuple[str, str]]:
    """Yield versions, device, and the files of the run."""
    python = f'Python {platform.python_version()}'
    yield 'versions', f'frdet {frdet.__version__}, torch {torch.__version__}, MMEngine {mmengine.__version__}, {python}'
    processes = get_world_size()
    device = next(bare(runner.model).parameters(), torch.zeros(0)).device.type
    if device == 'cuda':
        text = f'{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}'
    else:
        text = f'{device.upper()}, {_count(os.cpu_count() or 1, "core")}, {_count(torch.get_num_threads(), "thread")}'
    yield 'device', (f'{processes} processes, each on ' if processes > 1 else '') + text
    yield 'kernels', loading.status().describe(device)
    yield 'config', str(runner.cfg.filename or 'no file')
    yield 'work dir', f'{runner.work_dir} (the whole log: {runner.timestamp}/{runner.timestamp}.log)'


def _data(parts: list[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the images of every data set, and the classes of the first one."""
    for name, dataset in parts:
        inner = list(leaves(dataset))
        text = _count(len(dataset), 'image')
        if known := [one for one in inner if isinstance(one, DetDataset)]:
            images, boxes, empty = (sum(counts) for counts in zip(*(one.count() for one in known), strict=True))
            of = f' an epoch, of {images:,} different ones' if images != len(dataset) and known == inner else ''
            text += f'{of}, {_count(boxes, "box")}, {_count(empty, "image")} without objects'
            left_out = [f'{count:,} {reason}' for one in known for reason, count in one.left_out.items()]
            text += f'; left out: {", ".join(left_out)}' if left_out else ''
        yield name, text
    classes = list((getattr(parts[0][1], 'metainfo', None) or {}).get('classes') or ())
    if classes:
        more = f' and {len(classes) - NAMES} more' if len(classes) > NAMES else ''
        yield 'classes', f'{len(classes)}: {", ".join(map(str, classes[:NAMES]))}{more}'


def _model(runner: Runner) -> Iterator[tuple[str, str]]:
    """Yield the size of the model and the files of its weights."""
    model = bare(runner.model)
    total = sum(one.numel() for one in model.parameters())
    frozen = sum(one.numel() for one in model.parameters() if not one.requires_grad)
    yield 'model', f'{type(model).__name__}, {total:,} parameters' + (f', {frozen:,} of them frozen' if frozen else '')
    yield 'weights', _weights(runner, model)


def _weights(runner: Runner, model: nn.Module) -> str:
    loaded = next((hook.loaded for hook in runner.hooks if isinstance(hook, FitCheckpointHook)), '')
    if loaded and runner._resume:
        return f'{loaded}; goes on after iteration {runner.iter:,} of {runner.max_iters:,}'
    parts = {name: getattr(part, 'loaded_from', '') for name, part in model.named_modules()}
    started = [f'{name} from {source}' for name, source in parts.items() if source]
    return loaded or ('; '.join(started) + '; the other ones are random' if started else 'random')


def _schedule(runner: Runner) -> Iterator[tuple[str, str]]:
    """Yield length, optimiser, batch and rate of a training, and how often it validates and saves."""
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    text = _count(runner.max_iters, 'iteration')
    if by_epoch:
        text = f'{_count(runner.max_epochs, "epoch")} x {_count(len(runner.train_dataloader), "iteration")} = {text}'
    often = []
    if runner.val_loop is not None:
        often.append(f'validation every {_count(runner.train_loop.val_interval, _unit(by_epoch))}')
    if saver := next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None):
        often.append(f'checkpoint every {_count(saver.interval, _unit(saver.by_epoch))}')
    yield 'schedule', '; '.join([text, *often])
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, dict) or not hasattr(wrapper, 'optimizer'):
        return
    dtype = next((name for name, one in DTYPES.items() if one is getattr(wrapper, 'dtype', None)), 'float32')
    yield 'optimiser', f'{type(wrapper.optimizer).__name__}, {dtype}'
    lr = wrapper.optimizer.defaults.get('lr')
    yield 'learning rate', getattr(runner, 'rate', None) or f'{lr:g}, not scaled to the images in a step'
    built = runner.param_schedulers
    if isinstance(built, list) and built:
        yield 'rate over time', '; '.join(map(_course, built))


def _course(one: _ParamScheduler) -> str:
    """Describe the course of one schedule in words."""
    unit, settings = _unit(one.by_epoch), vars(one)
    if settings.get('end_factor') == 1:
        return f'warm-up from {one.start_factor:g} of it over {_count(one.total_iters, unit)}'
    if turns := sorted(settings.get('milestones', ())):
        return f'x {one.gamma:g} after {unit} {", ".join(f"{one.begin + turn:,}" for turn in turns)}'
    end = f' to {one.end:,}' if one.end < 1e9 else ''
    return f'{type(one).__name__} from {unit} {one.begin:,}{end}'


def _unit(by_epoch: bool) -> str:
    return 'epoch' if by_epoch else 'iteration'


def _count(number: int, what: str) -> str:
    ending = '' if number == 1 else 'es' if what.endswith('x') else 's'
    return f'{number:,} {what}{ending}'
