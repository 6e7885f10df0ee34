"""Check the data of a config: python tools/check_data.py CONFIG [--images] [--workers N] [--cfg-options KEY=VALUE ...]

Reports all that is wrong, and ends with exit code 1 if anything would stop a run or make it wrong.
"""

import argparse

from frdet.apis import run_tool
from frdet.apis.checking import check_data
from frdet.config import check_config, load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Report all that is wrong with the data of a config.')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--images', action='store_true', help='open every image, too')
    parser.add_argument('--workers', type=int, metavar='N', help='processes that open images; default: one for a core')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config: a.b.0.c=VALUE'
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    check_config(cfg)
    reports = check_data(cfg, images=args.images, workers=args.workers)
    print('\n\n'.join(map(str, reports)))
    return int(any(report.findings.has_errors for report in reports))


if __name__ == '__main__':
    run_tool(main)
