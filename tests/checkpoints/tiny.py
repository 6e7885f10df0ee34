"""State dicts of a few numbers with all that makes a Faster R-CNN in each layout, their names written by hand."""

import torch

KINDS = ('weight', 'bias')
#: frdet, detectron2, torchvision: one convolution and norm of the ResNet, and everything above it.
LAYERS = (
    ('rpn_head.rpn_conv', 'proposal_generator.rpn_head.conv', 'rpn.head.conv.0.0'),
    ('rpn_head.rpn_cls', 'proposal_generator.rpn_head.objectness_logits', 'rpn.head.cls_logits'),
    ('rpn_head.rpn_reg', 'proposal_generator.rpn_head.anchor_deltas', 'rpn.head.bbox_pred'),
    ('roi_head.bbox_head.shared_fcs.0', 'roi_heads.box_head.fc1', 'roi_heads.box_head.fc6'),
    ('neck.lateral_convs.0.conv', 'backbone.fpn_lateral2', 'backbone.fpn.inner_blocks.0.0'),
    ('neck.lateral_convs.1.conv', 'backbone.fpn_lateral3', 'backbone.fpn.inner_blocks.1.0'),
    ('neck.lateral_convs.2.conv', 'backbone.fpn_lateral4', 'backbone.fpn.inner_blocks.2.0'),
    ('neck.lateral_convs.3.conv', 'backbone.fpn_lateral5', 'backbone.fpn.inner_blocks.3.0'),
    ('neck.fpn_convs.0.conv', 'backbone.fpn_output2', 'backbone.fpn.layer_blocks.0.0'),
    ('neck.fpn_convs.1.conv', 'backbone.fpn_output3', 'backbone.fpn.layer_blocks.1.0'),
    ('neck.fpn_convs.2.conv', 'backbone.fpn_output4', 'backbone.fpn.layer_blocks.2.0'),
    ('neck.fpn_convs.3.conv', 'backbone.fpn_output5', 'backbone.fpn.layer_blocks.3.0'),
)
#: Two convolutions in the RPN, and four with norms in the box head. Under torchvision's names the flattening is 4.
DEEP = (
    ('rpn_head.rpn_conv.0.conv', 'proposal_generator.rpn_head.conv.conv0', 'rpn.head.conv.0.0'),
    ('rpn_head.rpn_conv.1.conv', 'proposal_generator.rpn_head.conv.conv1', 'rpn.head.conv.1.0'),
    *LAYERS[1:3],
    ('roi_head.bbox_head.shared_fcs.0', 'roi_heads.box_head.fc1', 'roi_heads.box_head.5'),
    ('roi_head.bbox_head.shared_fcs.1', 'roi_heads.box_head.fc2', 'roi_heads.box_head.7'),
)
#: Convolutions without a bias, and their norms.
NORMED = (
    ('neck.lateral_convs.0', 'backbone.fpn_lateral2', 'backbone.fpn.inner_blocks.0'),
    ('neck.lateral_convs.1', 'backbone.fpn_lateral3', 'backbone.fpn.inner_blocks.1'),
    ('neck.lateral_convs.2', 'backbone.fpn_lateral4', 'backbone.fpn.inner_blocks.2'),
    ('neck.lateral_convs.3', 'backbone.fpn_lateral5', 'backbone.fpn.inner_blocks.3'),
    ('neck.fpn_convs.0', 'backbone.fpn_output2', 'backbone.fpn.layer_blocks.0'),
    ('neck.fpn_convs.1', 'backbone.fpn_output3', 'backbone.fpn.layer_blocks.1'),
    ('neck.fpn_convs.2', 'backbone.fpn_output4', 'backbone.fpn.layer_blocks.2'),
    ('neck.fpn_convs.3', 'backbone.fpn_output5', 'backbone.fpn.layer_blocks.3'),
    ('roi_head.bbox_head.shared_convs.0', 'roi_heads.box_head.conv1', 'roi_heads.box_head.0'),
    ('roi_head.bbox_head.shared_convs.1', 'roi_heads.box_head.conv2', 'roi_heads.box_head.1'),
    ('roi_head.bbox_head.shared_convs.2', 'roi_heads.box_head.conv3', 'roi_heads.box_head.2'),
    ('roi_head.bbox_head.shared_convs.3', 'roi_heads.box_head.conv4', 'roi_heads.box_head.3'),
)
#: The names of a convolution and of its norm after those of ``NORMED``.
CONV_AND_NORM = (('.conv', '', '.0'), ('.bn', '.norm', '.1'))
BACKBONE = (
    ('backbone.conv1.weight', 'backbone.bottom_up.stem.conv1.weight', 'backbone.body.conv1.weight'),
    ('backbone.bn1.bias', 'backbone.bottom_up.stem.conv1.norm.bias', 'backbone.body.bn1.bias'),
    ('backbone.bn1.running_mean', 'backbone.bottom_up.stem.conv1.norm.running_mean', 'backbone.body.bn1.running_mean'),
    (
        'backbone.layer4.0.bn3.weight',
        'backbone.bottom_up.res5.0.conv3.norm.weight',
        'backbone.body.layer4.0.bn3.weight',
    ),
    (
        'backbone.layer4.0.bn3.running_mean',
        'backbone.bottom_up.res5.0.conv3.norm.running_mean',
        'backbone.body.layer4.0.bn3.running_mean',
    ),
)
COLUMNS = ('frdet', 'detectron2', 'torchvision')


def tiny(layout='frdet', classes=2, deep=False):
    """The layers are those of ``LAYERS``, or ``DEEP`` and ``NORMED``.

    Class k has scores k + 1 and deltas 10 (k + 1) + (0, 1, 2, 3); the background has 99, and deltas 0 or none.
    """
    column = COLUMNS.index(layout)
    names = [row[column] for row in BACKBONE]
    names += [f'{row[column]}.{kind}' for row in (DEEP if deep else LAYERS) for kind in KINDS]
    conv, norm = (ends[column] for ends in CONV_AND_NORM)
    for row in NORMED if deep else ():
        names.append(f'{row[column]}{conv}.weight')
        names += [f'{row[column]}{norm}.{kind}' for kind in (*KINDS, 'running_mean', 'running_var')]
    state = {name: torch.full((2, 3, 1, 1), float(number)) for number, name in enumerate(names)}
    scores = [k + 1.0 for k in range(classes)]
    deltas = [10.0 * (k + 1) + i for k in range(classes) for i in range(4)]
    if layout == 'torchvision':
        scores, deltas = [99.0, *scores], [0.0] * 4 + deltas
    else:
        scores = [*scores, 99.0]
    ours = layout == 'frdet'
    for kind in KINDS:
        shape = (-1, 1) if kind == 'weight' else (-1,)
        prefix = 'roi_head.bbox_head' if ours else 'roi_heads.box_predictor'
        state[f'{prefix}.{"fc_cls" if ours else "cls_score"}.{kind}'] = torch.tensor(scores).view(shape)
        state[f'{prefix}.{"fc_reg" if ours else "bbox_pred"}.{kind}'] = torch.tensor(deltas).view(shape)
    return state


def assert_equal(found, expected):
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
