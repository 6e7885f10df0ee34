"""Write a config for your own labelled images: python tools/new_experiment.py FOLDER [--model mask_rcnn]

FOLDER may be a file, too: COCO JSON, Pascal VOC XML, YOLO text and CSV are recognised.
"""

import argparse

from frdet.interrupts import starting

with starting():
    from frdet.apis.own_data import new_experiment
    from frdet.apis.own_data.families import DEFAULT, FAMILIES
    from frdet.apis.running import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description='Say what a folder of labelled images holds, and write a config.')
    parser.add_argument('path', metavar='FOLDER', help='folder or file of your data')
    parser.add_argument(
        '--model', choices=FAMILIES, default=DEFAULT, help='family of the detector; default: %(default)s'
    )
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='the config; default: configs/mine/<name of the folder>.py, or with _<model> behind the name',
    )
    parser.add_argument('--background', metavar='FOLDER', help='images without any of your objects, for training')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing config')
    new_experiment(**vars(parser.parse_args()))


if __name__ == '__main__':
    run_tool(main)
