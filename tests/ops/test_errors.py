"""What is refused, and in which words."""

from collections.abc import Callable

import pytest
import torch

from frdet import ops
from frdet.ops import loading

pytestmark = pytest.mark.skipif(
    'cpu' not in loading.status().loaded, reason=f'words of the extension, {loading.status().missing.get("cpu")}'
)

X = torch.zeros(2, 3, 8, 8)
ROIS = torch.zeros(4, 5)
BOXES, SCORES = torch.zeros(4, 4), torch.zeros(4)
IDXS = torch.zeros(4, dtype=torch.int64)


def rois_of_image(number: float) -> torch.Tensor:
    return torch.tensor([[0.0, 0, 0, 1, 1], [number, 0, 0, 1, 1]])


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda: ops.roi_align(X, rois_of_image(2), 2), r'RoI 1 has image index 2, expected 0 to 1'),
        (lambda: ops.roi_align(X, rois_of_image(-1), 2), r'RoI 1 has image index -1, expected 0 to 1'),
        (lambda: ops.roi_align(X, rois_of_image(float('nan')), 2), r'RoI 1 has image index -?nan, expected 0 to 1'),
        (lambda: ops.roi_align(X[0], ROIS, 2), r'shape \(3, 8, 8\), expected \(N, C, H, W\)'),
        (lambda: ops.roi_align(X, ROIS[:, :4], 2), r'RoIs have the shape \(4, 4\), expected \(K, 5\)'),
        (lambda: ops.roi_align(X, ROIS, 0), r'output_size is \(0, 0\), expected positive'),
        (lambda: ops.roi_align(X, ROIS.double(), 2), r'input is float32 and RoIs are float64'),
        (lambda: ops.roi_align(X.double(), ROIS, 2), r'input is float64 and RoIs are float32'),
        (lambda: ops.roi_align(X.int(), ROIS, 2), r'input is int32, expected float32, float64'),
        (lambda: ops.roi_align(X[..., :0], ROIS, 2), r'\(2, 3, 8, 0\), expected at least one pixel'),
        (lambda: ops.multiscale_roi_align([X, X], ROIS, 2, [1.0]), r'2 feature maps and 1 scales'),
        (lambda: ops.multiscale_roi_align([], ROIS, 2, []), r'found no feature map'),
        (lambda: ops.multiscale_roi_align([X, X[:, :2]], ROIS, 2, [1.0, 0.5]), r'expected the same N and C'),
        (lambda: ops.multiscale_roi_align([X, X.double()], ROIS, 2, [1.0, 0.5]), r'expected one dtype'),
        (lambda: ops.nms(BOXES[:, :3], SCORES, 0.5), r'boxes have the shape \(4, 3\), expected \(N, 4\)'),
        (lambda: ops.nms(BOXES, SCORES[:3], 0.5), r'scores have the shape \(3\) for 4 boxes'),
        (lambda: ops.nms(BOXES, SCORES.double(), 0.5), r'boxes are float32 and scores float64, expected one dtype'),
        (lambda: ops.nms(BOXES.int(), SCORES.int(), 0.5), r'boxes are int32, expected float32'),
        (lambda: ops.batched_nms(BOXES, SCORES, IDXS[:3], 0.5), r'idxs have the shape \(3\) for 4 boxes'),
        (lambda: ops.max_iou(BOXES[:, :3], BOXES), r'boxes have the shape \(4, 3\)'),
        (lambda: ops.max_iou(BOXES.expand(3, 4, 4), BOXES.expand(2, 4, 4)), r'with the same B'),
        (lambda: ops.max_iou(BOXES, BOXES, SCORES), r'gt_valid is float32, expected bool'),
        (lambda: ops.max_iou(BOXES, BOXES, SCORES[:2] > 0), r'gt_valid has the shape \(1, 2\)'),
    ],
)
def test_errors_say_what_is_wrong(call: Callable[[], object], words: str) -> None:
    with pytest.raises(RuntimeError, match=words) as error:
        call()
    assert '.cpp' not in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_mixed_devices_in_words() -> None:
    with pytest.raises(RuntimeError, match='feature maps is on CUDA and RoIs on the CPU'):
        ops.roi_align(X.cuda(), ROIS, 2)
    with pytest.raises(RuntimeError, match='boxes is on CUDA and scores on the CPU'):
        ops.nms(BOXES.cuda(), SCORES, 0.5)


def test_the_second_derivative_is_refused() -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    rois = torch.tensor([[0.0, 1, 1, 6, 6]])
    for pooled in (ops.roi_align(x, rois, 2), ops.multiscale_roi_align([x, x], rois, 2, [1, 0.5])):
        (grad,) = torch.autograd.grad(pooled.pow(2).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match='roi_align has no second derivative'):
            grad.sum().backward()
