"""frdet's operators compared with torchvision's on the same inputs."""

import argparse
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import ops as torchvision_ops

from benchmarks.timing import Report, Run, alternate, machine, seconds
from frdet import ops
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


def random_boxes(count: int, low: float, high: float, device: torch.device) -> Tensor:
    """Boxes (count, 4) in an image of 800 by 1216. Sides are log-uniform from ``low`` to ``high`` pixels."""
    sides = low * (high / low) ** torch.rand(count, 2, device=device)
    corner = torch.rand(count, 2, device=device) * (torch.tensor([1216.0, 800.0], device=device) - sides).clamp(min=0)
    return torch.cat([corner, corner + sides], dim=1)


def roi_align_cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """1024 RoIs on (2, 256, 200, 304), 7 x 7, aligned: the finest level of FPN for two images of 800 by 1216."""
    x = torch.randn(2, 256, 200, 304, device=device, dtype=dtype)
    boxes = random_boxes(1024, 16, 400, device)
    rois = torch.cat([torch.arange(1024, device=device)[:, None] % 2, boxes], dim=1)
    grad = torch.randn(1024, 256, 7, 7, device=device, dtype=dtype)

    def runs(roi_align: Callable[..., Tensor], x: Tensor, rois: Tensor, ratio: int) -> tuple[Run, Run]:
        def forward() -> Tensor:
            with torch.no_grad():
                return roi_align(x, rois, 7, 0.25, ratio, True)

        leaf = x.detach().requires_grad_()

        def both() -> None:
            leaf.grad = None
            roi_align(leaf, rois, 7, 0.25, ratio, True).backward(grad)

        return forward, both

    on_gpu = device.type == 'cuda'
    last = x.contiguous(memory_format=torch.channels_last)
    for layout, inputs in (('channels_last', last), ('contiguous', x)):
        for name, ratio, goals in (('ratio 2', 2, (10, 6)), ('adaptive', 0, (15, 6))):
            ours = runs(ops.roi_align, inputs, rois, ratio)
            theirs = runs(torchvision_ops.roi_align, inputs, rois.to(dtype), ratio)
            if on_gpu:
                goals = (2, 2)
            elif layout == 'contiguous':
                goals = (3, 3)
            label = f'roi_align {layout} {str(dtype).removeprefix("torch.")}, {name}'
            traffic = (x.numel() + grad.numel()) * x.element_size()
            yield Case(f'{label}: forward', ours[0], theirs[0], goals[0], traffic)
            yield Case(f'{label}: forward and backward', ours[1], theirs[1], goals[1])


def nms_cases(device: torch.device) -> Iterator[Case]:
    """NMS at 0.5 of boxes that suppress few other boxes, which is the slow case."""
    on_gpu = device.type == 'cuda'
    for count in (100, 1000, 4741, 20000):
        boxes, scores = random_boxes(count, 16, 400, device), torch.rand(count, device=device)
        yield Case(
            f'nms, {count} boxes',
            lambda boxes=boxes, scores=scores: ops.nms(boxes, scores, 0.5),
            lambda boxes=boxes, scores=scores: torchvision_ops.nms(boxes, scores, 0.5),
            10 if count > 1000 and not on_gpu else 1,
        )
    for count in (1000, 4741, 20000):
        boxes, scores = random_boxes(count, 16, 400, device), torch.rand(count, device=device)
        idxs = torch.randint(0, 80, (count,), device=device)
        yield Case(
            f'batched_nms, 80 classes, {count} boxes',
            lambda boxes=boxes, scores=scores, idxs=idxs: ops.batched_nms(boxes, scores, idxs, 0.5),
            lambda boxes=boxes, scores=scores, idxs=idxs: torchvision_ops.batched_nms(boxes, scores, idxs, 0.5),
            2 if on_gpu else 4,
        )


def anchors(device: torch.device) -> Tensor:
    """(268569, 4): 3 ratios at each cell of p2 to p6 of an image of 800 by 1344."""
    levels = []
    for stride in (4, 8, 16, 32, 64):
        y = torch.arange(0, 800, stride, device=device, dtype=torch.float32)
        x = torch.arange(0, 1344, stride, device=device, dtype=torch.float32)
        centre = torch.cartesian_prod(y, x).flip(1)[:, None]
        ratio = torch.tensor([0.5, 1.0, 2.0], device=device)
        half = torch.stack([8 * stride / ratio.sqrt(), 8 * stride * ratio.sqrt()], dim=1) / 2
        levels.append(torch.cat([centre - half, centre + half], dim=2).reshape(-1, 4))
    return torch.cat(levels)


def max_iou_cases(device: torch.device) -> Iterator[Case]:
    boxes, gt_boxes = anchors(device), random_boxes(60, 16, 400, device)

    def theirs() -> tuple[Tensor, Tensor]:
        iou = torchvision_ops.box_iou(gt_boxes, boxes)
        return iou.max(dim=0)[0], iou.max(dim=1)[0]

    yield Case(f'max_iou, {len(boxes)} anchors, 60 boxes', lambda: ops.max_iou(boxes, gt_boxes), theirs, 5)


def cases(device: torch.device) -> Iterator[Case]:
    yield from roi_align_cases(device, torch.float32)
    if device.type == 'cuda':
        yield from roi_align_cases(device, torch.bfloat16)
    yield from nms_cases(device)
    yield from max_iou_cases(device)


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
    report = Report(
        f'{machine(device)}; kernels: {loading.status().describe(device.type)}; '
        f'copy bandwidth {bandwidth / 1e9:.1f} GB/s'
    )
    total = sum(args.only in case.name for case in cases(device))
    torch.manual_seed(0)
    todo = (case for case in cases(device) if args.only in case.name)
    for case in track(todo, 'Operators', total=total, delay=0):
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
