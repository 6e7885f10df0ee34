"""Hard examples, and how RoIs reach a box head."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import box_iou, roi_align

from frdet.models.roi_heads import MultiScaleRoIAlign
from frdet.models.roi_heads.stage import add_truth, roi_outputs, sample_rois, with_image_index
from tests.models.roi_heads.test_standard_roi_head import (
    K,
    features,
    make_head,
    make_proposals,
    make_truth,
    slow_outputs,
)


def test_hard_examples_are_those_of_a_slow_loop() -> None:
    """8 of each image: the 2 positives, and the negatives, with the largest cross-entropy."""
    head, maps, truth = (
        make_head(sampler=dict(type='OHEMSampler', num=8, pos_fraction=0.25)),
        features(),
        make_truth(3, 0),
    )
    proposals = make_proposals(truth)
    boxes, legal = add_truth(proposals.boxes, proposals.valid, truth)
    sample = sample_rois(head, maps, boxes, legal, truth)
    assert not roi_outputs(head, maps, with_image_index(boxes))[0].isnan().any()
    for image in range(2):
        places = legal[image].nonzero().squeeze(1).tolist()
        scores, _ = slow_outputs(head, maps, image, boxes[image][legal[image]])
        losses: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
        for place, score in zip(places, scores, strict=True):
            gt = truth.boxes[image][truth.valid[image]]
            iou = box_iou(gt, boxes[image, place][None])[:, 0].tolist()
            is_positive = max(iou, default=0.0) >= 0.5
            label = int(truth.labels[image, iou.index(max(iou))]) if is_positive else K
            losses[is_positive].append((-F.log_softmax(score, dim=0)[label].item(), place))
        positive, negative = (sorted(losses[kind], reverse=True) for kind in (True, False))
        expected = [place for _, place in positive[:2]] + [place for _, place in negative[: 8 - len(positive[:2])]]
        assert sample.index[image][sample.valid[image]].tolist() == expected
    assert sample.positive.sum(dim=1).tolist() == [2, 0]


def test_scoring_hard_examples_has_no_gradient() -> None:
    """The losses and gradients are those of the same RoIs without a scoring pass before."""
    maps = [x.requires_grad_() for x in features()]
    hard = make_head(sampler=dict(type='OHEMSampler', num=999, pos_fraction=1.0))
    plain = make_head(sampler=dict(type='RandomSampler', num=999, pos_fraction=1.0))
    plain.load_state_dict(hard.state_dict())
    truth = make_truth(3, 1)
    proposals = make_proposals(truth)
    grads = []
    for head in (hard, plain):
        losses = head.loss(maps, proposals, truth)
        grads.append(torch.autograd.grad(losses['loss_cls'] + losses['loss_bbox'], [*head.parameters(), *maps]))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_enlarged_rois_come_from_the_level_of_their_own_size() -> None:
    """Sides of 30 are below 32, which level 3 needs, and 1.3 times 30 is not; the centre (20, 25) stays."""
    maps = features()
    extractor = MultiScaleRoIAlign(strides=(4, 8), output_size=3, canonical_size=32.0, canonical_level=3)
    pooled = extractor(maps, torch.tensor([[1.0, 5.0, 10.0, 35.0, 40.0]]), roi_scale_factor=1.3)
    enlarged = torch.tensor([[1.0, 0.5, 5.5, 39.5, 44.5]])  # 19.5 around the centre
    torch.testing.assert_close(pooled, roi_align(maps[0], enlarged, 3, 0.25, 0, aligned=True))


@pytest.mark.parametrize('scale', [1.0, 0.25])
def test_gradients_of_the_features_are_scaled(scale: float) -> None:
    """Those of the box head stay."""
    head, maps = make_head(), [x.requires_grad_() for x in features()]
    rois = with_image_index(make_proposals(make_truth(1, 1)).boxes)
    grads = [
        torch.autograd.grad(
            sum(x.square().sum() for x in roi_outputs(head, maps, rois, one)), [*maps, *head.parameters()]
        )
        for one in (scale, 1.0)
    ]
    for i, (a, b) in enumerate(zip(*grads, strict=True)):
        torch.testing.assert_close(a, b * scale if i < 2 else b)
