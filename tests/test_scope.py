"""frdet's entries build frdet's classes whatever scope the process has, and leave it as it was."""

import numpy as np
import pytest
from mmengine.registry import MODELS, DefaultScope

from frdet.apis import DetInferencer, inference_detector, init_detector
from frdet.apis.checking import check_data
from frdet.apis.classes import classes_of_split, declared_classes
from frdet.config import check_config, load_config
from frdet.datasets import write_shapes
from frdet.errors import ConfigError
from frdet.insight.browse import browse_dataset
from frdet.insight.flops import count_flops
from frdet.insight.step import prepare
from frdet.registry import DETECTORS, in_config_scope
from tests.engine.toy import ROOT
from tests.rival import rival_scope  # noqa: F401  # a fixture

CONFIG = ROOT / 'configs/quickstart/r18_fpn_shapes.py'
IMAGE = np.full((64, 64, 3), 90, np.uint8)


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    root = write_shapes(tmp_path_factory.mktemp('shapes') / 'root', num_train=2, num_val=1)
    return [
        *(f'{split}_dataloader.dataset.data_root={root}' for split in ('train', 'val', 'test')),
        'model.roi_head.bbox_head.fc_channels=16',
        'train_dataloader.dataset.pipeline.1.short_side=64',
        'test_dataloader.dataset.pipeline.1.short_side=64',
        'model.backbone.init_cfg=None',
    ]


ENTRIES = {
    'inference_detector': lambda cfg, out: inference_detector(init_detector(cfg, device='cpu'), IMAGE),
    'DetInferencer': lambda cfg, out: DetInferencer(cfg, None, 'cpu').category_ids(),
    'check_data': lambda cfg, out: check_data(cfg),
    'browse_dataset': lambda cfg, out: browse_dataset(cfg, out / 'a.html', num=1),
    'count_flops': lambda cfg, out: count_flops(cfg, (64, 64)),
    'inspect_step': lambda cfg, out: prepare(cfg, None, [], 0),
    'classes_of_split': lambda cfg, out: classes_of_split(cfg, 'train'),
    'declared_classes': lambda cfg, out: declared_classes(cfg),
    'DETECTORS.build': lambda cfg, out: DETECTORS.build(cfg.model),
}


@pytest.mark.parametrize('entry', ENTRIES.values(), ids=ENTRIES)
def test_entries(rival_scope, options, tmp_path, entry):  # noqa: F811
    """Another project's classes raise; the fixture looks at the scope afterwards. Training: see ``test_classes.py``."""
    cfg = load_config(CONFIG, options)
    del cfg._cfg_dict['default_scope']
    # A wrapper is MMEngine's, and builds what is inside by itself.
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset = dict(type='RepeatDataset', times=1, dataset=loader.dataset)
    check_config(cfg)
    entry(cfg, tmp_path)


def test_the_scope_of_a_config_comes_first(rival_scope, options):  # noqa: F811
    """Whoever writes ``default_scope = 'mmdet'`` means it."""
    cfg = load_config(CONFIG, options)
    cfg.default_scope = rival_scope
    build = in_config_scope(lambda cfg: DETECTORS.build(cfg.model))
    with pytest.raises(AssertionError, match='class of another project'):
        build(cfg)
    assert type(DETECTORS.build(cfg.model)).__module__.startswith('frdet.')  # the config's scope has ended
    cfg.default_scope = ['no name']  # which check_config refuses in words
    assert type(build(cfg)).__module__.startswith('frdet.')
    with pytest.raises(ConfigError, match='default_scope'):
        check_config(cfg)


def test_what_other_projects_build_is_theirs(rival_scope):  # noqa: F811
    with pytest.raises(AssertionError, match='class of another project'):
        MODELS.build(dict(type='FasterRCNN'))


def test_without_any_scope(options):
    init_detector(load_config(CONFIG, options), device='cpu')
    assert DefaultScope.get_current_instance() is None
