"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT [--out results.json] [--show-dir DIR]"""

import argparse

from frdet.apis import run_tool, test_detector
from frdet.apis.launch import LAUNCHERS
from frdet.config import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint; print the 12 COCO figures and AP per class.')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path or URL of the weights')
    parser.add_argument('--out', metavar='FILE', help="write the detections as COCO's results JSON")
    parser.add_argument('--show-dir', metavar='DIR', help='write pictures of the detections')
    parser.add_argument('--amp', action='store_true', help='bfloat16 where it is safe, on CPU and GPU')
    parser.add_argument('--work-dir', help='folder of the log; default: work_dirs/<name of the config>')
    parser.add_argument('--safe-config', action='store_true', help='read a config of data alone, without running it')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config: a.b.0.c=VALUE'
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='what started several processes, if any')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    test_detector(
        load_config(args.config, args.cfg_options, safe=args.safe_config),
        args.checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        show_dir=args.show_dir,
        amp=args.amp,
        launcher=args.launcher,
    )


if __name__ == '__main__':
    run_tool(main)
