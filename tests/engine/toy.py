"""A model of a few numbers and a data set of a few rows, trained by MMEngine's Runner with the shipped runtime."""

import itertools
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from frdet.registry import DATASETS, DETECTORS, METRICS
from frdet.structures import DetDataSample

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = itertools.count()


@DETECTORS.register_module(force=True)
class ToyDetector(BaseModel):
    """Learns one number. It is no ``Detector``: any model of MMEngine is trained and tested."""

    def __init__(self, *, num_classes=2, bad_iteration=-1, norm=None):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
        self.norm = norm or nn.Identity()
        self.num_classes = num_classes
        self.bad_iteration = bad_iteration
        self.calls = 0
        self.dtypes = set()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.layer(torch.stack(list(inputs)).view(-1, 1, 1, 1).float())
        self.dtypes.add(out.dtype)
        if mode == 'predict':
            return data_samples
        loss = out.float().square().mean()
        self.calls += 1
        scale = float('nan') if 0 < self.bad_iteration <= self.calls else 1
        return dict(loss_cls=loss, loss_bbox=loss * scale, acc=torch.tensor(50.0))


@DATASETS.register_module(force=True)
class ToyDataset(BaseDataset):
    METAINFO = dict(classes=('cat', 'dog'))

    def __init__(self, *, length=12, **kwargs):
        self.length = length
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self):
        return [dict(value=float(i), img_id=100 + i) for i in range(self.length)]

    def prepare_data(self, idx):
        info = self.get_data_info(idx)
        sample = DetDataSample(metainfo=dict(img_id=info['img_id'], img_path=f'/images/{info["img_id"]}.jpg'))
        return dict(inputs=torch.tensor([info['value']]), data_samples=sample)


@METRICS.register_module(force=True)
class ToyMetric(BaseMetric):
    default_prefix = 'coco'

    def __init__(self):
        super().__init__(collect_device='gpu')  # through the process group, not through files

    def process(self, data_batch, data_samples):
        self.results += [sample['img_id'] for sample in data_samples]

    def compute_metrics(self, results):
        return dict(bbox_mAP=len(set(results)) / 100)


def config(work_dir, schedule='schedule_1x', *, report=False, **changes):
    """The shipped schedule and runtime around the toys; ``report`` asks for plots, which take longer than the run."""
    cfg = Config(format_python_code=False)  # formatting takes as long as some iterations
    for name in (f'schedules/{schedule}', 'runtime'):
        cfg.merge_from_dict(Config.fromfile(ROOT / f'configs/_base_/{name}.py').to_dict())
    loader = dict(
        batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(type='ToyDataset')
    )
    cfg.merge_from_dict(
        dict(
            model=dict(type='ToyDetector'),
            train_dataloader=loader,
            val_dataloader={**loader, 'sampler': dict(type='DefaultSampler', shuffle=False)},
            val_evaluator=dict(type='ToyMetric'),
            test_dataloader={**loader, 'sampler': dict(type='DefaultSampler', shuffle=False)},
            test_evaluator=dict(type='ToyMetric'),
            work_dir=str(work_dir),
        )
    )
    if not report:
        del cfg.default_hooks.report
    cfg.merge_from_dict({'default_hooks.logger.interval': 1, 'randomness.seed': 0, **changes})
    cfg.vis_backends = cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    return cfg


def runner(work_dir, **changes):
    """MMEngine's own Runner. It names its logs by the second, and these runs are shorter."""
    return Runner.from_cfg(config(work_dir, **{'experiment_name': f'toy_{next(NUMBERS)}', **changes}))
