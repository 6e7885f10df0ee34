"""Whether the memory of a training grows with its duration."""

import argparse
import tempfile

from benchmarks.timing import Report
from benchmarks.watching import watch
from frdet.config import load_config

ROWS = 20


def measure(args: argparse.Namespace) -> Report:
    """The resident memory of the training process without its data workers, and its growth after the warm-up.

    The config is trained without validation in a temporary work dir.
    """
    cfg = load_config(args.config, args.cfg_options)
    cfg.train_cfg.max_epochs = args.iterations  # the training ends earlier
    cfg.default_hooks.progress = None  # it would show the config's number of iterations
    with tempfile.TemporaryDirectory() as folder:
        noted = [step.memory for step in watch(cfg, args.iterations, work_dir=folder, validate=False)]
    report = Report(f'Memory of a training by {args.config}')
    every = max(1, args.iterations // ROWS)
    for number, memory in list(enumerate(noted, start=1))[every - 1 :: every]:
        report.add({'iterations': number, 'resident MiB': memory})
    # The highest value of an interval, because the allocator frees and takes memory.
    half = max(1, args.warm_up // 2)
    grown = max(noted[-half:]) - max(noted[args.warm_up - half : args.warm_up])
    report.notes.append(
        f'From iteration {args.warm_up} to {args.iterations}: grown by {grown:.1f} MiB, allowed {args.limit:g}'
    )
    report.failed = grown > args.limit
    return report
