"""Objects of every kind, moved by flips and resizing, in detectors of other options: the rules of the stages hold."""

from dataclasses import replace
from typing import Any

import pytest

from frdet.insight.trace import trace_objects
from tests.insight.trace.losing import BASE, CAT, DOG, P4, P5, Said, Scene, Thing, config, pipeline, read_trace, trace

#: C is lost at the RPN's score, D at the background, B is detected as a cat.
MIXED = (
    BASE.change('C', logit=-5.0).change('D', scores={CAT: 0.04}).change('B', scores={CAT: 0.8, DOG: 0.04})
)  # fmt: skip
MIXED_STAGES = {'A': 'found', 'B': 'another class', 'C': 'RPN score', 'D': 'background'}


@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
    return trace(MIXED, tmp_path_factory.mktemp('mixed'))


def stages(traced: Any, scene: Scene) -> dict[str, str]:
    return {name: traced.of(thing)['stage'] for name, thing in scene.things.items()}


def assert_close(rows: list[dict], expected: list[dict], **scale: float) -> None:
    """The rows are equal, up to the factors of some columns."""
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        for name, value in other.items():
            wanted = value * scale.get(name, 1) if isinstance(value, float) else value
            assert row[name] == (pytest.approx(wanted, abs=1e-4) if isinstance(wanted, float) else wanted), name


def test_a_row_tells_the_object(mixed):
    assert stages(mixed, MIXED) == MIXED_STAGES
    row = mixed.of(MIXED.things['D'])
    wanted = dict(
        id='14', image='100', file='0.png', left=100, top=100, width=10, height=10, size='small', crowding=0,
        network_size=10,
    )  # fmt: skip
    assert {name: row[name] for name in wanted} == wanted and row['class'] == 'cat'
    # No anchor fits D, so none has a rank.
    assert row['anchor_iou'] == pytest.approx(100 / 256) and row['anchor_rank'] is None
    row = mixed.of(MIXED.things['A'])
    assert (row['detection_iou'], row['detection_rank'], row['own_score']) == (1, 1, pytest.approx(0.9))
    assert mixed.summary.images == 1 and mixed.summary.classes == ['cat', 'dog']
    assert (mixed.summary.iou, mixed.summary.min_size, mixed.summary.checkpoint) == (0.5, 8, None)
    assert mixed.summary.notes[0].startswith('No checkpoint')


def test_no_anchor_but_a_proposal_is_no_loss(tmp_path):
    """D has no anchor that fits. It is lost where nothing fits it again, at the head's class, not at the anchors."""
    scene = BASE.change('D', scores={CAT: 0.04, DOG: 0.8})
    assert stages(trace(scene, tmp_path), scene)['D'] == 'another class'


def test_the_first_stage_after_which_nothing_fits(tmp_path):
    """The anchor of C is lost at its score. Another proposal fits C, and the head calls it background."""
    other = Said((P5, 0, 2), 3.5, {CAT: 0.04}, moved=(0, 64, 16, 80))
    scene = BASE.change('C', logit=-5.0).add('other', None, other)
    found = trace(scene, tmp_path).of(scene.things['C'])
    assert (found['stage'], found['anchor_rank'], found['decoded_iou']) == ('background', 64, 1)


def test_small_objects(tmp_path):
    """An object below the smallest size is lost at resizing only if nothing ever fits it."""
    box = (100, 100, 106, 106)
    missed = BASE.alter('D', box=box)
    found = missed.change('D', moved=box)
    late = found.change('D', scores={CAT: 0.04})
    traced = trace([found, late], tmp_path / 'a')
    assert [row['stage'] for row in traced.rows if row['id'] in ('14', '1014')] == ['found', 'background']
    traced = trace(missed, tmp_path / 'b', options=dict(min_size=6.0))
    assert traced.summary.min_size == 6 and stages(traced, missed)['D'] == 'no anchor'


def test_other_threshold(tmp_path):
    """Moved by 3 of 16 pixels: IoU 13 / 19 = 0.68. Moved by 2: 14 / 18 = 0.78."""
    scene = BASE.change('C', refined=(3, 64, 19, 80)).change('D', refined=(100, 100, 110, 110))
    scene = scene.add('F', Thing(16, CAT, (64, 64, 80, 80)), Said((P4, 4, 4), 1, {CAT: 0.6}, refined=(66, 64, 82, 80)))
    strict = trace(scene, tmp_path / '75', options=dict(iou=0.75))
    assert stages(strict, scene) == {**dict.fromkeys('ABDF', 'found'), 'C': 'box refinement'}
    assert strict.of(scene.things['C'])['refined_iou'] == pytest.approx(13 / 19, abs=1e-4)
    # The same detection is too poor a box of C, and no second one of a found object.
    assert [(row['kind'], row['object']) for row in strict.wrong] == [('localisation', '13')]
    assert strict.of(scene.things['F'])['detection_iou'] == pytest.approx(14 / 18, abs=1e-4)
    assert trace(scene, tmp_path / '50').summary.recall == 1


def test_crowds_and_ignored_objects_do_not_count(tmp_path):
    """Nor are detections in them wrong."""
    scene = MIXED.add('crowd', Thing(21, CAT, (32, 32, 64, 64), {'iscrowd': 1}), Said((P5, 1, 1), 1, {CAT: 0.6}))
    scene = scene.add('ignored', Thing(22, DOG, (64, 64, 96, 96), {'ignore': 1}), Said((P5, 2, 2), 1, {DOG: 0.6}))
    traced = trace(scene, tmp_path)
    assert sorted(row['id'] for row in traced.rows) == ['11', '12', '13', '14']
    assert stages(traced, MIXED) == MIXED_STAGES
    assert [row['kind'] for row in traced.wrong] == ['classification']


def test_mirrored_images(tmp_path, mixed):
    """Boxes of the tables are in the image as it is annotated."""
    flipped = pipeline(dict(type='RandomFlip', prob=1.0))
    traced = trace(MIXED.mirrored(), tmp_path, test_dataloader__dataset__pipeline=flipped)
    assert_close(traced.rows, mixed.rows)
    assert_close(traced.wrong, mixed.wrong)


@pytest.mark.parametrize('size', [(64, 256), (256, 64)], ids=str)
def test_width_and_height_resized_differently(tmp_path, mixed, size):
    """IoU does not change where all boxes are stretched alike, nor do the sizes in the network's input."""
    y, x = size[0] / 128, size[1] / 128
    traced = trace(MIXED, tmp_path, size=size)
    scale = dict(left=x, width=x, top=y, height=y)
    assert_close(traced.rows, mixed.rows, **scale)
    assert_close(traced.wrong, mixed.wrong, **scale)


def test_objects_that_reach_beyond_the_image(tmp_path):
    """COCO compares with the whole box: a detection, which ends at the border, has IoU 28 / 60 or 28 / 50 with it."""
    said = Said((P5, 3, 0), 1, {DOG: 0.6}, moved=(100, 0, 128, 32))
    lost = BASE.add('F', Thing(16, DOG, (100, 0, 160, 32)), said)
    found = BASE.add('F', Thing(16, DOG, (100, 0, 150, 32)), said)
    traced = trace([lost, found], tmp_path)
    first, second = (row for row in traced.rows if row['id'] in ('16', '1016'))
    assert (first['stage'], second['stage']) == ('box refinement', 'found')
    assert 'IoU 0.4667' in first['why'] and first['refined_iou'] == 1  # the latter in the network's input
    assert second['detection_iou'] == pytest.approx(0.56, abs=1e-4)
    assert first['anchor_iou'] == pytest.approx(28 / 32, abs=1e-4)  # as in training, where the box is cut
    assert (first['width'], second['width']) == (60, 50)


def test_images_without_objects(tmp_path):
    traced = trace([Scene({}, BASE.said), BASE, Scene({}, {})], tmp_path)
    assert (traced.summary.images, traced.summary.objects, traced.summary.counts['found']) == (3, 4, 4)
    assert [(row['image'], row['kind'], row['object']) for row in traced.wrong] == [('100', 'background', '')] * 4


def test_nothing_is_detected(tmp_path):
    traced = trace(BASE, tmp_path, model__roi_head__score_thr=0.99)
    assert traced.summary.counts['score threshold'] == traced.summary.objects == 4
    assert traced.summary.recall == 0 and traced.wrong == []


def test_equal_scores_at_the_count_of_the_metric(tmp_path):
    """Of three cats with one score the metric counts the first two; detections keep the order of the proposals."""
    scene = BASE.change('A', scores={CAT: 0.7}).change('D', scores={CAT: 0.7})
    traced = trace(scene, tmp_path, test_evaluator__max_dets=(1, 1, 2))
    assert stages(traced, scene) == {**dict.fromkeys('ABC', 'found'), 'D': 'detections cut'}
    assert 'rank 3 of its class' in traced.of(scene.things['D'])['why']


def test_at_the_threshold(tmp_path):
    """A detection that covers exactly half of its object finds it, and fits it at every stage."""
    scene = BASE.change('A', moved=(0, 0, 32, 16)).change('C', scores={CAT: 0.04}, moved=(0, 64, 16, 72))
    traced = trace(scene, tmp_path)
    assert stages(traced, scene) == {**dict.fromkeys('ABD', 'found'), 'C': 'background'}
    assert traced.of(scene.things['A'])['detection_iou'] == 0.5


def test_one_box_for_all_classes(tmp_path, mixed):
    traced = trace(MIXED, tmp_path, model__roi_head__bbox_head__class_agnostic=True)
    assert_close(traced.rows, mixed.rows)
    assert_close(traced.wrong, mixed.wrong)


def test_a_box_for_every_class(tmp_path):
    """The box of the other class would fit."""
    scene = BASE.change('C', refined={CAT: (8, 64, 24, 80), DOG: (0, 64, 16, 80)})
    row = trace(scene, tmp_path).of(scene.things['C'])
    assert (row['stage'], row['refined_iou']) == ('box refinement', pytest.approx(1 / 3, abs=1e-4))


def test_number_of_classes_from_the_data(tmp_path, mixed):
    assert_close(trace(MIXED, tmp_path, model__roi_head__bbox_head__num_classes=None).rows, mixed.rows)


@pytest.mark.parametrize('batch_size', [2, 3])
def test_batches(tmp_path, batch_size):
    """Images of different losses, also in a batch that is not full."""
    scenes = [MIXED, BASE, Scene({}, {}), MIXED.change('A', scores={}), BASE.change('C', logit=-5.0)]
    one = trace(scenes, tmp_path / 'one')
    several = trace(scenes, tmp_path / 'several', test_dataloader__batch_size=batch_size)
    assert [row['stage'] for row in one.rows[:4]] == [MIXED_STAGES[name] for name in 'ABCD']
    assert_close(several.rows, one.rows)
    assert_close(several.wrong, one.wrong)


def test_ids_may_be_text(tmp_path):
    scene = replace(MIXED, things={name: replace(t, id=f'id {name}') for name, t in MIXED.things.items()})
    assert [row['id'] for row in trace(scene, tmp_path).rows] == ['id A', 'id B', 'id C', 'id D']


def test_the_data_of_the_validation(tmp_path):
    """The config has no test, and the hook that saves the best checkpoint does not take it for a validation."""
    cfg = config([MIXED], tmp_path, default_hooks__checkpoint__save_best='coco/bbox_mAP')
    for name in ('dataloader', 'evaluator'):
        cfg[f'val_{name}'] = cfg.pop(f'test_{name}')
    cfg.pop('test_cfg')
    trace_objects(cfg, None, tmp_path / 'trace', split='val')
    assert stages(read_trace(tmp_path / 'trace'), MIXED) == MIXED_STAGES
    assert not list(tmp_path.rglob('*.pth'))
