"""Evaluate detections that are in a file: python tools/evaluate.py CONFIG|ANNOTATIONS.json RESULTS.json"""

import argparse

from frdet.interrupts import starting

with starting():
    from frdet.apis.evaluating import evaluate_results, evaluate_results_of
    from frdet.apis.running import run_tool
    from frdet.config import check_config, load_config
    from frdet.evaluation.backends import KINDS


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Print COCO's 12 metric values and AP per class of a results JSON. No model is needed."
    )
    parser.add_argument('truth', help="a config, whose test data count, in any format; or COCO's annotation file")
    parser.add_argument('results', help="COCO's results JSON, or the detections.json of tools/detect.py")
    parser.add_argument(
        '--metric',
        nargs='+',
        choices=KINDS,
        help='boxes, masks or both; default: as the config says, or, with annotations, also masks if results have any',
    )
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config')
    args = parser.parse_args()
    if args.truth.endswith('.py'):
        cfg = load_config(args.truth, args.cfg_options)
        check_config(cfg)
        evaluate_results(cfg, args.results, kinds=args.metric)
    elif args.cfg_options:
        parser.error('--cfg-options needs a config: give the .py file in place of the annotations')
    else:
        evaluate_results_of(args.truth, args.results, kinds=args.metric)


if __name__ == '__main__':
    run_tool(main)
