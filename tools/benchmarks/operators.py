"""frdet's operators compared with torchvision's on the same inputs."""

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor

from benchmarks.timing import Report, Run, alternate, machine, seconds
from frdet import ops
from frdet.models.task_modules import AnchorGenerator
from frdet.ops import loading
from frdet.progress import track


class Case(NamedTuple):
    """One row of the table: a call of frdet's and of torchvision's operator, and the wanted speed-up.

    ``traffic`` is the least number of bytes to read and write. It is None if memory does not limit the speed.
    """

    name: str
    ours: Run
    theirs: Run
    goal: float
    traffic: int | None = None


def random_boxes(count: int, device: torch.device) -> Tensor:
    """Boxes (count, 4) in an image of 800 by 1216. Sides are log-uniform from 16 to 400 pixels."""
    sides = 16 * 25 ** torch.rand(count, 2, device=device)
    corner = torch.rand(count, 2, device=device) * (torch.tensor([1216.0, 800.0], device=device) - sides).clamp(min=0)
    return torch.cat([corner, corner + sides], dim=1)


def roi_align_cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """1024 RoIs on (2, 256, 200, 304), 7 x 7, aligned: the finest level of FPN for two images of 800 by 1216."""
    contiguous = torch.randn(2, 256, 200, 304, device=device, dtype=dtype)
    channels_last = contiguous.contiguous(memory_format=torch.channels_last)
    rois = torch.cat([torch.arange(1024, device=device)[:, None] % 2, random_boxes(1024, device)], dim=1)
    grad = torch.randn(1024, 256, 7, 7, device=device, dtype=dtype)
    traffic = (contiguous.numel() + grad.numel()) * grad.element_size()

    def forward(roi_align: Callable[..., Tensor], x: Tensor, rois: Tensor, ratio: int) -> None:
        with torch.no_grad():
            roi_align(x, rois, 7, 0.25, ratio, True)

    def both(roi_align: Callable[..., Tensor], x: Tensor, rois: Tensor, ratio: int) -> None:
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(roi_align(leaf, rois, 7, 0.25, ratio, True), leaf, grad)

    def calls(run: Callable[..., None], x: Tensor, ratio: int) -> tuple[Run, Run]:
        theirs = partial(run, torchvision.ops.roi_align, x, rois.to(dtype), ratio)
        return partial(run, ops.roi_align, x, rois, ratio), theirs

    for layout, x, ratio, goals in (
        ('channels_last', channels_last, 2, (10, 6)),
        ('channels_last', channels_last, 0, (15, 6)),
        ('contiguous', contiguous, 2, (3, 3)),
        ('contiguous', contiguous, 0, (3, 3)),
    ):
        label = f'roi_align {layout} {str(dtype).removeprefix("torch.")}, {"ratio 2" if ratio else "adaptive"}'
        goals = (2, 2) if device.type == 'cuda' else goals
        yield Case(f'{label}: forward', *calls(forward, x, ratio), goals[0], traffic)
        yield Case(f'{label}: forward and backward', *calls(both, x, ratio), goals[1])


def nms_cases(device: torch.device) -> Iterator[Case]:
    """NMS at 0.5 of boxes that suppress few other boxes, which is the slow case."""
    on_gpu = device.type == 'cuda'

    def case(label: str, count: int, goal: float, *idxs: Tensor) -> Case:
        name, inputs = label.partition(',')[0], (random_boxes(count, device), torch.rand(count, device=device), *idxs)
        ours, theirs = (partial(getattr(package, name), *inputs, 0.5) for package in (ops, torchvision.ops))
        return Case(f'{label}, {count} boxes', ours, theirs, goal)

    for count in (100, 1000, 4741, 20000):
        yield case('nms', count, 10 if count > 1000 and not on_gpu else 1)
    for count in (1000, 4741, 20000):
        yield case('batched_nms, 80 classes', count, 2 if on_gpu else 4, torch.randint(80, (count,), device=device))


def max_iou_case(device: torch.device) -> Case:
    """All anchors of p2 to p6 in an image of 800 by 1344."""
    strides = (4, 8, 16, 32, 64)
    generator = AnchorGenerator(strides=strides, sizes=[(8 * s,) for s in strides], ratios=(0.5, 1.0, 2.0))
    boxes = torch.cat(generator.grid([(-(-800 // s), 1344 // s) for s in strides], device))
    gt_boxes = random_boxes(60, device)

    def theirs() -> tuple[Tensor, Tensor]:
        iou = torchvision.ops.box_iou(gt_boxes, boxes)
        return iou.max(dim=0)[0], iou.max(dim=1)[0]

    return Case(f'max_iou, {len(boxes)} anchors, 60 boxes', partial(ops.max_iou, boxes, gt_boxes), theirs, 5)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second that a copy of 256 MiB reads and writes."""
    source = torch.ones(64 << 20, device=device)
    target = torch.empty_like(source)
    times = [seconds(lambda: target.copy_(source), device) for _ in range(10)]
    return 2 * source.numel() * 4 / statistics.median(times[2:])


def measure(args: argparse.Namespace) -> Report:
    """The time of each operator in turn with torchvision's."""
    device = args.device
    bandwidth = copy_bandwidth(device)
    kernels = loading.status().describe(device.type)
    report = Report(f'{machine(device)}; kernels: {kernels}; copy bandwidth {bandwidth / 1e9:.1f} GB/s')
    torch.manual_seed(0)
    dtypes = (torch.float32, torch.bfloat16) if device.type == 'cuda' else (torch.float32,)
    cases = [case for dtype in dtypes for case in roi_align_cases(device, dtype)]
    cases += [*nms_cases(device), max_iou_case(device)]
    for case in track([case for case in cases if args.only in case.name], 'Operators', delay=0):
        sides = {'theirs': case.theirs, 'ours': case.ours}
        first = max(seconds(run, device) for run in sides.values())
        # The medians of short runs need more rounds, which cost little.
        rounds = max(args.rounds, min(200, int(0.2 / max(first, 1e-6))))
        times = alternate(sides, rounds, device, warmup=0)
        theirs, ours = times['theirs'].median, times['ours'].median
        row = {'operator': case.name, 'torchvision ms': 1e3 * theirs, 'frdet ms': 1e3 * ours, 'ratio': theirs / ours}
        share = f'{case.traffic / ours / bandwidth:.0%}' if case.traffic else None
        report.add({**row, 'goal': case.goal, 'share of the bandwidth': share})
    return report
