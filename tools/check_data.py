"""Check labelled images: python tools/check_data.py CONFIG|FOLDER|FILE [--images] [--out page.html] [--data FOLDER]

It reports all mistakes, the most harmful first. The exit code is 1 if a mistake would stop a run or make it wrong.
"""

import argparse
from pathlib import Path

from frdet.interrupts import starting

with starting():
    from mmengine.config import Config

    from frdet.apis.checking import check_data, config_of
    from frdet.apis.own_data.replacing import use_data
    from frdet.apis.running import run_tool
    from frdet.config import check_config, load_config
    from frdet.datasets.checking import ERRORS
    from frdet.datasets.formats.recognising import recognise
    from frdet.errors import ConfigError

OUTCOME = {True: 'A run would stop or be wrong.', False: 'Nothing stops a run or makes it wrong.'}


def main() -> int:
    parser = argparse.ArgumentParser(description='Report all mistakes in labelled images.')
    parser.add_argument('source', help='a config; or a folder or file of labelled images, in any format')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config')
    parser.add_argument(
        '--data', metavar='FOLDER', help='check these data for the config, as train.py --data uses them'
    )
    parser.add_argument('--images', action='store_true', help='open every image, too, and find near-duplicates')
    parser.add_argument('--workers', type=int, metavar='N', help='processes for the images; default: one for each core')
    parser.add_argument('--out', metavar='page.html', help='write a page with pictures of what was found')
    args = parser.parse_args()
    cfg = _config(args.source, args.cfg_options, args.data)
    reports = check_data(cfg, images=args.images, workers=args.workers)
    print('\n\n'.join(map(str, reports)))
    if args.out:
        from frdet.insight.data_page import write_data_page  # here, because it imports matplotlib and jinja2

        print(f'\n{write_data_page(reports, args.out, source=args.source)}: the same with pictures')
    kinds = {kind for report in reports for kind in report.findings}
    errors = sum(kind in ERRORS for kind in kinds)
    print(f'\nKinds of errors: {errors}, of notes: {len(kinds) - errors}. {OUTCOME[errors > 0]}')
    return int(errors > 0)


def _config(source: str, options: list[str], data: str | None) -> Config:
    path = Path(source)
    if path.suffix in ('.py', '.json', '.yaml', '.yml') and (path.suffix == '.py' or _is_config(path)):
        cfg = load_config(source, options)
        check_config(cfg)
        if data is not None:
            use_data(cfg, data)
        return cfg
    if options or data is not None:
        raise ConfigError(f'--cfg-options and --data change a config, and {source} is none')
    found = recognise(source)
    print('\n'.join([f'{source}: {found.format}', *found.notes]), end='\n\n')
    return config_of(found)


def _is_config(path: Path) -> bool:
    return path.is_file() and b'_dataloader' in path.read_bytes()[:100_000]


if __name__ == '__main__':
    run_tool(main)
