"""A training of seconds whose result depends on all its steps, and a script that only looks like a training."""

import json
import time
from pathlib import Path

import torch

from frdet.config import dump_config
from frdet.registry import DETECTORS, METRICS
from tests.engine import toy


@DETECTORS.register_module(force=True)
class SlowToy(toy.ToyDetector):
    """Its prediction is one number, which depends on weights, images and their order."""

    def __init__(self, *, pause=0.0, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.pause, self.scale = pause, scale

    def forward(self, inputs, data_samples=None, mode='tensor'):
        time.sleep(self.pause)
        if mode == 'predict':
            value = self.layer(torch.ones(1, 1, 1, 1)).item()
            for sample in data_samples:
                sample.set_metainfo({'value': value})
            return data_samples
        losses = super().forward(inputs, data_samples, mode)
        return {**losses, 'loss_cls': losses['loss_cls'] * self.scale}


@METRICS.register_module(force=True)
class ValueMetric(toy.ToyMetric):
    def process(self, data_batch, data_samples):
        self.results += [sample['value'] for sample in data_samples]

    def compute_metrics(self, results):
        return dict(bbox_mAP=sum(results) / len(results))


def write_study(folder: Path, *, epochs: int = 4, pause: float = 0.0) -> Path:
    """A study file of a base and a variant, with two seeds."""
    cfg = toy.config(folder / 'unused')
    cfg.merge_from_dict(
        {
            'model': dict(type='SlowToy', pause=pause),
            'val_evaluator.type': 'ValueMetric',
            'train_cfg.max_epochs': epochs,
            'default_hooks.checkpoint.save_best': None,
            'custom_imports': dict(imports=['tests.apis.ablation.toys']),
            'param_scheduler': None,
        }
    )
    cfg.pop('work_dir')
    (folder / 'base.py').write_text(dump_config(cfg))
    path = folder / 'study.py'
    path.write_text("base = 'base.py'\nvariants = dict(strong={'model.scale': 3.0})\nseeds = 2\nbootstrap = 0\n")
    return path


#: As tools/train.py: it goes on from its last step, and saves and ends with 75 after SIGTERM. ``fail`` in the folder of
#: the variant lets it fail, ``slow`` lets it take four seconds. Each step is a line with its process.
FAKE_TRAIN = """
import os, signal, sys, time
from pathlib import Path
config, _, work_dir, _, seed, resume = sys.argv[1:]
assert resume == '--resume' and Path(config).is_file()
folder = Path(work_dir)
folder.mkdir(exist_ok=True)
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
steps = folder / 'steps.txt'
done = steps.read_text().splitlines() if steps.exists() else []
pause = 0.2 if (folder.parent / 'slow').exists() else 0.01
print('begins at', len(done), flush=True)
if (folder.parent / 'fail').exists():
    sys.exit('error: it fails as it was told')
for step in range(len(done), 20):
    if stopped:
        sys.exit(75)
    time.sleep(pause)
    with open(steps, 'a') as file:
        file.write(f'{step} {os.getpid()}\\n')
(folder / 'finished.json').write_text('{}')
"""


def steps_of(work_dir: Path) -> list[tuple[int, int]]:
    """Step and process of each line that ``FAKE_TRAIN`` wrote."""
    return [tuple(map(int, line.split())) for line in (work_dir / 'steps.txt').read_text().splitlines()]


def results(work_dir: Path) -> dict[str, float]:
    """The last metric value of each run, as it was logged."""
    found = {}
    for path in sorted(work_dir.glob('*/seed_*/*/vis_data/scalars.json')):
        for record in map(json.loads, path.read_text().splitlines()):
            if 'coco/bbox_mAP' in record:
                found['/'.join(path.parts[-5:-3])] = record['coco/bbox_mAP']
    return found
