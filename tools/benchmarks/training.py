"""Whole trainings: the time to start, and whether the memory grows with the duration."""

import argparse
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.hooks import Hook
from mmengine.runner import Runner

from benchmarks.timing import CPU, ROOT, Report, Times, machine, process_mib, run_python
from frdet.apis import train_detector
from frdet.config import load_config
from frdet.datasets import write_shapes
from frdet.progress import Bar, track
from frdet.registry import HOOKS

QUICKSTART = str(ROOT / 'configs/quickstart/r18_fpn_shapes.py')
LEAK_ROWS = 20

_MMENGINE = 'import mmengine.dataset, mmengine.model, mmengine.runner, mmengine.visualization'
_FOR_MODEL = """
import frdet.apis
from frdet.config import check_config, load_config
from frdet.registry import DETECTORS
"""
_MODEL = """
cfg = load_config('configs/faster_rcnn/r50_fpn_1x_coco.py', {'model.backbone.init_cfg': None})
check_config(cfg)
DETECTORS.build(cfg.model)
"""
#: Starts in a process that has imported torch: their goals in seconds, what is run before, and what is timed.
STARTS: dict[str, tuple[float | None, str, str]] = {
    'import frdet, after torch': (0.2, '', 'import frdet'),
    'import what frdet.apis needs of MMEngine, after torch': (None, '', _MMENGINE),
    'import frdet.apis, after torch and these': (0.2, _MMENGINE, 'import frdet.apis'),
    'R50-FPN from a config': (1.5, _FOR_MODEL, _MODEL),
}
_TIMED = """
import json, time, torch
{before}
start = time.perf_counter()
{timed}
print(json.dumps(time.perf_counter() - start))
"""


class Enough(Exception):
    """The wanted steps are done."""


class Step(NamedTuple):
    """Its end in seconds since 1970, resident memory in MiB, seconds of waiting for data, and seconds in all."""

    ended: float
    memory: float
    waited: float
    took: float


@HOOKS.register_module()
class WatchHook(Hook):
    """Notes every step, and raises ``Enough`` after ``steps`` of them."""

    priority = 'LOWEST'
    noted: list[Step] = []

    def __init__(self, *, steps: int):
        self.steps = steps
        self.bar = Bar('Iterations', steps, delay=2)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        waited, took = (runner.message_hub.get_scalar(f'train/{name}').current() for name in ('data_time', 'time'))
        self.noted.append(Step(time.time(), process_mib('VmRSS'), waited, took))
        self.bar.advance()
        if len(self.noted) == self.steps:
            self.bar.close()
            raise Enough


def watch(cfg: Any, steps: int, **kwargs: Any) -> list[Step]:
    """Train by ``train_detector(cfg, **kwargs)`` for ``steps`` steps."""
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='WatchHook', steps=steps)]
    with contextlib.suppress(Enough):
        train_detector(cfg, **kwargs)
    return WatchHook.noted


def print_first_step(config: str, work_dir: str, steps: int) -> None:
    """Train like tools/train.py. Print the end of the first step, and the share of waiting for data in later steps."""
    first, *others = watch(load_config(config), steps, work_dir=work_dir)
    # The first step waits for the workers to start.
    share = sum(step.waited for step in others) / max(sum(step.took for step in others), 1e-9)
    print(json.dumps([first.ended, share]), flush=True)
    os._exit(0)  # the interrupted training needs no clean-up


def start(args: argparse.Namespace) -> Report:
    """The time of each start in its own process, in turn."""
    first_step = 'from the command to the first training step, quick start'
    goals = {**{name: goal for name, (goal, _, _) in STARTS.items()}, first_step: 10.0}
    times, shares = {name: Times() for name in goals}, Times()
    with tempfile.TemporaryDirectory() as folder:
        write_shapes(Path(folder, 'data/shapes'))  # where the config looks
        for i in track(range(args.rounds), 'Rounds', delay=0):
            for name, (_, before, timed) in STARTS.items():
                times[name].append(run_python(_TIMED.format(before=before, timed=timed)))
            words = (QUICKSTART, f'{folder}/run{i}', args.steps)
            begun = time.time()
            ended, share = run_python(f'from benchmarks import training\ntraining.print_first_step{words}', folder)
            times[first_step].append(ended - begun)
            shares.append(100 * share)
    report = Report(f'Start-up; {machine(CPU)}')
    for name, found in times.items():
        report.add({'what': name, **found.cells, 'goal s': goals[name]})
    report.notes.append(
        f'{args.rounds} rounds. Of {args.steps} steps of the quick start, {shares.median:.1f}% of the time is spent '
        'waiting for data.'
    )
    return report


def leak(args: argparse.Namespace) -> Report:
    """The resident memory of the training process without its data workers, and its growth after the warm-up.

    The config is trained without validation in a temporary work dir.
    """
    cfg = load_config(args.config, args.cfg_options)
    cfg.train_cfg.max_epochs = args.iterations  # the training ends earlier
    cfg.default_hooks.progress = None  # it would show the config's number of iterations
    with tempfile.TemporaryDirectory() as folder:
        noted = [step.memory for step in watch(cfg, args.iterations, work_dir=folder, validate=False)]
    report = Report(f'Memory of a training by {args.config}')
    every = max(1, args.iterations // LEAK_ROWS)
    for number in range(every, len(noted) + 1, every):
        report.add({'iterations': number, 'resident MiB': noted[number - 1]})
    # The highest value of an interval, because the allocator frees and takes memory.
    half = max(1, args.warm_up // 2)
    grown = max(noted[-half:]) - max(noted[args.warm_up - half : args.warm_up])
    report.notes.append(
        f'From iteration {args.warm_up} to {args.iterations}: grown by {grown:.1f} MiB, allowed {args.limit:g}'
    )
    report.failed = grown > args.limit
    return report
