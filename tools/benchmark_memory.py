"""Does training need more memory the longer it runs? python tools/benchmark_memory.py CONFIG [--iterations 2000]

Prints the resident memory of the training process, without its loader's workers, and how much it has grown since the
warm-up; exit code 1 above --limit. The config is trained as it is, without validation, in a temporary work folder.
"""

import argparse
import contextlib
import tempfile
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from frdet.apis import run_tool, train_detector
from frdet.config import load_config
from frdet.progress import Bar
from frdet.registry import HOOKS


class Enough(Exception):
    """The iterations asked for are done."""


@HOOKS.register_module()
class MemoryHook(Hook):
    """Notes the resident memory after every iteration.

    Args:
        iterations: after which to stop.
        show: every so many.
    """

    noted: list[float] = []

    def __init__(self, *, iterations: int, show: int):
        self.iterations = iterations
        self.show = show
        self.bar = Bar('Iterations', iterations)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.noted.append(resident())
        self.bar.advance()
        if len(self.noted) % self.show == 0:
            print(f'{len(self.noted):>8} iterations {self.noted[-1]:>8.1f} MB', flush=True)
        if len(self.noted) == self.iterations:
            self.bar.close()
            raise Enough


def resident() -> float:
    """MB of 10^6 bytes."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmRSS')) * 1024 / 1e6


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Does training need more memory the longer it runs?')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--iterations', type=int, default=2000)
    parser.add_argument('--warm-up', type=int, default=100, metavar='N', help='iterations before the first figure')
    parser.add_argument('--limit', type=float, default=50, metavar='MB', help='growth allowed after the warm-up')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config: a.b.0.c=VALUE'
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    cfg.train_cfg.max_epochs = args.iterations  # the hook ends it before
    cfg.default_hooks.progress = None  # its total would be that of the config
    hook = dict(type='MemoryHook', iterations=args.iterations, show=max(1, args.iterations // 20))
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), hook]
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        train_detector(cfg, work_dir=folder, validate=False)
    # The highest of a stretch: the allocator gives back and takes.
    before = max(MemoryHook.noted[args.warm_up // 2 : args.warm_up])
    grown = max(MemoryHook.noted[-(args.warm_up // 2) :]) - before
    print(f'From iteration {args.warm_up} to {args.iterations}: grown by {grown:.1f} MB, allowed {args.limit:g}')
    return int(grown > args.limit)


if __name__ == '__main__':
    run_tool(main)
