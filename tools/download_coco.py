"""Download COCO 2017 into data/coco/: annotations/, train2017/ (19 GB), val2017/ (0.8 GB).

    python tools/download_coco.py [--splits val] [--root DIR]

An interrupted download continues where it stopped.
"""

import argparse

from frdet.interrupts import starting

with starting():
    from frdet.apis import run_tool
    from frdet.datasets.download import BASE_URL, SPLITS, download_coco


def main() -> None:
    parser = argparse.ArgumentParser(description='Download COCO 2017. An interrupted one continues where it stopped.')
    parser.add_argument('--root', default='data/coco', help='folder to fill (default: %(default)s)')
    parser.add_argument('--splits', nargs='+', choices=list(SPLITS), default=list(SPLITS), help='images to download')
    parser.add_argument('--base-url', default=BASE_URL, help='server, or a mirror of it (default: %(default)s)')
    parser.add_argument('--keep', action='store_true', help='keep the zip files')
    args = parser.parse_args()
    root = download_coco(args.root, splits=args.splits, base_url=args.base_url, keep=args.keep)
    print(f'COCO is in {root}')


if __name__ == '__main__':
    run_tool(main)
