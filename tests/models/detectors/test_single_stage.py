"""RetinaNet and FCOS against torchvision's, and what every one-stage detector must do."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData
from torch import Tensor, nn

from frdet.config import load_config
from frdet.errors import ConfigError
from frdet.models.detectors import SingleStageDetector
from frdet.models.detectors.base import _image_sizes
from frdet.ops import loading
from frdet.registry import DETECTORS
from frdet.structures import DetDataSample, batch_ground_truth
from tests.apis.halves import batch as drawn_batch
from tests.conftest import CocoRoot
from tests.models.detectors.test_host_waits import NoWaits
from tests.models.one_stage_twins import CONFIGS, frdet_model, to_frdet, torchvision_model
from tests.models.torchvision_twin import for_torchvision, in_double, load_images
from tests.test_configs import ROOT

LOSSES = {  # torchvision's name of each
    'loss_cls': 'classification',
    'loss_bbox': 'bbox_regression',
    'loss_centerness': 'bbox_ctrness',
}
Twins = tuple[nn.Module, SingleStageDetector]
Batch = tuple[list[Tensor], list[DetDataSample]]


@pytest.fixture(scope='module')
def shared_batch(coco_root: CocoRoot) -> Batch:
    return load_images(coco_root.val_dir, coco_root.root / coco_root.val_ann, count=2)


@pytest.fixture
def batch(shared_batch: Batch) -> Batch:
    return copy.deepcopy(shared_batch)


@pytest.fixture(scope='module', params=CONFIGS)
def twins(shared_batch: Batch, request: pytest.FixtureRequest) -> Twins:
    """In float64, as in test_faster_rcnn.py."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = torchvision_model(request.param, for_torchvision(*shared_batch)[0])
    return reference.double(), frdet_model(request.param, reference).double()


def run_both(twins: Twins, images: list[Tensor], samples: list[DetDataSample], mode: str) -> tuple[dict | list, ...]:
    """Results of frdet's and of torchvision's model on the same normalised batch. No class has the label 0 here."""
    reference, model = (m.train(mode == 'loss') for m in twins)
    images, targets = in_double(*for_torchvision(images, samples))
    targets = [{**target, 'labels': target['labels'] - 1} for target in targets]
    batch, _ = reference.transform(images)
    return model(batch.tensors, samples, mode=mode), reference(images, targets if mode == 'loss' else None)


def assert_same_losses(losses: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert {LOSSES[name] for name in losses if 'loss' in name} == expected.keys()
    for name in losses.keys() & LOSSES.keys():
        assert losses[name].item() == pytest.approx(expected[LOSSES[name]].item(), rel=1e-5), name


def test_losses_and_gradients_are_torchvisions(twins: Twins, batch: Batch) -> None:
    for each in twins:
        each.zero_grad()
    losses, expected = run_both(twins, *batch, mode='loss')
    assert losses['num_pos'] > 5
    assert_same_losses(losses, expected)
    sum(losses[name] for name in losses.keys() & LOSSES.keys()).backward()
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
    batch[1][0].gt_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    assert_same_losses(*run_both(twins, *batch, mode='loss'))


@torch.no_grad()
def test_detections_are_torchvisions(twins: Twins, batch: Batch) -> None:
    """torchvision also gives boxes without area, of objects that are outside of the image."""
    results, expected = run_both(twins, *batch, mode='predict')
    for sample, wanted in zip(results, expected, strict=True):
        found = sample.pred_instances
        inside = (wanted['boxes'][:, 2:] > wanted['boxes'][:, :2]).all(dim=1)
        wanted = {name: value[inside] for name, value in wanted.items()}
        assert len(found) == len(wanted['scores']) > 5
        assert torch.equal(found.labels, wanted['labels'])
        torch.testing.assert_close(found.scores, wanted['scores'].float(), atol=1e-4, rtol=0)
        torch.testing.assert_close(found.bboxes, wanted['boxes'].float(), atol=0.01, rtol=0)


NAMES = ('retinanet/retinanet_r50_fpn_1x_coco', 'fcos/fcos_r50_fpn_1x_coco')


def shipped_model(name: str) -> SingleStageDetector:
    """A narrow R18 with the shipped R50's rules."""
    options = {
        'model.backbone': dict(depth=18, style='pytorch', init_cfg=None, base_channels=16),
        'model.neck': dict(in_channels=None, out_channels=32),
        'model.bbox_head': dict(in_channels=32, feat_channels=32, stacked_convs=1),
    }
    return DETECTORS.build(load_config(ROOT / f'configs/{name}.py', options).model).train()


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('boxes', [True, False])
def test_every_gradient_is_there_and_finite(name: str, boxes: bool) -> None:
    """Without any box, too: other processes would wait for a parameter without a gradient."""
    model = shipped_model(name)
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {}

    class Look(OptimWrapper):
        def step(self, **kwargs: object) -> None:
            found.update({name: p.grad for name, p in params.items()})

    losses = model.train_step(drawn_batch([1, 2], boxes=boxes), Look(torch.optim.SGD(params.values(), lr=0.1)))
    assert all(torch.isfinite(value) for value in losses.values())
    assert (losses['num_pos'] > 0) == (losses['loss_bbox'] > 0) == boxes
    assert all(g is not None and g.isfinite().all() for g in found.values()), [n for n, g in found.items() if g is None]


@pytest.mark.skipif('cpu' not in loading.status().loaded, reason="torchvision's kernels do wait")
@pytest.mark.parametrize('name', NAMES)
def test_a_step_depends_on_no_data(name: str) -> None:
    """See test_host_waits.py."""
    model = shipped_model(name)
    data = model.data_preprocessor(drawn_batch([1, 2]), training=True)
    samples = data['data_samples']
    truth, sizes = batch_ground_truth(samples), _image_sizes(data['inputs'], samples)
    with NoWaits() as waits:
        losses = model.bbox_head.loss(model.extract_features(data['inputs']), truth, sizes)
        model.parse_losses(losses)[0].backward()
    assert waits.found == []


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_stays_close(name: str) -> None:
    """Losses are float32; a GroupNorm or a moving average changes nothing of that."""
    model = shipped_model(name)
    data = model.data_preprocessor(drawn_batch([1, 2]), training=True)
    plain = copy.deepcopy(model)(**data, mode='loss')
    with torch.autocast('cpu', torch.bfloat16):
        rough = model(**data, mode='loss')
    sum(rough[loss] for loss in rough if 'loss' in loss).backward()
    for loss in plain:
        assert rough[loss].dtype == torch.float32
        assert rough[loss].item() == pytest.approx(plain[loss].item(), rel=0.05), loss
    with torch.autocast('cpu', torch.bfloat16):
        boxes = model.eval()(**data, mode='predict')[0].pred_instances.bboxes
    assert boxes.dtype == torch.float32


def test_a_head_of_proposals_is_refused() -> None:
    """It has no classes."""
    cfg = load_config(ROOT / 'configs/quickstart/demo.py').model
    options = dict(backbone=cfg.backbone, neck=cfg.neck, data_preprocessor=cfg.data_preprocessor)
    message = 'bbox_head is a RPNHead, which has no classes: expected .* RPNHead is the rpn_head of a FasterRCNN'
    with pytest.raises(ConfigError, match=message):
        DETECTORS.build(dict(type='SingleStageDetector', bbox_head=cfg.rpn_head, **options))
