"""Detectors of users: of one stage, with a stage of their own, and those of which only the detections are known."""

import pytest

from tests.insight.trace.losing import BASE, CAT, CLOSE, CROWDED, DOG, MIDDLE, Scene, trace
from tests.insight.trace.other_detectors import OUTCOMES, foreign, left_only, one_stage, oracle
from tests.insight.trace.test_stages import STAGES, Case, approx

ONE_STAGE = (
    'resizing', 'no anchor', 'anchor top-k', 'background', 'another class', 'box refinement', 'score threshold',
    'class NMS', 'detections cut', 'outranked', 'found',
)  # fmt: skip
#: As for two stages. The one stage moves an anchor and scores it at once.
CASES = [
    Case(
        'resizing', 'D', dict(network_size=6, anchor_iou=36 / 256), ['6'],
        after=BASE.alter('D', box=(100, 100, 106, 106)), wrong=('localisation',),
    ),
    Case(
        'no anchor', 'B', dict(anchor_iou=3 / 7), ['0.43', '0.5'], after=BASE.alter('B', box=(64, 0, 96, 12)),
        wrong=('localisation',),
    ),
    Case(  # a class score of 1e-6 has the logit -13.8, below the 63 other anchors of p4
        'anchor top-k', 'C', dict(anchor_iou=1, anchor_rank=64), ['64', '30'],
        after=BASE.change('C', scores={CAT: 1e-6, DOG: 1e-7}),
    ),
    Case(
        'background', 'C', dict(own_score=0.04, background_score=0.956, other_class='dog', other_score=0.004),
        ['background 0.956', 'cat 0.040'], after=BASE.change('C', scores={CAT: 0.04}),
    ),
    Case(
        'another class', 'C', dict(own_score=0.04, background_score=0.16, other_class='dog', other_score=0.8),
        ['dog 0.800', 'cat 0.040'], after=BASE.change('C', scores={CAT: 0.04, DOG: 0.8}), wrong=('classification',),
    ),
    Case(
        'box refinement', 'C', dict(anchor_iou=1, own_score=0.7, refined_iou=1 / 3), ['0.33'],
        after=BASE.change('C', refined=(8, 64, 24, 80)), wrong=('localisation',),
    ),
    Case(
        'score threshold', 'C', dict(own_score=0.7, refined_iou=1), ['0.70', '0.75'],
        changes=dict(model__head__score_thr=0.75),
    ),
    Case(
        'class NMS', 'B', dict(own_score=0.8, refined_iou=0.6), ['0.60', 'dog 15'],
        before=CROWDED.change('B', refined=MIDDLE).change('E', refined=CROWDED.things['E'].box),
        before_changes=dict(model__head__nms_iou_thr=0.7), changes=dict(model__head__nms_iou_thr=0.5),
    ),
    Case(
        'detections cut', 'C', dict(own_score=0.7, refined_iou=1), ['4', '3'],
        changes=dict(model__head__max_per_image=3),
    ),
    Case(
        'outranked', 'B', dict(detection_iou=0.6, detection_score=0.85), ['0.85', 'dog 15'], before=CLOSE,
        before_changes=dict(model__head__nms_iou_thr=0.7), changes=dict(model__head__nms_iou_thr=0.5),
    ),
]  # fmt: skip


@pytest.mark.parametrize('case', CASES, ids=[case.stage for case in CASES])
def test_one_stage(tmp_path, case):
    scene = case.after or case.before
    traced = trace(scene, tmp_path, model=one_stage, **{**case.before_changes, **case.changes})
    assert tuple(stage.name for stage in traced.summary.stages) == ONE_STAGE
    stages = {name: traced.of(thing)['stage'] for name, thing in scene.things.items()}
    assert stages == {**dict.fromkeys(scene.things, 'found'), case.lost: case.stage}
    row = traced.of(scene.things[case.lost])
    assert {name: row[name] for name in case.numbers} == {n: approx(v) for n, v in case.numbers.items()}
    assert all(text in row['why'] for text in case.why), row['why']
    assert tuple(one['kind'] for one in traced.wrong) == case.wrong
    assert traced.summary.detector == 'OneStage'


def test_every_object_is_found_by_one_stage(tmp_path):
    assert trace(BASE, tmp_path, model=one_stage).summary.counts['found'] == 4


def test_a_stage_of_a_user(tmp_path):
    """D lies right of 96 pixels. In the second image nothing does, so that the stage is not told."""
    rest = Scene({'A': BASE.things['A']}, {'A': BASE.said['A']})
    traced = trace([BASE, rest], tmp_path, model=left_only)
    place = STAGES.index('background')
    assert [stage.name for stage in traced.summary.stages] == [*STAGES[:place], 'left side', *STAGES[place:]]
    stages = {name: traced.of(thing)['stage'] for name, thing in BASE.things.items()}
    assert stages == {**dict.fromkeys('ABC', 'found'), 'D': 'left side'}


def test_a_stage_that_is_told_image_by_image_is_left_out_in_words(tmp_path):
    changes = dict(model__singly=True, test_dataloader__batch_size=2)
    summary = trace([BASE, BASE], tmp_path, model=left_only, **changes).summary
    assert 'left side' not in summary.counts and sum(summary.counts.values()) == 8
    assert summary.notes[1:] == [
        'LeftOnly tells selections of single images, and not of the whole batch: these stages are left out'
    ]


@pytest.mark.parametrize('model', [oracle, foreign])
@pytest.mark.parametrize('size', [(128, 128), (64, 256)], ids=str)
def test_only_detections_are_known(tmp_path, model, size):
    traced = trace(OUTCOMES, tmp_path, model=model, size=size)
    names = ['resizing', 'no detection', 'another class', 'poor box', 'outranked', 'found']
    listed = [stage.name for stage in traced.summary.stages if stage.name != 'detections cut']  # by the metric
    assert listed == names
    assert {name: traced.of(thing)['stage'] for name, thing in OUTCOMES.things.items()} == {n: n for n in names}
    assert 'as dog, score 0.800' in traced.of(OUTCOMES.things['another class'])['why']
    assert traced.of(OUTCOMES.things['outranked'])['detection_iou'] == approx(0.6)
    assert [row['kind'] for row in traced.wrong] == ['classification', 'localisation']
    assert all(row['level'] == '' and row['anchor_score'] is None for row in traced.wrong)
    assert traced.of(OUTCOMES.things['found'])['detection_rank'] == 1
    assert traced.summary.notes[1].startswith(f'{model(())["type"]} does not tell')
