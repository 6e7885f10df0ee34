"""RetinaNet and FCOS against torchvision's, and what every one-stage detector must do."""

import copy

import pytest
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from frdet.models.detectors import SingleStageDetector
from frdet.structures import DetDataSample
from tests.conftest import CocoRoot
from tests.models.one_stage_twins import CONFIGS, frdet_model, to_frdet, torchvision_model
from tests.models.torchvision_twin import for_torchvision, in_double, load_images

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
