"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT [--out results.json] [--show-dir DIR]"""

from frdet.apis import test_detector
from frdet.apis.running import add_run, config_parser, run_tool
from frdet.config import load_config


def main() -> None:
    parser = config_parser("Evaluate a checkpoint; print COCO's 12 metric values and AP per class.")
    parser.add_argument('checkpoint', help='path or URL of the weights')
    parser.add_argument('--out', metavar='FILE', help="write the detections as COCO's results JSON")
    parser.add_argument('--show-dir', metavar='DIR', help='write pictures of the detections')
    add_run(parser)
    args = parser.parse_args()
    test_detector(
        load_config(args.config, args.cfg_options, safe=args.safe_config),
        args.checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        show_dir=args.show_dir,
        amp=args.amp,
        launcher=args.launcher,
    )


if __name__ == '__main__':
    run_tool(main)
