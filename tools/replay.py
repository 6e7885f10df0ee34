"""Repeat a step that was not finite: python tools/replay.py CONFIG work_dirs/NAME/non_finite_iter_N.pth

The exit code is 1 if the step is still not finite, and 0 if it is finite now.
"""

import argparse

from frdet.apis import run_tool
from frdet.apis.replay import replay_step
from frdet.apis.running import add_config
from frdet.config import load_config


def main() -> int:
    parser = argparse.ArgumentParser(description='Repeat a training step that was not finite.')
    add_config(parser)
    parser.add_argument('file', help='the non_finite_iter_N.pth in the work dir')
    args = parser.parse_args()
    found = replay_step(load_config(args.config, args.cfg_options), args.file)
    for name, value in found.losses.items():
        print(f'{name:<20} {value:.6g}')
    print(found)
    return 0 if found.is_finite else 1


if __name__ == '__main__':
    run_tool(main)
