"""By one change exactly one object is lost, at a known stage and by numbers that are worked out by hand."""

from typing import Any, NamedTuple

import pytest

from tests.insight.trace.losing import BASE, BESIDE, CAT, CLOSE, CROWDED, DOG, MIDDLE, P4, Said, Scene, sigmoid, trace


class Case(NamedTuple):
    """One change, and what it loses."""

    stage: str
    lost: str
    numbers: dict[str, Any]  #: cells of the object's row in objects.csv
    why: list[str]  #: texts in the clause that says why
    before: Scene = BASE  #: in it all objects are found
    after: Scene | None = None
    changes: dict[str, Any] = {}  #: of the config
    before_changes: dict[str, Any] = {}
    key: str = ''  #: the setting that the stage names
    wrong: tuple[str, ...] = ()  #: kinds of the false positives


CASES = [
    Case(  # 6 pixels are below 8; the proposal of 10 pixels has IoU 36 / 100 with it, the anchor 36 / 256
        'resizing', 'D', dict(network_size=6, anchor_iou=36 / 256, proposal_iou=0.36), ['6'],
        after=BASE.alter('D', box=(100, 100, 106, 106)), wrong=('localisation',),
    ),
    Case(  # a strip of 32x12 on p5: 12 / 32 = 0.375. On p4, half of it: 16 * 12 / (256 + 384 - 192) = 3/7
        'no anchor', 'B', dict(anchor_iou=3 / 7, proposal_iou=3 / 7), ['0.43', '0.7'],
        after=BASE.alter('B', box=(64, 0, 96, 12)),
        key='model.rpn_head.anchor_generator.sizes', wrong=('localisation',),
    ),
    Case(  # the last of 64 anchors of p4, of which 30 stay; the anchor of p5 around it has IoU 256 / 1024
        'RPN score', 'C', dict(anchor_iou=1, anchor_rank=64, anchor_score=sigmoid(-5), decoded_iou=0.25), ['64', '30'],
        after=BASE.change('C', logit=-5), key='model.rpn_head.pre_nms_test',
    ),
    Case(
        'RPN regression', 'B', dict(anchor_iou=1, anchor_rank=2, anchor_score=sigmoid(4), decoded_iou=1 / 3),
        ['1.00', '0.33'], after=BASE.change('B', moved=BESIDE), wrong=('localisation',),
    ),
    Case(
        'proposal size', 'D', dict(decoded_iou=1), ['10.0 x 10.0'],
        changes=dict(model__rpn_head__min_side=12.0), key='model.rpn_head.min_side',
    ),
    Case(  # the proposal in the middle is suppressed by that of E, which does not fit B; those of p4 do not count
        'proposal NMS', 'B', dict(anchor_iou=1, decoded_iou=0.6, proposal_iou=18 / 46), ['0.60', 'dog 15'],
        before=CROWDED.change('B', moved=MIDDLE, refined=(64, 0, 96, 32)).add(
            'of p4', None, Said((P4, 5, 0), 7, {}, moved=(78, 0, 110, 32))
        ),
        changes=dict(model__rpn_head__nms_iou_thr=0.5), key='model.rpn_head.nms_iou_thr',
    ),
    Case(
        'proposal top-k', 'D', dict(decoded_iou=1, proposal_iou=0), ['4', '3'],
        changes=dict(model__rpn_head__post_nms_test=3), key='model.rpn_head.post_nms_test',
    ),
    Case(
        'background', 'C',
        dict(proposal_iou=1, own_score=0.04, background_score=0.956, other_class='dog', other_score=0.004),
        ['background 0.956', 'cat 0.040'], after=BASE.change('C', scores={CAT: 0.04}),
    ),
    Case(
        'another class', 'C',
        dict(proposal_iou=1, own_score=0.04, background_score=0.16, other_class='dog', other_score=0.8),
        ['dog 0.800', 'cat 0.040'], after=BASE.change('C', scores={CAT: 0.04, DOG: 0.8}), wrong=('classification',),
    ),
    Case(  # moved by half of its width
        'box refinement', 'C', dict(proposal_iou=1, own_score=0.7, refined_iou=1 / 3), ['1.00', '0.33'],
        after=BASE.change('C', refined=(8, 64, 24, 80)), wrong=('localisation',),
    ),
    Case(
        'score threshold', 'C', dict(own_score=0.7, refined_iou=1), ['0.70', '0.75'],
        changes=dict(model__roi_head__score_thr=0.75), key='model.roi_head.score_thr',
    ),
    Case(
        'class NMS', 'B', dict(own_score=0.8, refined_iou=0.6), ['0.60', 'dog 15'],
        before=CROWDED.change('B', refined=MIDDLE), before_changes=dict(model__roi_head__nms_iou_thr=0.7),
        changes=dict(model__roi_head__nms_iou_thr=0.5), key='model.roi_head.nms_iou_thr',
    ),
    Case(  # a detection of another class
        'class NMS', 'B', dict(own_score=0.8, refined_iou=0.6), ['0.60', 'cat 15'],
        before=CROWDED.change('B', refined=MIDDLE).alter('E', label=CAT).change('E', scores={CAT: 0.85}),
        changes=dict(model__roi_head__nms=dict(type='NMS', class_agnostic=True)),
    ),
    *(  # the score becomes 0.8 * (1 - 0.6), or 0.8 * exp(-0.6^2 / 0.5) = 0.39
        Case(
            'class NMS', 'B', dict(own_score=0.8, refined_iou=0.6), ['0.60', 'dog 15'],
            before=CROWDED.change('B', refined=MIDDLE), before_changes=dict(model__roi_head__nms_iou_thr=0.7),
            changes=dict(
                model__roi_head__nms=dict(type='SoftNMS', method=method, min_score=0.5),
                model__roi_head__nms_iou_thr=threshold,
            ),
        )
        for method, threshold in (('linear', 0.5), ('gaussian', 0.7))
    ),
    Case(  # by its lowered score the last of five, by its own the fourth
        'detections cut', 'B', dict(own_score=0.8, refined_iou=0.6), ['rank 5 of 5', '4 stay'],
        before=CROWDED.change('B', refined=MIDDLE), before_changes=dict(model__roi_head__nms=dict(type='SoftNMS')),
        changes=dict(model__roi_head__max_per_image=4),
    ),
    Case(
        'detections cut', 'C', dict(own_score=0.7, refined_iou=1), ['4', '3'],
        changes=dict(model__roi_head__max_per_image=3), key='model.roi_head.max_per_image',
    ),
    Case(  # two cats an image count, and C is the third
        'detections cut', 'C', dict(own_score=0.7, refined_iou=1), ['3', '2'],
        changes=dict(test_evaluator__max_dets=(1, 1, 2)),
    ),
    Case(  # the detection of E suppresses that of B, fits both, and belongs to E
        'outranked', 'B', dict(refined_iou=1, detection_iou=0.6, detection_score=0.85), ['0.85', 'dog 15'],
        before=CLOSE, before_changes=dict(model__roi_head__nms_iou_thr=0.7),
        changes=dict(model__roi_head__nms_iou_thr=0.5),
    ),
]  # fmt: skip
STAGES = (
    'resizing', 'no anchor', 'RPN score', 'RPN regression', 'proposal size', 'proposal NMS', 'proposal top-k',
    'background', 'another class', 'box refinement', 'score threshold', 'class NMS', 'detections cut', 'outranked',
    'found',
)  # fmt: skip


def approx(value: Any) -> Any:
    return pytest.approx(value, abs=1e-4) if isinstance(value, (int, float)) else value


@pytest.fixture(scope='module')
def before(tmp_path_factory):
    """The trace before the change of a case; most cases have the same."""
    known: dict[str, Any] = {}

    def get(case: Case) -> Any:
        key = repr((case.before, case.before_changes))
        if key not in known:
            known[key] = trace(case.before, tmp_path_factory.mktemp('before'), **case.before_changes)
        return known[key]

    return get


@pytest.mark.parametrize('case', CASES, ids=[f'{case.stage} {case.lost}' for case in CASES])
def test_one_object_is_lost(tmp_path, before, case):
    assert {row['stage'] for row in before(case).rows} == {'found'} and before(case).wrong == []
    scene = case.after or case.before
    after = trace(scene, tmp_path, **{**case.before_changes, **case.changes})
    assert tuple(stage.name for stage in after.summary.stages) == STAGES
    stages = {name: after.of(thing)['stage'] for name, thing in scene.things.items()}
    assert stages == {**dict.fromkeys(scene.things, 'found'), case.lost: case.stage}
    row = after.of(scene.things[case.lost])
    assert {name: row[name] for name in case.numbers} == {n: approx(v) for n, v in case.numbers.items()}
    assert all(text in row['why'] for text in case.why), row['why']
    assert tuple(one['kind'] for one in after.wrong) == case.wrong
    if case.key:
        (stage,) = [stage for stage in after.summary.stages if stage.name == case.stage]
        assert case.key in stage.keys
        assert case.changes.get(case.key.replace('.', '__'), stage.keys[case.key]) == stage.keys[case.key]


def test_every_stage_has_a_case():
    assert {case.stage for case in CASES} == {*STAGES[:-1]}
