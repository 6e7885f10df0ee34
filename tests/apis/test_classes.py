"""num_classes=None is the number of the data set's classes, everywhere a model is built from a config."""

import pytest
import torch

from frdet.apis import init_detector, train_detector
from frdet.apis import test_detector as evaluate_detector
from frdet.config import check_config, load_config
from frdet.datasets import write_shapes
from frdet.errors import ConfigError
from frdet.registry import DETECTORS
from tests.engine.toy import ROOT

CONFIG = ROOT / 'configs/quickstart/r18_fpn_shapes.py'
PLACE = 'model.roi_head.bbox_head.num_classes'
NAMES = ['circle', 'triangle', 'star']


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    """Three of the six classes, four small images, and no number."""
    root = write_shapes(tmp_path_factory.mktemp('shapes') / 'root', num_train=4, num_val=2)
    splits = ('train', 'val', 'test')
    return [
        f'{PLACE}=None',
        *(f'{split}_dataloader.dataset.data_root={root}' for split in splits),
        *(f'{split}_dataloader.dataset.metainfo.classes=[{",".join(NAMES)}]' for split in splits),
        *(f'{split}_evaluator.ann_file={root}/annotations/instances_val2017.json' for split in splits[1:]),
        'model.roi_head.bbox_head.fc_channels=16',
        'train_dataloader.dataset.pipeline.1.short_side=64',
        'train_dataloader.dataset.filter_cfg.filter_empty_gt=False',
        'test_dataloader.dataset.pipeline.1.short_side=64',
        'train_cfg.max_epochs=1',
        'default_hooks.checkpoint.interval=1',
    ]


def test_training_testing_and_inference(options, tmp_path):
    cfg = load_config(CONFIG, options)
    check_config(cfg)
    assert cfg.model.roi_head.bbox_head.num_classes is None
    model = train_detector(cfg, work_dir=str(tmp_path), validate=False)
    assert model.roi_head.bbox_head.fc_cls.out_features == 4  # and the background
    path = tmp_path / 'epoch_1.pth'
    saved = torch.load(path, weights_only=True)['meta']
    assert list(saved['dataset_meta']['classes']) == NAMES
    assert 'num_classes=3' in saved['cfg']
    figures = evaluate_detector(load_config(CONFIG, options), str(path), work_dir=str(tmp_path / 'test'))
    assert 'coco/bbox_mAP' in figures
    # A checkpoint says how many it has, whatever the data of the config are.
    nowhere = [o if '.data_root=' not in o else f'{o}/nowhere' for o in options if 'metainfo' not in o]
    loaded = init_detector(CONFIG, path, device='cpu', cfg_options=nowhere)
    assert loaded.roi_head.bbox_head.num_classes == 3
    assert list(loaded.dataset_meta['classes']) == NAMES


def test_without_a_checkpoint_the_config_or_the_annotations_tell(options):
    assert init_detector(CONFIG, device='cpu', cfg_options=options).roi_head.bbox_head.num_classes == 3
    all_six = [o for o in options if 'metainfo' not in o]
    assert init_detector(CONFIG, device='cpu', cfg_options=all_six).roi_head.bbox_head.num_classes == 6
    nowhere = [o if '.data_root=' not in o else f'{o}/nowhere' for o in all_six]
    with pytest.raises(ConfigError, match='num_classes is None, and no class is known'):
        init_detector(CONFIG, device='cpu', cfg_options=nowhere)


def test_a_model_alone_needs_a_number(options):
    with pytest.raises(ConfigError, match='FCBBoxHead: num_classes is None, expected a positive number'):
        DETECTORS.build(load_config(CONFIG, options).model)


def test_a_number_is_not_changed(options, tmp_path):
    with pytest.raises(ConfigError, match=f'has 3 classes .*, the box head has 6: set {PLACE}=3'):
        train_detector(load_config(CONFIG, [*options[1:], f'{PLACE}=6']), work_dir=str(tmp_path / 'w'))
    assert not (tmp_path / 'w').exists()
