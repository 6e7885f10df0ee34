"""RetinaNet, FCOS, Cascade and Mask R-CNN under every project's names.

torchvision's names and shapes are those of its models. detectron2's and MMDetection's are written out as their code
names them. Values are chosen so that each row of a layer tells its class and anchor.
"""

import re

import pytest
import torch
from torchvision.models import detection

from frdet.checkpoints import convert_state_dict, map_coco_classes, recognise
from frdet.checkpoints.converting import layout_of
from frdet.checkpoints.families import family_name, identify, in_words
from frdet.checkpoints.rows import USED, num_classes
from frdet.errors import CheckpointError
from tests.checkpoints.tiny import assert_equal, tiny

BOTH, NORM = ('weight', 'bias'), ('weight', 'bias', 'running_mean', 'running_var')
#: frdet, detectron2 and torchvision: the layers of one stage above the backbone.
PYRAMID = (
    ('neck.lateral_convs.0.conv', 'backbone.fpn_lateral3', 'backbone.fpn.inner_blocks.0.0'),
    ('neck.lateral_convs.1.conv', 'backbone.fpn_lateral4', 'backbone.fpn.inner_blocks.1.0'),
    ('neck.lateral_convs.2.conv', 'backbone.fpn_lateral5', 'backbone.fpn.inner_blocks.2.0'),
    ('neck.fpn_convs.0.conv', 'backbone.fpn_output3', 'backbone.fpn.layer_blocks.0.0'),
    ('neck.fpn_convs.1.conv', 'backbone.fpn_output4', 'backbone.fpn.layer_blocks.1.0'),
    ('neck.fpn_convs.2.conv', 'backbone.fpn_output5', 'backbone.fpn.layer_blocks.2.0'),
    ('neck.fpn_convs.3.conv', 'backbone.top_block.p6', 'backbone.fpn.extra_blocks.p6'),
    ('neck.fpn_convs.4.conv', 'backbone.top_block.p7', 'backbone.fpn.extra_blocks.p7'),
)
BACKBONE = (
    ('backbone.conv1.weight', 'backbone.bottom_up.stem.conv1.weight', 'backbone.body.conv1.weight'),
    ('backbone.bn1.bias', 'backbone.bottom_up.stem.conv1.norm.bias', 'backbone.body.bn1.bias'),
    ('backbone.bn1.running_mean', 'backbone.bottom_up.stem.conv1.norm.running_mean', 'backbone.body.bn1.running_mean'),
)
CLS, REG = 'head.classification_head', 'head.regression_head'
RETINA_TOWERS = (
    *((f'bbox_head.cls_convs.{i}.conv', f'head.cls_subnet.{2 * i}', f'{CLS}.conv.{i}.0') for i in range(4)),
    *((f'bbox_head.reg_convs.{i}.conv', f'head.bbox_subnet.{2 * i}', f'{REG}.conv.{i}.0') for i in range(4)),
)
#: With norms detectron2 and FCOS count three layers for each convolution.
FCOS_TOWERS = (
    *((f'bbox_head.cls_convs.{i}.conv', f'head.cls_subnet.{3 * i}', f'{CLS}.conv.{3 * i}') for i in range(4)),
    *((f'bbox_head.cls_convs.{i}.bn', f'head.cls_subnet.{3 * i + 1}', f'{CLS}.conv.{3 * i + 1}') for i in range(4)),
    *((f'bbox_head.reg_convs.{i}.conv', f'head.bbox_subnet.{3 * i}', f'{REG}.conv.{3 * i}') for i in range(4)),
    *((f'bbox_head.reg_convs.{i}.bn', f'head.bbox_subnet.{3 * i + 1}', f'{REG}.conv.{3 * i + 1}') for i in range(4)),
)
COLUMNS = ('frdet', 'detectron2', 'torchvision')
#: Anchors as (size, ratio): (0, 0), (0, 1), ... in frdet and detectron2; (0, 0), (1, 0), ... in the others.
BY_SIZE = [(size, ratio) for size in range(3) for ratio in range(3)]
BY_RATIO = [(size, ratio) for ratio in range(3) for size in range(3)]


def one_stage(layout, classes=2, fcos=False):
    """Scores of class k are 100 size + 10 ratio + k + 1, those of no class -100 or 0. Box values have i for k + 1."""
    column = COLUMNS.index('frdet' if layout.startswith('mmdet') else layout)
    names = [row[column] for row in BACKBONE]
    names += [f'{row[column]}.{kind}' for row in PYRAMID + (FCOS_TOWERS if fcos else RETINA_TOWERS) for kind in BOTH]
    state = {name: torch.full((2, 3, 1, 1), float(number)) for number, name in enumerate(names)}
    if layout.startswith('mmdet'):
        state = {name.replace('.bn.', '.gn.'): value for name, value in state.items()}
    anchors = [(0, 0)] if fcos else BY_RATIO if layout in ('torchvision', 'mmdet2', 'mmdet3') else BY_SIZE
    output = ('bbox_head.conv_cls', 'bbox_head.conv_reg') if fcos else ('bbox_head.retina_cls', 'bbox_head.retina_reg')
    cls, reg = (output, ('head.cls_score', 'head.bbox_pred'), (f'{CLS}.cls_logits', f'{REG}.bbox_reg'))[column]
    nothing = {'weight': 0.0, 'bias': -100.0}
    for kind in BOTH:
        shape = (-1, 1, 1, 1) if kind == 'weight' else (-1,)
        scores, boxes = [], []
        for size, ratio in anchors:
            scores += [nothing[kind]] if layout == 'torchvision' else []
            scores += [100.0 * size + 10 * ratio + k + 1 for k in range(classes)]
            boxes += [100.0 * size + 10 * ratio + i for i in range(4)]
        state[f'{cls}.{kind}'], state[f'{reg}.{kind}'] = (torch.tensor(v).view(shape) for v in (scores, boxes))
        if fcos:
            centre = ('bbox_head.conv_centerness', 'head.ctrness', f'{REG}.bbox_ctrness')[column]
            state[f'{centre}.{kind}'] = torch.tensor([7.0]).view(shape)
    return state


MASK = (
    *(
        (f'roi_head.mask_head.convs.{i}.conv', f'roi_heads.mask_head.mask_fcn{i + 1}', f'roi_heads.mask_head.{i}.0')
        for i in range(4)
    ),
    ('roi_head.mask_head.upsample', 'roi_heads.mask_head.deconv', 'roi_heads.mask_predictor.conv5_mask'),
)
LOGITS = (
    'roi_head.mask_head.conv_logits',
    'roi_heads.mask_head.predictor',
    'roi_heads.mask_predictor.mask_fcn_logits',
)


def with_masks(state, layout, classes=2):
    """Mask logits of class k are 10 (k + 1), those of torchvision's background 0."""
    column = COLUMNS.index('frdet' if layout.startswith('mmdet') else layout)
    state = {**state, **{f'{row[column]}.{kind}': torch.full((2, 3, 2, 2), 5.0) for row in MASK for kind in BOTH}}
    logits = [0.0] * (layout == 'torchvision') + [10.0 * (k + 1) for k in range(classes)]
    for kind in BOTH:
        shape = (-1, 1, 1, 1) if kind == 'weight' else (-1,)
        state[f'{LOGITS[column]}.{kind}'] = torch.tensor(logits).view(shape)
    return state


def cascade(layout):
    """Three stages with different values and one box for all classes; torchvision has no cascade."""
    ours = layout != 'detectron2'
    state = {}
    for name, value in tiny(layout).items():
        if match := re.fullmatch(r'(roi_head\.bbox_head|roi_heads\.box_head|roi_heads\.box_predictor)\.(.*)', name):
            for stage in range(3):
                rows = value[:4] if name.rpartition('.')[0].endswith('fc_reg' if ours else 'bbox_pred') else value
                state[f'{match[1]}.{stage}.{match[2]}'] = rows + 1000 * stage
        else:
            state[name] = value
    return state


CASES = {
    'RetinaNet': lambda layout: one_stage(layout),
    'FCOS': lambda layout: one_stage(layout, fcos=True),
    'Mask R-CNN': lambda layout: with_masks(tiny(layout), layout),
    'Cascade R-CNN': cascade,
    'Cascade Mask R-CNN': lambda layout: with_masks(cascade(layout), layout),
}


@pytest.mark.parametrize('target', ['frdet', 'mmdet3', 'detectron2', 'torchvision'])
@pytest.mark.parametrize('source', ['frdet', 'mmdet2', 'detectron2', 'torchvision'])
@pytest.mark.parametrize('family', CASES)
def test_each_to_each_by_hand(family, source, target):
    make = CASES[family]
    if 'Cascade' in family and 'torchvision' in (source, target):
        return
    ours = {'mmdet2': 'frdet', 'mmdet3': 'frdet'}
    if family.endswith('R-CNN'):  # without GroupNorm and with one size of anchors MMDetection's files are ours
        source, target = ours.get(source, source), ours.get(target, target)
    state = make(source)
    layout, kind = identify(convert_state_dict(state, source=source))
    assert (layout, in_words(kind, state)) == ('frdet', 'an FCOS' if family == 'FCOS' else f'a {family}')
    assert_equal(convert_state_dict(state, source=source, target=target), make(target))


@pytest.mark.parametrize('family', CASES)
def test_recognised(family):
    for layout in COLUMNS:
        if not ('Cascade' in family and layout == 'torchvision'):
            state = CASES[family](layout)
            assert recognise(state) == layout
            assert_equal(convert_state_dict(state), CASES[family]('frdet'))


@pytest.mark.parametrize(
    ('name', 'family', 'number'),
    [
        ('retinanet_resnet50_fpn', 'RetinaNet', 9 * 90),
        ('retinanet_resnet50_fpn_v2', 'RetinaNet', 9 * 90),
        ('fcos_resnet50_fpn', 'FCOS', 90),
        ('maskrcnn_resnet50_fpn', 'Mask R-CNN', 90),
        ('maskrcnn_resnet50_fpn_v2', 'Mask R-CNN', 90),
    ],
)
def test_torchvisions_published_names(name, family, number):
    """Of the models of torchvision's COCO checkpoints, with 91 classes. Counters of batches are dropped on the way."""
    with torch.device('meta'):
        model = getattr(detection, name)(weights=None, weights_backbone=None)
    given = {}
    for i, (key, value) in enumerate(model.state_dict().items()):
        rows = torch.arange(value.shape[0]) + 1000.0 * i if value.dim() else torch.tensor(5)
        given[key] = rows.view(-1, *[1] * (value.dim() - 1)).expand(value.shape) if value.dim() else rows
    state = convert_state_dict(given)
    assert family_name(state) == family and num_classes(state) == 90
    (layer,) = {'retina_cls', 'conv_cls', 'conv_logits'} & {key.split('.')[-2] for key in state}
    assert [len(v) for key, v in state.items() if key.endswith(f'{layer}.bias')] == [number]
    back = convert_state_dict(state, target='torchvision')
    kept = {key: value for key, value in given.items() if 'num_batches_tracked' not in key}
    assert sorted(back) == sorted(kept)
    for key, value in kept.items():
        rows = value.shape[0] // 91
        if key.split('.')[-2] in ('cls_logits', 'mask_fcn_logits', 'bbox_pred') and value.shape[0] % 91 == 0:
            anchors = rows if layer == 'retina_cls' else 1
            value, back[key] = (v.unflatten(0, (anchors, 91, -1))[:, 1:] for v in (value, back[key]))
        assert torch.equal(back[key], value), key
    model.load_state_dict({**given, **convert_state_dict(state, target='torchvision')}, strict=True, assign=True)


def test_names_that_torchvision_wrote_before():
    """Each file still loads into torchvision's own model, which renames what has no version."""
    with torch.device('meta'):
        models = [detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None),
                  detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)]  # fmt: skip
    for model in models:
        given = {key: torch.zeros(()).expand(value.shape) for key, value in model.state_dict().items()}
        old = {}
        for key, value in given.items():
            key = re.sub(r'(_blocks\.\d)\.0\.|(rpn\.head\.conv)\.0\.0\.', r'\1\2.', key)
            key = re.sub(r'(_head\.conv)\.(\d)\.0\.', lambda m: f'{m[1]}.{2 * int(m[2])}.', key)
            key = re.sub(r'mask_head\.(\d)\.0\.', lambda m: f'mask_head.mask_fcn{int(m[1]) + 1}.', key)
            old[key] = value
        assert {'head.classification_head.conv.6.bias', 'roi_heads.mask_head.mask_fcn4.bias'} & set(old)
        model.load_state_dict(dict(old), strict=True, assign=True)
        assert convert_state_dict(old).keys() == convert_state_dict(given).keys()


def test_norms_of_detectron2s_retinanet():
    """Its second layer of a tower is then a norm: 0, 3, 6 and 9 are the convolutions."""
    norms = {f'bbox_head.{part}_convs.{i}.bn.{kind}': torch.full((2,), 9.0)
             for part in ('cls', 'reg') for i in range(4) for kind in BOTH}  # fmt: skip
    ours = {**one_stage('frdet'), **norms}
    theirs = convert_state_dict(ours, target='detectron2')
    subnet = sorted(int(name.split('.')[2]) for name in theirs if re.fullmatch(r'head\.cls_subnet\..*weight', name))
    assert subnet == [0, 1, 3, 4, 6, 7, 9, 10]
    assert theirs['head.bbox_subnet.10.bias'].tolist() == [9, 9]
    assert_equal(convert_state_dict(theirs), ours)


def test_norms_in_mask_heads():
    """BatchNorm as in maskrcnn_resnet50_fpn_v2, GroupNorm as in detectron2's mask_rcnn_R_50_FPN_3x_gn."""
    norms = {f'roi_head.mask_head.convs.{i}.bn.{kind}': torch.ones(2) for i in range(4) for kind in NORM}
    ours = {name: v for name, v in with_masks(tiny(), 'frdet').items() if not re.search(r'mask.*\d\.conv\.bias', name)}
    ours |= norms
    theirs = convert_state_dict(ours, target='detectron2')
    assert {f'roi_heads.mask_head.mask_fcn4.norm.{kind}' for kind in NORM} <= set(theirs)
    assert_equal(convert_state_dict(theirs), ours)
    theirs = convert_state_dict(ours, target='torchvision')
    assert {f'roi_heads.mask_head.3.1.{kind}' for kind in NORM} <= set(theirs)
    assert_equal(convert_state_dict(theirs), ours)
    grouped = {name: value for name, value in ours.items() if 'mask' not in name or 'running' not in name}
    theirs = convert_state_dict(grouped, target='mmdet3')
    assert {'roi_head.mask_head.convs.0.gn.weight', 'backbone.bn1.bias'} <= set(theirs)


def test_mmdetection_says_gn_and_once_said_fcos_cls():
    state = one_stage('mmdet2', fcos=True)
    assert 'bbox_head.reg_convs.3.gn.weight' in state
    old = {name.replace('bbox_head.conv_', 'bbox_head.fcos_'): value for name, value in state.items()}
    assert recognise(old) == 'frdet'
    assert_equal(convert_state_dict(old), one_stage('frdet', fcos=True))


def test_learned_scales_of_fcos():
    """MMDetection has one for each level, the others have none."""
    state = {**one_stage('frdet', fcos=True), **{f'bbox_head.scales.{i}.scale': torch.tensor(1.5) for i in range(5)}}
    assert_equal(convert_state_dict(convert_state_dict(state, target='mmdet3'), source='mmdet3'), state)
    with pytest.raises(CheckpointError, match=r'torchvision does not have: bbox_head\.scales\.0\.scale'):
        convert_state_dict(state, target='torchvision')


def test_a_path_aggregation_network():
    """MMDetection's PAFPN has two more convolutions a level, here with GroupNorm in all of the neck."""
    kinds = ('conv.weight', 'bn.weight', 'bn.bias')
    counts = {'lateral': 4, 'fpn': 4, 'downsample': 3, 'pafpn': 3}
    layers = [f'neck.{part}_convs.{i}' for part, count in counts.items() for i in range(count)]
    neck = {f'{layer}.{kind}': torch.full((2,), 4.0) for layer in layers for kind in kinds}
    state = {**{name: value for name, value in tiny().items() if not name.startswith('neck.')}, **neck}
    theirs = convert_state_dict(state, target='mmdet3')
    assert 'neck.pafpn_convs.2.gn.bias' in theirs
    assert_equal(convert_state_dict(theirs), state)
    with pytest.raises(CheckpointError, match=r'detectron2 does not have: neck\.downsample_convs\.0'):
        convert_state_dict(state, target='detectron2')
    del state['neck.pafpn_convs.1.conv.weight']
    with pytest.raises(CheckpointError, match=r'lacks neck\.pafpn_convs\.1\.conv\.weight$'):
        convert_state_dict(state)


def test_a_mask_head_for_each_stage():
    """As MMDetection's Cascade Mask R-CNN has; detectron2's has one."""
    state = cascade('frdet')
    for name, value in with_masks({}, 'frdet').items():
        state |= {name.replace('mask_head.', f'mask_head.{stage}.'): value for stage in range(3)}
    assert_equal(convert_state_dict(state, target='mmdet2'), state)
    with pytest.raises(CheckpointError, match=r'Cascade Mask R-CNN .*detectron2 does not have: roi_head\.mask_head\.0'):
        convert_state_dict(state, target='detectron2')
    del state['roi_head.mask_head.2.upsample.weight']
    with pytest.raises(CheckpointError, match=r'lacks roi_head\.mask_head\.2\.upsample\.weight$'):
        convert_state_dict(state)


@pytest.mark.parametrize(
    ('family', 'layout', 'name'),
    [
        ('RetinaNet', 'detectron2', 'head.bbox_subnet.4.weight'),
        ('RetinaNet', 'torchvision', 'head.classification_head.conv.3.0.bias'),
        ('RetinaNet', 'detectron2', 'backbone.top_block.p7.bias'),
        ('FCOS', 'torchvision', 'head.regression_head.conv.4.weight'),
        ('FCOS', 'torchvision', 'head.regression_head.conv.0.bias'),
        ('FCOS', 'detectron2', 'head.ctrness.bias'),
        ('Mask R-CNN', 'torchvision', 'roi_heads.mask_head.2.0.bias'),
        ('Mask R-CNN', 'detectron2', 'roi_heads.mask_head.deconv.bias'),
        ('Cascade R-CNN', 'detectron2', 'roi_heads.box_head.1.fc1.bias'),
        ('Cascade Mask R-CNN', 'frdet', 'roi_head.bbox_head.2.fc_reg.weight'),
    ],
)
def test_a_parameter_that_is_missing_is_named(family, layout, name):
    state = CASES[family](layout)
    del state[name]
    with pytest.raises(CheckpointError, match=rf'a\.pth .*lacks {re.escape(name)}$'):
        convert_state_dict(state, name='a.pth')


def test_a_stage_that_lacks_what_the_others_have():
    state = {name: value for name, value in cascade('detectron2').items() if '.1.fc1.' not in name}
    with pytest.raises(CheckpointError, match=r'lacks roi_heads\.box_head\.1\.fc1\.bias, .*1\.fc1\.weight$'):
        convert_state_dict(state)
    state = {name: value for name, value in cascade('frdet').items() if 'bbox_head.1.' not in name}
    with pytest.raises(CheckpointError, match=r'lacks roi_head\.bbox_head\.1\.fc_cls\.bias, .* and 3 more'):
        convert_state_dict(state)


def test_a_tower_that_is_missing():
    state = {name: value for name, value in one_stage('detectron2').items() if 'bbox_subnet' not in name}
    with pytest.raises(CheckpointError, match=r'lacks head\.bbox_subnet\.0\.bias, .* and 5 more'):
        convert_state_dict(state)


@pytest.mark.parametrize(
    ('family', 'layout', 'name', 'words'),
    [
        ('RetinaNet', 'detectron2', 'head.cls_score.bias', '17 rows; expected 18 for 2 classes'),
        ('RetinaNet', 'torchvision', f'{CLS}.cls_logits.weight', '26 rows; expected'),
        ('FCOS', 'torchvision', f'{CLS}.cls_logits.bias', '2 rows; expected 3 for 2 classes'),
        ('Mask R-CNN', 'torchvision', 'roi_heads.mask_predictor.mask_fcn_logits.bias', '2 rows; expected 3'),
        ('Cascade R-CNN', 'detectron2', 'roi_heads.box_predictor.2.cls_score.weight', '2 rows; expected 3'),
    ],
)
def test_rows_that_contradict_each_other(family, layout, name, words):
    state = CASES[family](layout)
    state[name] = state[name][:-1]
    with pytest.raises(CheckpointError, match=words):
        convert_state_dict(state)


def test_torchvision_has_no_cascade_and_no_shared_masks():
    with pytest.raises(CheckpointError, match='holds a Cascade R-CNN with parameters that torchvision does not have'):
        convert_state_dict(cascade('frdet'), target='torchvision')
    state = with_masks(tiny(), 'frdet', classes=1)
    assert_equal(convert_state_dict(convert_state_dict(state, target='detectron2')), state)
    with pytest.raises(CheckpointError, match='has one mask for all classes'):
        convert_state_dict(state, target='torchvision')


@pytest.mark.parametrize(('anchors', 'refused'), [(1, False), (3, False), (4, True), (5, False), (6, False)])
def test_anchors_of_another_number(anchors, refused):
    """Of six, two are taken for the sizes; of four, one cannot tell."""
    state = one_stage('frdet')
    for kind in BOTH:
        cls, reg = (state[f'bbox_head.retina_{part}.{kind}'] for part in ('cls', 'reg'))
        state |= {
            f'bbox_head.retina_cls.{kind}': cls[: 2 * anchors],
            f'bbox_head.retina_reg.{kind}': reg[: 4 * anchors],
        }
    if refused:
        with pytest.raises(CheckpointError, match='8 rows for 4 anchors a cell'):
            convert_state_dict(state, target='torchvision')
        assert_equal(convert_state_dict(convert_state_dict(state, target='detectron2')), state)
    else:
        theirs = convert_state_dict(state, target='torchvision')
        assert_equal(convert_state_dict(theirs), state)
        if anchors == 6:  # (0, 0), (1, 0), (0, 1), ...
            assert theirs[f'{REG}.bbox_reg.bias'][::4].tolist() == [0, 100, 10, 110, 20, 120]


@pytest.mark.parametrize('fcos', [False, True])
def test_coco_classes_of_one_stage(fcos):
    """Class k of 90 has a score that ends in its category id k + 1. A logit of -100 is a probability of 0."""
    layer = 'bbox_head.conv_cls' if fcos else 'bbox_head.retina_cls'
    anchors = [(0, 0)] if fcos else BY_SIZE
    state = one_stage('frdet', classes=90, fcos=fcos)
    mapped = map_coco_classes(state, 80)
    expected = [100 * s + 10 * r + k + 1 for s, r in anchors for k in USED]
    assert mapped[f'{layer}.bias'].tolist() == expected and num_classes(mapped) == 80
    back = map_coco_classes(mapped, 90)
    rows, given = (one[f'{layer}.bias'].view(len(anchors), 90) for one in (back, state))
    unused = [k for k in range(90) if k not in USED]
    assert rows[:, unused].eq(-100).all() and rows[:, USED].equal(given[:, USED])
    assert back[f'{layer}.weight'].view(len(anchors), 90)[:, unused].eq(0).all()
    assert_equal(map_coco_classes(back, 80), mapped)
    untouched = [name for name in state if not name.startswith(layer)]
    assert all(mapped[name] is state[name] for name in untouched)


def test_coco_classes_of_masks():
    mapped = map_coco_classes(with_masks(tiny(classes=90), 'frdet', classes=90), 80)
    assert mapped['roi_head.mask_head.conv_logits.bias'].tolist() == [10 * (k + 1) for k in USED]
    back = map_coco_classes(mapped, 90)['roi_head.mask_head.conv_logits.bias']
    assert back[11] == 0 and back[12] == 130
    shared = with_masks(tiny(classes=90), 'frdet', classes=1)
    assert map_coco_classes(shared, 80)['roi_head.mask_head.conv_logits.weight'].shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ('meta', 'layout'),
    [
        ({}, 'frdet'),
        ({'mmdet_version': '2.28.2', 'CLASSES': ('cat', 'dog')}, 'mmdet2'),
        ({'cfg': "default_scope = 'mmdet'\nmodel = dict()\n", 'mmengine_version': '0.10.7'}, 'mmdet3'),
        ({'cfg': "default_scope = 'frdet'\n"}, 'frdet'),
        ({'layout': 'mmdet3'}, 'mmdet3'),
        (None, 'frdet'),
    ],
)
def test_files_of_mmdetection_are_known_by_what_they_say(meta, layout):
    """Their names are those of frdet, but the order of a RetinaNet's anchors is another one."""
    assert layout_of({'meta': meta}, one_stage('frdet')) == layout
    assert layout_of({'meta': meta}, one_stage('detectron2')) == 'detectron2'
    assert layout_of({'meta': {}}, one_stage('mmdet2', fcos=True)) == 'mmdet3'  # by its GroupNorms
