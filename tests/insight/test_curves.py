"""Curves by hand, and COCO's arrays against the values that the metric logs."""

import json

import numpy as np
import pytest
from mmengine.logging import MMLogger

from frdet.evaluation import CocoMetric
from frdet.evaluation.backends import CocoEval
from frdet.insight.curves import class_table, f1_curve, precision_curve
from tests.evaluation.test_coco_metric import drawn


def test_f1_by_hand():
    """Three objects; of the two detections that score 0.8 one is right."""
    curve = f1_curve(np.array([0.5, 0.8, 0.9, 0.8]), np.array([False, True, True, False]), 3)
    assert curve.scores.tolist() == [0.9, 0.8, 0.5]
    assert curve.precision == pytest.approx([1, 2 / 3, 2 / 4])
    assert curve.recall == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert curve.f1 == pytest.approx([2 / 4, 4 / 6, 4 / 7])
    assert curve.threshold == 0.8


def test_f1_of_nothing():
    nothing = f1_curve(np.zeros(0), np.zeros(0, bool), 3)
    assert nothing.scores.shape == (0,) and nothing.threshold == 0
    no_objects = f1_curve(np.array([0.5]), np.array([False]), 0)
    assert no_objects.f1.tolist() == [0] and no_objects.recall.tolist() == [0]


def test_coco_arrays_by_hand():
    """Two IoUs, two recalls, three classes; the last class has no object, the second none that is small."""
    precision = np.full((2, 2, 3, 4, 1), -1.0)
    precision[0, :, 0, 0, 0], precision[1, :, 0, 0, 0] = (1.0, 0.5), (0.5, 0.0)
    precision[0, :, 1, 0, 0], precision[1, :, 1, 0, 0] = (0.6, 0.4), (0.2, 0.0)
    precision[0, :, 0, 1, 0], precision[1, :, 0, 1, 0] = (0.4, 0.2), (0.2, 0.0)
    evaluation = CocoEval(precision, np.zeros((2, 3, 4, 1)), np.array([0.5, 0.75]), [1, 2, 3])
    assert precision_curve(evaluation, iou=0.5) == pytest.approx([0.8, 0.45])
    assert precision_curve(evaluation) == pytest.approx([(1 + 0.5 + 0.6 + 0.2) / 4, (0.5 + 0 + 0.4 + 0) / 4])
    table = class_table(evaluation)
    assert table[0] == pytest.approx([0.5, 0.75, 0.25, 0.2, np.nan, np.nan], nan_ok=True)
    assert table[1] == pytest.approx([0.3, 0.5, 0.1, np.nan, np.nan, np.nan], nan_ok=True)
    assert np.isnan(table[2]).all()


def test_the_metrics_arrays_give_its_figures(tmp_path):
    MMLogger.get_instance('curves')
    content, samples, classes = drawn(np.random.default_rng(1))
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    metric = CocoMetric(ann_file=str(tmp_path / 'truth.json'))
    metric.dataset_meta = dict(classes=classes)
    assert metric.evaluation is None
    metric.process({}, samples)
    figures = metric.evaluate(len(samples))
    table = class_table(metric.evaluation)
    assert np.nanmean(table[:, 0]) == pytest.approx(figures['coco/bbox_mAP'])
    assert np.nanmean(table[:, 1]) == pytest.approx(figures['coco/bbox_mAP_50'])
    assert np.mean(precision_curve(metric.evaluation, iou=0.75)) == pytest.approx(figures['coco/bbox_mAP_75'])
