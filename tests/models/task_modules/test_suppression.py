"""NMS within and across classes, and soft-NMS against a loop over single boxes written from the paper."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from frdet.errors import ConfigError, ExportError
from frdet.models.task_modules import NMS, SoftNMS, select_batch

INF = math.inf


def random_boxes(*shape: int) -> Tensor:
    corner = torch.rand(*shape, 2) * 20
    return torch.cat([corner, corner + torch.rand(*shape, 2) * 20 + 5], dim=-1)


def slow_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    thr: float,
    *,
    method: str,
    sigma: float,
    least: float,
    agnostic: bool,
) -> list[float]:
    """Figure 2 of the paper for one image; dropped boxes have the score -inf."""
    iou = box_iou(boxes, boxes).tolist()
    now, labels = scores.tolist(), labels.tolist()
    left = [i for i, score in enumerate(now) if score >= least]
    final = [-INF] * len(now)
    while left:
        best = max(left, key=lambda i: now[i])
        left.remove(best)
        final[best] = now[best]
        for i in left:
            if agnostic or labels[i] == labels[best]:
                overlap = iou[best][i]
                linear = 1 - overlap if overlap >= thr else 1
                now[i] *= linear if method == 'linear' else math.exp(-(overlap**2) / sigma)
        left = [i for i in left if now[i] >= least]
    return final


@pytest.mark.parametrize('agnostic', [True, False])
@pytest.mark.parametrize(('method', 'sigma'), [('linear', 0.5), ('gaussian', 0.5), ('gaussian', 0.1)])
@pytest.mark.parametrize('least', [0.0, 0.2])
def test_soft_nms_is_that_of_a_slow_loop(method: str, sigma: float, least: float, agnostic: bool) -> None:
    """Two images, of which the second has few candidates."""
    boxes, scores, labels = random_boxes(2, 30), torch.rand(2, 30), torch.randint(3, (2, 30))
    scores[1, 5:] = -INF
    rule = SoftNMS(method=method, sigma=sigma, min_score=least, class_agnostic=agnostic)
    found = rule(boxes, scores, labels, 0.3)
    options = dict(method=method, sigma=sigma, least=least, agnostic=agnostic)
    expected = [slow_soft_nms(*image, 0.3, **options) for image in zip(boxes, scores, labels, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert found[0].isfinite().any() and (found[0] < scores[0]).any()


def test_soft_nms_by_hand() -> None:
    """Boxes of 10 x 10 moved by 0, 2 and 6: IoU 8 / 12 of the first two, 4 / 16 and 6 / 14 of the third with them."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [2, 0, 12, 10], [6, 0, 16, 10]]])
    scores, labels = torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3).long()
    # After the first: 0.8 / 3 and 0.7, because 1/4 is below 0.4. After the third, which is next: 0.8 / 3 * 8 / 14.
    linear = SoftNMS()(boxes, scores, labels, 0.4)
    torch.testing.assert_close(linear, torch.tensor([[0.9, 0.8 / 3 * 8 / 14, 0.7]]))
    torch.testing.assert_close(SoftNMS(min_score=0.2)(boxes, scores, labels, 0.4), torch.tensor([[0.9, -INF, 0.7]]))
    third = 0.7 * math.exp(-1 / 16 / 0.5)
    second = 0.8 * math.exp(-((2 / 3) ** 2 + (3 / 7) ** 2) / 0.5)
    gaussian = SoftNMS(method='gaussian')(boxes, scores, labels, 0.4)
    torch.testing.assert_close(gaussian, torch.tensor([[0.9, second, third]]))


def test_a_box_on_another_leaves_no_nan() -> None:
    boxes = torch.tensor([[[0.0, 0, 8, 8]] * 3])
    found = SoftNMS(min_score=0.0)(boxes, torch.tensor([[0.5, 0.9, -INF]]), torch.zeros(1, 3).long(), 0.5)
    assert found.tolist() == [[0.0, pytest.approx(0.9), -INF]]


@pytest.mark.parametrize('count', [0, 4])
def test_no_candidate(count: int) -> None:
    found = SoftNMS()(random_boxes(2, count), torch.full((2, count), -INF), torch.zeros(2, count).long(), 0.5)
    assert found.shape == (2, count) and found.eq(-INF).all()


def test_nms_across_classes_is_torchvisions() -> None:
    boxes, scores, labels = random_boxes(2, 40), torch.rand(2, 40), torch.randint(3, (2, 40))
    found = NMS(class_agnostic=True)(boxes, scores, labels, 0.5)
    for image in range(2):
        expected = torch.full((40,), -INF)
        keep = nms(boxes[image], scores[image], 0.5)
        expected[keep] = scores[image][keep]
        assert torch.equal(found[image], expected)


def test_one_object_is_found_as_one_class() -> None:
    boxes, scores = torch.tensor([[[[0.0, 0.0, 9.0, 9.0]]]]), torch.tensor([[[0.4, 0.5, 0.1]]])
    valid = torch.ones(1, 1, dtype=torch.bool)
    both, one = (
        select_batch(boxes, scores, valid, score_thr=0.2, nms_iou_thr=0.5, num=3, nms=rule)
        for rule in (NMS(), NMS(class_agnostic=True))
    )
    assert both.labels.tolist() == [[1, 0, -1]] and one.labels.tolist() == [[1, -1, -1]]


def test_detections_are_sorted_by_their_lowered_scores() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [2, 0, 12, 10], [50, 0, 60, 10]]])[:, :, None]
    scores, valid = torch.tensor([[[0.9], [0.8], [0.7]]]), torch.ones(1, 3, dtype=torch.bool)
    found = select_batch(boxes, scores, valid, score_thr=0.05, nms_iou_thr=0.5, num=3, nms=SoftNMS())
    assert found.boxes[0, :, 0].tolist() == [0, 50, 2]
    torch.testing.assert_close(found.scores, torch.tensor([[0.9, 0.7, 0.8 / 3]]))


@pytest.mark.parametrize(
    ('wrong', 'expected'),
    [
        (dict(method='cubic'), "method is 'cubic', expected 'linear' or 'gaussian'"),
        (dict(sigma=0.0), 'sigma is 0.0'),
        (dict(min_score=-1.0), 'min_score -1.0'),
    ],
)
def test_wrong_arguments(wrong: dict, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        SoftNMS(**wrong)


def test_soft_nms_cannot_be_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, 'is_exporting', lambda: True)
    with pytest.raises(ExportError, match='export the detector with nms=dict'):
        SoftNMS()(random_boxes(1, 2), torch.rand(1, 2), torch.zeros(1, 2).long(), 0.5)


def test_soft_nms_has_shapes_without_values() -> None:
    """FLOPs are counted on the meta device."""
    with torch.device('meta'):
        found = SoftNMS()(torch.empty(2, 5, 4), torch.empty(2, 5), torch.empty(2, 5, dtype=torch.long), 0.5)
    assert found.shape == (2, 5)
