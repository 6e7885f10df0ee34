"""What a changed setting does, where it is known, and against true runs of the changed config."""

import shlex
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from pytest import approx
from torch import nn
from torch.overrides import TorchFunctionMode

from frdet.config import load_config
from frdet.datasets.shapes import write_shapes
from frdet.insight.trace import trace_objects
from frdet.insight.trace.helping import _leave_out_masks, _shared, what_would_help
from frdet.insight.trace.model import OBJECT_COLUMNS, OBJECTS, Help, Summary, read_rows
from frdet.registry import DETECTORS
from tests.insight.trace.told import PassOn, Said, Scene, summary_of, write_config
from tests.weights import NARROW, calibrate_detector

ROOT = Path(__file__).resolve().parents[3]
LEFT, RIGHT = (0, 0, 80, 40), (17, 0, 97, 40)  # IoU 63 * 40 / (2 * 80 * 40 - 63 * 40) = 0.649
BELOW, CORNER = (0, 60, 40, 100), (60, 60, 100, 100)
BESIDE = Scene([LEFT, RIGHT], [Said(LEFT, 0.9), Said(RIGHT, 0.8)])
APART = Scene([BELOW, CORNER], [Said(BELOW, 0.9), Said(CORNER, 0.8)])


def run(cfg: Config, *stages: str, **how) -> dict[str, Help]:
    """The helps by what they change."""
    return {help.change: help for help in what_would_help(cfg, None, summary_of(cfg, stages), **how)}


def test_a_higher_nms_threshold_keeps_objects_side_by_side(tmp_path):
    helps = run(write_config(tmp_path, [BESIDE]), 'class NMS')
    nms = {change: help.recall for change, help in helps.items() if 'nms' in change}
    assert nms == {
        'model.nms_iou_thr: 0.5 -> 0.7': (0.5, 1.0),
        'model.nms_iou_thr: 0.5 -> 0.6': (0.5, 0.5),
        'model.nms_iou_thr: 0.5 -> 0.4': (0.5, 0.5),
    }
    best = helps['model.nms_iou_thr: 0.5 -> 0.7']
    assert best.lines == 'model = dict(nms_iou_thr=0.7)'
    assert (best.stage, best.gain, best.images, best.objects) == ('class NMS', 0.5, 1, 2)
    assert best.detections == (1, 2)
    assert list(helps.values())[0] is best  # the greatest gain comes first


def test_a_lower_score_threshold_costs_precision(tmp_path):
    wrong = Said((40, 0, 60, 20), 0.045)
    scene = Scene([BELOW, CORNER], [Said(BELOW, 0.9), wrong, Said(CORNER, 0.04)])
    help = run(write_config(tmp_path, [scene]), 'score threshold')['model.score_thr: 0.05 -> 0.01']
    assert help.recall == (0.5, 1)
    assert help.detections == (1, 3)
    # The 51 recalls up to 0.5 have precision 1; the other 50 have precision 2 / 3.
    assert help.ap == approx((51 / 101, (51 + 50 * 2 / 3) / 101))
    assert help.cost == 'AP 50.5% -> 83.5%, 1.0 -> 3.0 detections an image'


def test_more_detections_an_image(tmp_path):
    help = run(write_config(tmp_path, [APART], max_per_image=1), 'detections cut')['model.max_per_image: 1 -> 2']
    assert help.recall == (0.5, 1)
    assert 'max_dets' not in help.note


def test_the_limit_of_the_metric_is_named(tmp_path):
    cfg = write_config(tmp_path, [APART], max_per_image=1)
    cfg.test_evaluator.max_dets = (1, 1, 1)
    help = run(cfg, 'detections cut')['model.max_per_image: 1 -> 2']
    assert help.recall == (0.5, 0.5)
    assert 'counts at most 1 detections of a class and image: raise its max_dets, too' in help.note


def test_the_limit_of_the_metric_is_that_of_each_class(tmp_path):
    cfg = write_config(tmp_path, [Scene([BELOW], [Said(BELOW, 0.9), Said(CORNER, 0.8, label=1)])], max_per_image=1)
    cfg.test_evaluator.max_dets = (1, 1, 1)
    help = run(cfg, 'detections cut')['model.max_per_image: 1 -> 2']
    assert help.detections == (1, 2)
    assert 'max_dets' not in help.note


def test_larger_inputs_show_more(tmp_path):
    """A detection needs an input of 130 pixels; the images have 100, and 125 and 150 are tried."""
    scene = Scene([BELOW, CORNER], [Said(BELOW, 0.9), Said(CORNER, 0.8, needs=130)])
    helps = run(write_config(tmp_path, [scene]), 'class NMS')
    resize = 'test_dataloader.dataset.pipeline.1: scale (100, 100) ->'
    assert helps[f'{resize} (125, 125)'].recall == (0.5, 0.5)
    larger = helps[f'{resize} (150, 150)']
    assert larger.recall == (0.5, 1)
    assert larger.stage == 'resizing'
    assert larger.lines == "--cfg-options 'test_dataloader.dataset.pipeline.1.scale=(150, 150)'"


def test_the_interval_is_that_of_drawing_images_again(tmp_path):
    """Six of 12 images gain one of two objects.

    The number of them in a sample is binomial, and its middle 95% goes from 3 to 9: P(X <= 2) = 79 / 4096 = 1.9%,
    P(X <= 3) = 299 / 4096 = 7.3%. A sample has 24 objects.
    """
    helps = run(write_config(tmp_path, [BESIDE, APART] * 6), 'class NMS')
    help = helps['model.nms_iou_thr: 0.5 -> 0.7']
    assert help.recall == (0.75, 1)
    assert help.interval == approx((3 / 24, 9 / 24))
    assert not help.is_noise
    assert help.note == ''


def test_a_gain_in_one_of_many_images_is_noise(tmp_path):
    helps = run(write_config(tmp_path, [BESIDE, *[APART] * 11]), 'class NMS')
    help = helps['model.nms_iou_thr: 0.5 -> 0.7']
    assert help.gain == approx(1 / 24)
    assert help.is_noise


def test_few_images_are_told(tmp_path):
    help = run(write_config(tmp_path, [BESIDE] * 3), 'class NMS')['model.nms_iou_thr: 0.5 -> 0.7']
    assert help.note == 'tried on 3 images: too few to tell a gain from noise'


def test_a_sample_is_drawn_among_the_images_with_objects(tmp_path):
    empty = Scene([], [Said(LEFT, 0.9)])
    cfg = write_config(tmp_path, [empty, BESIDE, empty, APART, empty, BESIDE, APART])
    helps = [run(cfg, 'class NMS', images=2, seed=seed)['model.nms_iou_thr: 0.5 -> 0.7'] for seed in range(6)]
    assert {(help.images, help.objects) for help in helps} == {(2, 4)}
    assert {help.recall for help in helps} == {(1, 1), (0.75, 1), (0.5, 1)}
    assert run(cfg, 'class NMS', images=99)['model.nms_iou_thr: 0.5 -> 0.7'].images == 4


def test_the_features_of_an_image_are_computed_once_for_a_size(tmp_path):
    cfg = write_config(tmp_path, [BESIDE] * 4)
    before = PassOn.calls
    assert len(run(cfg, 'class NMS', 'score threshold', 'detections cut')) == 9
    assert PassOn.calls - before == 4 * 3


class Doubling(nn.Module):
    neck = None

    def __init__(self):
        super().__init__()
        self.backbone = AddingOne()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, inputs):
        return self.conv(*self.backbone(inputs)).mul_(2)


class AddingOne(nn.Module):
    def forward(self, inputs):
        return (inputs + 1,)


class Counting(TorchFunctionMode):
    """Counts additions and convolutions."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, '__name__', '')
        self.calls[name] += name in ('conv2d', 'add')
        return func(*args, **(kwargs or {}))


def test_maps_and_convolutions_of_them_are_computed_once():
    first, second, other = Doubling(), Doubling(), Doubling()
    second.load_state_dict(first.state_dict(), assign=True)
    inputs = [torch.rand(1, 1, 4, 4) for _ in range(2)]
    expected = [(first(one), other(one)) for one in inputs]
    with Counting() as counting, _shared([first, second, other]):
        for one, (value, of_other) in zip(inputs, expected, strict=True):
            assert torch.equal(first(one), value)
            assert torch.equal(second(one), value)
            assert torch.equal(other(one), of_other)  # its weights differ
    assert (counting.calls['add'], counting.calls['conv2d']) == (2, 4)


def test_found_follows_the_iou_of_the_trace(tmp_path):
    """The detection (0, 60, 40, 90) has IoU 0.75 with the object."""
    cfg = write_config(tmp_path, [Scene([BELOW, CORNER], [Said((0, 60, 40, 90), 0.9), Said(CORNER, 0.8)])])
    recalls = [what_would_help(cfg, None, summary_of(cfg, ['class NMS'], iou))[0].recall[0] for iou in (0.7, 0.8)]
    assert recalls == [1, 0.5]


@DETECTORS.register_module(force=True)
class Undetecting(BaseModel):
    """No ``Detector``."""

    def forward(self, *args, **kwargs):
        raise AssertionError


def test_nothing_is_tried_where_nothing_can_be_gained(tmp_path):
    cfg = write_config(tmp_path, [Scene([], [Said(LEFT, 0.9)])])
    assert what_would_help(cfg, None, summary_of(cfg, ['class NMS'])) == []  # no objects
    whole = summary_of(cfg, ['class NMS'])
    whole.counts['class NMS'] = 0
    assert what_would_help(cfg, None, whole) == []
    lost = summary_of(cfg, ['class NMS'])
    cfg.model = dict(type='Undetecting')
    assert what_would_help(cfg, None, lost) == []


@pytest.fixture(scope='module')
def real(tmp_path_factory) -> Path:
    """A config on six drawn images, beside weights that detect something all over the images."""
    folder = tmp_path_factory.mktemp('real')
    settings = {
        **NARROW,
        'model.rpn_head.pre_nms_test': 60,
        'model.rpn_head.post_nms_test': 150,
        'model.roi_head.bbox_head.fc_channels': 32,
        'model.roi_head.score_thr': 0.15,
        'test_dataloader.dataset.data_root': str(write_shapes(folder / 'shapes', num_train=1, num_val=6)),
    }
    cfg = load_config(ROOT / 'configs/quickstart/r18_fpn_shapes.py', settings)
    cfg.dump(folder / 'base.py')
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DETECTORS.build(cfg.model)
        calibrate_detector(model, torch.rand(2, 3, 128, 128) * 255)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / 'weights.pth')
    return folder / 'base.py'


def trace(config: Path, *options: str, **how) -> Summary:
    folder = config.parent
    cfg = load_config(config, [*options, f'work_dir={folder / "run"}'])
    return trace_objects(cfg, str(folder / 'weights.pth'), folder / 'trace', cards=0, **how)


def anchored(config: Path) -> float:
    """The share of objects that an anchor fits, in the table of the last trace. The assigner needs 0.7."""
    best = [row['anchor_iou'] for row in read_rows(config.parent / 'trace' / OBJECTS, OBJECT_COLUMNS)]
    return sum(iou >= 0.7 for iou in best) / len(best)


@pytest.mark.parametrize('amp', [False, True])
def test_runs_of_the_changed_config_give_what_was_said(real, amp):
    """The lines, in a config that inherits the base, in a run of all images."""
    base = trace(real, amp=amp)
    before = base.recall, base.metrics['coco/bbox_mAP_50'], anchored(real)
    tried = ['class NMS', *([] if amp else ['no anchor'])]
    base.counts = {name: int(name in tried) for name in base.counts}
    helps = what_would_help(load_config(real), str(real.parent / 'weights.pth'), base, amp=amp)
    assert any(one.ap[0] != one.ap[1] > 0 for one in helps), 'the weights find nothing, so this tests nothing'
    for stage in [*tried, *([] if amp else ['resizing'])]:
        help = next(one for one in helps if one.stage == stage)
        lines, _, options = help.lines.partition('--cfg-options ')
        changed = real.parent / 'changed.py'
        changed.write_text(f"_base_ = './{real.name}'\n{lines}\n")
        after = trace(changed, *shlex.split(options), amp=amp)
        assert help.recall == approx((before[0], after.recall))
        assert help.ap == approx((before[1], after.metrics['coco/bbox_mAP_50']))
        assert help.detections[1] * 6 == approx(after.counts['found'] + sum(after.false_positives.values()))
        if stage == 'no anchor':
            assert f'an anchor fits {before[2]:.1%} -> {anchored(real):.1%} of the objects' in help.note


@torch.no_grad()
def test_masks_are_left_out():
    """A detector that is tried finds the same boxes without them."""
    cfg = load_config(ROOT / 'configs/mask_rcnn/mask_rcnn_r18_fpn_shapes.py', {'model.roi_head.score_thr': 0.0})
    model = DETECTORS.build(cfg.model).eval()
    features, sizes = model.extract_features(torch.randn(1, 3, 64, 64)), torch.tensor([[64.0, 64.0]])
    before = model.detect(features, sizes)
    _leave_out_masks(model)
    after = model.detect(features, sizes)
    assert before.masks is not None and after.masks is None
    assert before.boxes.any() and torch.equal(before.boxes, after.boxes)
