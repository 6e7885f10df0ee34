import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN

from frdet.errors import DataError
from frdet.models.detectors import FasterRCNN
from frdet.registry import DETECTORS, TRANSFORMS
from frdet.structures import DetDataSample, to_original
from tests.conftest import CocoRoot
from tests.models.torchvision_twin import (
    for_torchvision,
    frdet_config,
    frdet_model,
    in_double,
    load_images,
    to_frdet,
    torchvision_model,
)

LOSSES = {  # torchvision's name of each
    'loss_rpn_cls': 'loss_objectness',
    'loss_rpn_bbox': 'loss_rpn_box_reg',
    'loss_cls': 'loss_classifier',
    'loss_bbox': 'loss_box_reg',
}
Twins = tuple[TorchvisionFasterRCNN, FasterRCNN]
Batch = tuple[list[Tensor], list[DetDataSample]]


@pytest.fixture(scope='module')
def shared_batch(coco_root: CocoRoot) -> Batch:
    """Two images, of different shapes if the data set has such."""
    return load_images(coco_root.val_dir, coco_root.root / coco_root.val_ann, count=2)


@pytest.fixture
def batch(shared_batch: Batch) -> Batch:
    return copy.deepcopy(shared_batch)


def make_twins(depth: int, batch: Batch) -> Twins:
    """In float64: in float32 two orders of the same sums put a few activations on the other side of a ReLU's corner.

    frdet's heads still give float32; its losses and boxes are always that.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = torchvision_model(depth, for_torchvision(*batch)[0])
    return reference.double(), frdet_model(depth, reference).double()


@pytest.fixture(scope='module')
def twins(shared_batch: Batch) -> Twins:
    """With ResNet-18; tests/checkpoints/test_against_torchvision.py compares the shipped config, with ResNet-50."""
    return make_twins(18, shared_batch)


@pytest.fixture
def model(twins: Twins) -> FasterRCNN:
    return copy.deepcopy(twins[1]).float()


def run(model: FasterRCNN, images: list[Tensor], samples: list[DetDataSample], mode: str) -> dict | list:
    data = model.data_preprocessor({'inputs': images, 'data_samples': samples}, training=mode == 'loss')
    return model(**data, mode=mode)


def run_both(twins: Twins, images: list[Tensor], samples: list[DetDataSample], mode: str) -> tuple[dict | list, ...]:
    """Results of frdet's and of torchvision's model on the same normalised batch."""
    reference, model = (m.train(mode == 'loss') for m in twins)
    images, targets = in_double(*for_torchvision(images, samples))
    batch, _ = reference.transform(images)
    return model(batch.tensors, samples, mode=mode), reference(images, targets if mode == 'loss' else None)


def test_normalised_batches_are_torchvisions(twins: Twins, batch: Batch) -> None:
    found = twins[1].data_preprocessor({'inputs': batch[0], 'data_samples': batch[1]})['inputs']
    expected = twins[0].transform(for_torchvision(*batch)[0])[0].tensors
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def assert_same_losses(losses: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, other in LOSSES.items():
        assert losses[name].item() == pytest.approx(expected[other].item(), rel=1e-5), name


def test_losses_and_gradients_are_torchvisions(twins: Twins, batch: Batch) -> None:
    """All anchors and proposals are sampled, so the four losses and every gradient must agree."""
    for each in twins:
        each.zero_grad()
    losses, expected = run_both(twins, *batch, mode='loss')
    assert losses['rpn_num_pos'] > 1 and losses['roi_num_pos'] > 1
    assert_same_losses(losses, expected)

    sum(losses[name] for name in LOSSES).backward()
    sum(expected.values()).backward()
    reference, model = twins
    gradients = to_frdet({k: p.grad for k, p in reference.named_parameters() if p.grad is not None})
    found = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == gradients.keys() == {k for k, p in model.named_parameters() if p.requires_grad}
    for name, gradient in gradients.items():
        assert gradient.norm() > 0, name
        assert (found[name] - gradient).norm() / gradient.norm() < 1e-3, name


@torch.no_grad()
def test_losses_with_an_image_without_boxes_are_torchvisions(twins: Twins, batch: Batch) -> None:
    without_boxes(batch[1][0])
    assert_same_losses(*run_both(twins, *batch, mode='loss'))


@torch.no_grad()
def test_detections_are_torchvisions(twins: Twins, batch: Batch) -> None:
    results, expected = run_both(twins, *batch, mode='predict')
    for sample, wanted in zip(results, expected, strict=True):
        found = sample.pred_instances
        assert len(found) == len(wanted['scores']) > 5
        assert torch.equal(found.labels, wanted['labels'] - 1)
        torch.testing.assert_close(found.scores, wanted['scores'].float(), atol=1e-4, rtol=0)
        torch.testing.assert_close(found.bboxes, wanted['boxes'].float(), atol=0.01, rtol=0)


def test_predictions_are_in_pixels_of_the_original_image(model: FasterRCNN, batch: Batch) -> None:
    """Twice as wide and three times as high as the network's input."""
    images, samples = batch
    model.eval()
    with torch.no_grad():
        plain = [s.pred_instances for s in run(model, images, copy.deepcopy(samples), mode='predict')]
        for sample in samples:
            height, width = sample.img_shape
            sample.set_metainfo({'ori_shape': (3 * height, 2 * width)})
        scaled = [s.pred_instances for s in run(model, images, samples, mode='predict')]
    for a, b in zip(plain, scaled, strict=True):
        torch.testing.assert_close(a.bboxes * torch.tensor([2.0, 3.0, 2.0, 3.0]), b.bboxes)
        assert torch.equal(a.labels, b.labels)


@torch.no_grad()
def test_the_detector_follows_weights_that_change_between_two_batches(model: FasterRCNN) -> None:
    """Through ``.data``, which PyTorch does not count as a change; another detector with those weights is the truth."""
    images = torch.randn(1, 3, 64, 96)
    model.eval()(images)
    changed = {name: value + 0.1 * torch.randn_like(value) for name, value in model.state_dict().items()}
    changed = {name: value.abs() if 'running_var' in name else value for name, value in changed.items()}
    expected = DETECTORS.build(frdet_config(18)).eval()
    expected.load_state_dict(changed)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name in changed:
            value.data.copy_(changed[name])
    for found, wanted in zip(model.extract_features(images), expected.extract_features(images), strict=True):
        torch.testing.assert_close(found, wanted)


def test_to_original_by_hand() -> None:
    found = InstanceData(
        bboxes=torch.tensor([[10.0, 10.0, 90.0, 60.0], [20.0, 0.0, 20.0, 50.0], [95.0, 10.0, 99.0, 20.0]]),
        scores=torch.tensor([0.9, 0.8, 0.7]),
        labels=torch.tensor([1, 2, 3]),
    )
    # From (50, 100) to (100, 50): x halves, y doubles; the first is clipped, the second has no width.
    mapped = to_original(found, (50, 100), (100, 50))
    assert mapped.bboxes.tolist() == [[5.0, 20.0, 45.0, 100.0], [47.5, 20.0, 49.5, 40.0]]
    assert mapped.labels.tolist() == [1, 3]


def test_to_original_of_a_mirrored_input_by_hand() -> None:
    found = InstanceData(
        bboxes=torch.tensor([[0.0, 10.0, 30.0, 60.0], [95.0, 10.0, 99.0, 20.0]]),
        scores=torch.tensor([0.9, 0.7]),
        labels=torch.tensor([1, 3]),
    )
    # In 100 columns x becomes 100 - x, (70, 100) and (1, 5). Then x halves, y doubles; the first is clipped.
    mapped = to_original(found, (50, 100), (100, 50), flip=True)
    assert mapped.bboxes.tolist() == [[35.0, 20.0, 50.0, 100.0], [0.5, 20.0, 2.5, 40.0]]


@pytest.mark.parametrize('first', ['ResizeShortestEdge', 'RandomFlip'])
@torch.no_grad()
def test_a_mirrored_test_image_gives_boxes_of_the_original(model: FasterRCNN, batch: Batch, first: str) -> None:
    """Pixels said to be unmirrored give boxes where they lie. By hand these are mirrored in the original: the truth."""
    image = np.ascontiguousarray(batch[0][0].permute(1, 2, 0).numpy())
    steps = [dict(type='ResizeShortestEdge', short_side=160, max_size=300), dict(type='RandomFlip', prob=1.0)]
    steps = [*(steps if first == steps[0]['type'] else steps[::-1]), dict(type='PackDetInputs')]
    pipeline = Compose([TRANSFORMS.build(step) for step in steps])
    shape = image.shape[:2]
    packed = pipeline({'img': image, 'ori_shape': shape, 'img_shape': shape, 'scale_factor': (1.0, 1.0), 'flip': False})
    plain = copy.deepcopy(packed)
    plain['data_samples'].set_metainfo({'flip': False})
    found, wanted = (
        run(model.eval(), [data['inputs']], [data['data_samples']], mode='predict')[0].pred_instances
        for data in (packed, plain)
    )
    assert len(found) == len(wanted) > 5
    mirrored = [[shape[1] - x2, y1, shape[1] - x1, y2] for x1, y1, x2, y2 in wanted.bboxes.tolist()]
    torch.testing.assert_close(found.bboxes, torch.tensor(mirrored), atol=1e-3, rtol=0)
    assert torch.equal(found.labels, wanted.labels) and torch.equal(found.scores, wanted.scores)


@pytest.mark.parametrize('img_shape', [(60, 64), (48, 70), (50, 64)])
def test_a_sample_that_was_cut_or_padded_is_refused(model: FasterRCNN, img_shape: tuple[int, int]) -> None:
    """(96, 128) at half size is (48, 64)."""
    meta = dict(img_path='a.jpg', img_shape=img_shape, ori_shape=(96, 128), scale_factor=(0.5, 0.5))
    with pytest.raises(DataError, match=r'a\.jpg: img_shape is .* times scale_factor .* is \(48, 64\)'):
        model.eval().predict(torch.zeros(1, 3, 64, 96), [DetDataSample(metainfo=meta)])


@pytest.mark.parametrize('wrong', [-1, 4, 7], ids=['negative', 'background', 'above'])
def test_labels_that_are_no_class_are_refused(model: FasterRCNN, batch: Batch, wrong: int) -> None:
    """They trained as background. In a step of training and in a call of ``loss`` alike; there are 4 classes."""
    images, samples = batch
    samples[1].set_metainfo({'img_path': 'photos/1.jpg'})
    samples[1].gt_instances.labels[-1] = wrong
    message = rf'Ground truth of photos/1\.jpg: found the label {wrong}: expected 0 to 3, as'
    with pytest.raises(DataError, match=message):
        run(model.train(), images, samples, mode='loss')
    with pytest.raises(DataError, match=message):
        model.loss(torch.zeros(2, 3, 64, 64), samples)


def without_boxes(sample: DetDataSample) -> None:
    sample.gt_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize('empty', [(1,), (0, 1)])
def test_images_without_boxes_train(model: FasterRCNN, batch: Batch, empty: tuple[int, ...]) -> None:
    images, samples = batch
    for i in empty:
        without_boxes(samples[i])
    losses = run(model.train(), images, samples, mode='loss')
    total = sum(losses[name] for name in LOSSES)
    total.backward()
    assert total.isfinite()
    if len(empty) == 2:
        assert losses['loss_rpn_bbox'] == losses['loss_bbox'] == 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_boxes_stay_within_their_image(model: FasterRCNN, batch: Batch) -> None:
    """Not only within the padded batch."""
    with torch.no_grad():
        for sample in run(model.eval(), *batch, mode='predict'):
            height, width = sample.img_shape
            boxes = sample.pred_instances.bboxes
            assert (boxes >= 0).all()
            assert (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()


@torch.no_grad()
def test_mode_tensor_gives_features_and_raw_outputs(model: FasterRCNN) -> None:
    features, (logits, deltas) = model(torch.randn(1, 3, 64, 96), mode='tensor')
    shapes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    assert [tuple(f.shape) for f in features] == [(1, 256, *shape) for shape in shapes]
    assert [tuple(x.shape) for x in logits] == [(1, 3 * h * w) for h, w in shapes]
    assert [tuple(x.shape) for x in deltas] == [(1, 3 * h * w, 4) for h, w in shapes]


def test_unknown_mode(model: FasterRCNN) -> None:
    with pytest.raises(ValueError, match="mode is 'train', expected 'loss', 'predict' or 'tensor'"):
        model(torch.zeros(1, 3, 32, 32), mode='train')


def test_parameter_names_are_mmdetections() -> None:
    names = set(DETECTORS.build(frdet_config(50)).state_dict())
    layers = [f'neck.{part}.{i}.conv' for part in ('lateral_convs', 'fpn_convs') for i in range(4)]
    layers += [f'rpn_head.{part}' for part in ('rpn_conv', 'rpn_cls', 'rpn_reg')]
    layers += [f'roi_head.bbox_head.{part}' for part in ('shared_fcs.0', 'shared_fcs.1', 'fc_cls', 'fc_reg')]
    expected = {f'{layer}.{kind}' for layer in layers for kind in ('weight', 'bias')}
    assert {n for n in names if not n.startswith('backbone.')} == expected
    assert {
        'backbone.conv1.weight',
        'backbone.bn1.running_mean',
        'backbone.layer1.0.conv1.weight',
        'backbone.layer1.0.bn3.bias',
        'backbone.layer1.0.downsample.0.weight',
        'backbone.layer1.0.downsample.1.running_var',
        'backbone.layer4.2.conv3.weight',
    } <= names


def test_bfloat16_autocast_stays_close(model: FasterRCNN, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same proposals: near-equal scores are ranked otherwise in bfloat16, differently on each kind of CPU.

    One image, because some CPUs emulate bfloat16 slowly.
    """
    batch = batch[0][:1], batch[1][:1]
    kept: list = []
    first_stage = model.rpn_head.loss

    def with_first_proposals(*args: object) -> tuple:
        losses, proposals = first_stage(*args)
        kept.append(proposals)
        return losses, kept[0]

    monkeypatch.setattr(model.rpn_head, 'loss', with_first_proposals)
    losses = run(model.train(), *copy.deepcopy(batch), mode='loss')
    with torch.autocast('cpu', torch.bfloat16):
        rough = run(model, *batch, mode='loss')
    assert len(kept) == 2
    sum(rough[name] for name in LOSSES).backward()
    for name in LOSSES:
        assert rough[name].dtype == torch.float32
        assert rough[name].item() == pytest.approx(losses[name].item(), rel=0.05), name
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_weights_and_features_are_channels_last(model: FasterRCNN) -> None:
    assert model.backbone.layer2[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    inputs = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    for feature in model.extract_features(inputs)[:3]:
        assert feature.is_contiguous(memory_format=torch.channels_last)


def test_a_detector_without_neck() -> None:
    """One map of stride 16, as in the paper."""
    config = frdet_config(18)
    config['backbone']['out_indices'] = (2,)
    config['neck'] = None
    config['rpn_head']['anchor_generator'].update(strides=(16,), sizes=((32, 64, 128),))
    config['roi_head']['roi_extractor'].update(strides=(16,))
    model = DETECTORS.build(config)
    features, (logits, _) = model(torch.randn(1, 3, 64, 64), mode='tensor')
    assert [tuple(f.shape) for f in features] == [(1, 256, 4, 4)]
    assert logits[0].shape == (1, 4 * 4 * 9)


def test_weights_survive_a_checkpoint(model: FasterRCNN, batch: Batch, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / 'model.pth')
    other = DETECTORS.build(frdet_config(18))
    other.load_state_dict(torch.load(tmp_path / 'model.pth', weights_only=True))
    with torch.no_grad():
        first = run(model.eval(), *copy.deepcopy(batch), mode='predict')
        second = run(other.eval(), *batch, mode='predict')
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.pred_instances.bboxes, b.pred_instances.bboxes)
