"""Make one training step of a config and show it on an HTML page.

python tools/inspect_step.py CONFIG [--checkpoint FILE] [--split val] [--image ID ...] [--out step.html]
    [--cfg-options KEY=VALUE ...]
"""

from frdet.interrupts import starting

with starting():
    from frdet.apis.running import config_parser, run_tool
    from frdet.config import load_config
    from frdet.insight.step import inspect_step


def main() -> None:
    parser = config_parser('Make one training step and show all of it on one HTML page.')
    parser.add_argument('--checkpoint', help='weights (default: the weights that training starts from)')
    parser.add_argument('--image', nargs='+', default=[], metavar='ID', help='image ids (default: the first image)')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train', help='(default: %(default)s)')
    parser.add_argument('--out', default='step.html', help='path of the page (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the random generators (default: %(default)s)')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    page, record = inspect_step(cfg, checkpoint=args.checkpoint, images=args.image, split=args.split, seed=args.seed)
    page.write(args.out)
    for warning in page.warnings or []:
        print(f'warning: {warning}')
    if record.not_shown:
        print(f'not shown: {record.not_shown}')
    print(f'The page is {args.out}')


if __name__ == '__main__':
    run_tool(main)
