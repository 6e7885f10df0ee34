"""Every point of docs/peers.md, computed by the three configs' own parts, against values worked out by hand."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from frdet.config import load_config
from frdet.datasets import CocoDataset
from frdet.engine import GroupedOptimWrapperConstructor
from frdet.models.task_modules import AssignResult, Proposals, SampleResult
from frdet.registry import BACKBONES, DENSE_HEADS, LOSSES, PREPROCESSORS, ROI_EXTRACTORS, ROI_HEADS, TRANSFORMS
from frdet.structures import DetDataSample, GroundTruth

ROOT = Path(__file__).resolve().parents[2]
PEERS = ('detectron2', 'torchvision', 'mmdet')


@cache
def config(peer: str) -> Config:
    return load_config(ROOT / f'configs/interop/{peer}_r50_fpn.py')


def each(**expected: Any) -> Any:
    """The test runs once for each project, with the value expected of it."""
    assert set(expected) == set(PEERS)
    return pytest.mark.parametrize(('peer', 'expected'), list(expected.items()), ids=list(expected))


@each(
    # Blue 10, green 20, red 30, in the order of the network's channels.
    detectron2=[10 - 103.53, 20 - 116.28, 30 - 123.675],
    torchvision=[(30 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (10 / 255 - 0.406) / 0.225],
    mmdet=[(30 - 123.675) / 58.395, (20 - 116.28) / 57.12, (10 - 103.53) / 57.375],
)
def test_normalised_pixels(peer: str, expected: list[float]) -> None:
    preprocessor = PREPROCESSORS.build(config(peer).model.data_preprocessor)
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 5)
    batch = preprocessor({'inputs': [image], 'data_samples': [DetDataSample()]})['inputs']
    assert batch.shape == (1, 3, 32, 32)
    assert batch[0, :, 3, 4].tolist() == pytest.approx(expected, rel=1e-5)
    assert not batch[0, :, 4:].any() and not batch[0, :, :, 5:].any()


@each(detectron2=(800, 1067), torchvision=(800, 1066), mmdet=(800, 1067))  # 640 * 800 / 480 = 1066.67
def test_size_and_filter_of_an_image(peer: str, expected: tuple[int, int]) -> None:
    """One black column in a white image of twice the size: an antialiasing filter spreads it, a bilinear one misses."""
    resize = TRANSFORMS.build(config(peer).test_dataloader.dataset.pipeline[1])
    assert resize({'img': np.zeros((480, 640, 3), np.uint8)})['img_shape'] == expected
    image = np.full((3200, 3200, 3), 255, np.uint8)
    image[:, 1600] = 0  # to a fourth: sampled between columns 1601 and 1602
    resized = resize({'img': image})['img']
    assert resized.shape == (800, 800, 3)
    assert resized.dtype == (np.float32 if peer == 'torchvision' else np.uint8)
    assert (resized.min() < 255) == (peer == 'detectron2')


@each(detectron2=[0, 1, 2], torchvision=[0, 1, 2], mmdet=[0, 2])
def test_boxes_of_less_than_a_pixel(peer: str, expected: list[int]) -> None:
    steps = [TRANSFORMS.build(step) for step in config(peer).train_dataloader.dataset.pipeline[1:-1]]
    boxes = np.array([[5, 5, 25, 25], [9, 9, 9.5, 30], [9, 9, 10, 30], [9, 9, 9, 30]], dtype=np.float32)
    results = {'img': np.zeros((60, 80, 3), np.uint8), 'gt_bboxes': boxes, 'gt_labels': np.arange(4)}
    for step in steps:
        results = step(results)
    assert results['gt_labels'].tolist() == expected


@each(detectron2=(2, 1), torchvision=(1, 2), mmdet=(1, 2))
def test_stride_of_a_bottleneck(peer: str, expected: tuple[int, int]) -> None:
    backbone = BACKBONES.build({**config(peer).model.backbone, 'init_cfg': None})
    for stage in (backbone.layer2, backbone.layer3, backbone.layer4):
        assert (stage[0].conv1.stride[0], stage[0].conv2.stride[0]) == expected
        assert stage[0].downsample[0].stride == (2, 2)
        assert stage[1].conv1.stride == stage[1].conv2.stride == (1, 1)


@each(detectron2=False, torchvision=False, mmdet=True)
def test_norms_that_are_trained(peer: str, expected: bool) -> None:
    """Statistics stay; MMDetection trains weight and bias of the stages that are not frozen."""
    backbone = BACKBONES.build({**config(peer).model.backbone, 'init_cfg': None}).train()
    norm = backbone.layer2[0].bn1
    before = norm.running_mean.clone()
    backbone(torch.randn(1, 3, 64, 64))
    assert torch.equal(norm.running_mean, before)
    trained = {name for name, p in backbone.named_parameters() if p.requires_grad and 'bn' in name}
    assert ('layer2.0.bn1.weight' in trained) == ('layer4.2.bn3.bias' in trained) == expected
    assert not any(name.startswith(('bn1', 'layer1')) for name in trained)


@each(detectron2=1e-4, torchvision=1e-4, mmdet=1e-4)
def test_weight_decay_of_each_parameter(peer: str, expected: float) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4))
    wrapper_cfg = {k: v for k, v in config(peer).optim_wrapper.items() if k not in ('constructor', 'paramwise_cfg')}
    wrapper = GroupedOptimWrapperConstructor(wrapper_cfg, config(peer).optim_wrapper.paramwise_cfg)(net)
    decay = {id(p): g['weight_decay'] for g in wrapper.optimizer.param_groups for p in g['params']}
    found = {name: decay[id(p)] for name, p in net.named_parameters()}
    norm = expected if peer == 'mmdet' else 0.0
    assert found == {f'{i}.{kind}': expected if i == 0 else norm for i in range(3) for kind in ('weight', 'bias')}
    (group, *_) = wrapper.optimizer.param_groups
    assert (group['lr'], group['momentum'], group['nesterov']) == (0.02, 0.9, False)


@each(
    # sqrt(32^2 / 0.5) = 45.2548 wide, half of that high; an input of 800 has a p6 of 13 cells: 800 // 13 = 61.
    detectron2=([-22.627, -11.314, 22.627, 11.314], 64),
    torchvision=([-23, -11, 23, 11], 61),
    mmdet=([-22.627, -11.314, 22.627, 11.314], 64),
)
def test_anchors(peer: str, expected: tuple[list[float], int]) -> None:
    generator = rpn_head(peer).anchor_generator
    levels = generator.grid([(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)])
    assert levels[0][0].tolist() == pytest.approx(expected[0], abs=1e-3)
    second_row = levels[4][19 * 3 : 19 * 3 + 3]
    assert ((second_row[:, 1] + second_row[:, 3]) / 2).tolist() == pytest.approx([expected[1]] * 3)
    assert ((second_row[:, 0] + second_row[:, 2]) / 2).tolist() == pytest.approx([0] * 3, abs=1e-4)


def rpn_head(peer: str, **changes: Any) -> nn.Module:
    return DENSE_HEADS.build({**config(peer).model.rpn_head, 'in_channels': 4, 'feat_channels': 4, **changes})


@each(detectron2=[1, 0], torchvision=[1, 0], mmdet=[1, 1])
def test_a_low_quality_anchor_answers_for(peer: str, expected: list[int]) -> None:
    """Two ground truths from the origin, 10 x 10 and 10 x 30; an anchor of 10 x 12, and one that touches neither.

    The anchor's IoU is 100/120 = 0.83 with the first and 120/300 = 0.4 with the second, of which it is the best. All
    find it positive: detectron2 and torchvision for its own best, MMDetection for the one whose best it is.
    """
    boxes = torch.tensor([[100.0, 0, 110, 31], [0, 0, 10, 12]])
    gt = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 30]])
    assigned = rpn_head(peer).assigner.assign(boxes, gt, torch.zeros(2).long())
    assert assigned.label.tolist() == [0, 1]
    assert [int(assigned.label[1]), int(assigned.gt_index[1])] == expected


@each(detectron2=1, torchvision=1, mmdet=0)
def test_a_best_anchor_of_little_overlap(peer: str, expected: int) -> None:
    """10 x 10 in 10 x 50: IoU 0.2 is below 0.3, negative but for the rule; MMDetection's asks for 0.3."""
    boxes, gt = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 50]])
    assert rpn_head(peer).assigner.assign(boxes, gt, torch.zeros(1).long()).label.item() == expected


@pytest.mark.parametrize('peer', PEERS)
def test_thresholds_are_inclusive_above(peer: str) -> None:
    """Anchors 10 x 7, 10 x 3 and 10 x 2.9 in a ground truth of 10 x 10, of which another anchor is the best."""
    boxes = torch.tensor([[0.0, 0, 10, 7], [0, 0, 10, 3], [0, 0, 10, 2.9], [0, 0, 10, 9]])
    gt = torch.tensor([[0.0, 0, 10, 10]])
    assert rpn_head(peer).assigner.assign(boxes, gt, torch.zeros(1).long()).label.tolist() == [1, -1, 0, 1]
    roi_assigner = roi_head(peer).assigner
    halves = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 4.9]])
    assert roi_assigner.assign(halves, gt, torch.zeros(1).long()).label.tolist() == [1, 0]


def roi_head(peer: str) -> nn.Module:
    cfg = config(peer).model.roi_head.copy()
    cfg.bbox_head = {**cfg.bbox_head, 'in_channels': 1, 'fc_channels': 4}
    return ROI_HEADS.build(cfg)


@each(detectron2=(0.5, 0.05), torchvision=(0.5 - 1 / 18, 0.5 * 0.05**2 * 9), mmdet=(0.5, 0.05))
@pytest.mark.parametrize('head', ['rpn_head', 'roi_head'])
def test_box_loss(peer: str, expected: tuple[float, float], head: str) -> None:
    """Deltas off by 0.5, above 1/9, and by 0.05, below."""
    loss = LOSSES.build(config(peer).model[head].loss_bbox)
    for off, value in zip((0.5, 0.05), expected, strict=True):
        pred, target = torch.tensor([[off, 0, 0, 0]]), torch.zeros(1, 4)
        assert loss(pred, target, torch.ones(1), 1.0).item() == pytest.approx(value)


@each(detectron2=2 * 256, torchvision=2 * 252, mmdet=2 * (252 + 1))
def test_divisor_of_the_rpn_losses(peer: str, expected: int) -> None:
    """Two images without a box, each with 3 * 84 = 252 anchors, fewer than are asked for; every logit is 0 and costs
    log 2. MMDetection counts a positive for each image, though there is none.
    """
    head = rpn_head(peer)
    for layer in (head.rpn_conv, head.rpn_cls, head.rpn_reg):
        nn.init.zeros_(layer.weight)
    maps = [torch.zeros(2, 4, *shape) for shape in ((8, 8), (4, 4), (2, 1), (1, 1), (1, 1))]
    losses, _ = head.loss(maps, no_truth(2), torch.tensor([[32.0, 32.0]] * 2))
    assert losses['loss_rpn_cls'].item() == pytest.approx(math.log(2) * 2 * 252 / expected, rel=1e-5)
    assert losses['loss_rpn_bbox'] == 0


@each(detectron2=[1023, 1023], torchvision=[1023, 1023], mmdet=[1023, 513])
def test_anchors_on_the_padding_of_a_batch(peer: str, expected: list[int]) -> None:
    """Images of 64 x 33 and 10 x 60 in a batch of 64 x 64: 3 * (256 + 64 + 16 + 4 + 1) = 1023 anchors, all negative.

    The second would be padded to 32 x 64 on its own. So MMDetection leaves out the lower half of its maps, but not of
    p6, where the one cell has its centre at the corner: 3 * (128 + 32 + 8 + 2 + 1) = 513 stay.
    """
    head = rpn_head(peer)
    sample, seen = head.sampler.sample_batch, []

    def keep(assigned: AssignResult) -> SampleResult:
        seen.append(assigned.label)
        return sample(assigned)

    head.sampler.sample_batch = keep
    maps = [torch.zeros(2, 4, side, side) for side in (16, 8, 4, 2, 1)]
    head.loss(maps, no_truth(2), torch.tensor([[64.0, 33.0], [10.0, 60.0]]))
    (label,) = seen
    assert (label == 0).sum(dim=1).tolist() == expected
    assert (label == -1).sum(dim=1).tolist() == [1023 - count for count in expected]


def no_truth(images: int) -> GroundTruth:
    return GroundTruth(torch.zeros(images, 1, 4), torch.zeros(images, 1).long(), torch.zeros(images, 1).bool())


@each(detectron2=(1000, 1000), torchvision=(2000, 1000), mmdet=(1000, 1000))
def test_proposals_kept(peer: str, expected: tuple[int, int]) -> None:
    """Small anchors far apart: 48 x 48 cells of 3, none of which NMS drops."""
    head = rpn_head(
        peer,
        anchor_generator=dict(type='AnchorGenerator', strides=(40,), sizes=((8, 16, 32),), ratios=(1.0,)),
        nms_iou_thr=1.0,
    )
    maps, size = [torch.randn(1, 4, 48, 48)], torch.tensor([[1920.0, 1920.0]])
    for training, count in zip((True, False), expected, strict=True):
        assert head.train(training).predict(maps, size).valid.sum() == count


@each(detectron2=3, torchvision=2, mmdet=3)
def test_thin_proposals(peer: str, expected: int) -> None:
    """Of heights 8, 0.002, 0.0005 and 0; the last one is dropped by all."""
    head = rpn_head(peer, anchor_generator=dict(type='AnchorGenerator', strides=(64,), sizes=((8,),), ratios=(1.0,)))
    anchors = [torch.tensor([[x, 0.0, x + 8, side] for x, side in ((0, 8), (20, 0.002), (40, 0.0005), (60, 0))])]
    proposals = head._propose(anchors, [torch.randn(1, 4)], [torch.zeros(1, 4, 4)], torch.tensor([[100.0, 100.0]]))
    assert proposals.valid.sum() == expected


@each(detectron2=1.0, torchvision=1.0, mmdet=16.0)
@pytest.mark.parametrize('head', ['rpn_head', 'roi_head'])
def test_how_far_a_box_shrinks(peer: str, expected: float, head: str) -> None:
    """Of 1000 pixels, to a thousandth; MMDetection stops at 16 / 1000. All stop growing at 1000 / 16."""
    built = rpn_head(peer) if head == 'rpn_head' else roi_head(peer)
    weight = built.box_coder.weights[2]
    deltas = torch.tensor([0.0, 0.0, -math.log(1000) * weight, 100.0])
    box = built.box_coder.decode(torch.tensor([0.0, 0.0, 1000.0, 16.0]), deltas)
    assert (box[2] - box[0]).item() == pytest.approx(expected, abs=1e-3)
    assert (box[3] - box[1]).item() == pytest.approx(1000, rel=1e-4)


@each(
    detectron2=[0.5, 2.5, 4.5],  # bins of 2 cells; cell x has its centre at x + 0.5
    torchvision=[1, 3, 5],
    mmdet=[0.5, 2.5, 4.5],
)
def test_half_pixels(peer: str, expected: list[float]) -> None:
    """A map whose value is its column, an RoI of 14 x 14 cells from the corner: means of the first bins."""
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    pooled = extractor(peer)([ramp] * 4, torch.tensor([[0.0, 0, 0, 56, 56]]))
    assert pooled[0, 0, 3, :3].tolist() == pytest.approx(expected)


@each(
    detectron2=(0 + 1 + 4 + 9) / 4,  # columns 0, 1, 2, 3 of the bin from -0.5 to 3.5
    torchvision=(1 + 9) / 2,  # columns 1 and 3 of the bin from 0 to 4
    mmdet=(0 + 1 + 4 + 9) / 4,
)
def test_samples_of_a_bin(peer: str, expected: float) -> None:
    """A map of squares, an RoI 28 cells wide and a little less high, for level 2: bins of 4."""
    squares = (torch.arange(40.0) ** 2).expand(1, 1, 40, 40)
    pooled = extractor(peer)([squares] * 4, torch.tensor([[0.0, 0, 0, 112, 111]]))
    assert pooled[0, 0, 3, 0].item() == pytest.approx(expected)


def extractor(peer: str) -> nn.Module:
    return ROI_EXTRACTORS.build(config(peer).model.roi_head.roi_extractor)


@each(detectron2=[2, 3, 2], torchvision=[2, 3, 3], mmdet=[2, 3, 3])
def test_level_of_an_roi(peer: str, expected: list[int]) -> None:
    """Squares of 111, 112 and 111.99995 pixels; 112 is the side from which level 3 begins.

    111.99995 / 224 has the base-2 logarithm -1.0000006. detectron2 adds 1e-8 before, which is not enough; torchvision
    1e-6 after, and MMDetection 1e-6 to the double of the ratio before, which is.
    """
    levels = [torch.full((1, 1, 256 // 2**i, 256 // 2**i), 2.0 + i) for i in range(4)]
    rois = torch.tensor([[0.0, 0, 0, side, side] for side in (111, 112, 111.99995)])
    assert extractor(peer)(levels, rois)[:, 0, 3, 3].round().tolist() == expected


@each(detectron2=3, torchvision=2, mmdet=3)
def test_thin_detections(peer: str, expected: int) -> None:
    """Of heights 8, 1, 0.005 and with a score of 0.05, which is not above the threshold."""
    head = roi_head(peer).eval()
    boxes = torch.tensor([[[0.0, 0, 8, 8], [20, 0, 28, 1], [40, 0, 48, 0.005], [60, 0, 68, 8]]])
    classes = head.bbox_head.num_classes
    scores = torch.full((4, classes + 1), -100.0)
    scores[:3, 2], scores[:3, -1] = 1.0, 0.0  # softmax: 0.73
    scores[3, 2], scores[3, -1] = math.log(0.05), math.log(0.95)

    class Fixed(nn.Module):
        num_classes = classes

        def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return scores, torch.zeros(4, classes, 4)

    head.bbox_head = Fixed()
    proposals = Proposals(boxes, torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool))
    maps = [torch.zeros(1, 1, 32 // 2**i, 32 // 2**i) for i in range(4)]
    found = head.predict(maps, proposals, torch.tensor([[128.0, 128.0]])).labels[0]
    assert sorted(set(found.tolist())) == [-1, 2]
    assert int((found == 2).sum()) == expected


@each(detectron2=[0, 11, 79], torchvision=[0, 12, 89], mmdet=[0, 11, 79])
def test_labels_of_category_ids(peer: str, expected: list[int], tmp_path: Path) -> None:
    """person is 1, stop sign 13, toothbrush 90; ids 12, 26, 29, 30, 45, 66, 68, 69, 71 and 83 are not used."""
    names = [n for n in config('torchvision').test_dataloader.dataset.metainfo.classes if n != 'N/A']
    unused = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    ids = [i for i in range(1, 91) if i not in unused]
    content = dict(
        images=[dict(id=1, file_name='1.jpg', height=50, width=50)],
        annotations=[dict(id=i, image_id=1, category_id=i, bbox=[1, 1, 9, 9], area=81, iscrowd=0) for i in (1, 13, 90)],
        categories=[dict(id=i, name=name) for i, name in zip(ids, names, strict=True)],
    )
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    metainfo = config(peer).test_dataloader.dataset.get('metainfo')
    dataset = CocoDataset(
        ann_file='ann.json', data_root=str(tmp_path), data_prefix=dict(img='.'), metainfo=metainfo, test_mode=True
    )
    assert dataset.get_data_info(0)['gt_labels'].tolist() == expected
    assert len(dataset.metainfo['classes']) == config(peer).model.roi_head.bbox_head.num_classes
