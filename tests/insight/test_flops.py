"""Counts are those of pencil and paper, and torchvision's published ones."""

from pathlib import Path

import pytest
from mmengine.config import Config
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from frdet.config import load_config
from frdet.datasets.shapes import write_shapes
from frdet.errors import ConfigError
from frdet.insight.flops import count_flops
from tests.engine import toy  # registers ToyDetector  # noqa: F401
from tests.insight import families
from tests.insight.step.steps import shapes_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
R50 = CONFIGS / 'faster_rcnn/r50_fpn_1x_coco.py'


def stages(path, size=(64, 64), **options):
    found = count_flops(load_config(path, options), size)
    return {stage.name: stage for stage in found}


@pytest.fixture(scope='module')
def r50():
    return stages(R50)


# Multiply-adds at 64 x 64: products of kernel, channels in, channels out and cells; FLOPs are twice as many.
# conv1 has stride 2, the pooling another: layer1 has 16 x 16 cells, layer2 8 x 8, ... P6 has 1.
LAYER1 = (64 * 64 + 9 * 64 * 64 + 64 * 256 + 64 * 256) + 2 * (256 * 64 + 9 * 64 * 64 + 64 * 256)
LAYER2 = (256 * 128 + 9 * 128 * 128 + 128 * 512 + 256 * 512) + 3 * (512 * 128 + 9 * 128 * 128 + 128 * 512)
LATERALS = 256 * (256 * 16**2 + 512 * 8**2 + 1024 * 4**2 + 2048 * 2**2)
OUTPUTS = 9 * 256 * 256 * (16**2 + 8**2 + 4**2 + 2**2)
CELLS = 16**2 + 8**2 + 4**2 + 2**2 + 1
BY_HAND = {
    'backbone stem': 7 * 7 * 3 * 64 * 32**2,
    'backbone.layer1': LAYER1 * 16**2,
    'backbone.layer2': LAYER2 * 8**2,  # of caffe's style: the stride is in the first convolution
    'neck': LATERALS + OUTPUTS,
    'rpn_head': (9 * 256 * 256 + 256 * 3 + 256 * 12) * CELLS,
    'roi_head.bbox_head': (256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * 81 + 1024 * 80 * 4) * 1000,
}


@pytest.mark.parametrize('name', BY_HAND)
def test_flops_by_hand(r50, name):
    assert r50[name].flops == 2 * BY_HAND[name]


def test_masks_by_hand():
    """For 100 detections: four 3x3 at 14 x 14, a 2x2 upsampling, and a mask of 28 x 28 of the own class alone."""
    found = stages(CONFIGS / 'mask_rcnn/mask_rcnn_r50_fpn_1x_coco.py')['roi_head.mask_head']
    convs, upsampling = 4 * 9 * 256 * 256, 4 * 256 * 256
    assert found.flops == 2 * 100 * ((convs + upsampling) * 14**2 + 256 * 28**2)
    assert found.trained == convs + upsampling + 5 * 256 + 80 * 257


def test_basic_blocks_by_hand():
    """R18's layer2 at 8 x 8: 3x3 64->128 and 128->128, 1x1 64->128 beside them; two of 3x3 128->128."""
    found = stages(CONFIGS / 'quickstart/r18_fpn_shapes.py')['backbone.layer2']
    weights = 9 * 64 * 128 + 9 * 128 * 128 + 64 * 128 + 2 * 9 * 128 * 128
    assert found.flops == 2 * weights * 8**2
    assert found.params == found.trained == weights + 5 * 2 * 128  # five BNs, weight and bias


def test_deformable_layers_by_hand(r50):
    """Beside each 3x3 is one of 27 channels that gives its offsets, with a bias."""
    found = stages(CONFIGS / 'faster_rcnn/r50_fpn_1x_cocoval_dcnv2.py')
    for name in ('layer1', 'layer2'):
        blocks = 4 if name == 'layer2' else 0
        assert found[f'backbone.{name}'].flops == r50[f'backbone.{name}'].flops + 2 * blocks * 9 * 128 * 27 * 8**2
    assert found['backbone.layer2'].params == r50['backbone.layer2'].params + 4 * (9 * 128 + 1) * 27


def test_parameters_by_hand(r50):
    """Convolutions of the backbone have no bias, FrozenBN no parameters; FREEZE_AT 2 leaves stem and layer1."""
    assert r50['backbone stem'][2:] == (0, 7 * 7 * 3 * 64)
    assert r50['backbone.layer1'][2:] == (0, LAYER1)
    assert r50['backbone.layer2'][2:] == (LAYER2, 0)
    laterals = (256 + 512 + 1024 + 2048) * 256 + 4 * 256
    assert r50['neck'][2:] == (laterals + 4 * (9 * 256 * 256 + 256), 0)
    assert r50['rpn_head'][2:] == (9 * 256 * 256 + 256 + (256 + 1) * (3 + 12), 0)
    assert r50['roi_head.bbox_head'][2:] == ((12544 + 1) * 1024 + (1024 + 1) * (1024 + 81 + 320), 0)


def test_one_stage_by_hand(tmp_path):
    """Maps of 4 x 4, 2 x 2 and 1 cells, 8 channels; six classes are filled in from the data."""
    cfg = families.one_stage(shapes_config(write_shapes(tmp_path / 'shapes', num_train=1, num_val=1)))
    cfg.test_dataloader.dataset.data_root = cfg.train_dataloader.dataset.data_root
    found = {stage.name: stage for stage in count_flops(cfg, (64, 64))}
    assert found['head.tower'].flops == 2 * 9 * 8 * 8 * 21
    assert found['head rest'][1:] == (2 * 8 * 6 * 21, 8 * 6 + 6, 0)
    assert 'other' not in found


def test_heads_in_a_list_by_hand():
    """100 RoIs of 64 x 7 x 7 features through 16 channels twice, then 7 scores and 4 deltas, in each head."""
    cfg = families.cascade(load_config(CONFIGS / 'quickstart/r18_fpn_shapes.py'))
    for head in cfg.model.roi_head.bbox_heads:
        head.num_classes = 6
    found = {stage.name: stage.flops for stage in count_flops(cfg, (64, 64))}
    for i in range(2):
        assert found[f'roi_head.bbox_heads.{i}'] == 2 * 100 * (64 * 49 * 16 + 16 * 16 + 16 * 7 + 16 * 4)


def test_a_detector_that_looks_at_values(monkeypatch):
    monkeypatch.setattr(families.OneStage, 'detect', lambda self, features, sizes: features[0][0].nonzero())
    cfg = families.one_stage(load_config(CONFIGS / 'quickstart/r18_fpn_shapes.py'))
    cfg.model.head.num_classes = 6
    with pytest.raises(ConfigError, match='OneStage cannot be counted .*shapes that do not depend on values'):
        count_flops(cfg, (64, 64))


def test_the_total_is_that_of_its_parts(r50):
    *parts, total = r50.values()
    assert total.name == 'total' and 'other' not in r50
    assert total[1:] == tuple(sum(column) for column in list(zip(*parts, strict=True))[1:])


def test_torchvisions_published_figures():
    """It calls multiply-adds operations, and regresses boxes of the background, too: 4 x (1024 + 1) parameters."""
    published = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta
    total = stages(CONFIGS / 'interop/torchvision_r50_fpn.py', size=(800, 800))['total']
    assert round(total.flops / 2e9, 2) == published['_ops'] == 134.38
    assert total.params == published['num_params'] - 4 * 1025 == 41_751_186


def test_images_are_padded(r50):
    assert stages(R50, size=(50, 33)) == r50
    assert stages(R50, size=(65, 33))['backbone stem'].flops == r50['backbone stem'].flops * 3 // 2  # 96 x 64


def test_the_number_of_rois_is_that_of_the_proposals(r50):
    fewer = stages(R50, **{'model.rpn_head.post_nms_test': 500})
    assert fewer['roi_head.bbox_head'].flops == r50['roi_head.bbox_head'].flops // 2


@pytest.mark.parametrize('size', [(0, 64), (64, -1)])
def test_sizes_that_are_none(size):
    with pytest.raises(ConfigError, match='expected at least 1'):
        stages(R50, size)


def test_a_model_that_is_no_detector():
    with pytest.raises(ConfigError, match="'ToyDetector' is no Detector"):
        count_flops(Config(dict(model=dict(type='ToyDetector'))), (64, 64))
