"""Write a page about a training run, or a page that compares several.

python tools/report.py WORK_DIR [--out page.html]
python tools/report.py --compare WORK_DIR WORK_DIR ... [--out page.html]
"""

import argparse
from pathlib import Path

from frdet.interrupts import starting

with starting():
    from frdet.apis import run_tool
    from frdet.insight.report import write_comparison, write_page


def main() -> None:
    parser = argparse.ArgumentParser(description='Write a page about a training run, or a page that compares several.')
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument('work_dir', nargs='?', help='work dir of a training, finished or not')
    which.add_argument('--compare', nargs='+', metavar='WORK_DIR', help='work dirs; the first is the base')
    parser.add_argument('--out', metavar='FILE', help='default: WORK_DIR/report.html, or comparison.html here')
    args = parser.parse_args()
    if args.compare:
        path = write_comparison(args.compare, args.out or 'comparison.html')
    else:
        path = write_page(args.work_dir, args.out or Path(args.work_dir, 'report.html'))
    print(f'{path}: {path.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    run_tool(main)
