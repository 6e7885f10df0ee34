"""Compare variants of a config over several seeds: from configs to a table that one can believe.

python tools/ablate.py BASE.py VARIANT.py ... [--seeds 3] [--work-dir DIR]
python tools/ablate.py STUDY.py
python tools/ablate.py --report WORK_DIR [--trace]
python tools/ablate.py --search STUDY.py
"""

import argparse
from pathlib import Path

from frdet.interrupts import starting

with starting():
    from frdet.apis.ablation import planning, reading, running, slurm
    from frdet.apis.ablation.searching import search
    from frdet.apis.ablation.study import Study, load_study
    from frdet.apis.running import run_tool
    from frdet.config import parse_overrides
    from frdet.insight.ablation.conclude import conclude
    from frdet.insight.ablation.live import Board
    from frdet.insight.ablation.page import write_ablation
    from frdet.insight.ablation.reports import write_reports
    from frdet.insight.ablation.tables import printed, write_tables
    from frdet.insight.ablation.traces import trace_runs

TRAIN = Path(__file__).with_name('train.py')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Compare variants of a config over several seeds.')
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='BASE.py VARIANT.py ..., or one study file')
    parser.add_argument('--report', metavar='WORK_DIR', help='write tables and page of what is finished')
    parser.add_argument('--search', metavar='STUDY.py', help='search the best values of a file with ranges, by Optuna')
    parser.add_argument('--seeds', type=_seeds, metavar='N', help='number of runs of each config, or seeds: 0,1,5')
    parser.add_argument('--metric', metavar='NAME', help='the metric value to compare; default: coco/bbox_mAP')
    parser.add_argument('--work-dir', metavar='DIR', help='default: work_dirs/<name of the study or of the base>')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the base and all variants'
    )
    parser.add_argument('--allow', nargs='+', metavar='KEY', help='keys in which variants may differ without saying so')
    parser.add_argument('--budget', type=float, metavar='HOURS', help='stop if the runs would take longer together')
    parser.add_argument('--trials', type=_positive, metavar='N', help='trainings of a search')
    parser.add_argument('--jobs', type=_positive, metavar='N', help='runs at once; default: one for each GPU, else 1')
    parser.add_argument(
        '--trace', action='store_true', help='then trace the last checkpoint of each run: where are objects lost?'
    )
    parser.add_argument('--no-trial', action='store_true', help='plan without two iterations of each config')
    how = parser.add_mutually_exclusive_group()
    how.add_argument('--dry-run', action='store_true', help='print the plan, write nothing')
    how.add_argument('--print-commands', action='store_true', help='print a command for each run, for any scheduler')
    how.add_argument('--slurm', metavar='PARTITION', help='submit the runs to Slurm as a job array, by submitit')
    parser.add_argument(
        '--slurm-options', nargs='+', default=[], metavar='KEY=VALUE', help='more parameters of submitit'
    )
    args = parser.parse_args()
    if sum(map(bool, (args.configs, args.report, args.search))) != 1:
        parser.error('give BASE.py VARIANT.py ..., or STUDY.py, or --report WORK_DIR, or --search STUDY.py')
    of_plan = ('seeds', 'allow', 'budget', 'no_trial', 'dry_run', 'print_commands', 'slurm', 'slurm_options')
    of_both = ('metric', 'trials', 'jobs', 'work_dir', 'cfg_options')
    if args.search and any(getattr(args, name) for name in (*of_plan, 'trace')):
        parser.error('--search takes only --metric, --trials, --jobs, --work-dir and --cfg-options')
    if args.report and any(getattr(args, name) for name in (*of_plan, *of_both)):
        parser.error('--report takes a work dir, and nothing else but --trace')
    if args.trace and (args.dry_run or args.print_commands or args.slurm):
        parser.error('--trace traces finished runs: leave it out here, and later run --report WORK_DIR --trace')
    if args.trials and not args.search:
        parser.error('--trials is for --search; the number of runs of each config is --seeds')
    return args


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r}, expected at least 1')
    return int(text)


def _seeds(text: str) -> int | list[int]:
    try:
        numbers = [int(word) for word in text.split(',')]
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r}, expected a number of seeds, or seeds: 0,1,5') from None
    return numbers if ',' in text else numbers[0]


def plan_of(args: argparse.Namespace) -> reading.Plan:
    changes = dict(seeds=args.seeds, metric=args.metric, allow=args.allow, budget=args.budget)
    changes['options'] = parse_overrides(args.cfg_options)
    if len(args.configs) == 1 and reading.is_study(args.configs[0]):
        return reading.read_study(args.configs[0], **changes)
    return reading.read_configs(args.configs, **changes)


def main() -> int:
    args = parse_args()
    if args.report:
        show(load_study(args.report), trace=args.trace)
        return 0
    count = args.jobs or running.default_jobs()
    if args.search:
        work_dir = args.work_dir or Path('work_dirs', Path(args.search).stem)
        changes = dict(trials=args.trials, metric=args.metric, options=parse_overrides(args.cfg_options))
        return int(search(args.search, work_dir, TRAIN, count=count, **changes) is None)
    plan = plan_of(args)
    work_dir = args.work_dir or Path('work_dirs', Path(args.configs[0]).stem + '_study' * (len(args.configs) > 1))
    study = planning.study_of(plan, work_dir)
    if args.dry_run:
        with planning.rehearsal(plan) as rehearsed:
            trials = {} if args.no_trial else planning.try_variants(rehearsed)
        print_plan(plan, study, trials, count)
        return 0
    if args.slurm:
        slurm.check_options(args.slurm_options)
    planning.write_study(plan, study)
    print_plan(plan, study, {} if args.no_trial else planning.try_variants(study), count)
    if args.print_commands:
        print('\n'.join(planning.commands(study, TRAIN)))
        return 0
    if args.slurm:
        jobs = slurm.submit(study.jobs(), TRAIN, args.slurm, args.slurm_options)
        print(f'Submitted {len(jobs)} jobs: {", ".join(jobs)}' if jobs else 'All runs are finished')
        print(f'Tables and page of what is finished: python tools/ablate.py --report {study.work_dir}')
        return 0
    with Board(study) as board:
        failed = running.train_jobs(study.jobs(), TRAIN, count=count, update=board.update)
    for job, code in failed.items():
        print(f'{job.name} failed with exit code {code}; the last lines of {job.output}:')
        print('\n'.join(f'    {line}' for line in job.last_words()))
    show(study, trace=args.trace)
    return 1 if failed else 0


def print_plan(plan: reading.Plan, study: Study, trials: planning.Trials, count: int) -> None:
    print(planning.plan_table(plan, study, trials, count))
    planning.check_budget(plan, study, trials)


def show(study: Study, *, trace: bool) -> None:
    """Write tables and page of what is finished, after tracing it if that is asked for, and print the table."""
    warnings = trace_runs(study) if trace else []
    for warning in warnings:
        print(f'warning: {warning}')
    conclusions = conclude(study)
    write_tables(study, conclusions, study.work_dir)
    warnings += write_reports(study)
    page = write_ablation(study, conclusions, study.work_dir / 'ablation.html', warnings=warnings)
    print(printed(study, conclusions))
    print(f'{page}, and ablation.md, ablation.csv and ablation.tex beside it')


if __name__ == '__main__':
    run_tool(main)
