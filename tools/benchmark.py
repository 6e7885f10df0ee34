"""Measures training, inference, input, memory, start-up and growth; prints tables (Markdown).

    python tools/benchmark.py train --against torchvision [--amp] [--device cuda --batch 16]
    python tools/benchmark.py infer --against torchvision
    python tools/benchmark.py input          # reading images, against plain Pillow and NumPy
    python tools/benchmark.py memory         # of data loader workers with COCO's number of records
    python tools/benchmark.py eval           # evaluation, against pycocotools
    python tools/benchmark.py start          # imports, model, first training step
    python tools/benchmark.py growth --scale 0.5 --plot docs/pictures/growth.svg
    python tools/benchmark.py determinism    # what `--deterministic` costs

Images are those of FRDET_DATA_ROOT, or drawn ones. `--json FILE` writes a table as JSON too.
"""

import argparse
import sys
from pathlib import Path

import torch

from frdet.apis import run_tool
from frdet.errors import ConfigError

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchmarks.timing import Report  # noqa: E402


def _device(text: str) -> torch.device:
    try:
        return torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f'{text!r} is no device: expected cpu or cuda') from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r}: expected a whole number of at least 1')
    return int(text)


def _scale(text: str) -> float:
    try:
        if 0 < float(text) <= 10:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f'{text!r}: expected a number above 0, at most 10')


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for name, text in (('train', 'a training step'), ('infer', 'inference of a batch')):
        sub = commands.add_parser(name, help=text)
        sub.add_argument('--against', choices=('torchvision',), help='time this, too, in turn')
        sub.add_argument('--batch', type=_positive, default=2 if name == 'train' else 1, help='images')
        sub.add_argument('--short-side', type=_positive, default=800, help='of the images, in pixels')
        sub.add_argument('--amp', action='store_true', help='bfloat16 autocast')
        sub.add_argument('--warmup', type=_positive, help='steps before the first timed one (1; CUDA: 5)')
        sub.add_argument('--no-memory', action='store_true', help='do not measure the peak memory on the CPU')
    sub = commands.add_parser('input', help='from the file to the tensor')
    sub.add_argument('--images', type=Path, help="folder of images; default: FRDET_DATA_ROOT's val2017")
    sub.add_argument('--count', type=_positive, default=40, help='images')
    sub.add_argument('--short-side', type=_positive, default=800, help='in pixels')
    sub = commands.add_parser('memory', help='of data loader workers')
    sub.add_argument('--records', type=_positive, default=118_000)
    sub.add_argument('--workers', type=_positive, default=8)
    sub.add_argument('--epochs', type=_positive, default=4)
    sub = commands.add_parser('eval', help='evaluation of drawn detections')
    sub.add_argument('--count', type=_positive, default=5000, help='images')
    sub.add_argument('--detections', type=_positive, default=100, help='of each image')
    sub = commands.add_parser('start', help='imports, model, first training step')
    sub.add_argument('--steps', type=_positive, default=20, help="steps of the quick start's training")
    sub = commands.add_parser('growth', help='of a training step with batch, image, ground truth and classes')
    sub.add_argument('--scale', type=_scale, default=1.0, help='of all image sides')
    sub.add_argument('--plot', type=Path, help='also draw the figures here')
    sub = commands.add_parser('determinism', help='what --deterministic costs a training step')
    sub.add_argument('--scale', type=_scale, default=1.0, help='of all image sides')
    for name in ('train', 'infer', 'growth', 'determinism'):
        commands.choices[name].add_argument('--device', type=_device, default=torch.device('cpu'))
    for name, sub in commands.choices.items():
        sub.add_argument('--json', help='also write the table here')
        if name != 'memory':
            sub.add_argument('--rounds', type=_positive, help='timings of each side; medians are reported')
    args = parser.parse_args(argv)
    device = getattr(args, 'device', torch.device('cpu'))
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ConfigError(f'--device {device}, but torch finds no GPU here: use --device cpu')
    if args.command != 'memory':
        args.rounds = args.rounds or (20 if device.type == 'cuda' else 3)
    if args.command in ('train', 'infer'):
        args.warmup = args.warmup or (5 if device.type == 'cuda' else 1)
    return args


def measure(args: argparse.Namespace) -> Report:
    # Only what is asked for is imported: `start` measures imports, and children of `memory` should be small.
    if args.command in ('train', 'infer'):
        from benchmarks import steps

        return steps.measure(args)
    if args.command == 'growth':
        from benchmarks import growth

        return growth.measure(args)
    if args.command == 'determinism':
        from benchmarks import determinism

        return determinism.measure(args)
    if args.command == 'eval':
        from benchmarks import evaluation

        return evaluation.measure(args)
    if args.command == 'start':
        from benchmarks import start

        return start.measure(args)
    from benchmarks import data

    return data.measure_input(args) if args.command == 'input' else data.measure_memory(args)


def main() -> None:
    argv = sys.argv[1:]
    if argv[:1] == ['_memory']:  # a process that `train` or `infer` starts
        from benchmarks import steps

        return steps.memory_child(*argv[1:])
    args = parse_args(argv)
    report = measure(args)
    report.print()
    if args.json:
        report.write(args.json)


if __name__ == '__main__':
    run_tool(main)
