"""Print a config with all it inherits: python tools/print_config.py CONFIG [--origin] [--cfg-options KEY=VALUE ...]"""

import argparse

from frdet.apis import run_tool
from frdet.config import check_config, dump_config, load_config, origin_table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Print a config with all it inherits.')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--origin', action='store_true', help='print each value with the file and line that set it')
    parser.add_argument('--safe-config', action='store_true', help='read a config of data alone, without running it')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config: a.b.0.c=VALUE'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, safe=args.safe_config)
    check_config(cfg)
    print(origin_table(cfg) if args.origin else dump_config(cfg))


if __name__ == '__main__':
    run_tool(main)
