"""Train a detector: python tools/train.py CONFIG [--cfg-options KEY=VALUE ...]"""

from frdet.apis import train_detector
from frdet.apis.running import add_run, config_parser, run_tool
from frdet.config import load_config


def main() -> None:
    parser = config_parser('Train a detector.')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        default=False,
        metavar='PATH',
        help='continue from a checkpoint; without PATH from the newest one in the work dir, if there is one',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='start in a work dir that holds a run, and move this run to old_1'
    )
    parser.add_argument('--seed', type=int, help='seed of the random generators; drawn and logged if not given')
    parser.add_argument('--deterministic', action='store_true', help='only algorithms whose result is always the same')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    add_run(parser)
    args = parser.parse_args()
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
