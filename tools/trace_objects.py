"""Find the stage that lost each object: python tools/trace_objects.py CONFIG [CHECKPOINT] [--split val] [--out FILE]"""

import argparse
from pathlib import Path

from frdet.interrupts import starting

with starting():
    from mmengine.config import Config
    from mmengine.dist import is_main_process
    from terminaltables import AsciiTable

    from frdet.apis.launch import LAUNCHERS
    from frdet.apis.running import config_parser, run_tool
    from frdet.config import load_config
    from frdet.insight.trace import Summary, trace_checkpoints, trace_objects, what_would_help, write_trace_page
    from frdet.insight.trace.folders import FOLDER, PAGE


def main() -> None:
    parser = config_parser('Trace every annotated object of the test data to the stage that lost it.')
    parser.add_argument('checkpoint', nargs='?', help='path or URL of the weights (default: those of a new training)')
    parser.add_argument('--checkpoints', nargs='+', metavar='FILE', help='several checkpoints, in order, to compare')
    parser.add_argument('--out', metavar='FILE', help='the page (default: trace/trace.html beside the checkpoint)')
    parser.add_argument('--split', choices=('test', 'val'), default='test', help='the data (default: %(default)s)')
    parser.add_argument('--iou', type=float, default=0.5, help='of a detection with the object it finds (%(default)s)')
    parser.add_argument(
        '--min-size',
        type=float,
        default=8.0,
        help='a smaller object is too small, in pixels of the network (%(default)s)',
    )
    parser.add_argument(
        '--help-images', type=int, default=100, metavar='N', help='images to try settings on (%(default)s)'
    )
    parser.add_argument('--cards', type=int, default=12, metavar='N', help='objects of a stage to draw (%(default)s)')
    parser.add_argument('--amp', action='store_true', help='bfloat16 where it is safe, on CPU and GPU')
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='starter of several processes, if any')
    args = parser.parse_args()
    if bool(args.checkpoint) and bool(args.checkpoints):
        parser.error('give one checkpoint, or several by --checkpoints')
    if args.cards < 0 or args.help_images < 0:
        parser.error('--cards and --help-images must be at least 0')
    cfg = load_config(args.config, args.cfg_options)
    page = Path(args.out or default_page(cfg, args))
    options = dict(iou=args.iou, min_size=args.min_size, split=args.split, amp=args.amp, launcher=args.launcher)
    if args.checkpoints:
        trace_checkpoints(cfg, args.checkpoints, page, cards=args.cards, **options)
    else:
        summary = trace_objects(cfg, args.checkpoint, page.parent, cards=args.cards, **options)
        if not is_main_process():
            return
        print(counts(summary))
        helps = []
        if args.checkpoint and args.help_images:  # with random weights no setting helps
            cfg = load_config(args.config, args.cfg_options)  # the test has changed it
            tried = dict(images=args.help_images, split=args.split, amp=args.amp)
            helps = what_would_help(cfg, args.checkpoint, summary, **tried)
        write_trace_page(page.parent, page, helps=helps)
    if is_main_process():
        print(f'The page is {page}')


def default_page(cfg: Config, args: argparse.Namespace) -> Path:
    """Beside the checkpoint, or in the work dir of the config. Several checkpoints have a folder of their own."""
    first = (args.checkpoints or [args.checkpoint])[0]
    folder = Path(cfg.get('work_dir') or Path('work_dirs', Path(cfg.filename).stem))
    if first is not None and '://' not in first:
        folder = Path(first).parent
    return folder / ('traces' if args.checkpoints else FOLDER) / PAGE


def counts(summary: Summary) -> str:
    """The table of the stages that lost objects."""
    rows = [
        (stage.name, f'{count:,}', f'{count / max(summary.objects, 1):.1%}', ', '.join(stage.keys))
        for stage in summary.stages
        if (count := summary.counts[stage.name])
    ]
    head = ('stage', 'objects', 'share', 'settings')
    return AsciiTable([head, *rows, ('all', f'{summary.objects:,}', '', '')]).table


if __name__ == '__main__':
    run_tool(main)
