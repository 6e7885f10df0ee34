"""Show the images of a config on an HTML page, from disk and after the pipeline: tools/browse_dataset.py CONFIG"""

from pathlib import Path

from frdet.interrupts import starting

with starting():
    from frdet.apis.running import config_parser, run_tool
    from frdet.config import load_config
    from frdet.insight.browse import browse_dataset


def main() -> None:
    parser = config_parser('Show the images and labels of a config, before and after its pipeline, on an HTML page.')
    parser.add_argument('--out', metavar='FILE', help='default: work_dirs/browse/<config>_<split>.html')
    parser.add_argument('--num', type=int, default=16, help='images (default: %(default)s)')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train', help='(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the random transforms (default: %(default)s)')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    out = args.out or Path('work_dirs/browse', f'{Path(args.config).stem}_{args.split}.html')
    path = browse_dataset(cfg, out, split=args.split, num=args.num, seed=args.seed)
    print(f'{path}: {path.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    run_tool(main)
