"""The time to start: imports, a model from a config, the first step of a training."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.timing import Report, Times, machine
from frdet.config import load_config
from frdet.datasets import write_shapes
from frdet.progress import track

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / 'configs/quickstart/r18_fpn_shapes.py'
TOOL = ROOT / 'tools/benchmark.py'
MAIN = ROOT / 'configs/faster_rcnn/r50_fpn_1x_coco.py'

# torch is imported before the clock starts.
_IMPORT = """
import json, time, torch
{before}
start = time.perf_counter()
{after}
print(json.dumps(time.perf_counter() - start))
"""
_MODEL = """
import json, time, frdet.apis
from frdet.config import check_config, load_config
from frdet.registry import DETECTORS
start = time.perf_counter()
cfg = load_config({config!r}, {{'model.backbone.init_cfg': None}})
check_config(cfg)
DETECTORS.build(cfg.model)
print(json.dumps(time.perf_counter() - start))
"""


def _child(*words: str, cwd: str | Path = ROOT) -> dict | float:
    """The last line of a Python process, which is JSON."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': path}
    )
    if done.returncode:
        raise RuntimeError(f'python {" ".join(words)} failed:\n{done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


def first_step_child(config: str, work_dir: str, steps: str) -> None:
    """Train like tools/train.py. Print the end of the first step, and the share of waiting for data in later steps."""
    from benchmarks.watching import watch

    first, *others = watch(load_config(config), int(steps), work_dir=work_dir)
    # The first step waits for the workers to start.
    share = sum(step.waited for step in others) / max(sum(step.took for step in others), 1e-9)
    print(json.dumps({'first': first.ended, 'data_share': share}), flush=True)
    os._exit(0)  # the interrupted training needs no clean-up


def measure(args: argparse.Namespace) -> Report:
    """The time of each start in its own process, in turn."""
    mmengine = 'import mmengine.dataset, mmengine.model, mmengine.runner, mmengine.visualization'
    scripts = {
        ('import frdet, after torch', 0.2): _IMPORT.format(before='', after='import frdet'),
        ('import what frdet.apis needs of MMEngine, after torch', None): _IMPORT.format(before='', after=mmengine),
        ('import frdet.apis, after torch and these', 0.2): _IMPORT.format(before=mmengine, after='import frdet.apis'),
        ('R50-FPN from a config', 1.5): _MODEL.format(config=str(MAIN)),
    }
    times: dict[tuple[str, float | None], list[float]] = {name: [] for name in scripts}
    first_step, shares = ('from the command to the first training step, quick start', 10.0), []
    times[first_step] = []
    with tempfile.TemporaryDirectory() as folder:
        write_shapes(Path(folder, 'data/shapes'))  # where the config looks
        for i in track(range(args.rounds), 'Rounds', delay=0):
            for name, script in scripts.items():
                times[name].append(float(_child('-c', script)))  # type: ignore[arg-type]
            begun = time.time()
            words = (str(QUICKSTART), str(Path(folder, f'run{i}')), str(args.steps))
            found = _child(str(TOOL), '_first_step', *words, cwd=folder)
            assert isinstance(found, dict)
            times[first_step].append(found['first'] - begun)
            shares.append(100 * found['data_share'])
    report = Report(f'Start-up; {machine(torch.device("cpu"))}')
    for (name, goal), all_ in times.items():
        found_times = Times(all_)
        report.add({'what': name, 'median s': found_times.median, 'min-max s': found_times.spread, 'goal s': goal})
    report.notes.append(
        f'{args.rounds} rounds. Of {args.steps} steps of the quick start, {Times(shares).median:.1f}% of the time '
        'is spent waiting for data.'
    )
    return report
