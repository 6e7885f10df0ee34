"""Convert a detector's checkpoint for another project: python tools/convert_checkpoint.py SRC DST --to LAYOUT"""

import argparse
from pathlib import Path

from frdet.interrupts import starting

with starting():
    from frdet.apis import run_tool
    from frdet.checkpoints import (
        BGR,
        LAYOUTS,
        RGB,
        change_input,
        map_coco_classes,
        map_coco_names,
        read_detector,
        resolve,
        write_detector,
    )
    from frdet.checkpoints.converting import check_target
    from frdet.checkpoints.families import family_name
    from frdet.checkpoints.rows import num_classes
    from frdet.errors import CheckpointError
    from frdet.progress import Bar

INPUTS = {'bgr-to-rgb': (BGR, RGB), 'rgb-to-bgr': (RGB, BGR)}


def main() -> None:
    parser = argparse.ArgumentParser(description='Convert the checkpoint of a detector between projects.')
    parser.add_argument('source', metavar='SRC', help='path or URL of a checkpoint of any of the projects')
    parser.add_argument('target', metavar='DST', help='file to write: .pth, or .pkl for detectron2')
    parser.add_argument('--to', required=True, choices=LAYOUTS, help='project whose names to write')
    parser.add_argument('--from', dest='layout', default='auto', choices=('auto', *LAYOUTS), help='default: recognised')
    parser.add_argument(
        '--classes', type=int, choices=(80, 90), help="COCO's classes in a row, or by category id like torchvision"
    )
    parser.add_argument(
        '--input', choices=INPUTS, help='images like detectron2 (BGR, std 1) or torchvision (RGB, ImageNet std)'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace DST if it exists')
    args = parser.parse_args()
    source, target = resolve(args.source), Path(args.target)
    check_target(target, args.to)
    if source.exists() and target.exists() and source.samefile(target):
        raise CheckpointError(f'{target} is the file to convert: give another file to write')
    if target.exists() and not args.overwrite:
        raise CheckpointError(f'{target} exists: give another file, or --overwrite')
    with Bar('Reading', 2) as bar:
        state, layout, classes = read_detector(source, args.layout)
        if args.classes:
            state = map_coco_classes(state, args.classes, args.source)
            classes = classes and map_coco_names(classes, args.classes)
        if args.input:
            before, after = INPUTS[args.input]
            state = change_input(state, source=before, target=after)
        bar.advance(description='Writing')
        write_detector(target, state, args.to, classes)
    print(
        f'{args.source}: {family_name(state)} of {layout}, {num_classes(state)} classes, {len(state)} parameters; '
        f'written to {target} as {args.to}'
    )


if __name__ == '__main__':
    run_tool(main)
