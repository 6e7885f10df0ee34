"""Measure training, inference, input, evaluation, memory and more; print Markdown tables.

    python tools/benchmark.py train --against torchvision [--amp] [--device cuda --batch 16]
    python tools/benchmark.py growth --scale 0.5 --plot docs/pictures/growth.svg

Images come from FRDET_DATA_ROOT, or are drawn. `--json FILE` also writes the table as JSON.
"""

import argparse
import sys
from pathlib import Path
from pkgutil import resolve_name

from frdet.interrupts import starting

with starting():
    import torch

    from frdet.apis.running import add_config, run_tool
    from frdet.errors import ConfigError

sys.path.insert(0, str(Path(__file__).resolve().parent))

#: Those of benchmarks/families.py, whose import takes seconds.
FAMILIES = ('faster_rcnn', 'faster_rcnn_v2', 'mask_rcnn', 'mask_rcnn_v2', 'retinanet', 'retinanet_v2', 'fcos')
#: The function of each command, and its help.
COMMANDS = {
    'train': ('steps:compare', 'a training step'),
    'infer': ('steps:compare', 'inference of a batch'),
    'ops': ('operators:measure', "operators, against torchvision's"),
    'gpu': ('steps:gpu', 'the part of a training step in which the GPU computes'),
    'input': ('data:reading', 'reading images, from the file to the tensor, against plain Pillow and NumPy'),
    'memory': ('data:workers', "memory of data loader workers with COCO's number of records"),
    'leak': ('training:leak', 'growth of the memory of a training; exit code 1 above the limit'),
    'eval': ('evaluation:measure', 'evaluation of drawn detections, against pycocotools'),
    'start': ('training:start', 'imports, model, first training step'),
    'growth': ('steps:growth', 'time of a training step by batch, image, ground truth and classes'),
    'determinism': ('steps:determinism', 'what --deterministic costs a training step'),
}


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
    sub = {name: commands.add_parser(name, help=text) for name, (_, text) in COMMANDS.items()}
    for name in ('train', 'infer'):
        add = sub[name].add_argument
        add('--family', choices=FAMILIES, default=FAMILIES[0], help='detector; default: %(default)s')
        add('--against', choices=('torchvision',), help='also time this, in turn')
        add('--batch', type=_positive, default=2 if name == 'train' else 1, help='images')
        add('--short-side', type=_positive, default=800, help='short side of the images, in pixels')
        add('--amp', action='store_true', help='bfloat16 autocast')
        add('--warmup', type=_positive, help='steps before the first timed one (1; CUDA: 5)')
        add('--no-memory', action='store_true', help='do not measure the peak memory on the CPU')
    sub['ops'].add_argument('--only', default='', help='run the rows whose name holds this')
    sub['gpu'].add_argument('--config', default='configs/faster_rcnn/r50_fpn_1x_coco.py')
    sub['gpu'].add_argument('--batch', type=_positive, nargs='+', default=[6, 16], help='images in a step')
    sub['input'].add_argument('--images', type=Path, help="folder of images; default: FRDET_DATA_ROOT's val2017")
    sub['input'].add_argument('--count', type=_positive, default=40, help='images')
    sub['input'].add_argument('--short-side', type=_positive, default=800, help='in pixels')
    sub['memory'].add_argument('--records', type=_positive, default=118_000)
    sub['memory'].add_argument('--workers', type=_positive, default=8)
    sub['memory'].add_argument('--epochs', type=_positive, default=4)
    add_config(sub['leak'])
    sub['leak'].add_argument('--iterations', type=_positive, default=2000)
    sub['leak'].add_argument('--warm-up', type=_positive, default=100, metavar='N', help='steps not compared')
    sub['leak'].add_argument('--limit', type=float, default=50, metavar='MiB', help='growth allowed after the warm-up')
    sub['eval'].add_argument('--count', type=_positive, default=5000, help='images')
    sub['eval'].add_argument('--detections', type=_positive, default=100, help='in each image')
    sub['start'].add_argument('--steps', type=_positive, default=20, help="steps of the quick start's training")
    sub['growth'].add_argument('--plot', type=Path, help='also draw the table here')
    for name in ('growth', 'determinism'):
        sub[name].add_argument('--scale', type=_scale, default=1.0, help='factor for all image sides')
    for name in ('train', 'infer', 'ops', 'growth', 'determinism'):
        sub[name].add_argument('--device', type=_device, default=torch.device('cpu'))
    for name in COMMANDS:
        sub[name].add_argument('--json', help='also write the table here')
        if name not in ('memory', 'leak', 'gpu'):
            sub[name].add_argument('--rounds', type=_positive, help='timings of each side; medians are reported')
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
    args = parse_args(sys.argv[1:] or ['--help'])
    # Only the command's module is imported, so that the process stays small.
    report = resolve_name(f'benchmarks.{COMMANDS[args.command][0]}')(args)
    report.end(args.json)
    return int(report.failed)


if __name__ == '__main__':
    run_tool(main)
