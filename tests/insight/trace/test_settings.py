"""Other data, evaluators and assigners than the usual ones."""

import pytest
import torch

from frdet.insight.trace import trace_objects
from frdet.models.task_modules import AssignResult, BaseAssigner
from frdet.registry import ASSIGNERS
from tests.engine import toy
from tests.insight.trace.losing import BASE, CAT, config, read_trace, trace, write_data

LATE = BASE.change('C', scores={CAT: 0.04})


@ASSIGNERS.register_module(force=True)
class Nearest(BaseAssigner):
    """Gives every object the anchor that overlaps it most, whatever their IoU is."""

    def assign(self, boxes: torch.Tensor, gt_boxes: torch.Tensor, gt_labels: torch.Tensor) -> AssignResult:
        zeros = torch.zeros(len(boxes), dtype=torch.long)
        result = AssignResult(zeros.clone(), zeros.clone(), zeros.float())
        for number, box in enumerate(gt_boxes):
            low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
            best = (high - low).clamp(min=0).prod(dim=1).argmax()
            result.label[best], result.gt_index[best] = 1, number
        return result


def test_an_assigner_with_another_rule_than_iou(tmp_path):
    """D has an anchor of IoU 0.39: too little for the usual assigner, the best one for the other."""
    scene = BASE.change('D', logit=-5.0)
    row = trace(scene, tmp_path / 'iou').of(scene.things['D'])
    assert (row['stage'], row['anchor_rank']) == ('no anchor', None)
    other = trace(scene, tmp_path / 'nearest', model__rpn_head__assigner=dict(_delete_=True, type='Nearest'))
    row = other.of(scene.things['D'])
    assert (row['stage'], row['anchor_rank']) == ('RPN score', 64)
    assert row['anchor_iou'] == pytest.approx(100 / 256)
    assert other.summary.counts['found'] == 3


def test_the_validation_data(tmp_path):
    cfg = config([LATE], tmp_path)
    cfg.val_dataloader.dataset, cfg.val_evaluator = cfg.test_dataloader.dataset, cfg.test_evaluator
    cfg.test_dataloader.dataset = dict(type='CocoDataset', ann_file='nowhere.json', pipeline=[])
    trace_objects(cfg, None, tmp_path / 'trace', split='val')
    traced = read_trace(tmp_path / 'trace')
    assert traced.of(BASE.things['C'])['stage'] == 'background'
    keys = {stage.name: dict(stage.keys) for stage in traced.summary.stages}
    assert keys['resizing'] == {'val_dataloader.dataset.pipeline.1.scale': [128, 128]}
    assert keys['class NMS'] == {'model.roi_head.nms_iou_thr': 0.5}
    assert keys['RPN regression'] == {}


def test_without_a_coco_metric(tmp_path):
    """Objects are matched by COCO's rules whatever the evaluator is."""
    cfg = config([LATE], tmp_path)
    cfg.test_evaluator = dict(type=toy.ToyMetric.__name__)
    trace_objects(cfg, None, tmp_path / 'trace')
    traced = read_trace(tmp_path / 'trace')
    assert (traced.summary.counts['found'], traced.of(BASE.things['C'])['stage']) == (3, 'background')
    assert traced.summary.metrics == {'coco/bbox_mAP': 0.01}  # of the one image, as the toy counts


def test_joined_data_sets_with_the_same_ids(tmp_path):
    """Images and objects of two files have the same ids. The second file has one object less."""
    cfg = config([LATE], tmp_path / 'first')
    (tmp_path / 'second').mkdir()
    fewer = LATE.things.copy()
    del fewer['A']
    write_data([type(LATE)(fewer, LATE.said)], tmp_path / 'second', (128, 128))
    first = cfg.test_dataloader.dataset.to_dict()
    second = {**first, 'data_root': str(tmp_path / 'second')}
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[first, second])
    trace_objects(cfg, None, tmp_path / 'trace')
    traced = read_trace(tmp_path / 'trace')
    assert [row['stage'] for row in traced.rows] == [
        'found',
        'found',
        'background',
        'found',
        'found',
        'background',
        'found',
    ]
    assert (traced.summary.images, [row['kind'] for row in traced.wrong]) == (2, ['background'])


def test_a_part_of_the_classes(tmp_path):
    """Dogs alone, with another label than in the file: B is scored 0.8 for the second class, which is none."""
    cfg = config([BASE], tmp_path)
    cfg.test_dataloader.dataset.metainfo = dict(classes=['dog', 'N/A'])
    trace_objects(cfg, None, tmp_path / 'trace')
    traced = read_trace(tmp_path / 'trace')
    assert [row['id'] for row in traced.rows] == ['12']
    assert [row['stage'] for row in traced.rows] == ['another class']
    assert traced.rows[0]['other_score'] == pytest.approx(0.8, abs=1e-4)
