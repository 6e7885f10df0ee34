"""What a training costs, and which metric values it gives: two iterations and two batches of validation.

    python -m frdet.apis.ablation.trial CONFIG OUT

A process of its own measures the memory, and its errors leave nothing behind.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from frdet.apis.running import run_tool
from frdet.apis.training import train_detector
from frdet.checkpoints.hooks import validates_at
from frdet.config import load_config
from frdet.errors import ConfigError, did_you_mean
from frdet.models.detectors import bare

BATCHES = 2  # the first one warms up


class Enough(Exception):
    """The trial is over. ``found`` is what was measured."""

    def __init__(self, found: dict[str, Any]):
        super().__init__()
        self.found = found


class TrialHook(Hook):
    """Measures two iterations and two batches of validation, and raises ``Enough``."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.ends: list[float] = []  # of the iterations

    def before_train_iter(self, *args: Any, **kwargs: Any) -> None:
        if not self.ends:
            self.begun = time.time()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Measure the last iteration of the trial, then validate. Raises ``Enough`` with what ``measure`` returns."""
        _wait_for_gpu()
        self.ends.append(time.time())
        if len(self.ends) < min(BATCHES, runner.max_iters):
            return
        seconds = self.ends[-1] - [self.begun, *self.ends][-2]
        parameters = list(bare(runner.model).parameters())
        found = {
            'device': 'cuda' if torch.cuda.is_available() else 'cpu',
            'iterations': runner.max_iters,
            'seconds': seconds,
            'start': max(self.ends[0] - _process_start() - seconds, 0.0),
            'params': sum(p.numel() for p in parameters),
            'trained': sum(p.numel() for p in parameters if p.requires_grad),
            **_validate(runner),
        }
        validation = found['validations'] * found['val_images'] * found['val_seconds']
        found['memory'] = _memory()
        found['hours'] = (found['start'] + found['iterations'] * seconds + validation) / 3600
        raise Enough(found)


def _validate(runner: Runner) -> dict[str, Any]:
    """Validate two batches."""
    nothing = {'validations': 0, 'val_images': 0, 'val_seconds': 0.0, 'metrics': [], 'input_size': None}
    if runner.val_loop is None:
        return nothing
    loop: Any = runner.val_loop
    runner.model.eval()
    seconds, images = 0.0, 0
    size = None
    for index, batch in zip(range(BATCHES), loop.dataloader, strict=False):
        begun = time.perf_counter()
        loop.run_iter(index, batch)
        _wait_for_gpu()
        count = len(batch['inputs']) if isinstance(batch, dict) and 'inputs' in batch else loop.dataloader.batch_size
        seconds, images = (time.perf_counter() - begun) / count, images + count
        with contextlib.suppress(Exception):  # a model of another package need not have these
            size = list(bare(runner.model).data_preprocessor(batch, False)['inputs'].shape[-2:])
    metrics = list(loop.evaluator.evaluate(images))
    return {
        'validations': _validations(runner),
        'val_images': len(loop.dataloader.dataset),
        'val_seconds': seconds,
        'metrics': metrics,
        'input_size': size,
    }


def _validations(runner: Runner) -> int:
    """How many validations the whole training has; 1 if a loop of another class than MMEngine's decides this."""
    loop = runner.train_loop
    if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        return 1
    last = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    return sum(validates_at(loop, step) for step in range(1, last + 1))


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _memory() -> float:
    """MB: the most that the GPU held, or the process where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _process_start() -> float:
    """Seconds since 1970."""
    ticks = int(Path('/proc/self/stat').read_text().rpartition(')')[2].split()[19])
    since_boot = ticks / os.sysconf('SC_CLK_TCK')
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)


def measure(config: str | Path) -> dict[str, Any]:
    """Try the training of a config in this process, in a folder that is removed.

    Returns:
        ``device``, 'cpu' or 'cuda'; ``iterations`` of the whole training, and ``seconds`` of one; ``start``, seconds
        before the first one; ``params`` and ``trained``, numbers of parameters; ``memory`` in MB, the most of the GPU,
        or of the process without one; ``validations`` of the whole training, ``val_images`` of each, ``val_seconds`` of
        an image; ``metrics``, names of its values; ``input_size``, (height, width) of the network's input, or None;
        ``hours`` of the whole training.

    Raises:
        UserError: the config cannot be trained.
    """
    cfg = load_config(config)
    cfg.default_hooks = {**(cfg.get('default_hooks') or {}), 'report': None, 'visualization': None}
    cfg.visualizer = dict(type='Visualizer', vis_backends=[])  # a trial is no run of a tracking service
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), TrialHook()]
    with tempfile.TemporaryDirectory() as folder:
        try:
            train_detector(cfg, work_dir=f'{folder}/run', seed=0)
        except Enough as end:
            return end.found
    raise ConfigError('The training ended before its first iteration: are there any batches?')


def try_config(config: str | Path, out: str | Path, name: str) -> dict[str, Any]:
    """Try the training of a config in a process of its own.

    Args:
        config: path of a config.
        out: file to write, what was measured.
        name: of the config in the error message.

    Raises:
        ConfigError: the config cannot be trained; the message has the last lines of the training.
    """
    command = [sys.executable, '-m', 'frdet.apis.ablation.trial', str(config), str(out)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace')
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-3:]
        raise ConfigError('\n'.join([f'{name} cannot be trained (--no-trial plans without trying):', *lines]))
    content: dict[str, Any] = json.loads(Path(out).read_text(encoding='utf-8'))
    return content


def check_metric(metric: str, known: Sequence[str], name: str) -> None:
    """Raise ConfigError if ``metric`` is not one of the metric values that the validation of ``name`` gives."""
    if not known:
        raise ConfigError(f'{name} has no validation, so there is no {metric} to compare: give it a val_evaluator')
    if metric not in known:
        hint = did_you_mean(metric, known) or f'it gives {", ".join(known)}'
        raise ConfigError(f'{name}: no metric {metric!r} in its validation: {hint}')


def main() -> None:
    config, out = sys.argv[1:]
    found = measure(config)
    Path(out).write_text(json.dumps(found), encoding='utf-8')


if __name__ == '__main__':
    run_tool(main)
