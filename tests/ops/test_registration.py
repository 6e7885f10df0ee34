"""What torch is told of the operators: schemas, fakes, gradients, autocast; and that all runs give the same bits."""

import pytest
import torch
from torch import Tensor

from frdet import ops
from frdet.ops import loading
from tests.ops.boxes import DEVICES, random_boxes, random_rois

pytestmark = pytest.mark.skipif(
    'cpu' not in loading.status().loaded, reason=f'no operators registered, {loading.status().missing.get("cpu")}'
)


def arguments(device: str) -> dict[str, tuple[object, ...]]:
    """For each operator, arguments as its schema has them."""
    x = torch.randn(2, 4, 12, 10, device=device)
    maps = [x.clone().requires_grad_(), x[..., ::2, ::2].contiguous(memory_format=torch.channels_last).requires_grad_()]
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    rois, boxes = random_rois(5, 2).to(device), random_boxes(9).to(device)
    scores, idxs = torch.rand(9, device=device), torch.randint(3, (9,), device=device)
    rule = (28.0, 4.0, 2, 1e-8, 0.0)
    grad = torch.randn(5, 4, 3, 2, device=device)
    return {
        'nms': (boxes, scores, 0.5),
        'batched_nms': (boxes, scores, idxs, 0.5),
        'batched_nms_mask': (boxes, scores, idxs, 0.5),
        'max_iou': (boxes, random_boxes(6).to(device).reshape(2, 3, 4), torch.rand(2, 3, device=device) < 0.5, 0.1),
        'enlarge': (torch.randint(256, (5, 4, 3), dtype=torch.uint8), 7, 9),
        'roi_align': (last, rois, 0.1, 3, 2, 0, True),
        'roi_align_backward': (grad, rois, 0.1, 3, 2, 2, True, [2, 4, 12, 10], True),
        'multiscale_roi_align': (maps, rois, [0.1, 0.05], 3, 2, 2, True, *rule),
        'multiscale_roi_align_backward': (
            *(grad, rois, [0.1, 0.05], 3, 2, 2, True, *rule),
            *([2, 4, 12, 10, 2, 4, 6, 5], False),
        ),
    }


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('name', list(arguments('cpu')))
def test_opcheck(name: str, device: str) -> None:
    torch.library.opcheck(getattr(torch.ops.frdet, name), arguments(device)[name])


def test_every_operator_is_checked() -> None:
    registered = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith('frdet::')}
    assert registered == {f'frdet::{name}' for name in arguments('cpu')}


class Head(torch.nn.Module):
    """A convolution, RoIAlign on one map and on two, and matching."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        fine = self.conv(x)
        coarse = torch.nn.functional.max_pool2d(fine, 2)
        one = ops.roi_align(fine, rois, 3, 0.1, 0, True)
        many = ops.multiscale_roi_align([fine, coarse], rois, 3, [0.1, 0.05])
        match = ops.max_iou(rois[:, 1:], rois[:2, 1:])
        return one + many * match.iou[:, None, None, None]


@pytest.mark.parametrize('dynamic', [False, True])
def test_compile(dynamic: bool) -> None:
    head, rois = Head(), random_rois(6, 2)
    compiled = torch.compile(head, fullgraph=True, dynamic=dynamic, backend='aot_eager')
    for height in (20, 24):
        x = torch.randn(2, 3, height, 20)
        expected = head(x, rois)
        found = compiled(x, rois)
        torch.testing.assert_close(found, expected)
        grads = [torch.autograd.grad(y.square().sum(), head.conv.weight)[0] for y in (found, expected)]
        torch.testing.assert_close(*grads)


def test_compiled_nms_with_a_result_of_unknown_size() -> None:
    def best(boxes: Tensor, scores: Tensor) -> Tensor:
        return boxes[ops.nms(boxes, scores, 0.3)] + 1

    boxes, scores = random_boxes(40), torch.rand(40)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        found = torch.compile(best, fullgraph=True, backend='aot_eager')(boxes, scores)
    assert found.equal(best(boxes, scores))


def test_export() -> None:
    head, rois, x = Head().eval(), random_rois(6, 2), torch.randn(2, 3, 20, 20)
    count = torch.export.Dim('count', min=2, max=1000)
    exported = torch.export.export(head, (x, rois), dynamic_shapes=({}, {0: count}))
    assert 'frdet.roi_align' in exported.graph_module.code
    more = random_rois(11, 2)
    torch.testing.assert_close(exported.module()(x, more), head(x, more))


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(device: str, dtype: torch.dtype) -> None:
    """Features stay in the reduced dtype, RoIs in float32; boxes are compared in float32."""
    conv = torch.nn.Conv2d(3, 4, 3, padding=1, device=device)
    x, rois = torch.randn(2, 3, 20, 20, device=device), random_rois(6, 2).to(device)
    boxes, scores = random_boxes(50).to(device), torch.rand(50, device=device)
    with torch.autocast(device, dtype=dtype):
        pooled = ops.roi_align(conv(x), rois, 3, 0.1)
        kept = ops.nms(boxes.to(dtype), scores, 0.5)
        match = ops.max_iou(boxes.to(dtype), boxes[:3])
    assert pooled.dtype == dtype
    pooled.float().sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.dtype == torch.float32
    assert kept.equal(ops.nms(boxes.to(dtype).float(), scores, 0.5))
    assert match.iou.dtype == torch.float32


# ---- the same bits in every run ------------------------------------------------------------------------------------


def run_everything(device: str, dtype: torch.dtype, layout: torch.memory_format) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    maps = [
        torch.randn(2, 24, s, s, generator=generator)
        .to(device, dtype)
        .contiguous(memory_format=layout)
        .requires_grad_()
        for s in (40, 20)
    ]
    corner, sides = torch.rand(300, 2, generator=generator) * 250, torch.rand(300, 2, generator=generator) * 120 + 3
    boxes = torch.cat([corner, corner + sides], dim=1).to(device)
    rois = torch.cat([(torch.arange(300, device=device) % 2)[:, None], boxes], dim=1)
    one = ops.roi_align(maps[0], rois, 7, 0.125, 0, True)
    many = ops.multiscale_roi_align(maps, rois, 7, [0.125, 0.0625], 2, canonical_size=60.0, canonical_level=3.0)
    grad = torch.randn(one.shape, generator=generator).to(device, dtype)
    (one * grad + many * grad).sum().backward()
    scores = torch.rand(300, generator=generator).to(device)
    idxs = rois[:, 0].long()
    nms = [ops.nms(boxes, scores, 0.4), ops.batched_nms(boxes, scores, idxs, 0.4)]
    return [one, many, *(x.grad for x in maps), *nms, *ops.max_iou(boxes, boxes[::7])]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_any_number_of_threads_gives_the_same_bits(dtype: torch.dtype, layout: torch.memory_format) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = run_everything('cpu', dtype, layout)
        for threads in (2, 3, 8):
            torch.set_num_threads(threads)
            found = run_everything('cpu', dtype, layout)
            assert all(a.equal(b) for a, b in zip(found, expected, strict=True)), threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize('device', DEVICES)
def test_runs_give_the_same_bits(device: str) -> None:
    torch.use_deterministic_algorithms(True)  # restored by a fixture for all tests
    expected = run_everything(device, torch.float32, torch.channels_last)
    for _ in range(5):
        found = run_everything(device, torch.float32, torch.channels_last)
        assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_cuda_gives_the_numbers_of_the_cpu() -> None:
    cpu, cuda = (run_everything(device, torch.float32, torch.channels_last) for device in ('cpu', 'cuda'))
    for a, b in zip(cpu, cuda, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_the_mask_does_not_wait_for_the_gpu() -> None:
    boxes, scores = random_boxes(500).cuda(), torch.rand(500).cuda()
    idxs = torch.randint(5, (500,)).cuda()
    torch.cuda.set_sync_debug_mode('error')
    try:
        ops.batched_nms_mask(boxes, scores, idxs, 0.5)
        ops.max_iou(boxes, boxes[:5])
        ops.roi_align(torch.randn(1, 4, 9, 9, device='cuda'), torch.zeros(3, 5, device='cuda'), 2)
    finally:
        torch.cuda.set_sync_debug_mode('default')
