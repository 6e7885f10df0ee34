"""The cost of `--deterministic` in a training step."""

import argparse
from collections.abc import Callable

import torch

from benchmarks.growth import Point, steps
from benchmarks.timing import Report, Run, alternate, machine


def _under(deterministic: bool, step: Run) -> Callable[[], None]:
    def run() -> None:
        before = torch.backends.cudnn.deterministic
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.deterministic = deterministic
        try:
            step()
        finally:
            torch.use_deterministic_algorithms(False)
            torch.backends.cudnn.deterministic = before

    return run


def measure(args: argparse.Namespace) -> Report:
    """The time of steps with and without it, in turn, on the same images with the same model."""
    step = steps(args)(Point(batch=2))
    sides = {'as usual': _under(False, step), '--deterministic': _under(True, step)}
    times = alternate(sides, args.rounds, args.device)
    report = Report(f'A training step of R50-FPN, float32, 2 images; {machine(args.device)}')
    usual = times['as usual'].median
    for name, found in times.items():
        report.add({'what': name, 'median s': found.median, 'min-max s': found.spread, 'times': found.median / usual})
    report.notes.append(f'{args.rounds} rounds, in turn; a short side of {round(Point().side * args.scale)}.')
    return report
