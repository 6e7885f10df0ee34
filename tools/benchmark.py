"""Measure training, inference, input, evaluation, memory and more; print Markdown tables.

    python tools/benchmark.py train --against torchvision [--amp] [--device cuda --batch 16]
    python tools/benchmark.py growth --scale 0.5 --plot docs/pictures/growth.svg

Images come from FRDET_DATA_ROOT, or are drawn. `--json FILE` also writes the table as JSON.
"""

import argparse
import importlib
import sys
from pathlib import Path

import torch

from frdet.apis.running import add_config, run_tool
from frdet.errors import ConfigError

sys.path.insert(0, str(Path(__file__).resolve().parent))

#: Command -> its module, and its help.
COMMANDS = {
    'train': ('steps', 'a training step'),
    'infer': ('steps', 'inference of a batch'),
    'ops': ('operators', "operators, against torchvision's"),
    'gpu': ('gpu', 'the part of a training step in which the GPU computes'),
    'input': ('reading', 'reading images, from the file to the tensor, against plain Pillow and NumPy'),
    'memory': ('workers', "memory of data loader workers with COCO's number of records"),
    'leak': ('leak', 'growth of the memory of a training; exit code 1 above the limit'),
    'eval': ('evaluation', 'evaluation of drawn detections, against pycocotools'),
    'start': ('start', 'imports, model, first training step'),
    'growth': ('growth', 'time of a training step by batch, image, ground truth and classes'),
    'determinism': ('determinism', 'what --deterministic costs a training step'),
}
#: Functions for processes that a command starts.
CHILDREN = {'_memory': ('steps', 'memory_child'), '_first_step': ('start', 'first_step_child')}


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
    of = {name: commands.add_parser(name, help=text) for name, (_, text) in COMMANDS.items()}
    for name in ('train', 'infer'):
        sub = of[name]
        sub.add_argument('--against', choices=('torchvision',), help='also time this, in turn')
        sub.add_argument('--batch', type=_positive, default=2 if name == 'train' else 1, help='images')
        sub.add_argument('--short-side', type=_positive, default=800, help='short side of the images, in pixels')
        sub.add_argument('--amp', action='store_true', help='bfloat16 autocast')
        sub.add_argument('--warmup', type=_positive, help='steps before the first timed one (1; CUDA: 5)')
        sub.add_argument('--no-memory', action='store_true', help='do not measure the peak memory on the CPU')
    of['ops'].add_argument('--only', default='', help='run the rows whose name holds this')
    of['gpu'].add_argument('--config', default='configs/faster_rcnn/r50_fpn_1x_coco.py')
    of['gpu'].add_argument('--batch', type=_positive, nargs='+', default=[6, 16], help='images in a step')
    of['input'].add_argument('--images', type=Path, help="folder of images; default: FRDET_DATA_ROOT's val2017")
    of['input'].add_argument('--count', type=_positive, default=40, help='images')
    of['input'].add_argument('--short-side', type=_positive, default=800, help='in pixels')
    for option, default in (('--records', 118_000), ('--workers', 8), ('--epochs', 4)):
        of['memory'].add_argument(option, type=_positive, default=default)
    add_config(of['leak'])
    of['leak'].add_argument('--iterations', type=_positive, default=2000)
    of['leak'].add_argument(
        '--warm-up', type=_positive, default=100, metavar='N', help='iterations that are not compared'
    )
    of['leak'].add_argument('--limit', type=float, default=50, metavar='MiB', help='growth allowed after the warm-up')
    of['eval'].add_argument('--count', type=_positive, default=5000, help='images')
    of['eval'].add_argument('--detections', type=_positive, default=100, help='in each image')
    of['start'].add_argument('--steps', type=_positive, default=20, help="steps of the quick start's training")
    of['growth'].add_argument('--plot', type=Path, help='also draw the table here')
    for name in ('growth', 'determinism'):
        of[name].add_argument('--scale', type=_scale, default=1.0, help='factor for all image sides')
    for name in ('train', 'infer', 'ops', 'growth', 'determinism'):
        of[name].add_argument('--device', type=_device, default=torch.device('cpu'))
    for name, sub in of.items():
        sub.add_argument('--json', help='also write the table here')
        if name not in ('memory', 'leak', 'gpu'):
            sub.add_argument('--rounds', type=_positive, help='timings of each side; medians are reported')
    args = parser.parse_args(argv)
    on_gpu = args.command == 'gpu' or ('device' in args and args.device.type == 'cuda')
    if on_gpu and not torch.cuda.is_available():
        asked = f'--device {args.device}' if 'device' in args else args.command
        raise ConfigError(f'{asked}, but torch finds no GPU here' + (': use --device cpu' if 'device' in args else ''))
    if 'rounds' in args:
        args.rounds = args.rounds or (20 if on_gpu else 3)
    if 'warmup' in args:
        args.warmup = args.warmup or (5 if on_gpu else 1)
    return args


def main() -> int:
    name, *words = sys.argv[1:] or ['--help']
    if name in CHILDREN:
        module, function = CHILDREN[name]
        getattr(importlib.import_module(f'benchmarks.{module}'), function)(*words)
        return 0
    args = parse_args([name, *words])
    # Only the command's module is imported: `start` measures imports, and child processes should stay small.
    report = importlib.import_module(f'benchmarks.{COMMANDS[args.command][0]}').measure(args)
    report.end(args.json)
    return int(report.failed)


if __name__ == '__main__':
    run_tool(main)
