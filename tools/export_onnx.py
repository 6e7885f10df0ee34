"""Write a detector as one ONNX file: python tools/export_onnx.py [CONFIG] CHECKPOINT --out model.onnx"""

import argparse
from pathlib import Path

from frdet.interrupts import starting

with starting():
    import numpy as np

    from frdet.apis import check_exported, export_detector, init_detector
    from frdet.apis.export.exporting import check_target
    from frdet.apis.running import add_model, run_tool
    from frdet.datasets.shapes.drawing import draw_image


def main() -> int:
    parser = argparse.ArgumentParser(
        description='Write a detector as one ONNX file, or as a program of torch.export, and compare it with the model.'
    )
    add_model(parser)
    parser.add_argument('--out', default='model.onnx', metavar='FILE', help='.onnx or .pt2 to write (%(default)s)')
    parser.add_argument('--images', nargs='+', metavar='FILE', help='images to compare on; default: two drawn images')
    parser.add_argument(
        '--no-optimize', action='store_true', help='write ONNX in half the time; the file is a little slower'
    )
    parser.add_argument('--no-check', action='store_true', help='write the file, and do not compare')
    args = parser.parse_intermixed_args()
    out = check_target(args.out)
    model = init_detector(args.config, args.checkpoint, 'cpu', args.cfg_options)
    export_detector(model, out, optimize=not args.no_optimize)
    print(f'{out}: {out.stat().st_size / 1e6:.1f} MB')
    return 0 if args.no_check else compare(model, out, args.images or drawn_images())


def compare(model: object, out: Path, images: list) -> int:
    """Print one line for each batch. Returns 1 if a batch differs by more than rounding."""
    differences = check_exported(model, out, images)
    for d in differences:
        masks = '' if d.mask is None else f'masks within {d.mask:.1g}, '
        print(
            f'{"same" if d.is_small else "DIFFERS":8}{d.name}: {d.detections} detections, boxes within {d.box:.1g} '
            f'pixels, scores within {d.score:.1g}, {masks}{d.unpaired} unpaired'
        )
    if not any(d.detections for d in differences):
        print('The model finds nothing in these images, so the comparison shows little: give --images with objects')
    return 0 if all(d.is_small for d in differences) else 1


def drawn_images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        np.ascontiguousarray(draw_image(rng, height, width, max_objects=8)[0][..., ::-1])
        for height, width in ((480, 640), (640, 480))
    ]


if __name__ == '__main__':
    run_tool(main)
