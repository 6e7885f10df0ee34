"""Trains as tools/train.py does, for a few steps, and prints what `benchmark.py start` asks for as JSON.

python tools/benchmarks/first_step.py CONFIG WORK_DIR STEPS
"""

import json
import os
import sys
import time
from typing import Any

BEGUN = time.time()

from mmengine.hooks import Hook  # noqa: E402

from frdet.apis import train_detector  # noqa: E402
from frdet.config import load_config  # noqa: E402
from frdet.registry import HOOKS  # noqa: E402


@HOOKS.register_module()
class StopHook(Hook):
    """Ends the process after a number of steps."""

    priority = 'LOWEST'

    def __init__(self, *, steps: int):
        self.steps = steps

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.iter == 0:
            self.first = time.time()
        if runner.iter + 1 < self.steps:
            return
        waited, took = (runner.message_hub.get_scalar(f'train/{name}').data[0] for name in ('data_time', 'time'))
        # The first step waits for the workers to start.
        figures = {'first': self.first, 'begun': BEGUN, 'data_share': sum(waited[1:]) / max(sum(took[1:]), 1e-9)}
        print(json.dumps(figures), flush=True)
        os._exit(0)  # a training that is broken off has nothing to tidy up


def main() -> None:
    config, work_dir, steps = sys.argv[1:]
    cfg = load_config(config)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='StopHook', steps=int(steps))]
    train_detector(cfg, work_dir=work_dir)


if __name__ == '__main__':
    main()
