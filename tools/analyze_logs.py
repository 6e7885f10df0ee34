"""What trainings logged: curves of chosen numbers, several runs in one plot; and how fast they were.

    python tools/analyze_logs.py curves WORK_DIR [WORK_DIR ...] [--keys 'loss*' bbox_mAP] [--out curves.html]
    python tools/analyze_logs.py speed WORK_DIR [WORK_DIR ...]

The runs may still be going on. Pieces of a resumed training are put together.
"""

import argparse
import statistics

from terminaltables import AsciiTable

from frdet.apis import run_tool
from frdet.errors import ConfigError
from frdet.visualization.report.log_analysis import (
    DEFAULT_KEYS,
    ENDINGS,
    Pace,
    choose_keys,
    paces,
    read_logs,
    values_of,
    write_curves,
)
from frdet.visualization.report.logs import Log


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    sub = commands.add_parser('curves', help='plot chosen numbers over the iterations')
    sub.add_argument(
        '--keys', nargs='+', metavar='PATTERN', help=f'names or shell patterns (default: {" ".join(DEFAULT_KEYS)})'
    )
    sub.add_argument('--out', default='curves.png', metavar='FILE', help=f'{", ".join(ENDINGS)} (default: %(default)s)')
    commands.add_parser('speed', help='seconds an iteration, waiting for data, memory; epoch by epoch')
    for sub in commands.choices.values():
        sub.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='work folder of a training')
        sub.add_argument('--legend', nargs='+', metavar='NAME', help='names of the runs (default: of their folders)')
    return parser.parse_args()


def plot(logs: dict[str, Log], args: argparse.Namespace) -> None:
    keys = choose_keys(logs, args.keys)
    if not keys:
        raise ConfigError(f'No run logged {" or ".join(DEFAULT_KEYS)}: choose others with --keys')
    write_curves(logs, keys, args.out)
    for name, log in logs.items():
        if missing := [key for key in keys if not len(values_of(log, key)[0])]:
            print(f'{name} has no {", ".join(missing)}')
    print(f'{", ".join(keys)}: {args.out}')


def print_speed(name: str, log: Log) -> None:
    found = paces(log)
    if not found:
        raise ConfigError(f'{name} logged no time: it was trained without IterTimerHook, or has only validated')
    head = ['epoch', 'entries', 'mean s', 'fastest s', 'slowest s', 'waiting s', 'waiting', 'memory MB']
    table = AsciiTable([head, *map(row, found)])
    table.justify_columns = dict.fromkeys(range(len(head)), 'right')
    table.inner_footing_row_border = True
    print(f'{name}: {log.train[-1]["iter"]:,} iterations\n{table.table}')
    if len(epochs := found[:-1]) > 1:
        slow, fast = max(epochs, key=lambda pace: pace.mean), min(epochs, key=lambda pace: pace.mean)
        spread = statistics.pstdev(pace.mean for pace in epochs)
        print(
            f'Slowest epoch: {slow.epoch}, {slow.mean:.4f} s an iteration; fastest: {fast.epoch}, {fast.mean:.4f} s; '
            f'standard deviation over epochs: {spread:.4f} s'
        )


def row(pace: Pace) -> list[str]:
    times = [f'{value:.4f}' for value in (pace.mean, pace.fastest, pace.slowest)]
    waiting = ['-', '-'] if pace.waiting is None else [f'{pace.waiting:.4f}', f'{pace.waiting / pace.mean:.1%}']
    memory = '-' if pace.memory is None else f'{pace.memory:.0f}'
    return ['all' if pace.epoch is None else str(pace.epoch), str(pace.entries), *times, *waiting, memory]


def main() -> None:
    args = parse_args()
    logs = read_logs(args.work_dirs, args.legend)
    if args.command == 'curves':
        plot(logs, args)
        return
    for name, log in logs.items():
        print_speed(name, log)
    print('Seconds an iteration, validations left out; an entry is a mean over log_processor.window_size iterations.')


if __name__ == '__main__':
    run_tool(main)
