"""What cannot be traced is said in words."""

import json

import pytest

from frdet.errors import CheckpointError, ConfigError, DataError, UserError
from frdet.insight.trace import trace_objects
from tests.insight.trace.losing import BASE, PREPROCESSOR, config, trace
from tests.insight.trace.other_detectors import foreign


def test_no_annotations(tmp_path):
    cfg = config([BASE], tmp_path)
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'annotations': []}))
    with pytest.raises(DataError, match='truth.json has no annotation, so there is no object to trace: give data with'):
        trace_objects(cfg, None, tmp_path / 'trace')


def test_no_object_counts(tmp_path):
    """Annotations that are all crowds: there is nothing to lose."""
    cfg = config([BASE], tmp_path)
    path = tmp_path / 'truth.json'
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, 'annotations': [{**a, 'iscrowd': 1} for a in content['annotations']]}))
    summary = trace_objects(cfg, None, tmp_path / 'trace')
    assert (summary.objects, summary.recall, set(summary.counts.values())) == (0, 0, {0})


def test_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r'No checkpoint .*nope\.pth: give the path of a file'):
        trace_objects(config([BASE], tmp_path), str(tmp_path / 'nope.pth'), tmp_path / 'trace')


def test_results_without_detections(tmp_path):
    def silent(scenes):
        return dict(type='Foreign', found=None, data_preprocessor=PREPROCESSOR)

    with pytest.raises(ConfigError, match='for image 100 has no bboxes and no scores and no labels: expected pred_'):
        trace(BASE, tmp_path, model=silent)


@pytest.mark.parametrize('iou', [1.5, 0.0, -0.5, float('nan')])
def test_impossible_iou(tmp_path, iou):
    with pytest.raises(ConfigError, match='IoU .* is .*: expected more than 0, and at most 1'):
        trace(BASE, tmp_path, options=dict(iou=iou))


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='file/trace cannot be made a folder .*: choose another'):
        trace_objects(config([BASE], tmp_path), None, tmp_path / 'file/trace')


def test_unknown_split(tmp_path):
    with pytest.raises(ConfigError, match="split is 'train': expected test or val"):
        trace(BASE, tmp_path, options=dict(split='train'))


def test_a_failed_trace_leaves_the_observers_alone(tmp_path):
    """The next trace in this process sees its own detector only."""
    with pytest.raises(CheckpointError):
        trace_objects(config([BASE], tmp_path), 'nope.pth', tmp_path / 'trace')
    assert trace(BASE, tmp_path / 'next').summary.counts['found'] == 4
    assert 'background' not in trace(BASE, tmp_path / 'last', model=foreign).summary.counts
