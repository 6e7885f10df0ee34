"""Whole models, transforms, data sets and metrics are pickled and copied, and then do what they did."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from frdet.config import load_config
from frdet.engine import predict_in_bfloat16
from frdet.errors import ExportError
from frdet.registry import DATASETS, DETECTORS, METRICS
from tests.apis.halves import batch
from tests.models.torchvision_twin import frdet_config

ROOT = Path(__file__).resolve().parents[1]


def by_torch_save(thing: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    'torch.save': by_torch_save,
    'pickle': lambda thing: pickle.loads(pickle.dumps(thing)),
    'deepcopy': copy.deepcopy,
}


def model(norm: str = 'FrozenBN', *, amp: bool = False) -> nn.Module:
    config = frdet_config(18)
    config['backbone'].update(norm=dict(type=norm))
    config['neck'].update(out_channels=32)
    config['rpn_head'].update(in_channels=32, feat_channels=32, pre_nms_test=50, post_nms_test=20)
    config['roi_head']['bbox_head'].update(in_channels=32, fc_channels=32)
    config['roi_head'].update(score_thr=0.0)
    made = DETECTORS.build(config).eval()
    if amp:
        predict_in_bfloat16(made)
    return made


MODELS: dict[str, dict[str, Any]] = {
    'FrozenBN': {},
    'BN': dict(norm='BN'),
    'GN': dict(norm='GN'),
    'bfloat16': dict(amp=True),
}


@pytest.mark.parametrize('way', WAYS.values(), ids=WAYS)
@pytest.mark.parametrize('options', MODELS.values(), ids=MODELS)
@torch.no_grad()
def test_a_model_finds_what_it_found(options: dict[str, Any], way: Callable[[Any], Any]) -> None:
    made = model(**options)
    expected = [sample.pred_instances for sample in made.test_step(batch([1, 2]))]
    again = way(made)
    for parameter in made.parameters():  # what is found afterwards must be by weights of its own
        parameter.data.zero_()
    found = [sample.pred_instances for sample in again.test_step(batch([1, 2]))]
    for a, b in zip(found, expected, strict=True):
        assert len(a) > 0
        assert all(torch.equal(a[field], b[field]) for field in ('bboxes', 'scores', 'labels'))


@pytest.mark.parametrize(
    'path', ['faster_rcnn/r50_fpn_1x_cocoval', 'interop/torchvision_r50_fpn', 'interop/mmdet_r50_fpn']
)
def test_data_sets_transforms_and_metrics(path: str, coco_root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As workers that are not forked get them. The same seed draws the same."""
    monkeypatch.setenv('FRDET_DATA_ROOT', f'{coco_root.root}/')
    cfg = load_config(ROOT / f'configs/{path}.py')
    val = cfg.val_dataloader.dataset
    pipeline = cfg.train_dataloader.dataset.pipeline
    made = DATASETS.build(
        dict(val, pipeline=pipeline, ann_file=coco_root.val_ann, data_prefix=dict(img=coco_root.val_prefix))
    )
    for way in WAYS.values():
        images = []
        for dataset in (made, way(made)):
            np.random.seed(0)
            images.append(dataset[0]['inputs'])
        assert torch.equal(*images)
        for transform in made.pipeline.transforms:
            assert repr(way(transform)) == repr(transform)
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = made.metainfo
    assert pickle.loads(pickle.dumps(metric)).dataset_meta == made.metainfo


IMAGES = torch.zeros(1, 3, 64, 64)
SCRIPTS: dict[str, Callable[[nn.Module], Any]] = {
    'script': torch.jit.script,
    'trace': lambda made: torch.jit.trace(made, IMAGES),
    'trace of detections': lambda made: torch.jit.trace(Detections(made), IMAGES),
    'a part of a script': lambda made: torch.jit.script(nn.Sequential(made)),
    'the old ONNX exporter': lambda made: torch.onnx.export(
        made, (torch.zeros(1, 3, 64, 64),), io.BytesIO(), dynamo=False
    ),
}


class Detections(nn.Module):
    """A detector as a function of images, as those who trace one write it."""

    def __init__(self, detector: Any):
        super().__init__()
        self.detector = detector

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        samples = batch([0] * len(images))['data_samples']
        return self.detector.predict(images, samples)[0].pred_instances.bboxes


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('script', SCRIPTS.values(), ids=SCRIPTS)
def test_torchscript_is_refused_in_words(script: Callable[[nn.Module], Any]) -> None:
    with pytest.raises(ExportError, match=r'TorchScript cannot hold a detector: .* ONNX or with torch\.export'):
        script(model())
