"""Train a detector: python tools/train.py CONFIG [--cfg-options KEY=VALUE ...]"""

from frdet.interrupts import starting

with starting():
    from frdet.apis import train_detector
    from frdet.apis.running import config_parser, parse_run, run_tool


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
    parser.add_argument('--no-validate', dest='validate', action='store_false', help='do not evaluate during training')
    cfg, arguments = parse_run(parser)
    train_detector(cfg, **arguments)


if __name__ == '__main__':
    run_tool(main)
