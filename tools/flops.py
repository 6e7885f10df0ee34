"""FLOPs and parameters of a detector: python tools/flops.py CONFIG [--size HEIGHT WIDTH] [--json FILE]

The numbers are for the inference of one image. A multiply-add is 2 FLOPs and 1 MAC, as in PyTorch's counter.
MMDetection, fvcore and torchvision call MACs FLOPs.
"""

import json
from pathlib import Path

from frdet.interrupts import starting

with starting():
    from terminaltables import AsciiTable

    from frdet.apis.running import config_parser, run_tool
    from frdet.config import load_config
    from frdet.errors import UserError
    from frdet.insight.flops import Stage, count_flops


def table(stages: list[Stage]) -> str:
    total = stages[-1]
    rows = [['stage', 'GFLOPs', 'GMACs', 'share', 'parameters', 'trained', 'frozen']]
    for stage in stages:
        counts = [f'{count:,}' for count in (stage.params, stage.trained, stage.frozen)]
        share = f'{stage.flops / total.flops:.1%}'
        rows.append([stage.name, f'{stage.flops / 1e9:.2f}', f'{stage.flops / 2e9:.2f}', share, *counts])
    drawn = AsciiTable(rows)
    drawn.inner_footing_row_border = True
    drawn.justify_columns = dict.fromkeys(range(1, len(rows[0])), 'right')
    return drawn.table


def main() -> None:
    parser = config_parser('Count the FLOPs and parameters of each stage of a detector.')
    parser.add_argument(
        '--size', type=int, nargs=2, default=(800, 1333), metavar=('H', 'W'), help='pixels (default: 800 1333)'
    )
    parser.add_argument('--json', metavar='FILE', help='also write the numbers here')
    args = parser.parse_args()
    stages = count_flops(load_config(args.config, args.cfg_options), tuple(args.size))
    print(table(stages))
    print(
        'Inference of one image: convolutions and matrix products, a multiply-add being 2 FLOPs or 1 MAC. RoIAlign, '
        'NMS,\nnorms and activations are not counted. A FrozenBN has no parameters.'
    )
    if args.json:
        counts = [{**stage._asdict(), 'params': stage.params, 'macs': stage.flops // 2} for stage in stages]
        try:
            Path(args.json).write_text(json.dumps({'size': list(args.size), 'stages': counts}, indent=1))
        except OSError as error:
            raise UserError(f'{args.json} cannot be written ({error.strerror}): choose another --json') from None


if __name__ == '__main__':
    run_tool(main)
