"""Draw the images of a config as its pipeline hands them to the model, with their boxes.

python tools/browse_dataset.py CONFIG [--out DIR] [--num N] [--split train] [--cfg-options KEY=VALUE ...]
"""

import argparse
from pathlib import Path

from frdet.apis import run_tool
from frdet.config import load_config
from frdet.visualization import browse_dataset


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw the images of a config after its pipeline, with their boxes.')
    parser.add_argument('config', help='path of a config')
    parser.add_argument('--out', help='folder of the pictures (default: work_dirs/browse/<config>/<split>)')
    parser.add_argument('--num', type=int, default=16, help='images (default: %(default)s)')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train', help='(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the random transforms (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='overrides of the config')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    out = Path(args.out or Path('work_dirs/browse', Path(args.config).stem, args.split))
    paths = browse_dataset(cfg, out, split=args.split, num=args.num, seed=args.seed)
    print(f'{len(paths) - 1} pictures and {paths[-1]}')


if __name__ == '__main__':
    run_tool(main)
