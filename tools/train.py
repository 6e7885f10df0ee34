"""Train a detector: python tools/train.py CONFIG [--cfg-options KEY=VALUE ...]"""

import argparse

from frdet.apis import run_tool, train_detector
from frdet.apis.launch import LAUNCHERS
from frdet.config import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector.')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='folder of checkpoints and logs; default: work_dirs/<name of the config>')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        default=False,
        metavar='PATH',
        help='go on from a checkpoint; without a path from the newest in the work folder, if there is one',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='begin in a work folder that holds a run; that is moved to old_1 in it'
    )
    parser.add_argument('--amp', action='store_true', help='bfloat16 where it is safe, on CPU and GPU')
    parser.add_argument('--seed', type=int, help='of the random generators; drawn and logged if not given')
    parser.add_argument(
        '--deterministic', action='store_true', help='only algorithms that give the same result each time'
    )
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument('--safe-config', action='store_true', help='read a config of data alone, without running it')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config: a.b.0.c=VALUE'
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='what started several processes, if any')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    train_detector(
        load_config(args.config, args.cfg_options, safe=args.safe_config),
        work_dir=args.work_dir,
        resume=args.resume,
        amp=args.amp,
        seed=args.seed,
        deterministic=args.deterministic,
        validate=not args.no_validate,
        launcher=args.launcher,
        overwrite=args.overwrite,
    )


if __name__ == '__main__':
    run_tool(main)
