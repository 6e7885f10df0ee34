"""The growth of a training step's time with the batch, the image size, the ground truth and the classes."""

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.models import draw_images, load_frdet, random_weights
from benchmarks.timing import Report, Run, alternate, machine
from frdet.progress import track


class Point(NamedTuple):
    """The sizes of a training step. Images are a third wider than high."""

    batch: int = 1
    side: int = 800
    boxes: int = 10
    classes: int = 80


SWEEPS: dict[str, Sequence[int]] = {
    'batch': (1, 2, 4),
    'side': (400, 800, 1200),
    'boxes': (1, 10, 100, 1000),
    'classes': (1, 80, 1203),
}
NAMES = {'batch': 'images', 'side': 'short side', 'boxes': 'boxes an image', 'classes': 'classes'}


def steps(args: argparse.Namespace) -> Callable[[Point], Run]:
    """A function that gives the training step of a point. Points with the same classes share a model."""

    @cache
    def model_of(classes: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        weights = random_weights(draw_images(1, 128, 160, 1, classes), args.device, classes)
        model = load_frdet(weights, args.device, classes).train()
        return model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6, momentum=0.9)

    def step_of(point: Point) -> Run:
        model, optimizer = model_of(point.classes)
        height = round(point.side * args.scale)
        data = draw_images(point.batch, height, height * 4 // 3, point.boxes, point.classes)
        data = model.data_preprocessor.cast_data(data)

        def step() -> None:
            losses = model(**model.data_preprocessor(data, True), mode='loss')
            optimizer.zero_grad()
            torch.stack([value for key, value in losses.items() if 'loss' in key]).sum().backward()
            optimizer.step()

        return step

    return step_of


def measure(args: argparse.Namespace) -> Report:
    """A table with the time of each size, and the growth of time and work from the smallest size."""
    report = Report(f'A training step of R50-FPN, float32, image sides times {args.scale:g}; {machine(args.device)}')
    step_of = steps(args)
    for name, values in track(SWEEPS.items(), 'Growth', total=len(SWEEPS), delay=0):
        points = {value: Point()._replace(**{name: value}) for value in values}
        times = alternate({v: step_of(point) for v, point in points.items()}, args.rounds, args.device)
        smallest = times[values[0]].median
        for value, found in times.items():
            shown, work = value, value / values[0]
            if name == 'side':
                shown, work = round(value * args.scale), work**2
            row = {'what': NAMES[name], 'value': shown, 'median s': found.median, 'min-max s': found.spread}
            report.add({**row, 'times the smallest': found.median / smallest, 'linear growth would be': work})
    report.notes.append(
        f'{args.rounds} rounds, in turn. The other sizes are 1 image, a short side of '
        f'{round(Point().side * args.scale)}, {Point().boxes} boxes and {Point().classes} classes. Growth with the '
        'side is linear in the number of pixels.'
    )
    if args.plot:
        draw(report, args.plot)
    return report


def draw(report: Report, path: Path) -> None:
    """Plot one panel for each size. The dotted line is linear growth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.8), layout='constrained')
    for axes, name in zip(figure.subplots(1, len(NAMES)), NAMES.values(), strict=True):
        rows = [row for row in report.rows if row['what'] == name]
        values, seconds = [row['value'] for row in rows], [row['median s'] for row in rows]
        axes.plot(values, seconds, marker='o')
        axes.plot(values, [seconds[0] * row['linear growth would be'] for row in rows], ':', color='grey')
        axes.set(xlabel=name, xscale='log', xticks=values, xticklabels=values, ylim=(0, 1.3 * max(seconds)))
        axes.minorticks_off()
    figure.axes[0].set_ylabel('seconds a step')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
