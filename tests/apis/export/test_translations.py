"""frdet's operators as ONNX Runtime computes them, against slow, obvious loops."""

import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim

from frdet import ops
from frdet.apis.export.translations import OPSET, translations
from frdet.models.layers import FrozenBatchNorm2d, ModulatedDeformConv2d, conv_norm
from frdet.models.task_modules import NMS
from tests.ops import reference


class Suppress(nn.Module):
    def forward(self, boxes, scores, idxs):
        return ops.batched_nms_mask(boxes, scores, idxs, 0.5)


class Pool(nn.Module):
    def __init__(self, **rule):
        super().__init__()
        self.rule = rule

    def forward(self, first, second, third, rois):
        return ops.multiscale_roi_align([first, second, third], rois, (3, 2), [1 / 4, 1 / 8, 1 / 16], **self.rule)


def in_onnx_runtime(module, inputs, free):
    """A function of tensors; ``free`` are the inputs whose first dimension is free, or their free dimensions."""
    axes = free if isinstance(free, dict) else dict.fromkeys(free, {0})
    program = torch.onnx.export(
        module,
        tuple(inputs),
        opset_version=OPSET,
        custom_translation_table=translations(),
        dynamic_shapes=tuple(dict.fromkeys(axes.get(i, ()), Dim.DYNAMIC) for i in range(len(inputs))),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=['CPUExecutionProvider'])
    names = [value.name for value in session.get_inputs()]

    def run(*tensors):
        feed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return run


def scene(count):
    """Boxes on a coarse grid, so that many IoUs are exactly 0.5; scores with ties; groups of which 1 is empty."""
    corner = torch.randint(0, 8, (count, 2)) * 4.0
    boxes = torch.cat([corner, corner + torch.randint(1, 6, (count, 2)) * 4.0], dim=1)
    return boxes, torch.randint(-5, 5, (count,)) / 4.0, torch.tensor([0, 2, 3])[torch.randint(0, 3, (count,))]


@pytest.fixture(scope='module')
def suppress():
    with torch.random.fork_rng():
        return in_onnx_runtime(Suppress().eval(), scene(50), free={0, 1, 2})


@pytest.mark.parametrize('count', [1, 7, 200])
def test_suppression(suppress, count):
    boxes, scores, groups = scene(count)
    kept = suppress(boxes, scores, groups)
    expected = torch.zeros(count, dtype=torch.bool)
    expected[reference.batched_nms(boxes, scores, groups, 0.5)] = True
    assert kept.dtype == torch.bool and torch.equal(kept, expected)
    assert count < 200 or 0 < expected.sum() < count


class SuppressAcrossClasses(nn.Module):
    def forward(self, boxes, scores, labels):
        return NMS(class_agnostic=True)(boxes, scores, labels, 0.5)


def test_suppression_across_classes():
    """Each image is a group; labels play no part."""
    boxes, scores, labels = (x.unflatten(0, (2, 30)) for x in scene(60))
    found = in_onnx_runtime(SuppressAcrossClasses().eval(), (boxes, scores, labels), free=())(boxes, scores, labels)
    expected = torch.full((2, 30), -torch.inf)
    for image in range(2):
        keep = reference.batched_nms(boxes[image], scores[image], torch.zeros(30, dtype=torch.int64), 0.5)
        expected[image, keep] = scores[image, keep]
    assert torch.equal(found, expected) and found.isfinite().sum() < 60


class Deformable(nn.Module):
    """With a folded norm, as in a backbone."""

    def __init__(self):
        super().__init__()
        self.conv = ModulatedDeformConv2d(4, 3, 3, stride=2, padding=1, bias=False, deform_groups=2)
        self.norm = FrozenBatchNorm2d(3)
        for tensor in (self.conv.conv_offset.weight, self.conv.conv_offset.bias, self.norm.bias):
            nn.init.normal_(tensor, std=0.5)  # offsets of a pixel or two, some of them outside

    def forward(self, x):
        return conv_norm(x, self.conv, self.norm)


def test_deformable_convolution():
    """For every size, against torchvision's operator, which tests/models/layers compares with a loop."""
    module, inputs = Deformable().eval(), torch.randn(2, 4, 7, 10)
    run = in_onnx_runtime(module, (inputs,), free={0: {0, 2, 3}})
    for shape in ((2, 4, 7, 10), (3, 4, 12, 5), (1, 4, 1, 1)):
        x = torch.randn(shape)
        torch.testing.assert_close(run(x), module(x), atol=1e-5, rtol=1e-5)


def test_boxes_without_a_score_suppress_nothing(suppress):
    """The first would suppress the second; an empty box, the last, is kept."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [5, 5, 5, 5]])
    scores = torch.tensor([-torch.inf, -3.0, -4.0, -5.0])
    assert suppress(boxes, scores, torch.zeros(4, dtype=torch.int64)).tolist() == [False, True, False, True]


def test_nothing_has_a_score(suppress):
    boxes, _, groups = scene(20)
    assert not suppress(boxes, torch.full((20,), -torch.inf), groups).any()


RULES = {
    'detectron2': dict(sampling_ratio=0, aligned=True, eps_inside=1e-8, eps_outside=0.0),
    'torchvision': dict(sampling_ratio=2, aligned=False, eps_inside=0.0, eps_outside=1e-6),
}
# (image, x1, y1, x2, y2, level): sides of 16 and 32 pixels begin the second and the third level.
ROIS = [
    (0, 3.0, 5.0, 30.3, 25.1, 1),
    (1, 10, 10, 20, 11, 0),
    (0, -20, -9, 12, 14.5, 1),  # across the border
    (1, 80, 70, 140, 130, 2),
    (0, 500, 500, 520, 530, 1),  # beyond it
    (1, 7, 7, 7, 7, 0),  # empty
    (0, 0, 0, 0, 0, 0),
    (1, 2, 3, 90, 93, 2),
    (0, 0, 0, 16, 16, 1),
    (1, 0, 0, 32, 32, 2),
    (0, 0, 0, 15.99, 16, 0),
    (1, 0, 0, 31.99, 32, 1),
]
# log2(sqrt(15.99999 * 16) / 16) is -4.5e-7, which torchvision's 1e-6 lifts above 0.
AT_THE_BORDER = [(0, 0, 0, 15.99999, 16, {'detectron2': 0, 'torchvision': 1})]


@pytest.mark.parametrize('name', RULES)
def test_pooling(name):
    rule = RULES[name]
    maps = [torch.randn(2, 4, side, side + 3) for side in (24, 12, 6)]
    rows = [*ROIS, *((*row[:5], row[5][name]) for row in AT_THE_BORDER)]
    rois, levels = torch.tensor([row[:5] for row in rows]), [row[5] for row in rows]
    module = Pool(canonical_size=16.0, canonical_level=3.0, min_level=2, **rule)
    pool = in_onnx_runtime(module.eval(), [*maps, rois[:5]], free={3})
    expected = torch.cat([
        reference.roi_align(
            maps[at].double(), roi[None], (3, 2), 1 / (4 * 2**at), rule['sampling_ratio'], rule['aligned']
        )
        for at, roi in zip(levels, rois, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(pool(*maps, rois), expected.float(), rtol=1e-5, atol=1e-5)
    assert pool(*maps, rois[:0]).shape == (0, 4, 3, 2)
