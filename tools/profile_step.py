"""How much of a training step the GPU computes: python tools/profile_step.py [--config CONFIG] [--batch 6 16]

Prints a Markdown table: each batch size in float32 (TF32 where the GPU has it) and in bfloat16. The data are drawn, and
on the GPU already, the weights random: nothing here says how well a detector trains.
"""

import argparse
import time
from collections.abc import Callable, Iterable

import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from frdet.apis import run_tool
from frdet.config import load_config
from frdet.engine import AutocastOptimWrapper
from frdet.errors import ConfigError
from frdet.progress import track
from frdet.registry import DETECTORS
from frdet.structures import DetDataSample

HEIGHT, WIDTH, BOXES = 800, 1216, 8
WARMUP, STEPS = 5, 10


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='How much of a training step the GPU computes.')
    parser.add_argument('--config', default='configs/faster_rcnn/r50_fpn_1x_coco.py')
    parser.add_argument('--batch', type=int, nargs='+', default=[6, 16], help='images in a step')
    return parser.parse_args()


def build_model(config: str) -> nn.Module:
    """With random weights; blocks add little to what they are given, as trained ones, so that numbers stay finite."""
    cfg = load_config(config, {'model.backbone.init_cfg': None})
    model = DETECTORS.build(cfg.model)
    for name, module in model.backbone.named_modules():
        if name.endswith('bn3'):
            nn.init.constant_(module.weight, 0.2)
    return model.cuda().train()


def draw_batch(count: int) -> dict:
    """Noise with boxes of 32 to 400 pixels."""
    samples = []
    for _ in range(count):
        corners = torch.rand(BOXES, 2, device='cuda') * torch.tensor([WIDTH - 400, HEIGHT - 400], device='cuda')
        sides = 32 + torch.rand(BOXES, 2, device='cuda') * 368
        sample = DetDataSample(metainfo=dict(img_shape=(HEIGHT, WIDTH), ori_shape=(HEIGHT, WIDTH)))
        boxes = torch.cat([corners, corners + sides], dim=1)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(80, (BOXES,), device='cuda'))
        samples.append(sample)
    images = torch.randint(256, (count, 3, HEIGHT, WIDTH), dtype=torch.uint8, device='cuda')
    return dict(inputs=list(images), data_samples=samples)


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals: kernels on two streams at once count once."""
    total, reached = 0.0, -float('inf')
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def timed(step: Callable[[], object]) -> float:
    """Seconds a step, of several in a row: the host may run ahead, as in training."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def computing(step: Callable[[], object]) -> tuple[float, int]:
    """Seconds of a step in which the GPU computes or copies, and how many kernels and copies there are."""
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
    # An annotation, as of the optimiser's step, spans the pauses between its kernels.
    on_gpu = [e for e in found.events() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    return covered((e.time_range.start, e.time_range.end) for e in on_gpu) / STEPS / 1e6, len(on_gpu) // STEPS


def row(config: str, count: int, wrapper: type[OptimWrapper]) -> str:
    """One line of the table."""
    model, data = build_model(config), draw_batch(count)
    params = [p for p in model.parameters() if p.requires_grad]
    optim = wrapper(optimizer=torch.optim.SGD(params, lr=1e-6, momentum=0.9))

    def step() -> None:
        model.train_step(data, optim)

    torch.cuda.reset_peak_memory_stats()
    for _ in range(WARMUP):
        step()
    seconds = timed(step)
    memory = torch.cuda.max_memory_allocated() / 2**30
    busy, kernels = computing(step)
    dtype = 'bfloat16' if wrapper is AutocastOptimWrapper else 'float32'
    share = 100 * busy / seconds
    figures = f'{1e3 * seconds:.1f} ms | {count / seconds:.1f} | {share:.0f}% | {kernels} | {memory:.1f} GiB'
    return f'| {count} | {dtype} | {figures} |'


def main() -> None:
    args = parse_args()
    if not torch.cuda.is_available():
        raise ConfigError('torch finds no GPU here, and this profiles kernels on one')
    torch.set_float32_matmul_precision('high')
    print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}, {HEIGHT} x {WIDTH} pixels\n')
    print('| images | dtype | step | images/s | GPU busy | kernels | memory |\n|---:|---|---:|---:|---:|---:|---:|')
    rows = [(count, wrapper) for count in args.batch for wrapper in (OptimWrapper, AutocastOptimWrapper)]
    for count, wrapper in track(rows, 'Profiling', delay=0):
        print(row(args.config, count, wrapper), flush=True)


if __name__ == '__main__':
    run_tool(main)
