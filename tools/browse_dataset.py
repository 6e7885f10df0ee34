"""Show the images of a config on an HTML page, as its pipeline hands them to the model and as they are on disk.

python tools/browse_dataset.py CONFIG [--out FILE] [--num N] [--split train] [--cfg-options KEY=VALUE ...]
"""

import argparse
from pathlib import Path

from frdet.apis import run_tool
from frdet.config import load_config
from frdet.insight.browse import browse_dataset


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Show the images and labels of a config, before and after its pipeline, on an HTML page.'
    )
    parser.add_argument('config', help='path of a config')
    parser.add_argument('--out', metavar='FILE', help='default: work_dirs/browse/<config>_<split>.html')
    parser.add_argument('--num', type=int, default=16, help='images (default: %(default)s)')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train', help='(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the random transforms (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='overrides of the config')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    out = args.out or Path('work_dirs/browse', f'{Path(args.config).stem}_{args.split}.html')
    path = browse_dataset(cfg, out, split=args.split, num=args.num, seed=args.seed)
    print(f'{path}: {path.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    run_tool(main)
