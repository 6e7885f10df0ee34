import pytest
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from frdet.models.task_modules import (
    NMS,
    Proposals,
    best_pairs,
    best_scores,
    select_batch,
    select_labelled,
    select_proposals,
)
from frdet.models.task_modules.observing import TopK, observing

INF = float('inf')
NAN = float('nan')


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def greedy(candidates: list[tuple], threshold: float) -> list[tuple]:
    """NMS over (score, group, box), best first: one loop, no tricks."""
    kept: list[tuple] = []
    for candidate in sorted(candidates, key=lambda c: -c[0]):
        if all(candidate[1] != k[1] or iou(candidate[2], k[2]) <= threshold for k in kept):
            kept.append(candidate)
    return kept


def clipped(box: list[float], size: list[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [min(max(x1, 0), size[1]), min(max(y1, 0), size[0]), min(max(x2, 0), size[1]), min(max(y2, 0), size[0])]


def random_boxes(*shape: int) -> Tensor:
    """In and around an image of 100 x 100, overlapping much."""
    centre = torch.rand(*shape, 2) * 130 - 15
    side = torch.rand(*shape, 2) * 40 + 5
    return torch.cat([centre - side / 2, centre + side / 2], dim=-1)


def propose(boxes: list[Tensor], scores: list[Tensor], sizes: Tensor, **changes: float) -> Proposals:
    arguments = {'nms_iou_thr': 0.5, 'num': 20, 'min_side': 0.0, **changes}
    return select_proposals(boxes, scores, sizes, **arguments)


@pytest.mark.parametrize('num', [7, 1000])
@pytest.mark.parametrize('min_side', [0.0, 6.0])
def test_proposals_are_those_of_a_slow_loop(num: int, min_side: float) -> None:
    sizes = torch.tensor([[100.0, 100.0], [60.0, 90.0], [100.0, 20.0]])
    counts = (60, 30, 10)
    boxes = [random_boxes(3, n) for n in counts]
    scores = [torch.randn(3, n) for n in counts]
    found = propose(boxes, scores, sizes, num=num, min_side=min_side)
    assert found.boxes.shape == (3, min(num, 100), 4)
    for i, size in enumerate(sizes.tolist()):
        candidates = []
        for level in range(3):
            for box, score in zip(boxes[level][i].tolist(), scores[level][i].tolist(), strict=True):
                x1, y1, x2, y2 = clipped(box, size)
                if x2 - x1 > min_side and y2 - y1 > min_side:
                    candidates.append((score, level, [x1, y1, x2, y2]))
        expected = greedy(candidates, 0.5)[:num]
        n = len(expected)
        assert found.valid[i].tolist() == [True] * n + [False] * (found.valid.shape[1] - n)
        torch.testing.assert_close(found.scores[i, :n], torch.tensor([e[0] for e in expected]))
        torch.testing.assert_close(found.boxes[i, :n], torch.tensor([e[2] for e in expected]))


def test_levels_and_images_do_not_suppress_each_other() -> None:
    box = torch.tensor([[[10.0, 10.0, 50.0, 50.0]]])
    pair = torch.cat([box, box], dim=1)
    boxes = [pair.expand(2, -1, -1), box.expand(2, -1, -1)]
    scores = [torch.tensor([[0.3, 0.4], [0.5, 0.6]]), torch.tensor([[0.1], [0.9]])]
    found = propose(boxes, scores, torch.full((2, 2), 100.0))
    assert found.valid.tolist() == [[True, True, False]] * 2
    torch.testing.assert_close(found.scores, torch.tensor([[0.4, 0.1, -INF], [0.9, 0.6, -INF]]))


def test_empty_places_hold_zeros() -> None:
    found = propose([random_boxes(1, 4)], [torch.tensor([[0.5, -INF, NAN, INF]])], torch.full((1, 2), 100.0))
    assert found.valid.sum() == 1
    assert found.scores[0, 0] == 0.5
    assert found.boxes[~found.valid].eq(0).all()
    assert found.scores[~found.valid].eq(-INF).all()


def test_a_box_that_is_not_a_number_is_dropped_and_suppresses_nothing() -> None:
    boxes = torch.tensor([[[0.0, 0.0, NAN, 10.0], [0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 5.0, 10.0]]])
    found = propose([boxes], [torch.tensor([[3.0, 1.0, 2.0]])], torch.full((1, 2), 100.0))
    assert found.valid.tolist() == [[True, False, False]]
    assert found.boxes[0, 0].tolist() == [0.0, 0.0, 10.0, 10.0]


def test_a_side_must_be_above_the_least() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 2.0, 9.0], [20.0, 0.0, 22.5, 9.0], [40.0, 0.0, 49.0, 2.0]]])
    found = propose([boxes], [torch.tensor([[3.0, 2.0, 1.0]])], torch.full((1, 2), 100.0), min_side=2.0)
    assert found.valid.sum() == 1
    assert found.scores[0, 0] == 2.0


def test_an_image_where_nothing_is_legal() -> None:
    boxes = torch.tensor([[[200.0, 200.0, 300.0, 300.0]], [[0.0, 0.0, 10.0, 10.0]]])  # the first lies outside
    found = propose([boxes], [torch.ones(2, 1)], torch.full((2, 2), 100.0))
    assert found.valid.tolist() == [[False], [True]]


def detect(boxes: Tensor, scores: Tensor, **changes: float) -> InstanceData:
    """Detections of one image, without the empty places."""
    arguments = {'score_thr': 0.3, 'nms_iou_thr': 0.5, 'num': 100, **changes}
    valid = torch.ones(1, len(boxes), dtype=torch.bool)
    boxes, scores, labels = (x[0] for x in select_batch(boxes[None], scores[None], valid, **arguments)[:3])
    there = labels >= 0
    return InstanceData(bboxes=boxes[there], scores=scores[there], labels=labels[there])


def slow_detections(boxes: Tensor, scores: Tensor, score_thr: float, num: int, min_side: float) -> list[tuple]:
    candidates = []
    for roi, row in enumerate(scores.tolist()):
        for label, score in enumerate(row):
            x1, y1, x2, y2 = box = boxes[roi, label if boxes.shape[1] > 1 else 0].tolist()
            if score > score_thr and x2 - x1 >= min_side and y2 - y1 >= min_side:
                candidates.append((score, label, box))
    return greedy(candidates, 0.5)[:num]


@pytest.mark.parametrize('class_agnostic', [True, False])
@pytest.mark.parametrize(('num', 'min_side'), [(100, 0.0), (5, 0.0), (100, 10.0)])
def test_detections_are_those_of_a_slow_loop(class_agnostic: bool, num: int, min_side: float) -> None:
    boxes = random_boxes(40, 1 if class_agnostic else 3)
    scores = torch.rand(40, 3)
    found = detect(boxes, scores, num=num, min_side=min_side)
    expected = slow_detections(boxes, scores, 0.3, num, min_side)
    assert found.labels.tolist() == [e[1] for e in expected]
    torch.testing.assert_close(found.scores, torch.tensor([e[0] for e in expected]))
    torch.testing.assert_close(found.bboxes, torch.tensor([e[2] for e in expected]))


def test_one_roi_may_be_of_several_classes() -> None:
    found = detect(torch.tensor([[[0.0, 0.0, 9.0, 9.0]]]), torch.tensor([[0.4, 0.5, 0.1]]))
    assert found.labels.tolist() == [1, 0]


def test_the_score_threshold_itself_is_not_enough() -> None:
    found = detect(random_boxes(2, 1), torch.tensor([[0.5], [0.75]]), score_thr=0.5)
    assert found.scores.tolist() == [0.75]


@pytest.mark.parametrize('wrong', [NAN, INF])
def test_an_roi_with_a_number_that_is_not_finite_is_dropped(wrong: float) -> None:
    boxes, scores = random_boxes(3, 2), torch.tensor([[0.9, 0.1], [0.8, 0.1], [0.7, 0.1]])
    boxes[:, :] = torch.tensor([[[0.0, 0.0, 9.0, 9.0]], [[20.0, 0.0, 29.0, 9.0]], [[40.0, 0.0, 49.0, 9.0]]])
    boxes[0, 1, 2] = wrong
    scores[1, 1] = wrong
    found = detect(boxes, scores)
    torch.testing.assert_close(found.scores, torch.tensor([0.7]))


@pytest.mark.parametrize('rois', [0, 3])
def test_nothing_found(rois: int) -> None:
    found = detect(random_boxes(rois, 2), torch.zeros(rois, 2))
    assert (found.bboxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))
    assert found.labels.dtype == torch.int64


@pytest.mark.parametrize('class_agnostic', [True, False])
@pytest.mark.parametrize(('num', 'min_side'), [(100, 0.0), (5, 0.0), (100, 10.0)])
def test_a_batch_of_detections_is_that_of_a_slow_loop(class_agnostic: bool, num: int, min_side: float) -> None:
    """Three images; of the second only the first 10 RoIs are there, of the third none."""
    boxes = random_boxes(120, 1 if class_agnostic else 3).unflatten(0, (3, 40))
    scores = torch.rand(3, 40, 3)
    counts = [40, 10, 0]
    valid = torch.arange(40) < torch.tensor(counts)[:, None]
    found = select_batch(boxes, scores, valid, score_thr=0.3, nms_iou_thr=0.5, num=num, min_side=min_side)
    assert found.boxes.shape == (3, num, 4)
    for image, count in enumerate(counts):
        expected = slow_detections(boxes[image, :count], scores[image, :count], 0.3, num, min_side)
        empty = num - len(expected)
        assert found.labels[image].tolist() == [e[1] for e in expected] + [-1] * empty
        torch.testing.assert_close(found.scores[image], torch.tensor([e[0] for e in expected] + [0.0] * empty))
        torch.testing.assert_close(found.boxes[image], torch.tensor([e[2] for e in expected] + [[0.0] * 4] * empty))


def test_equal_scores_keep_the_order_of_boxes_and_classes() -> None:
    """The first 100 of 600 candidates that have the same score, as certain ones of a trained detector have."""
    boxes = torch.arange(300.0)[:, None, None] * 20 + torch.tensor([0.0, 0.0, 9.0, 9.0])
    found = detect(boxes, torch.ones(300, 2))
    assert found.bboxes[:, 0].tolist() == [20.0 * (i // 2) for i in range(100)]
    assert found.labels.tolist() == [0, 1] * 50


def test_a_detection_without_area_takes_a_place_and_leaves_it_empty() -> None:
    """As in detectron2, which drops such boxes after it has taken the best ones."""
    boxes = torch.tensor([[0.0, 0.0, 0.0, 9.0], [20.0, 0.0, 29.0, 9.0], [40.0, 0.0, 49.0, 9.0]])
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    found = select_batch(boxes[None, :, None], scores[None], valid, score_thr=0.3, nms_iou_thr=0.5, num=2)
    assert found.labels.tolist() == [[-1, 0]]
    torch.testing.assert_close(found.scores, torch.tensor([[0.0, 0.8]]))
    assert found.boxes.tolist() == [[[0.0] * 4, [20.0, 0.0, 29.0, 9.0]]]


@pytest.mark.parametrize('wrong', [NAN, INF])
def test_a_batch_without_what_is_not_finite_or_has_no_area(wrong: float) -> None:
    boxes = torch.tensor(
        [[0.0, 0.0, 9.0, 9.0], [20.0, 0.0, wrong, 9.0], [40.0, 0.0, 49.0, 9.0], [60.0, 0.0, 60.0, 9.0]]
    )
    scores = torch.tensor([[0.7, 0.1], [0.8, 0.1], [0.9, wrong], [0.6, 0.1]])
    found = select_batch(
        boxes[None, :, None], scores[None], torch.ones(1, 4, dtype=torch.bool), score_thr=0.3, nms_iou_thr=0.5, num=4
    )
    torch.testing.assert_close(found.scores, torch.tensor([[0.7, 0.0, 0.0, 0.0]]))
    assert found.labels.tolist() == [[0, -1, -1, -1]]


def test_best_scores_of_an_exported_graph_have_a_fixed_number(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.tensor([[1.0, 3.0], [5.0, 4.0]])
    best, index = best_scores(scores, 3)
    assert (best.tolist(), index.tolist()) == ([[3.0, 1.0], [5.0, 4.0]], [[1, 0], [0, 1]])
    monkeypatch.setattr(torch.compiler, 'is_exporting', lambda: True)
    best, index = best_scores(scores, 3)
    assert best.tolist() == [[3.0, 1.0, -INF], [5.0, 4.0, -INF]]
    assert index[:, :2].tolist() == [[1, 0], [0, 1]] and index.max() < 2


@pytest.mark.parametrize('class_agnostic', [False, True])
def test_boxes_with_one_class_each_are_those_of_a_slow_loop(class_agnostic: bool) -> None:
    boxes, scores, labels = random_boxes(2, 50), torch.rand(2, 50), torch.randint(3, (2, 50))
    found = select_labelled(
        boxes,
        scores,
        labels,
        class_scores=list,
        score_thr=0.3,
        nms_iou_thr=0.4,
        num=50,  # all that are above the threshold
        nms=NMS(class_agnostic=class_agnostic),
    )
    for i in range(2):
        rows = zip(scores[i].tolist(), labels[i].tolist(), boxes[i].tolist(), strict=True)
        candidates = [(score, 0 if class_agnostic else label, box, label) for score, label, box in rows if score > 0.3]
        kept = greedy(candidates, 0.4)
        count = len(kept)
        assert found.scores[i, :count].tolist() == [one[0] for one in kept]
        assert found.boxes[i, :count].tolist() == [one[2] for one in kept]
        assert found.labels[i].tolist() == [one[3] for one in kept] + [-1] * (50 - count)


def test_a_box_of_all_classes_suppresses_other_classes() -> None:
    """Two boxes with IoU 0.82 of class 0 and 1: class-agnostic NMS keeps the better one, and the one apart."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])[None, :, None]
    scores = torch.tensor([[0.9, 0.0], [0.0, 0.8], [0.0, 0.7]])[None]
    valid = torch.ones(1, 3, dtype=torch.bool)
    for nms, expected in ((NMS(), [0, 1, 1]), (NMS(class_agnostic=True), [0, 1])):
        found = select_batch(boxes, scores, valid, score_thr=0.1, nms_iou_thr=0.5, num=5, nms=nms)
        assert found.labels[0].tolist() == expected + [-1] * (5 - len(expected))


@pytest.mark.parametrize('num', [4, 1000])
@pytest.mark.parametrize('way', ['few', 'observed', 'exported'])
def test_best_pairs_are_those_of_a_slow_loop(num: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images of 6 anchors and 5 classes; in the last one no score reaches 0.5."""
    monkeypatch.setattr(torch.compiler, 'is_exporting', lambda: way == 'exported')
    scores = torch.rand(3, 6, 5)
    scores[2] *= 0.4
    events: list = []
    if way == 'observed':
        with observing(events.append):
            best, anchors, labels = best_pairs(scores, num, 0.5)
    else:
        best, anchors, labels = best_pairs(scores, num, 0.5)
    for i, image in enumerate(scores.tolist()):
        pairs = sorted(((s, a, k) for a, row in enumerate(image) for k, s in enumerate(row)), reverse=True)[:num]
        expected = [pair for pair in pairs if pair[0] >= 0.5]
        found = [row for row in zip(*(x[i].tolist() for x in (best, anchors, labels)), strict=True) if row[0] >= 0.5]
        assert found == expected
    assert best.shape[1] == num if way == 'exported' else best.shape[1] <= min(num, 30)
    assert anchors.max() < 6 and labels.max() < 5
    if way == 'observed':
        (event,) = events
        assert isinstance(event, TopK) and torch.equal(event.index, anchors)
        assert torch.equal(event.scores, scores.amax(dim=2))
