"""Check the data of a config: python tools/check_data.py CONFIG [--images] [--workers N] [--cfg-options KEY=VALUE ...]

It reports all mistakes. The exit code is 1 if a mistake would stop a run or make it wrong.
"""

from frdet.apis.checking import check_data
from frdet.apis.running import config_parser, run_tool
from frdet.config import check_config, load_config


def main() -> int:
    parser = config_parser('Report all mistakes in the data of a config.')
    parser.add_argument('--images', action='store_true', help='open every image, too')
    parser.add_argument('--workers', type=int, metavar='N', help='processes for the images; default: one for each core')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    check_config(cfg)
    reports = check_data(cfg, images=args.images, workers=args.workers)
    print('\n\n'.join(map(str, reports)))
    return int(any(report.findings.has_errors for report in reports))


if __name__ == '__main__':
    run_tool(main)
