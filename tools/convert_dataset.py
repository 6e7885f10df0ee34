"""Write a data set of any known format in another one: python tools/convert_dataset.py SRC DST --to coco|voc|yolo"""

import argparse

from frdet.interrupts import starting

with starting():
    from frdet.apis import run_tool
    from frdet.datasets.formats.writing import WRITERS, convert


def main() -> None:
    parser = argparse.ArgumentParser(description='Write a data set in another format, with its splits and images.')
    parser.add_argument('source', metavar='SRC', help='folder or file: COCO JSON, Pascal VOC XML, YOLO text or CSV')
    parser.add_argument('target', metavar='DST', help='new folder')
    parser.add_argument('--to', required=True, choices=WRITERS, help='format to write')
    parser.add_argument('--link', action='store_true', help='link to the images, rather than copy them')
    args = parser.parse_args()
    print('\n'.join(convert(args.source, args.target, args.to, link=args.link)))


if __name__ == '__main__':
    run_tool(main)
