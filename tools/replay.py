"""Repeat a step that was not finite: python tools/replay.py CONFIG work_dirs/NAME/non_finite_iter_N.pth

Exit code 1 if it is not finite again, 0 if it is now.
"""

import argparse

from frdet.apis import run_tool
from frdet.apis.replay import replay_step
from frdet.config import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Repeat a training step that was not finite.')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('file', help='the non_finite_iter_N.pth in the work folder')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config: a.b.0.c=VALUE'
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    found = replay_step(load_config(args.config, args.cfg_options), args.file)
    for name, value in found.losses.items():
        print(f'{name:<20} {value:.6g}')
    print(found)
    return 0 if found.is_finite else 1


if __name__ == '__main__':
    run_tool(main)
