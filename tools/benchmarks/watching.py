"""A training that ends after some steps, and notes the time and the memory of each step."""

import contextlib
import time
from typing import Any, NamedTuple

from mmengine.hooks import Hook
from mmengine.runner import Runner

from benchmarks.timing import process_mib
from frdet.apis import train_detector
from frdet.progress import Bar
from frdet.registry import HOOKS


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
