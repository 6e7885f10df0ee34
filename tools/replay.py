"""Repeat a step that was not finite: python tools/replay.py CONFIG work_dirs/NAME/non_finite_iter_N.pth

The exit code is 1 if the step is still not finite, and 0 if it is finite now.
"""

from frdet.interrupts import starting

with starting():
    from frdet.apis.running import config_parser, run_tool
    from frdet.apis.training import replay_step
    from frdet.config import load_config


def main() -> int:
    parser = config_parser('Repeat a training step that was not finite.')
    parser.add_argument('file', help='the non_finite_iter_N.pth in the work dir')
    args = parser.parse_args()
    found = replay_step(load_config(args.config, args.cfg_options), args.file)
    for name, value in found.losses.items():
        print(f'{name:<20} {value:.6g}')
    print(found)
    return 0 if found.is_finite else 1


if __name__ == '__main__':
    run_tool(main)
