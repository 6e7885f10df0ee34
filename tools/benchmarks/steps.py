"""The time of a step: beside torchvision, with growing sizes, under ``--deterministic``, and the GPU's part of it."""

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import profile

from benchmarks import models
from benchmarks.families import FAMILIES
from benchmarks.timing import Report, Run, alternate, machine, process_mib, run_python, seconds
from frdet.config import load_config
from frdet.engine import AutocastOptimWrapper
from frdet.progress import track
from frdet.registry import DETECTORS

_OPERATORS = ('aten::', 'frdet::', 'torchvision::', 'mkldnn')
_PRODUCTS = re.compile(r'convolution|conv2d|linear|::(add|b|badd)?b?mm$')

# The steps of ``gpu``.
CUDA = torch.device('cuda')
HEIGHT, WIDTH, BOXES = 800, 1216, 8
WARMUP, STEPS = 5, 10


class Point(NamedTuple):
    """The sizes of a training step. Images are a third wider than high."""

    batch: int = 1
    side: int = 800
    boxes: int = 10
    classes: int = 80


#: The name of each size in the table, and its values.
SWEEPS: dict[str, tuple[str, tuple[int, ...]]] = {
    'batch': ('images', (1, 2, 4)),
    'side': ('short side', (400, 800, 1200)),
    'boxes': ('boxes an image', (1, 10, 100, 1000)),
    'classes': ('classes', (1, 80, 1203)),
}


def compare(args: argparse.Namespace) -> Report:
    """The table of ``train`` and ``infer``: one side, or both in turn, with the same weights and images."""
    data, source = models.load_images(args.batch, args.short_side, with_masks=FAMILIES[args.family].has_masks)
    weights = models.random_weights(data, args.device, args.family)
    names = [name for name in ('frdet', args.against) if name]
    on_gpu, steps, memory, values = args.device.type == 'cuda', {}, {}, {}
    for name in names:
        if on_gpu:
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        steps[name] = models.SIDES[name](weights, data, args)
        for _ in range(args.warmup):
            values[name] = steps[name]()
        if on_gpu:
            memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    times = alternate(steps, args.rounds, args.device, warmup=0)
    if not on_gpu and not args.no_memory:
        with tempfile.NamedTemporaryFile(suffix='.pt') as setting:
            torch.save((weights, data, args), setting.name)
            code = f'from benchmarks import steps\nsteps.print_peak({setting.name!r}, %r)'
            memory = {name: run_python(code % name) for name in names}
    height, width = (max(image.shape[i] for image in data['inputs']) for i in (1, 2))
    what = 'Training step' if args.command == 'train' else 'Inference'
    images = f'{args.batch} {source} of up to {height} x {width}, {"bfloat16" if args.amp else "float32"}'
    report = Report(f'{what} of {args.family} R50-FPN, {images}; {machine(args.device)}')
    for name in names:
        row = {
            'what': name,
            **times[name].cells,
            's/image': times[name].median / args.batch,
            'ratio': times[names[-1]].median / times[name].median,
            'peak MiB': memory.get(name),
            '% outside products': share_outside_products(steps[name], args.device),
        }
        report.add({**row, **{key: float(value) for key, value in values[name].items()}})
    report.notes.append(
        f'{args.rounds} rounds, in turn. Ratio: time over that of frdet. Samples of anchors and proposals are random: '
        'losses agree, but not to the digit.'
        if args.command == 'train'
        else f'{args.rounds} rounds, in turn, from the normalised batch to the final boxes.'
    )
    return report


def share_outside_products(step: models.Step, device: torch.device) -> float:
    """Percentage of the operators' time on the device that is not spent in convolutions and matrix products."""
    with profile() as found:
        step()
    # For CUDA the time of the kernels that an operator launches.
    key = 'self_cpu_time_total' if device.type == 'cpu' else 'self_device_time_total'
    times = [(event.key, getattr(event, key)) for event in found.key_averages() if event.key.startswith(_OPERATORS)]
    products = sum(time for name, time in times if _PRODUCTS.search(name))
    return 100 * (1 - products / max(sum(time for _, time in times), 1e-9))


def print_peak(setting: str, name: str) -> None:
    """Print the largest resident size of this process, in MiB, after two steps of one side."""
    # What is loaded counts too, as in the tables of docs/benchmarks.md.
    weights, data, args = torch.load(setting, weights_only=False)
    step = models.SIDES[name](weights, data, args)
    for _ in range(2):
        step()
    # A process would inherit the value of getrusage from its parent.
    print(json.dumps(process_mib('VmHWM')))


def steps_of(args: argparse.Namespace) -> Callable[[Point], Run]:
    """A function that gives the training step of a point. Points with the same classes share a model."""

    @cache
    def model_of(classes: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        weights = models.random_weights(models.draw_images(1, 128, 160, 1, classes), args.device, num_classes=classes)
        model = models.build_frdet(weights, args.device, num_classes=classes).train()
        return model, models.make_sgd(model)

    def step_of(point: Point) -> Run:
        model, optimizer = model_of(point.classes)
        prepare, height = model.data_preprocessor, round(point.side * args.scale)
        data = prepare.cast_data(models.draw_images(point.batch, height, height * 4 // 3, point.boxes, point.classes))
        return models.training_step(lambda: model(**prepare(data, True), mode='loss'), optimizer, args.device)

    return step_of


def growth(args: argparse.Namespace) -> Report:
    """A table with the time of each size, and the growth of time and work from the smallest size."""
    report = Report(f'A training step of R50-FPN, float32, image sides times {args.scale:g}; {machine(args.device)}')
    step_of = steps_of(args)
    for size, (name, values) in track(SWEEPS.items(), 'Growth', total=len(SWEEPS), delay=0):
        steps = {value: step_of(Point(**{size: value})) for value in values}
        times = alternate(steps, args.rounds, args.device)
        for value, found in times.items():
            shown, power = (round(value * args.scale), 2) if size == 'side' else (value, 1)
            factor, work = found.median / times[values[0]].median, (value / values[0]) ** power
            row = {'what': name, 'value': shown, **found.cells}
            report.add({**row, 'times the smallest': factor, 'linear growth would be': work})
    _, side, boxes, classes = Point()
    report.notes.append(
        f'{args.rounds} rounds, in turn. The other sizes are 1 image, a short side of {round(side * args.scale)}, '
        f'{boxes} boxes and {classes} classes. Growth with the side is linear in the number of pixels.'
    )
    if args.plot:
        draw(report, args.plot)
    return report


def draw(report: Report, path: Path) -> None:
    """Plot one panel for each size. The dotted line is linear growth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.8), layout='constrained')
    for axes, (name, _) in zip(figure.subplots(1, len(SWEEPS)), SWEEPS.values(), strict=True):
        rows = [row for row in report.rows if row['what'] == name]
        values, medians = [row['value'] for row in rows], [row['median s'] for row in rows]
        axes.plot(values, medians, marker='o')
        axes.plot(values, [medians[0] * row['linear growth would be'] for row in rows], ':', color='grey')
        axes.set(xlabel=name, xscale='log', xticks=values, xticklabels=values, ylim=(0, 1.3 * max(medians)))
        axes.minorticks_off()
    figure.axes[0].set_ylabel('seconds a step')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def determinism(args: argparse.Namespace) -> Report:
    """The time of steps with and without ``--deterministic``, in turn, on the same images with the same model."""
    step = steps_of(args)(Point(batch=2))
    sides: dict[str, Run] = {'as usual': step, '--deterministic': partial(_run_deterministically, step)}
    times = alternate(sides, args.rounds, args.device)
    report = Report(f'A training step of R50-FPN, float32, 2 images; {machine(args.device)}')
    for name, found in times.items():
        report.add({'what': name, **found.cells, 'times': found.median / times['as usual'].median})
    report.notes.append(f'{args.rounds} rounds, in turn; a short side of {round(Point().side * args.scale)}.')
    return report


def _run_deterministically(step: Run) -> None:
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    step()
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def gpu(args: argparse.Namespace) -> Report:
    """Each batch size in float32 (TF32 if the GPU has it) and in bfloat16. The loss is not looked at."""
    torch.set_float32_matmul_precision('high')
    report = Report(f'{machine(CUDA)}, {HEIGHT} x {WIDTH} pixels')
    rows = [(count, wrapper) for count in args.batch for wrapper in (OptimWrapper, AutocastOptimWrapper)]
    for count, wrapper in track(rows, 'Profiling', delay=0):
        report.add(_gpu_row(args.config, count, wrapper))
    return report


def _gpu_row(config: str, count: int, wrapper: type[OptimWrapper]) -> dict[str, Any]:
    """One row of the table. Random images and boxes are on the GPU before the clock starts.

    The weights are random. Like trained blocks, the model's blocks change their input little: numbers stay finite.
    """
    model = DETECTORS.build(load_config(config, {'model.backbone.init_cfg': None}).model)
    for name, module in model.backbone.named_modules():
        if name.endswith('bn3'):
            nn.init.constant_(module.weight, 0.2)
    model.cuda().train()
    data = model.data_preprocessor.cast_data(models.draw_images(count, HEIGHT, WIDTH, BOXES, 80))
    optim = wrapper(optimizer=models.make_sgd(model))

    def steps(number: int = STEPS) -> None:
        for _ in range(number):
            model.train_step(data, optim)

    torch.cuda.reset_peak_memory_stats()
    steps(WARMUP)
    # Several steps in a row, where the host may run ahead, as in training.
    took, memory = seconds(steps, CUDA) / STEPS, torch.cuda.max_memory_allocated() / 2**30
    busy, kernels = computing(steps)
    return {
        'images': count,
        'dtype': 'bfloat16' if wrapper is AutocastOptimWrapper else 'float32',
        'step ms': 1e3 * took,
        'images/s': count / took,
        '% GPU busy': 100 * busy / took,
        'kernels': kernels,
        'memory GiB': memory,
    }


def computing(steps: Run) -> tuple[float, int]:
    """Seconds of a step in which the GPU computes or copies, and the number of kernels and copies."""
    with profile() as found:
        seconds(steps, CUDA)
    # An annotation, for example of the optimiser's step, includes the pauses between kernels.
    on_gpu = [e for e in found.events() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    return covered((e.time_range.start, e.time_range.end) for e in on_gpu) / STEPS / 1e6, len(on_gpu) // STEPS


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals: kernels at the same time on two streams count once."""
    total, reached = 0.0, -float('inf')
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
