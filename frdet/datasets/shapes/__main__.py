"""``python -m frdet.datasets.shapes ROOT``: draw the embedded data set."""

import argparse

from frdet.datasets.shapes.dataset import IMAGE_SIZE, NUM_TRAIN, NUM_VAL, write_shapes
from frdet.errors import UserError


def main() -> None:
    """Draw the data set that the command line describes."""
    parser = argparse.ArgumentParser(prog='python -m frdet.datasets.shapes', description='Draw the embedded data set.')
    parser.add_argument('root', help='folder to create')
    parser.add_argument('--train', type=int, default=NUM_TRAIN, help='training images (%(default)s)')
    parser.add_argument('--val', type=int, default=NUM_VAL, help='validation images (%(default)s)')
    parser.add_argument(
        '--image-size', type=int, nargs=2, default=IMAGE_SIZE, metavar=('MIN', 'MAX'), help='sides in pixels'
    )
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    root = write_shapes(args.root, num_train=args.train, num_val=args.val, image_size=args.image_size, seed=args.seed)
    print(f'{args.train} + {args.val} images of drawn shapes in {root}')


if __name__ == '__main__':
    try:
        main()
    except UserError as error:
        raise SystemExit(f'error: {error}') from None
