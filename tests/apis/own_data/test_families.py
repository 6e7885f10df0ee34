"""An experiment on own data with a detector of another family."""

import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torchvision.models import detection

from frdet.apis import new_experiment, train_detector
from frdet.apis.classes import resolve_num_classes
from frdet.apis.own_data.families import FAMILIES
from frdet.checkpoints import convert_state_dict
from frdet.checkpoints.fit import fit_to_start
from frdet.config import check_config, load_config
from frdet.errors import ConfigError, DataError
from frdet.registry import DATASETS, DETECTORS
from tests import own_data
from tests.apis.own_data.test_new_experiment import TINY
from tests.checkpoints.test_shipped_models import cascade_with_masks, empty, with_biases

ROOT = Path(__file__).resolve().parents[3]
PICTURES = own_data.draw(6)
SHARED = ('model.backbone.depth', 'model.backbone.init_cfg', 'model.neck.out_channels')
SMALL = {key: value for key, value in TINY.items() if not key.startswith('model.') or key in SHARED}
HEADS = {
    'faster_rcnn': ('rpn_head', 'roi_head.bbox_head'),
    'mask_rcnn': ('rpn_head', 'roi_head.bbox_head', 'roi_head.mask_head'),
    'cascade_rcnn': ('rpn_head', 'roi_head.bbox_head'),
    'retinanet': ('bbox_head',),
    'fcos': ('bbox_head',),
}


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(*, masks: bool = True) -> Path:
    """A COCO file of which every object has its box as a polygon."""
    folder = own_data.write(Path('cells'), 'coco', dict(all=PICTURES))
    file = folder / 'annotations.json'
    content = json.loads(file.read_text())
    for one in content['annotations'] if masks else []:
        x, y, width, height = one['bbox']
        one['segmentation'] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    file.write_text(json.dumps(content))
    return folder


def small(cfg: Config, model: str) -> Config:
    """A model of seconds: norms with own statistics, few channels."""
    one_stage = cfg.model.type == 'SingleStageDetector'
    cfg.model.neck.in_channels = (128, 256, 512) if one_stage else (64, 128, 256, 512)
    for part in (cfg.model.backbone, cfg.model.neck):
        part.norm = dict(type='BN')
    for path in HEADS[model]:
        head = cfg.model
        for key in path.split('.'):
            head = head[key]
        wanted = dict(in_channels=16, feat_channels=16, conv_channels=16, fc_channels=16, num_convs=1, stacked_convs=1)
        head.update({key: value for key, value in wanted.items() if key in head})
        if 'norm' in head:
            head.norm = dict(type='GN', num_groups=4)
    return cfg


@pytest.mark.parametrize('model', [name for name in FAMILIES if name != 'faster_rcnn'])
def test_the_config_trains(model, monkeypatch, capsys):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # which takes longer than the step
    path = new_experiment(write(), model=model)
    assert path == Path(f'configs/mine/cells_{model}.py')
    assert ('--model mask_rcnn learns the masks' in capsys.readouterr().out) == (model != 'mask_rcnn')
    assert path.read_text().count('\n') <= 40 and max(map(len, path.read_text().splitlines())) <= 120
    cfg = load_config(path)
    check_config(cfg)
    assert load_config(path, safe=True).to_dict() == cfg.to_dict()
    assert cfg.load_from == FAMILIES[model].weights
    for part in ('train', 'val'):
        sample = DATASETS.build(cfg[f'{part}_dataloader'].dataset)[0]['data_samples'].gt_instances
        assert ('masks' in sample) == (model == 'mask_rcnn')
    trained = train_detector(small(load_config(path, SMALL), model), work_dir='work', seed=0)
    assert trained.num_classes == len({name for one in PICTURES for name, _ in one.objects})
    assert all(torch.isfinite(p).all() for p in trained.parameters())
    (log,) = Path('work').rglob('scalars.json')
    kinds = {kind for kind in ('bbox', 'segm') if f'coco/{kind}_mAP"' in log.read_text()}
    assert kinds == ({'bbox', 'segm'} if model == 'mask_rcnn' else {'bbox'})


@pytest.mark.parametrize('model', FAMILIES)
def test_the_weights_fit(model, monkeypatch):
    """Those of COCO, but for the layers that depend on the number of classes."""
    said: list[str] = []
    monkeypatch.setattr('frdet.checkpoints.fit.warn', said.append)
    address = FAMILIES[model].weights
    if model == 'cascade_rcnn':
        shapes = with_biases(cascade_with_masks())
    else:
        with torch.device('meta'):
            theirs = getattr(detection, address.removeprefix('torchvision://'))(weights=None, weights_backbone=None)
        shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    path = new_experiment(write(), model=model)
    cfg = load_config(path)
    resolve_num_classes(cfg, lambda: ['cat', 'dog', 'owl'])
    with torch.device('meta'):
        ours = DETECTORS.build(cfg.model)
    fit_to_start(ours, convert_state_dict(empty(shapes)), address)
    if model == 'cascade_rcnn':
        assert 'roi_head.mask_head' in said[0] and said[0].endswith('left out')
    layers = {
        'faster_rcnn': 'roi_head.bbox_head.fc_cls and roi_head.bbox_head.fc_reg',
        'mask_rcnn': 'roi_head.bbox_head.fc_cls, roi_head.bbox_head.fc_reg and roi_head.mask_head.conv_logits',
        'cascade_rcnn': 'roi_head.bbox_head.0.fc_cls, roi_head.bbox_head.1.fc_cls and roi_head.bbox_head.2.fc_cls',
        'retinanet': 'bbox_head.retina_cls',
        'fcos': 'bbox_head.conv_cls',
    }
    assert said[-1].endswith(f'classes, the model 3: {layers[model]} start anew')
    assert len(said) == (2 if model == 'cascade_rcnn' else 1)


def test_anchors_of_small_objects():
    """Sides of 8 to 128 pixels, three in each octave, rounded down: 8, 10.08, 12.70; FCOS has no anchors."""
    folder = write()
    file = folder / 'annotations.json'
    content = json.loads(file.read_text())
    for image in content['images']:
        image.update(height=6000, width=9000)
    file.write_text(json.dumps(content))
    cfg = load_config(new_experiment(folder, model='retinanet'))
    assert cfg.model.bbox_head.anchor_generator.sizes == (
        (8, 10, 12), (16, 20, 25), (32, 40, 50), (64, 80, 101), (128, 161, 203)
    )  # fmt: skip
    cfg = load_config(new_experiment(folder, model='cascade_rcnn'))
    assert cfg.model.rpn_head.anchor_generator.sizes == ((8,), (16,), (32,), (64,), (128,))
    text = new_experiment(folder, model='fcos').read_text()
    assert 'anchor' not in text and 'model = ' not in text


@pytest.mark.parametrize('masks', [False, True])
def test_masks_that_are_missing(masks):
    folder = write(masks=False) if not masks else own_data.write(Path('voc'), 'voc', dict(all=PICTURES))
    with pytest.raises(DataError, match=f'{folder} has no masks, which mask_rcnn learns: .*--model faster_rcnn'):
        new_experiment(folder, model='mask_rcnn')
    assert not Path('configs').exists()


def test_an_unknown_model():
    with pytest.raises(ConfigError, match=re.escape(f'--model is yolo: expected one of {", ".join(FAMILIES)}')):
        new_experiment(write(), model='yolo')
