"""Steps of detectors that are not made as Faster R-CNN."""

import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

from frdet.config import load_config
from frdet.datasets.shapes import write_shapes
from frdet.errors import CheckpointError, ConfigError
from frdet.insight.flops import unwrapped
from frdet.insight.step import inspect_step, prepare
from frdet.insight.step.layers import LayerStats, layers_to_watch
from frdet.insight.step.recording import record_step
from frdet.models.dense_heads import rpn_head
from frdet.models.layers import ConvNorm
from frdet.models.task_modules.selection import select_proposals
from frdet.registry import DETECTORS
from tests.engine import toy
from tests.insight import families
from tests.insight.step.steps import ROOT, anchors_by_hand, shapes_config, table

SMALL = {'train_dataloader.dataset.pipeline.1.short_side': 64}
EVERY = ['The parts', 'Losses', 'Activations and weights', 'Gradients and update']


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=4, num_val=2)


def titles(page):
    return [section.title for section in page.sections]


def test_one_stage(drawn):
    page, record = inspect_step(families.one_stage(shapes_config(drawn, **SMALL)), images=['1', '2'])
    assert titles(page) == ['The parts', 'Data', 'Anchors and their matches', *EVERY[1:]]
    reason = 'no part proposes boxes by select_proposals'
    assert record.not_shown.startswith(f'Objectness and proposals ({reason}); RoIs and their refinement (no part has')
    assert page.facts['not shown'] == record.not_shown
    parts = table(page, 'Parts, parameters')
    assert list(parts) == ['data_preprocessor', 'backbone', 'neck', 'head']
    assert parts['head']['what it is'] == 'Scores of K classes for every anchor; the anchors are the boxes.'
    assert parts['head']['ms'] > 0
    shapes = [tuple(o.shape[1:3]) for o in record.objectness]
    boxes = torch.cat(anchors_by_hand(shapes, [16, 32, 64], [32, 64, 128], [1.0]))
    counted = 0
    for image, sample in enumerate(record.samples):
        iou = box_iou(boxes, sample.gt_instances.bboxes).amax(dim=1)
        row = table(page, 'Anchors by level', image)['all']
        assert (row['positive'], row['negative']) == (int((iou >= 0.5).sum()), int((iou < 0.4).sum()))
        # Nothing is drawn among them: the loss sees all.
        assert (row['sampled positive'], row['sampled negative']) == (row['positive'], row['negative'])
        counted += row['positive'] + row['negative']
    loss = table(page, 'value = weight')['loss_cls']
    assert (loss['terms'], loss['weight'], loss['share']) == (counted, 1.0, '100.0%')
    assert loss['value'] == pytest.approx(loss['sum'] / loss['normaliser'])
    assert table(page, 'What the losses are')['loss_cls'] == {
        'module': 'head.loss_cls', 'type': 'FocalLoss', 'says how wrong is': ''
    }  # fmt: skip
    assert table(page, 'Numbers that are logged')['num_pos']['what it is'] == ''
    assert 'head.fc' in table(page, 'Norms by stage')


def test_an_object_that_no_anchor_of_one_stage_answers_for(drawn):
    cfg = families.one_stage(shapes_config(drawn, **SMALL))
    cfg.model.head.assigner.pos_iou_thr = 0.99
    page, _ = inspect_step(cfg)
    assert any('No anchor matches gt 0' in warning for warning in page.warnings)


def test_box_heads_in_a_list(drawn):
    page, record = inspect_step(families.cascade(shapes_config(drawn, **SMALL)))
    assert titles(page) == ['The parts', 'Data', 'Anchors and their matches', 'Objectness and proposals', *EVERY[1:]]
    assert record.not_shown.startswith('RoIs and their refinement (no part has all of roi_extractor')
    losses = table(page, 'value = weight')
    assert losses['loss_rpn_cls']['normaliser'] == 256
    # Half of what the loss gave: whose number it is the model knows alone.
    assert losses['s1.loss_cls']['normaliser'] is losses['s1.loss_cls']['sum'] is None
    assert losses['total']['value'] == pytest.approx(sum(row['value'] for n, row in losses.items() if n != 'total'))
    stages = table(page, 'Norms by stage')
    assert {'bbox_heads.0.fc_cls', 'bbox_heads.1.fc_cls'} <= set(stages)
    assert any('No gradient reaches bbox_heads.0.fc_reg' in warning for warning in page.warnings)


def family(drawn, name, **changes):
    """The page and the record of a step of one of frdet's families on drawn images."""
    data = {'train_dataloader.dataset.data_root': str(drawn), 'model.backbone.base_channels': 16}
    widths = {'model.neck.in_channels': None, **SMALL, **data, **changes}
    return inspect_step(load_config(ROOT / f'configs/{name}_shapes.py', widths), images=['1', '2'])


def test_mask_rcnn(drawn):
    page, record = family(drawn, 'mask_rcnn/mask_rcnn_r18_fpn')
    losses = table(page, 'value = weight')
    positive = sum(int(rois.positive.sum()) for rois in record.rois)
    assert losses['loss_mask']['terms'] == positive > 0
    assert losses['loss_mask']['normaliser'] == positive * 28 * 28
    words = table(page, 'What the losses are')['loss_mask']
    assert words['says how wrong is'].startswith('inside or outside of the object, for each cell')
    marks = next(b for s in page.sections if s.title == 'Data' for b in s.blocks if b['kind'] == 'picture')['items']
    assert marks and all(mark.outline for mark in marks)


def test_cascade_rcnn(drawn):
    """Boxes of the first stage are shown, and every stage's losses and layers are named."""
    page, record = family(drawn, 'cascade_rcnn/cascade_rcnn_r18_fpn')
    assert not record.absent and len(record.rois) == 2
    kinds = table(page, 'What the losses are')
    said = [kinds[f's{k}.loss_cls']['says how wrong is'] for k in range(3)]
    assert said == ['the class, background among them, of each sampled RoI'] * 3
    logged = table(page, 'Numbers that are logged')
    assert logged['s0.roi_num_pos']['value'] * 2 == sum(int(rois.positive.sum()) for rois in record.rois)
    assert logged['s2.roi_num_pos']['what it is'] == 'positive RoIs an image that were sampled'
    for name in ('roi_head.bbox_head.0.shared_fcs.0', 'roi_head.bbox_head.2.shared_fcs.1'):
        assert table(page, 'Layers')[name]['dead channels'] is not None


def test_hard_examples(drawn):
    """The RoIs that are shown are those that are trained on, though all proposals were pooled to find them."""
    _, record = family(drawn, 'quickstart/r18_fpn', **{'model.roi_head.sampler.type': 'OHEMSampler'})
    assert not record.absent
    for rois, matching in zip(record.rois, record.matched, strict=True):
        sampled = {tuple(box) for box in matching.boxes[matching.sampled].tolist()}
        assert {tuple(box) for box in rois.boxes.tolist()} == sampled and len(rois.boxes) == 64


def test_retinanet(drawn):
    page, record = family(drawn, 'retinanet/retinanet_r18_fpn')
    kinds = table(page, 'What the losses are')
    assert (
        kinds['loss_cls']['says how wrong is'] == 'each class on its own, for each anchor or cell that is not ignored'
    )
    positive = sum(int((matching.label == 1).sum()) for matching in record.anchors)
    # Targets are divided by the number of positives before: no term is lost in rounding.
    assert table(page, 'value = weight')['loss_bbox']['terms'] == positive > 0
    assert table(page, 'Numbers that are logged')['num_pos'] == {
        'value': positive / 2, 'what it is': 'positive anchors or cells an image'
    }  # fmt: skip


def test_a_backbone_in_a_wrapper():
    """The children of the module inside are the stages, and their children the layers."""
    model = nn.Module()
    model.backbone = nn.Module()
    block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()))
    model.backbone.body = nn.ModuleDict({'features': nn.Sequential(nn.Conv2d(3, 3, 1), block)})
    features = 'backbone.body.features'
    assert layers_to_watch(model) == [f'{features}.0', f'{features}.1.0', f'{features}.1.2']
    assert unwrapped('backbone', model.backbone) == (features, model.backbone.body.features)


def test_a_convolution_with_its_norm_is_one_layer():
    """A ReLU follows the norm, so what the convolution gives does not say whether a channel is dead."""
    model = nn.ModuleDict({'neck': ConvNorm(3, 4, 1, norm=dict(type='FrozenBN')), 'head': ConvNorm(3, 4, 1)})
    model['other'] = ConvNorm(3, 4, 1, norm=dict(type='BN'))
    assert layers_to_watch(model) == ['neck', 'head.conv', 'other']


def test_channels_that_are_dead_behind_a_norm():
    """The norm lifts the outputs of the convolution, which are all below 0, above it: no channel is dead."""
    conv = ConvNorm(1, 2, 1, norm=dict(type='BN'))
    nn.init.constant_(conv.conv.weight, -1.0)
    model = nn.ModuleDict({'bbox_head': nn.ModuleDict({'cls_convs': nn.ModuleList([conv])})})
    (name,) = layers_to_watch(model)
    stats = LayerStats()
    with torch.no_grad():
        stats.update(model.get_submodule(name)(torch.rand(1, 1, 8, 8)))
    assert name == 'bbox_head.cls_convs.0' and stats.dead(name) == 0
    conv.bn.bias.data[1] = -100
    stats = LayerStats()
    stats.update(conv(torch.rand(1, 1, 8, 8)))
    assert stats.dead(name) == 1 and stats.dead('neck.fpn_convs.0') is None


def test_fine_tuning_to_other_classes(drawn, tmp_path):
    """``load_from`` has other classes, which training accepts; a checkpoint that is given is the model's own."""
    cfg = shapes_config(drawn, **SMALL)
    cfg.model.backbone.init_cfg = None
    other = shapes_config(drawn, **{'model.backbone.init_cfg': None, 'model.roi_head.bbox_head.num_classes': 2})
    start = DETECTORS.build(other.model)
    torch.save(start.state_dict(), tmp_path / 'start.pth')
    cfg.load_from = str(tmp_path / 'start.pth')
    model = prepare(cfg, None, [], 0).model
    assert torch.equal(model.backbone.conv1.weight.cpu(), start.backbone.conv1.weight)
    assert len(model.roi_head.bbox_head.fc_cls.bias) == 6 + 1
    with pytest.raises(CheckpointError, match='another shape of roi_head.bbox_head.fc_cls'):
        prepare(cfg, cfg.load_from, [], 0)


def test_a_model_of_mmengines(tmp_path):
    """No detector, no image: its losses, layers and updates are shown all the same."""
    page, record = inspect_step(toy.config(tmp_path), images=['100', '101'])
    assert titles(page) == EVERY
    reason = 'the batch is no images with gt_instances'
    assert record.not_shown == (
        f'Data, Anchors and their matches, Objectness and proposals, RoIs and their refinement ({reason})'
    )
    losses = table(page, 'value = weight')
    assert losses['loss_cls']['value'] + losses['loss_bbox']['value'] == pytest.approx(losses['total']['value'])
    assert table(page, 'Numbers that are logged')['acc'] == {'value': 50.0, 'what it is': ''}
    assert list(table(page, 'Norms by stage')) == ['layer.0', 'layer.1', 'layer.2']
    page.render()


def test_one_value_for_a_norm(tmp_path):
    with pytest.raises(ConfigError, match='one value a channel: take more images'):
        inspect_step(toy.config(tmp_path))


def test_nothing_is_patched_during_the_step(drawn):
    """Modules are watched by their hooks; functions of modules of Python stay as they are."""
    prepared = prepare(shapes_config(drawn, **SMALL), None, [], 0)
    seen = []

    def look(module, args):
        assert rpn_head.select_proposals is select_proposals
        assert not [name for m in prepared.model.modules() for name in vars(m) if name in ('forward', 'loss')]
        seen.append(module)

    prepared.model.roi_head.register_forward_pre_hook(look)
    record_step(prepared)
    assert len(seen) == 1
