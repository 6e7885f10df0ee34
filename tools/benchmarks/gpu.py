"""The part of a training step in which the GPU computes."""

import argparse
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.models import draw_images
from benchmarks.timing import Report, machine
from frdet.config import load_config
from frdet.engine import AutocastOptimWrapper
from frdet.progress import track
from frdet.registry import DETECTORS

HEIGHT, WIDTH, BOXES = 800, 1216, 8
WARMUP, STEPS = 5, 10


def build_model(config: str) -> nn.Module:
    """A model with random weights. Like trained blocks, its blocks change their input little: numbers stay finite."""
    model = DETECTORS.build(load_config(config, {'model.backbone.init_cfg': None}).model)
    for name, module in model.backbone.named_modules():
        if name.endswith('bn3'):
            nn.init.constant_(module.weight, 0.2)
    return model.cuda().train()


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals: kernels at the same time on two streams count once."""
    total, reached = 0.0, -float('inf')
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def timed(step: Callable[[], object]) -> float:
    """Seconds for each of several steps in a row, where the host may run ahead, as in training."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def computing(step: Callable[[], object]) -> tuple[float, int]:
    """Seconds of a step in which the GPU computes or copies, and the number of kernels and copies."""
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
    # An annotation, for example of the optimiser's step, includes the pauses between kernels.
    on_gpu = [e for e in found.events() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    return covered((e.time_range.start, e.time_range.end) for e in on_gpu) / STEPS / 1e6, len(on_gpu) // STEPS


def row(config: str, count: int, wrapper: type[OptimWrapper]) -> dict[str, Any]:
    """One row of the table. Random images and boxes are on the GPU before the clock starts."""
    model = build_model(config)
    data = model.data_preprocessor.cast_data(draw_images(count, HEIGHT, WIDTH, BOXES, 80))
    params = [p for p in model.parameters() if p.requires_grad]
    optim = wrapper(optimizer=torch.optim.SGD(params, lr=1e-6, momentum=0.9))

    def step() -> None:
        model.train_step(data, optim)

    torch.cuda.reset_peak_memory_stats()
    for _ in range(WARMUP):
        step()
    seconds, memory = timed(step), torch.cuda.max_memory_allocated() / 2**30
    busy, kernels = computing(step)
    return {
        'images': count,
        'dtype': 'bfloat16' if wrapper is AutocastOptimWrapper else 'float32',
        'step ms': 1e3 * seconds,
        'images/s': count / seconds,
        '% GPU busy': 100 * busy / seconds,
        'kernels': kernels,
        'memory GiB': memory,
    }


def measure(args: argparse.Namespace) -> Report:
    """Each batch size in float32 (TF32 if the GPU has it) and in bfloat16. The loss is not looked at."""
    torch.set_float32_matmul_precision('high')
    report = Report(f'{machine(torch.device("cuda"))}, {HEIGHT} x {WIDTH} pixels')
    rows = [(count, wrapper) for count in args.batch for wrapper in (OptimWrapper, AutocastOptimWrapper)]
    for count, wrapper in track(rows, 'Profiling', delay=0):
        report.add(row(args.config, count, wrapper))
    return report
