"""Mask R-CNN beside torchvision's, on photographs with their masks; ``test_faster_rcnn.py`` has the rest."""

import copy

import pytest
import torch
from torch import Tensor

from frdet.errors import DataError
from frdet.registry import DETECTORS
from frdet.structures import DetDataSample
from tests.conftest import CocoRoot
from tests.models import torchvision_masks, torchvision_twin
from tests.models.detectors.test_faster_rcnn import LOSSES as BOX_LOSSES
from tests.models.detectors.test_faster_rcnn import Batch, Twins, run, without_boxes
from tests.models.torchvision_masks import for_torchvision, frdet_config, to_frdet

LOSSES = {**BOX_LOSSES, 'loss_mask': 'loss_mask'}


@pytest.fixture(scope='module')
def shared_batch(coco_root: CocoRoot) -> Batch:
    ann_file = coco_root.root / coco_root.val_ann
    images, samples = torchvision_twin.load_images(coco_root.val_dir, ann_file, count=2)
    torchvision_masks.add_masks(samples, ann_file)
    return images, samples


@pytest.fixture
def batch(shared_batch: Batch) -> Batch:
    return copy.deepcopy(shared_batch)


@pytest.fixture(scope='module')
def twins(shared_batch: Batch) -> Twins:
    """With BatchNorm in the mask head as in torchvision's second version. In float64, as in ``test_faster_rcnn.py``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images, _ = torchvision_twin.for_torchvision(*shared_batch)
        reference = torchvision_masks.torchvision_model(18, images, norm=True)
    return reference.double(), torchvision_masks.frdet_model(18, reference, norm=True).double()


def run_both(twins: Twins, images: list[Tensor], samples: list[DetDataSample], mode: str) -> tuple:
    reference, model = (m.train(mode == 'loss') for m in twins)
    images, targets = for_torchvision(images, samples)
    batch, _ = reference.transform(images)
    return model(batch.tensors, samples, mode=mode), reference(images, targets if mode == 'loss' else None)


def test_loss_and_gradients_are_torchvisions(twins: Twins, batch: Batch) -> None:
    for each in twins:
        each.zero_grad()
    losses, expected = run_both(twins, *batch, mode='loss')
    assert losses.keys() >= LOSSES.keys()
    for name, other in LOSSES.items():
        assert losses[name].item() == pytest.approx(expected[other].item(), rel=1e-5), name
    losses['loss_mask'].backward()
    expected['loss_mask'].backward()
    reference, model = twins
    gradients = to_frdet({k: p.grad for k, p in reference.named_parameters() if p.grad is not None})
    found = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == gradients.keys() and any('mask_head.conv_logits' in name for name in found)
    for name, gradient in gradients.items():
        assert gradient.norm() > 0 or 'mask_head' not in name  # small objects are pooled from the finest map alone
        assert (found[name] - gradient).norm() <= 1e-3 * gradient.norm(), name


@torch.no_grad()
def test_masks_are_torchvisions(twins: Twins, batch: Batch) -> None:
    """Probabilities on the grids, and the pixels in the image."""
    kept: list[Tensor] = []
    reference, model = twins
    pool = reference.roi_heads.mask_predictor.register_forward_hook(lambda _, __, logits: kept.append(logits))
    results, expected = run_both(twins, *batch, mode='predict')
    pool.remove()
    features = model.extract_features(reference.transform(for_torchvision(*batch)[0])[0].tensors)
    sizes = torch.tensor([sample.img_shape for sample in batch[1]]).float()
    found = model.detect(features, sizes)
    labels = found.labels[found.labels >= 0]
    wanted = kept[0][torch.arange(len(labels)), labels + 1].sigmoid()
    torch.testing.assert_close(found.masks[found.labels >= 0], wanted.float(), atol=1e-4, rtol=0)
    assert wanted.min() < 0.1 and wanted.max() > 0.9
    for sample, reference_result in zip(results, expected, strict=True):
        instances = sample.pred_instances
        assert len(instances) == len(reference_result['scores']) > 5
        torch.testing.assert_close(instances.bboxes, reference_result['boxes'].float(), atol=0.01, rtol=0)
        pixels = reference_result['masks'][:, 0] > 0.5
        assert instances.masks.shape == pixels.shape == (len(instances), *sample.ori_shape)
        assert (instances.masks != pixels).sum() <= 2 and pixels.any()


def test_images_without_objects_train(batch: Batch) -> None:
    images, samples = batch
    model = DETECTORS.build(frdet_config(18, norm=True)).train()
    for sample in samples:
        without_boxes(sample)
        sample.gt_instances.masks = torch.zeros(0, *sample.img_shape, dtype=torch.uint8)
        losses = run(model, images, copy.deepcopy(samples), mode='loss')
        sum(losses[name] for name in LOSSES).backward()
    assert losses['loss_mask'] == 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_samples_without_masks(batch: Batch) -> None:
    images, samples = batch
    for sample in samples:
        del sample.gt_instances.masks
    with pytest.raises(DataError, match=r'has no masks: .*with_masks=True'):
        run(DETECTORS.build(frdet_config(18)).train(), images, samples, mode='loss')


def test_parameter_names_are_mmdetections() -> None:
    names = {name for name in DETECTORS.build(frdet_config(18, norm=True)).state_dict() if 'mask' in name}
    layers = ['upsample.weight', 'upsample.bias', 'conv_logits.weight', 'conv_logits.bias']
    norm = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    layers += [f'convs.{i}.{part}' for i in range(2) for part in ('conv.weight', *(f'bn.{name}' for name in norm))]
    assert names == {f'roi_head.mask_head.{layer}' for layer in layers}
