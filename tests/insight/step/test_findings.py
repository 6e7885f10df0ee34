"""Steps in which something is wrong, and what the page says of it."""

import json

import pytest
import torch

from frdet.datasets import CocoDataset
from frdet.datasets.shapes import write_shapes
from frdet.errors import CheckpointError, ConfigError, DataError
from frdet.insight.step import inspect_step, prepare
from frdet.insight.step.findings import find_warnings
from frdet.insight.step.recording import record_step
from tests.insight.step.steps import coco_config, shapes_config


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=4, num_val=2)


def broken(root, harm=None, **changes):
    """Warnings of a step before which ``harm`` was done to the model."""
    prepared = prepare(shapes_config(root, **changes), None, [], 0)
    if harm is not None:
        with torch.no_grad():
            harm(prepared.model)
    return find_warnings(record_step(prepared))


def matches(warnings, *words):
    return [w for w in warnings if all(word in w for word in words)]


def test_a_sound_step_warns_of_random_weights_alone(drawn):
    found = broken(drawn)
    assert len(found) == 1 and matches(found, 'weights are random')


def test_a_small_object_without_anchor(drawn):
    # Anchors of 64 pixels at least, none of which need answer for an object.
    changes = {
        'model.rpn_head.anchor_generator.sizes': ((64,), (80,), (96,), (112,), (128,)),
        'model.rpn_head.assigner.match_low_quality': False,
    }
    found = matches(broken(drawn, **changes), 'No anchor matches gt', 'of image 1', 'too small', '64 pixels')
    # Of the first image 26x18 is far below 64x64; its smallest side is 18.
    assert matches(found, 'triangle, 26x18 pixels')


def test_no_boxes(drawn, tmp_path):
    content = json.loads((drawn / 'annotations/instances_train2017.json').read_text())
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] != 1]
    (tmp_path / 'empty.json').write_text(json.dumps(content))
    changes = {
        'train_dataloader.dataset.ann_file': str(tmp_path / 'empty.json'),
        'train_dataloader.dataset.filter_cfg': None,
    }
    page, record = inspect_step(shapes_config(drawn, **changes), images=['1'])
    assert matches(page.warnings, 'No boxes in image 1')
    assert not matches(page.warnings, 'All', 'background')
    assert not record.rois[0].positive.any()
    assert 'All' not in page.render().split('<main')[0]


def test_all_rois_background(drawn):
    changes = {'model.roi_head.add_gt_as_proposals': False, 'model.roi_head.assigner.pos_iou_thr': 0.99}
    assert matches(broken(drawn, **changes), 'All 64 sampled RoIs of image 1 are background')


def test_no_proposal_fits(drawn):
    found = broken(drawn, **{'model.roi_head.assigner.pos_iou_thr': 0.99})
    assert matches(found, 'No proposal fits an object of image 1', 'the ground truth itself')
    assert not matches(found, 'are background')


@pytest.mark.parametrize(
    ('batch', 'enable', 'expected'),
    [(4, False, []), (8, True, []), (8, False, ['0.025 is for 4 images', 'takes 8', 'lr=0.05'])],
)
def test_learning_rate_and_batch(drawn, batch, enable, expected):
    changes = {'train_dataloader.batch_size': batch, 'auto_scale_lr.enable': enable}
    found = matches(broken(drawn, **changes), 'learning rate does not fit')
    assert bool(found) == bool(expected)
    assert not expected or matches(found, *expected)


def test_the_rate_is_scaled_as_in_training(drawn):
    changes = {'train_dataloader.batch_size': 8, 'auto_scale_lr.enable': True}
    _, record = inspect_step(shapes_config(drawn, **changes))
    assert record.lr == pytest.approx(0.05)


def test_not_finite(drawn):
    found = broken(drawn, lambda model: model.backbone.layer2[0].conv1.weight.fill_(float('nan')))
    assert matches(found, 'Not finite: loss_rpn_cls')
    assert matches(found, 'Activations are not finite from layer backbone.layer2.0 on')
    assert matches(found, 'Gradients are not finite in')


def test_a_page_of_a_step_that_is_not_finite(drawn):
    page, _ = inspect_step(shapes_config(drawn, **{'model.data_preprocessor.std': (0.0, 1.0, 1.0)}))
    assert matches(page.warnings, 'not finite from layer backbone.conv1')
    assert 'nan' in page.render()


def test_dead_relu(drawn):
    found = broken(drawn, lambda model: model.rpn_head.rpn_conv.bias.fill_(-1000))
    assert matches(found, 'dead ReLU layer', 'rpn_head.rpn_conv')
    assert matches(found, 'No gradient reaches backbone.conv1') == []  # the second stage still trains it
    half = broken(drawn, lambda model: model.roi_head.bbox_head.shared_fcs[0].bias[:200].fill_(-1000))
    assert matches(half, '200 of 256 channels of roi_head.bbox_head.shared_fcs.0')


def test_noise_and_large_updates(drawn):
    found = broken(drawn, lambda model: model.neck.lateral_convs[3].bn.weight.mul_(1000))
    assert matches(found, 'noisy', 'neck.lateral_convs.3')
    found = broken(drawn, **{'optim_wrapper.optimizer.lr': 100.0, 'optim_wrapper.clip_grad': None})
    assert matches(found, 'full learning rate 100', 'bbox_head.fc_')


def test_untouched_frozen_norm(coco_root):
    page, _ = inspect_step(coco_config(coco_root))
    assert matches(page.warnings, 'FrozenBN is untouched')


def test_weights_are_named(drawn, tmp_path):
    model = prepare(shapes_config(drawn), None, [], 1).model
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'a.pth')
    page, record = inspect_step(shapes_config(drawn), checkpoint=str(tmp_path / 'a.pth'))
    assert page.facts['weights'] == f'the checkpoint {tmp_path}/a.pth'
    assert page.warnings == []
    other = prepare(shapes_config(drawn), str(tmp_path / 'a.pth'), [], 2).model
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_model(drawn, tmp_path):
    torch.save({'state_dict': {'head.weight': torch.zeros(3)}}, tmp_path / 'b.pth')
    with pytest.raises(CheckpointError, match='does not fit FasterRCNN'):
        inspect_step(shapes_config(drawn), checkpoint=str(tmp_path / 'b.pth'))


def test_an_unknown_image(drawn):
    with pytest.raises(DataError, match='No image 7, x among the 4 of train_dataloader, whose ids begin 1, 2'):
        inspect_step(shapes_config(drawn), images=['1', '7', 'x'])


def test_a_model_that_is_not_mmengines(drawn):
    cfg = shapes_config(drawn)
    cfg.model = dict(type=torch.nn.Identity)
    with pytest.raises(ConfigError, match='Identity.* is no BaseModel of MMEngine'):
        inspect_step(cfg)


def test_a_config_that_does_not_train(drawn):
    cfg = shapes_config(drawn)
    cfg.train_dataloader = None
    with pytest.raises(ConfigError, match='no train_dataloader'):
        inspect_step(cfg)


def test_no_data(drawn, monkeypatch):
    cfg = shapes_config(drawn)
    cfg.train_dataloader.dataset.filter_cfg = dict(min_size=5000)
    with pytest.raises(DataError, match='0 of 4 images'):
        inspect_step(cfg)
    cfg = shapes_config(drawn)
    monkeypatch.setattr(CocoDataset, '__len__', lambda self: 0)
    with pytest.raises(DataError, match='The data of train_dataloader are empty'):
        inspect_step(cfg)
