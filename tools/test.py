"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT [--out results.json] [--show-dir DIR]"""

from frdet.interrupts import starting

with starting():
    from frdet.apis import test_detector
    from frdet.apis.running import config_parser, parse_run, run_tool


def main() -> None:
    parser = config_parser("Evaluate a checkpoint; print COCO's 12 metric values and AP per class.")
    parser.add_argument('checkpoint', help='path or URL of the weights')
    parser.add_argument('--out', metavar='FILE', help="write the detections as COCO's results JSON")
    parser.add_argument('--show-dir', metavar='DIR', help='write pictures of the detections')
    cfg, arguments = parse_run(parser)
    test_detector(cfg, **arguments)


if __name__ == '__main__':
    run_tool(main)
