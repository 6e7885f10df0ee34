"""The families of detectors: how frdet, detectron2 and torchvision name their layers, and how to tell them apart.

MMDetection's names are frdet's, but for the norms that ``from_mmdet`` renames.
"""

import functools
import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from frdet.checkpoints.backbones import RESNET, Rule, to_theirs

#: The layouts that are converted by the rules of a family; the names of the other layouts are frdet's.
LAYOUTS = ('frdet', 'mmdet2', 'mmdet3', 'detectron2', 'torchvision')

#: Names in frdet, detectron2 and torchvision; None: the project has no such layer. Numbers are as in ``Rule``.
Names = tuple[str, str | None, str | None]

_RESNET: tuple[Names, ...] = tuple(
    (f'backbone.{ours}', f'backbone.bottom_up.{theirs}', None if 'offset' in ours else f'backbone.body.{ours}')
    for ours, theirs in RESNET
)
_RPN: tuple[Names, ...] = (
    ('rpn_head.rpn_conv', 'proposal_generator.rpn_head.conv', 'rpn.head.conv.0.0'),
    ('rpn_head.rpn_conv.{0}.conv', 'proposal_generator.rpn_head.conv.conv{0}', 'rpn.head.conv.{0}.0'),
    ('rpn_head.rpn_cls', 'proposal_generator.rpn_head.objectness_logits', 'rpn.head.cls_logits'),
    ('rpn_head.rpn_reg', 'proposal_generator.rpn_head.anchor_deltas', 'rpn.head.bbox_pred'),
)
_BOX_HEAD: tuple[Names, ...] = (
    ('roi_head.bbox_head.shared_convs.{0}.conv', 'roi_heads.box_head.conv{1}', 'roi_heads.box_head.{0}.0'),
    ('roi_head.bbox_head.shared_convs.{0}.bn', 'roi_heads.box_head.conv{1}.norm', 'roi_heads.box_head.{0}.1'),
    ('roi_head.bbox_head.shared_fcs.{0}', 'roi_heads.box_head.fc{1}', 'roi_heads.box_head.fc{6}'),
    ('roi_head.bbox_head.fc_cls', 'roi_heads.box_predictor.cls_score', 'roi_heads.box_predictor.cls_score'),
    ('roi_head.bbox_head.fc_reg', 'roi_heads.box_predictor.bbox_pred', 'roi_heads.box_predictor.bbox_pred'),
)
_CASCADE_HEADS: tuple[Names, ...] = (
    ('roi_head.bbox_head.{0}.shared_convs.{0}.conv', 'roi_heads.box_head.{0}.conv{1}', None),
    ('roi_head.bbox_head.{0}.shared_convs.{0}.bn', 'roi_heads.box_head.{0}.conv{1}.norm', None),
    ('roi_head.bbox_head.{0}.shared_fcs.{0}', 'roi_heads.box_head.{0}.fc{1}', None),
    ('roi_head.bbox_head.{0}.fc_cls', 'roi_heads.box_predictor.{0}.cls_score', None),
    ('roi_head.bbox_head.{0}.fc_reg', 'roi_heads.box_predictor.{0}.bbox_pred', None),
)
_MASK_HEAD: tuple[Names, ...] = (
    ('roi_head.mask_head.convs.{0}.conv', 'roi_heads.mask_head.mask_fcn{1}', 'roi_heads.mask_head.{0}.0'),
    ('roi_head.mask_head.convs.{0}.bn', 'roi_heads.mask_head.mask_fcn{1}.norm', 'roi_heads.mask_head.{0}.1'),
    ('roi_head.mask_head.upsample', 'roi_heads.mask_head.deconv', 'roi_heads.mask_predictor.conv5_mask'),
    ('roi_head.mask_head.conv_logits', 'roi_heads.mask_head.predictor', 'roi_heads.mask_predictor.mask_fcn_logits'),
)
#: MMDetection's Cascade R-CNN has a mask head for each stage.
_MASK_HEADS: tuple[Names, ...] = (
    ('roi_head.mask_head.{0}.convs.{0}.conv', None, None),
    ('roi_head.mask_head.{0}.convs.{0}.bn', None, None),
    ('roi_head.mask_head.{0}.upsample', None, None),
    ('roi_head.mask_head.{0}.conv_logits', None, None),
)
_RETINA_HEAD: tuple[Names, ...] = (
    ('bbox_head.retina_cls', 'head.cls_score', 'head.classification_head.cls_logits'),
    ('bbox_head.retina_reg', 'head.bbox_pred', 'head.regression_head.bbox_reg'),
)
_FCOS_HEAD: tuple[Names, ...] = (
    ('bbox_head.conv_cls', 'head.cls_score', 'head.classification_head.cls_logits'),
    ('bbox_head.conv_reg', 'head.bbox_pred', 'head.regression_head.bbox_reg'),
    ('bbox_head.conv_centerness', 'head.ctrness', 'head.regression_head.bbox_ctrness'),
    ('bbox_head.scales.{0}', None, None),
)


def _pyramid(first: int) -> tuple[Names, ...]:
    """An FPN that begins with the map of stride 2 ** first."""
    return (
        *((f'neck.fpn_convs.{i}.conv', f'backbone.top_block.p{i + 3}', f'backbone.fpn.extra_blocks.p{i + 3}')
          for i in (3, 4) if first == 3),
        ('neck.lateral_convs.{0}.conv', f'backbone.fpn_lateral{{{first}}}', 'backbone.fpn.inner_blocks.{0}.0'),
        ('neck.lateral_convs.{0}.bn', f'backbone.fpn_lateral{{{first}}}.norm', 'backbone.fpn.inner_blocks.{0}.1'),
        ('neck.fpn_convs.{0}.conv', f'backbone.fpn_output{{{first}}}', 'backbone.fpn.layer_blocks.{0}.0'),
        ('neck.fpn_convs.{0}.bn', f'backbone.fpn_output{{{first}}}.norm', 'backbone.fpn.layer_blocks.{0}.1'),
        *((f'neck.{part}_convs.{{0}}.{one}', None, None)  # PAFPN
          for part in ('downsample', 'pafpn') for one in ('conv', 'bn')),
    )  # fmt: skip


class Family(NamedTuple):
    """Detectors with the same parts.

    ``known_by`` are layers under frdet's names: no other family has all of them. ``also`` are the other layers that
    every detector of the family has.
    """

    name: str
    known_by: tuple[str, ...]
    also: tuple[str, ...]
    layers: tuple[Names, ...]
    laterals: int  # convolutions of the FPN on maps of the backbone
    outputs: int  # convolutions of the FPN that give maps

    def needed(self) -> Iterator[str]:
        """Yield weights that every detector of the family has."""
        yield 'backbone.conv1.weight'
        for part, count in (('lateral_convs', self.laterals), ('fpn_convs', self.outputs)):
            yield from (f'neck.{part}.{i}.conv.weight' for i in range(count))
        yield from (f'{layer}.weight' for layer in (*self.known_by, *self.also))


FASTER = Family(
    'Faster R-CNN',
    ('rpn_head.rpn_cls', 'roi_head.bbox_head.fc_cls'),
    ('rpn_head.rpn_reg', 'roi_head.bbox_head.fc_reg'),
    (*_RESNET, *_pyramid(2), *_RPN, *_BOX_HEAD, *_MASK_HEAD),
    4, 4,
)  # fmt: skip
CASCADE = Family(
    'Cascade R-CNN',
    ('rpn_head.rpn_cls', 'roi_head.bbox_head.0.fc_cls'),
    ('rpn_head.rpn_reg', 'roi_head.bbox_head.0.fc_reg'),
    (*_RESNET, *_pyramid(2), *_RPN, *_CASCADE_HEADS, *_MASK_HEAD, *_MASK_HEADS),
    4, 4,
)  # fmt: skip
RETINANET = Family(
    'RetinaNet', ('bbox_head.retina_cls', 'bbox_head.retina_reg'), (), (*_RESNET, *_pyramid(3), *_RETINA_HEAD), 3, 5
)
FCOS = Family(
    'FCOS',
    ('bbox_head.conv_cls', 'bbox_head.conv_centerness'),
    ('bbox_head.conv_reg',),
    (*_RESNET, *_pyramid(3), *_FCOS_HEAD),
    3, 5,
)  # fmt: skip
#: In the order of asking: in the other projects FCOS has all layers of a RetinaNet, and one more.
FAMILIES = (FCOS, RETINANET, CASCADE, FASTER)

#: The names that torchvision wrote before 0.14. They stand last, so no new file gets these names.
_OLD_TORCHVISION = (
    Rule('neck.lateral_convs.{0}.conv', 'backbone.fpn.inner_blocks.{0}'),
    Rule('neck.fpn_convs.{0}.conv', 'backbone.fpn.layer_blocks.{0}'),
    Rule('rpn_head.rpn_conv', 'rpn.head.conv'),
    Rule('roi_head.mask_head.convs.{0}.conv', 'roi_heads.mask_head.mask_fcn{1}'),
)
#: By these, in both projects, torchvision's names of other layers are decided; see ``_of_two_stages``.
_RPN_CONV = re.compile(r'(?:rpn_head\.rpn_conv|rpn\.head\.conv)\.(\d+)\..*')
_BOX_CONV = re.compile(r'(?:roi_head\.bbox_head\.shared_convs|roi_heads\.box_head)\.(\d+)\.(?:conv|0)\..*')
_BOX_FC = re.compile(r'(?:roi_head\.bbox_head\.shared_fcs|roi_heads\.box_head)\.(\d+)\.(?:weight|bias)')
#: A norm in the convolutions of a one-stage head: of frdet, and of detectron2, whose second layer is then no ReLU.
_TOWER_NORM = re.compile(r'bbox_head\.(cls|reg)_convs\.\d+\.bn\..*|head\.(cls|bbox)_subnet\.1\..*')
_MAX_CONVS = 16


def rules_of(family: Family, layout: str, names: Collection[str]) -> tuple[Rule, ...]:
    """Return the rules between frdet and a layout for a detector whose parameters are ``names``, in either.

    A layer that the project does not have has no rule.
    """
    if layout not in ('detectron2', 'torchvision'):
        towers = [Rule(f'bbox_head.{part}_convs.{{0}}.{one}', f'bbox_head.{part}_convs.{{0}}.{one}')
                  for part in ('cls', 'reg') for one in ('conv', 'bn')]  # fmt: skip
        return (*(Rule(ours, ours) for ours, *_ in family.layers), *towers)
    column = 1 if layout == 'detectron2' else 2
    rules = [Rule(row[0], theirs) for row in family.layers if (theirs := row[column]) is not None]
    if family in (RETINANET, FCOS):
        rules += _towers(family, layout, names)
    elif layout == 'torchvision':
        rules = [*_of_two_stages(names), *rules]
    return (*rules, *_OLD_TORCHVISION) if layout == 'torchvision' else tuple(rules)


def _of_two_stages(names: Collection[str]) -> Iterator[Rule]:
    """Yield torchvision's names that depend on other layers.

    Its box head with convolutions is numbered from the first convolution on, and the flattening and each ReLU after it
    count too. The first convolution of an RPN has the same name, whether others follow or not.
    """
    rpn_convs, convs, fcs = (
        {int(match[1]) for name in names if (match := pattern.fullmatch(name))}
        for pattern in (_RPN_CONV, _BOX_CONV, _BOX_FC)
    )
    if max(rpn_convs, default=0):
        yield Rule('rpn_head.rpn_conv.{0}.conv', 'rpn.head.conv.{0}.0')
    for i in range(len(fcs) if convs else 0):
        yield Rule(f'roi_head.bbox_head.shared_fcs.{i}', f'roi_heads.box_head.{max(convs) + 2 + 2 * i}')


def _towers(family: Family, layout: str, names: Collection[str]) -> Iterator[Rule]:
    """Yield the names of the convolutions before the outputs of a one-stage head, and of their norms.

    detectron2, and torchvision in FCOS, number all layers: convolution, norm if there is one, ReLU. torchvision's
    RetinaNet did so in old files.
    """
    theirs = {'cls': 'head.cls_subnet', 'reg': 'head.bbox_subnet'}
    if layout == 'torchvision':
        theirs = {'cls': 'head.classification_head.conv', 'reg': 'head.regression_head.conv'}
    with_norm = layout == 'torchvision' or any(_TOWER_NORM.fullmatch(name) for name in names)
    for part, tower in theirs.items():
        if layout == 'torchvision' and family is RETINANET:
            yield Rule(f'bbox_head.{part}_convs.{{0}}.conv', f'{tower}.{{0}}.0')
            yield Rule(f'bbox_head.{part}_convs.{{0}}.bn', f'{tower}.{{0}}.1')
            yield from (Rule(f'bbox_head.{part}_convs.{i}.conv', f'{tower}.{2 * i}') for i in range(_MAX_CONVS))
            continue
        for i in range(_MAX_CONVS):
            yield Rule(f'bbox_head.{part}_convs.{i}.conv', f'{tower}.{(3 if with_norm else 2) * i}')
            if with_norm:
                yield Rule(f'bbox_head.{part}_convs.{i}.bn', f'{tower}.{3 * i + 1}')


def identify(names: Iterable[str]) -> tuple[str, Family] | None:
    """Return the layout and the family of a detector by its names alone; None for other models.

    The layout is 'frdet' (also for MMDetection), 'detectron2' or 'torchvision'.
    """
    given = set(names)
    return next((found for found, wanted in _known().items() if given.issuperset(wanted)), None)


@functools.cache
def _known() -> dict[tuple[str, Family], list[str]]:
    """The names by which each family is known in each project that has it."""
    known = {}
    for layout in ('frdet', 'detectron2', 'torchvision'):
        for family in FAMILIES:
            rules = rules_of(family, layout, ())
            names = [name for layer in family.known_by if (name := to_theirs(f'{layer}.weight', rules))]
            if len(names) == len(family.known_by):
                known[layout, family] = names
    return known


def in_words(family: Family, names: Iterable[str]) -> str:
    """Return the name of the family with its article; with a mask head, Faster R-CNN is called Mask R-CNN."""
    if family in (FASTER, CASCADE) and any('.mask_head.' in name for name in names):
        return 'a Mask R-CNN' if family is FASTER else 'a Cascade Mask R-CNN'
    return f'{"an" if family is FCOS else "a"} {family.name}'


def family_name(names: Iterable[str]) -> str | None:
    """Return the name of the family whose parameters have these names; None for other models."""
    names = list(names)
    found = identify(names)
    return in_words(found[1], names).split(maxsplit=1)[1] if found else None
