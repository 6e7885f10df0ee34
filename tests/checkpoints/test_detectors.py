"""A detector's weights mean the same under every project's names."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import (
    FasterRCNN,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    keypointrcnn_resnet50_fpn,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from frdet.checkpoints import LAYOUTS, convert_state_dict, recognise
from frdet.config import load_config
from frdet.errors import CheckpointError
from frdet.registry import DETECTORS
from tests.checkpoints.tiny import COLUMNS, assert_equal, tiny
from tests.models.torchvision_twin import FC_CHANNELS, NUM_CLASSES, frdet_config, to_frdet

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def torchvision_detector(depth):
    """Random everything, the norms' statistics too."""
    model = FasterRCNN(
        resnet_fpn_backbone(backbone_name=f'resnet{depth}', weights=None),
        box_head=TwoMLPHead(256 * 7 * 7, FC_CHANNELS),
        box_predictor=FastRCNNPredictor(FC_CHANNELS, NUM_CLASSES + 1),
    )
    for value in model.state_dict().values():
        value.copy_(torch.randn_like(value))
    # Never trained, and of no effect.
    model.roi_heads.box_predictor.bbox_pred.weight.data[:4] = 0
    model.roi_heads.box_predictor.bbox_pred.bias.data[:4] = 0
    return model


@pytest.fixture(scope='module', params=[18, 50])
def pair(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return request.param, torchvision_detector(request.param)


def test_torchvision_and_back(pair):
    depth, model = pair
    given = model.state_dict()
    ours = convert_state_dict(given)
    assert_equal(ours, to_frdet(given))
    DETECTORS.build(frdet_config(depth)).load_state_dict(ours, strict=True)
    back = convert_state_dict(ours, target='torchvision')
    assert_equal(back, given)
    model.load_state_dict(back, strict=True)


@pytest.mark.parametrize(
    ('build', 'config'),
    [
        (fasterrcnn_resnet50_fpn, 'interop/torchvision_r50_fpn.py'),
        (fasterrcnn_resnet50_fpn_v2, 'interop/torchvision_r50_fpn_v2.py'),
        (fasterrcnn_resnet50_fpn_v2, '_base_/models/faster_rcnn_r50_fpn_v2.py'),
    ],
)
def test_torchvisions_published_shapes(build, config):
    """The models of torchvision's COCO checkpoints: 91 rows, counters of batches, which are dropped."""
    with torch.device('meta'):
        model = build(weights=None, weights_backbone=None)
        ours = DETECTORS.build(load_config(CONFIGS / config).model)
    given = {name: torch.zeros(value.shape) for name, value in model.state_dict().items()}
    state = convert_state_dict(given)
    assert state['backbone.bn1.num_batches_tracked'].shape == ()
    assert state['roi_head.bbox_head.fc_reg.weight'].shape == (360, 1024)
    assert {n: v.shape for n, v in state.items() if 'num_batches_tracked' not in n} == {
        n: v.shape for n, v in ours.state_dict().items()
    }
    back = convert_state_dict(state, target='torchvision')
    assert {n: v.shape for n, v in back.items()} == {
        n: v.shape for n, v in given.items() if 'num_batches_tracked' not in n
    }


def test_old_torchvision_file(pair):
    """Convolutions of FPN and RPN had a name less: torchvision itself still loads such a file."""
    _, model = pair
    given = model.state_dict()
    old = {re.sub(r'(_blocks\.\d)\.0\.|(rpn\.head\.conv)\.0\.0\.', r'\1\2.', name): v for name, v in given.items()}
    assert {'backbone.fpn.inner_blocks.3.weight', 'rpn.head.conv.bias'} <= set(old)
    model.load_state_dict(dict(old), strict=True)
    assert recognise(old) == 'torchvision'
    assert_equal(convert_state_dict(old), convert_state_dict(given))


def detectron2_shapes():
    """Names and shapes of faster_rcnn_R_50_FPN, by detectron2's rule of naming them."""
    shapes = {}

    def conv(name, out_channels, in_channels, size):
        shapes[f'{name}.weight'] = (out_channels, in_channels, size, size)
        for kind in ('weight', 'bias', 'running_mean', 'running_var'):
            shapes[f'{name}.norm.{kind}'] = (out_channels,)

    def biased(name, *shape):
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = shape, shape[:1]

    bottom_up = 'backbone.bottom_up'
    conv(f'{bottom_up}.stem.conv1', 64, 3, 7)
    channels = 64
    for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
        width = 64 * 2 ** (stage - 2)
        for block in range(blocks):
            place = f'{bottom_up}.res{stage}.{block}'
            if block == 0:
                conv(f'{place}.shortcut', 4 * width, channels, 1)
            conv(f'{place}.conv1', width, channels, 1)
            conv(f'{place}.conv2', width, width, 3)
            conv(f'{place}.conv3', 4 * width, width, 1)
            channels = 4 * width
        biased(f'backbone.fpn_lateral{stage}', 256, channels, 1, 1)
        biased(f'backbone.fpn_output{stage}', 256, 256, 3, 3)
    biased('proposal_generator.rpn_head.conv', 256, 256, 3, 3)
    biased('proposal_generator.rpn_head.objectness_logits', 3, 256, 1, 1)
    biased('proposal_generator.rpn_head.anchor_deltas', 12, 256, 1, 1)
    biased('roi_heads.box_head.fc1', FC_CHANNELS, 256 * 7 * 7)
    biased('roi_heads.box_head.fc2', FC_CHANNELS, FC_CHANNELS)
    biased('roi_heads.box_predictor.cls_score', NUM_CLASSES + 1, FC_CHANNELS)
    biased('roi_heads.box_predictor.bbox_pred', 4 * NUM_CLASSES, FC_CHANNELS)
    return shapes


def test_detectron2_and_back():
    ours = DETECTORS.build(frdet_config(50)).state_dict()
    theirs = convert_state_dict(ours, target='detectron2')
    expected = detectron2_shapes()
    assert len(expected) == 295
    assert {name: tuple(value.shape) for name, value in theirs.items()} == expected
    buffers = {'pixel_mean': torch.ones(3), 'proposal_generator.anchor_generator.cell_anchors.0': torch.ones(3, 4)}
    assert_equal(convert_state_dict({**theirs, **buffers}), ours)


@pytest.mark.parametrize('depth', [18, 34, 101, 152])
@pytest.mark.parametrize('norm', ['BN', 'GN'])
def test_other_depths_and_norms(depth, norm):
    config = frdet_config(depth)
    config['backbone'].update(norm=dict(type=norm), frozen_stages=-1)
    with torch.device('meta'):
        ours = DETECTORS.build(config).state_dict()
    ours = {name: torch.tensor(float(i)).expand(value.shape) for i, (name, value) in enumerate(ours.items())}
    kept = {name: value for name, value in ours.items() if 'num_batches_tracked' not in name}
    for target in ('detectron2', 'torchvision'):
        assert_equal(convert_state_dict(convert_state_dict(ours, target=target)), kept)
    theirs = convert_state_dict(ours, target='mmdet3')
    gn = {name: re.sub(r'\.bn(\d)\.', r'.gn\1.', name) for name in ours}  # the norm of a shortcut is 1, of any kind
    assert list(theirs) == list(gn.values() if norm == 'GN' else gn)
    assert_equal(convert_state_dict(theirs, source='mmdet3'), ours)


@pytest.mark.parametrize('deep', [False, True])
@pytest.mark.parametrize(('source', 'target'), itertools.product(COLUMNS, repeat=2))
def test_each_to_each_by_hand(source, target, deep):
    """Names, the place of the background, and the rows of its boxes: the tables of ``tiny`` hold both sides."""
    state = tiny(source, deep=deep)
    assert recognise(state) == source
    for given in ('auto', source):
        assert_equal(convert_state_dict(state, source=given, target=target), tiny(target, deep=deep))


@pytest.mark.parametrize(
    'name',
    [
        'rpn.head.conv.0.0.weight',
        'rpn.head.conv.1.0.bias',
        'backbone.fpn.inner_blocks.3.0.weight',
        'backbone.fpn.layer_blocks.2.1.running_var',
        'roi_heads.box_head.0.0.weight',
        'roi_heads.box_head.1.1.bias',
        'roi_heads.box_head.5.weight',
        'roi_heads.box_head.7.bias',
    ],
)
def test_a_parameter_of_a_deep_detector_that_is_missing_or_misshapen_is_named(name):
    state = tiny('torchvision', deep=True)
    wrong = {**state, name: state[name][:-1]}
    del state[name]
    message = refused(state)
    assert f'lacks {name}' in message and 'more' not in message
    message = refused(wrong)
    assert 'do not go together' in message and name.rsplit('.', 1)[0] in message


def test_a_norm_without_a_bias():
    """Though no norm of the file has one."""
    state = {name: value for name, value in tiny(deep=True).items() if not name.endswith('bn.bias')}
    assert 'lacks neck.fpn_convs.0.bn.bias, neck.fpn_convs.1.bn.bias' in refused(state)


def test_background_moves_by_hand():
    converted = convert_state_dict(tiny('frdet'), target='torchvision')
    assert converted['roi_heads.box_predictor.cls_score.bias'].tolist() == [99, 1, 2]
    assert converted['roi_heads.box_predictor.bbox_pred.bias'].tolist() == [0, 0, 0, 0, 10, 11, 12, 13, 20, 21, 22, 23]


@pytest.mark.parametrize('layout', ['mmdet2', 'mmdet3'])
def test_mmdetections_names_are_ours(layout):
    assert_equal(convert_state_dict(tiny(), target=layout), tiny())
    assert_equal(convert_state_dict(tiny(), source=layout, target='detectron2'), tiny('detectron2'))


def test_any_number_of_fcs():
    more = {f'roi_head.bbox_head.shared_fcs.{i}.{kind}': torch.ones(1) for i in (1, 2) for kind in ('weight', 'bias')}
    for target, numbers in (('detectron2', (2, 3)), ('torchvision', (7, 8))):
        names = set(convert_state_dict({**tiny(), **more}, target=target)) - set(tiny(target))
        assert names == {f'roi_heads.box_head.fc{i}.{kind}' for i in numbers for kind in ('weight', 'bias')}


def test_arrays_and_halves_become_float32():
    given = {name: value.numpy().astype(np.float16) for name, value in tiny('detectron2').items()}
    assert_equal(convert_state_dict(given), tiny())


def refused(state, **kwargs):
    with pytest.raises(CheckpointError) as info:
        convert_state_dict(state, name='a.pth', **kwargs)
    message = str(info.value)
    assert message.startswith('a.pth') and len(message.splitlines()) <= 2
    return message


def test_unknown_layouts():
    assert recognise({'blocks.0.attn.qkv.weight': 0}) is None
    message = refused({'blocks.0.attn.qkv.weight': torch.ones(1)})
    assert 'blocks.0.attn.qkv.weight' in message and all(layout in message for layout in LAYOUTS)
    for kwargs in (dict(source='caffe'), dict(target='caffe'), dict(target='auto')):
        with pytest.raises(CheckpointError, match='expected frdet, mmdet2'):
            convert_state_dict(tiny(), **kwargs)


def test_another_layout_than_said():
    assert 'backbone.bottom_up' in refused(tiny('detectron2'), source='torchvision')


@pytest.mark.parametrize(
    ('build', 'words'),
    [
        (keypointrcnn_resnet50_fpn, 'a keypoint head: roi_heads.keypoint_head.0.bias'),
        (ssdlite320_mobilenet_v3_large, ''),
    ],
)
def test_models_of_torchvision_that_do_not_convert(build, words):
    with torch.device('meta'):
        state = build(weights=None, weights_backbone=None).state_dict()
    assert words in refused(state)


@pytest.mark.parametrize(
    ('layout', 'name', 'words'),
    [
        ('detectron2', 'roi_heads.mask_head.coarse_head.reduce_spatial_dim_conv.weight', 'a mask head'),
        ('detectron2', 'sem_seg_head.predictor.weight', 'a head of semantic segmentation'),
        ('torchvision', 'backbone.body.layer2.0.conv2.conv_offset.weight', 'deformable convolutions'),
        ('detectron2', 'roi_heads.keypoint_head.conv_fcn1.weight', 'a keypoint head'),
        ('torchvision', 'roi_heads.box_head.fc5.weight', 'more than'),
        ('frdet', 'roi_head.mask_iou_head.fc_mask_iou.weight', 'a mask head'),
        ('frdet', 'backbone.layer1.0.conv1.scale', 'more than'),
    ],
)
def test_what_is_left_over(layout, name, words):
    message = refused({**tiny(layout), name: torch.ones(1)}, target='detectron2')
    assert layout in message and name in message and words in message


def test_a_detector_without_fpn():
    state = {name: value for name, value in tiny('detectron2').items() if 'fpn' not in name}
    assert 'lacks backbone.fpn_lateral2.weight' in refused(state)


@pytest.mark.parametrize('layout', COLUMNS)
@pytest.mark.parametrize('kind', ['weight', 'bias'])
def test_rows_of_scores_and_boxes(layout, kind):
    """Two classes: 8 rows of boxes, 12 in torchvision."""
    state = tiny(layout)
    (boxes,) = (n for n in state if n.endswith((f'fc_reg.{kind}', f'roi_heads.box_predictor.bbox_pred.{kind}')))
    state[boxes] = state[boxes][:-1]
    rows, expected = ('11', '12') if layout == 'torchvision' else ('7', '4 or 8')
    assert f'{boxes} has {rows} rows; expected {expected} for 2 classes' in refused(state)


def test_one_box_for_all_classes():
    state = tiny()
    for kind in ('weight', 'bias'):
        state[f'roi_head.bbox_head.fc_reg.{kind}'] = state[f'roi_head.bbox_head.fc_reg.{kind}'][:4]
    assert_equal(convert_state_dict(convert_state_dict(state, target='detectron2')), state)
    assert 'one box for all classes' in refused(state, target='torchvision')


@pytest.mark.parametrize(
    'name',
    [
        'proposal_generator.rpn_head.anchor_deltas.bias',
        'backbone.fpn_output4.weight',
        'roi_heads.box_head.fc2.bias',
        'backbone.bottom_up.res4.3.conv2.weight',
        'backbone.bottom_up.res4.3.conv2.norm.running_var',
        'backbone.bottom_up.res3.0.shortcut.norm.bias',
    ],
)
def test_a_parameter_that_is_missing_or_misshapen_is_named(name):
    """Of a whole R50-FPN under detectron2's names; every other parameter is the shape it should be."""
    state = {other: torch.zeros(shape) for other, shape in detectron2_shapes().items()}
    wrong = {**state, name: state[name][:-1]}
    del state[name]
    message = refused(state)
    assert f'lacks {name}' in message and 'more' not in message
    message = refused(wrong)
    assert 'do not go together' in message and name.rsplit('.', 1)[0] in message


def test_deformable_convolutions():
    """DCNv2 in all blocks of res3 to res5, as detectron2's DEFORM_ON_PER_STAGE has it: 27 offsets and masks each."""
    state = {name: torch.zeros(shape) for name, shape in detectron2_shapes().items()}
    blocks = [f'backbone.bottom_up.res{stage}.{i}' for stage, count in ((3, 4), (4, 6), (5, 3)) for i in range(count)]
    for block in blocks:
        state[f'{block}.conv2_offset.weight'] = torch.ones(27, state[f'{block}.conv2.weight'].shape[1], 3, 3)
        state[f'{block}.conv2_offset.bias'] = torch.ones(27)
    ours = convert_state_dict(state)
    assert ours['backbone.layer3.5.conv2.conv_offset.weight'].shape == (27, 256, 3, 3)
    assert_equal(convert_state_dict(ours, target='detectron2'), state)
    assert 'torchvision does not have: backbone.layer2.0.conv2.conv_offset.weight' in refused(
        ours, target='torchvision'
    )
    del state['backbone.bottom_up.res4.3.conv2_offset.bias']
    assert 'lacks backbone.bottom_up.res4.3.conv2_offset.bias' in refused(state)


def test_a_block_that_is_missing():
    state = {name: torch.zeros(shape) for name, shape in detectron2_shapes().items() if '.res4.3.' not in name}
    message = refused(state)
    assert 'lacks backbone.bottom_up.res4.3.conv1.norm.bias' in message and 'and 12 more' in message
