"""Two images of 64 x 64 and 48 x 60 pixels, two feature maps of stride 4 and 8, four classes, masks of 6 x 6 cells."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from frdet.errors import ConfigError, DataError
from frdet.models.roi_heads import FCNMaskHead, mask_head
from frdet.models.task_modules import Detections
from frdet.structures import GroundTruth, paste_masks

K, CELLS, SIZES = 4, 6, ((64, 64), (48, 60))
COUNTS = (3, 1)
SAMPLES = 5
POSITIVE = torch.tensor([[True, True, False, True, False], [True, False, False, False, False]])


def make_head(**changes: object) -> FCNMaskHead:
    extractor = dict(
        type='MultiScaleRoIAlign', strides=(4, 8), output_size=CELLS // 2, canonical_size=32.0, canonical_level=3
    )
    arguments = dict(roi_extractor=extractor, num_classes=K, in_channels=5, conv_channels=8, num_convs=2)
    head = FCNMaskHead(**{**arguments, 'loss_mask': dict(type='BinaryCrossEntropyLoss'), **changes})
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    return head


@pytest.fixture
def maps() -> list[Tensor]:
    return [torch.randn(2, 5, 16, 16, requires_grad=True), torch.randn(2, 5, 8, 8, requires_grad=True)]


@pytest.fixture
def truth() -> GroundTruth:
    """Blobs: 1 where smooth noise is positive. Beside the second image is its last column and row, once."""
    masks = torch.zeros(sum(COUNTS), 64, 64, dtype=torch.uint8)
    for i, mask in enumerate(masks):
        height, width = SIZES[0 if i < COUNTS[0] else 1]
        own = F.interpolate(torch.randn(1, 1, 8, 8), (height, width), mode='bilinear')[0, 0] > 0
        mask[:height, :width] = own
        mask[height : height + 1, :width] = own[-1:]
        mask[: height + 1, width : width + 1] = mask[: height + 1, width - 1 : width]
    boxes, valid = torch.zeros(2, 3, 4), torch.arange(3) < torch.tensor(COUNTS)[:, None]
    return GroundTruth(boxes, torch.zeros(2, 3).long(), valid, masks)


@pytest.fixture
def samples() -> tuple[Tensor, ...]:
    """Boxes, labels with K where not positive, ground truths. The first box of each image ends at its border."""
    corner = torch.rand(2, SAMPLES, 2) * 25
    boxes = torch.cat([corner, corner + 5 + torch.rand(2, SAMPLES, 2) * 15], dim=2)
    boxes[0, 0, 2:], boxes[1, 0, 2:] = torch.tensor([64.0, 64.0]), torch.tensor([60.0, 48.0])
    labels = torch.randint(K, (2, SAMPLES)).masked_fill(~POSITIVE, K)
    gt_index = torch.stack([torch.randint(count, (SAMPLES,)) for count in COUNTS])
    return boxes, labels, gt_index, POSITIVE


def slow_logits(head: FCNMaskHead, maps: list[Tensor], image: int, box: Tensor) -> Tensor:
    """The masks of all classes of one box, by torch's layers: (K, M, M)."""
    side = (box[2] - box[0]).mul(box[3] - box[1]).sqrt()
    level = min(max(int(torch.floor(3 + torch.log2(side / 32))), 2), 3)
    roi = torch.cat([torch.tensor([float(image)]), box])[None]
    x = roi_align(maps[level - 2], roi, CELLS // 2, 1 / 2**level, 0, aligned=True)
    for conv in head.convs:
        x = F.relu(F.conv2d(x, conv.conv.weight, conv.conv.bias, padding=1))
    x = F.relu(F.conv_transpose2d(x, head.upsample.weight, head.upsample.bias, stride=2))
    return F.conv2d(x, head.conv_logits.weight, head.conv_logits.bias)[0]


def slow_loss(head: FCNMaskHead, maps: list[Tensor], samples: tuple[Tensor, ...], truth: GroundTruth) -> Tensor:
    losses = []
    for image in range(2):
        height, width = SIZES[image]
        own_masks = truth.masks[:3] if image == 0 else truth.masks[3:]
        for box, label, index, positive in zip(*(x[image] for x in samples), strict=True):
            if not positive:
                continue
            mask = own_masks[index, :height, :width].float()[None, None]
            roi = torch.cat([torch.zeros(1), box])[None]
            target = roi_align(mask, roi, CELLS, 1.0, -1, aligned=head.aligned_targets)[0, 0]
            target = target if head.soft_targets else (target >= 0.5).float()
            logits = slow_logits(head, maps, image, box)[0 if head.class_agnostic else label]
            losses.append(F.binary_cross_entropy_with_logits(logits, target))
    return torch.stack(losses).mean()


@pytest.fixture(params=[False, True], ids=['CPU', 'as on a GPU'])
def as_on_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample is computed, and none but the positive ones counts. Of the masks two are read at a time."""
    if request.param:
        monkeypatch.setattr(mask_head, 'CHUNK', 2 * 64 * 64)
        monkeypatch.setattr(mask_head, '_computed', lambda positive: slice(None))


@pytest.mark.parametrize('rules', [{}, {'soft_targets': True, 'aligned_targets': False}], ids=['d2', 'torchvision'])
@pytest.mark.parametrize('class_agnostic', [False, True])
def test_loss_and_gradients_are_those_of_a_slow_loop(
    maps: list[Tensor],
    truth: GroundTruth,
    samples: tuple[Tensor, ...],
    as_on_gpu: None,
    rules: dict,
    class_agnostic: bool,
) -> None:
    head = make_head(class_agnostic=class_agnostic, **rules)
    inputs = [*maps, *head.parameters()]
    found, expected = head.loss(maps, *samples, truth)['loss_mask'], slow_loss(head, maps, samples, truth)
    torch.testing.assert_close(found, expected)
    pairs = zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True)
    for a, b in pairs:
        assert b.norm() > 0
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize('counts', [(3, 1), (3, 0), (0, 0)])
def test_without_positives_the_loss_is_zero_and_every_parameter_has_a_gradient(
    maps: list[Tensor], truth: GroundTruth, samples: tuple[Tensor, ...], as_on_gpu: None, counts: tuple[int, int]
) -> None:
    """Also of images, and of a batch, without any object, where every index of a mask is legal."""
    head = make_head(norm=dict(type='BN'))
    valid = torch.arange(3) < torch.tensor(counts)[:, None]
    masks = truth.masks[: max(1, sum(counts))]
    boxes, labels, gt_index, positive = samples
    nothing = (boxes, labels.fill_(K), gt_index.zero_(), torch.zeros_like(positive))
    loss = head.loss(maps, *nothing, truth._replace(valid=valid, masks=masks))['loss_mask']
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and p.grad.eq(0).all() for p in head.parameters())
    assert all(norm.running_mean.isfinite().all() for norm in head.modules() if isinstance(norm, nn.BatchNorm2d))


def test_truth_without_masks(maps: list[Tensor], truth: GroundTruth, samples: tuple[Tensor, ...]) -> None:
    with pytest.raises(DataError, match=r'has no masks: expected .*Set train_dataloader\.dataset\.with_masks=True'):
        make_head().loss(maps, *samples, truth._replace(masks=None))


def test_masks_of_detections_are_those_of_a_slow_loop(maps: list[Tensor], samples: tuple[Tensor, ...]) -> None:
    """The second image has two detections less. Its other rows are empty."""
    head, boxes = make_head(), samples[0].clone()
    labels = torch.randint(K, (2, SAMPLES))
    boxes[1, 3:], labels[1, 3:] = 0, -1
    given = Detections(boxes, torch.rand(2, SAMPLES), labels)
    with torch.no_grad():
        found = head.predict(maps, given)
        assert found[:3] == given[:3] and found.masks.shape == (2, SAMPLES, CELLS, CELLS)
        for image in range(2):
            for box, label, mask in zip(boxes[image], labels[image], found.masks[image], strict=True):
                wanted = slow_logits(head, maps, image, box)[label].sigmoid() if label >= 0 else torch.zeros(6, 6)
                torch.testing.assert_close(mask, wanted, atol=1e-6, rtol=1e-5)
        assert not found.masks[0].eq(0).all()


def test_masks_of_a_norm_and_half_precision(maps: list[Tensor], samples: tuple[Tensor, ...]) -> None:
    """Under autocast, too, logits and losses are float32."""
    head = make_head(norm=dict(type='GN', num_groups=2))
    assert head.convs[0].conv.bias is None
    rois = mask_head.with_image_index(samples[0])
    with torch.no_grad():
        exact = head(maps, rois, samples[1].flatten())
        with torch.autocast('cpu', torch.bfloat16):
            rough = head(maps, rois, samples[1].flatten())
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize('rule', ['detectron2', 'torchvision'])
def test_pasting_follows_the_settings(rule: str) -> None:
    masks, boxes = torch.rand(2, CELLS, CELLS), torch.tensor([[1.0, 2.0, 20.5, 9.0], [3.0, 3.0, 9.0, 14.0]])
    found = make_head(paste=rule, mask_thr_binary=0.6).paste(masks, boxes, (16, 24))
    assert torch.equal(found, paste_masks(masks, boxes, (16, 24), threshold=0.6, rule=rule))


def test_parameter_names_are_mmdetections() -> None:
    """With their shapes, at the sizes of mask-rcnn_r50_fpn_1x_coco."""
    extractor = dict(type='MultiScaleRoIAlign', strides=(4, 8, 16, 32), output_size=14)
    head = FCNMaskHead(roi_extractor=extractor, num_classes=80, in_channels=256, loss_mask=nn.Identity())
    shapes = {f'convs.{i}.conv.weight': (256, 256, 3, 3) for i in range(4)}
    shapes |= {f'convs.{i}.conv.bias': (256,) for i in range(4)}
    shapes |= {'upsample.weight': (256, 256, 2, 2), 'upsample.bias': (256,)}
    shapes |= {'conv_logits.weight': (80, 256, 1, 1), 'conv_logits.bias': (80,)}
    assert {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(num_classes=None), 'num_classes is None, expected a positive number'),
        (dict(paste='mmdet'), "paste is 'mmdet', expected 'detectron2' or 'torchvision'"),
    ],
)
def test_wrong_arguments(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_head(**wrong)
