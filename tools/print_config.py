"""Print a config with all inherited values: python tools/print_config.py CONFIG [--origin] [--cfg-options ...]"""

from frdet.interrupts import starting

with starting():
    from frdet.apis.running import config_parser, run_tool
    from frdet.config import check_config, dump_config, load_config, origin_table


def main() -> None:
    parser = config_parser('Print a config with all inherited values.')
    parser.add_argument('--origin', action='store_true', help='print each value with the file and line that set it')
    parser.add_argument('--safe-config', action='store_true', help='read the config as data, without running it')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options, safe=args.safe_config)
    check_config(cfg)
    print(origin_table(cfg) if args.origin else dump_config(cfg))


if __name__ == '__main__':
    run_tool(main)
