"""False positives: their kind, the object near them, and the anchor and proposal that they came from."""

import pytest

from tests.insight.trace.losing import BASE, CAT, DOG, P4, P5, Said, sigmoid, trace


@pytest.fixture(scope='module')
def wrong(tmp_path_factory):
    """An image with a false positive of every kind. Rows by kind."""
    scene = BASE
    for name, said in {
        # Nothing is there; a proposal that reaches beyond the image is cut to 36 pixels.
        'background': Said((P5, 3, 2), 1.5, {DOG: 0.6}, moved=(92, 64, 140, 96)),
        # A again: 32x28 of 32x32.
        'duplicate': Said((P5, 1, 0), 4.5, {CAT: 0.55}, moved=(0, 0, 32, 28)),
        # B: 16 of 48 columns.
        'localisation': Said((P5, 3, 0), 4.2, {DOG: 0.5}, moved=(80, 0, 112, 32)),
        # C, as a dog: 15 of 16 rows
        'classification': Said((P4, 1, 4), 2.5, {DOG: 0.4}, moved=(0, 64, 16, 79)),
        # C, as a dog, half beside it
        'both': Said((P4, 1, 5), 2.2, {DOG: 0.3}, moved=(8, 64, 24, 80)),
    }.items():
        scene = scene.add(name, None, said)
    traced = trace(
        scene, tmp_path_factory.mktemp('wrong'), model__rpn_head__nms_iou_thr=0.99, model__roi_head__nms_iou_thr=0.99
    )
    assert {row['stage'] for row in traced.rows} == {'found'}
    return traced


def test_kinds_in_the_order_of_the_scores(wrong):
    kinds = ['background', 'duplicate', 'localisation', 'classification', 'both']
    assert [row['kind'] for row in wrong.wrong] == kinds
    assert wrong.summary.false_positives == dict.fromkeys(kinds, 1)


#: class, score, box, object, IoU, level, side and logit of the anchor, rank of the proposal by its logit
ROWS = {
    'background': ('dog', 0.6, (92, 64, 36, 32), '', 0, 'p5', 32, 1.5, 9),
    'duplicate': ('cat', 0.55, (0, 0, 32, 28), '11', 0.875, 'p5', 32, 4.5, 2),
    'localisation': ('dog', 0.5, (80, 0, 32, 32), '12', 1 / 3, 'p5', 32, 4.2, 3),
    'classification': ('dog', 0.4, (0, 64, 16, 15), '13', 15 / 16, 'p4', 16, 2.5, 6),
    'both': ('dog', 0.3, (8, 64, 16, 16), '13', 1 / 3, 'p4', 16, 2.2, 7),
}


@pytest.mark.parametrize('kind', ROWS)
def test_where_it_came_from(wrong, kind):
    (row,) = [row for row in wrong.wrong if row['kind'] == kind]
    name, score, box, thing, iou, level, side, logit, rank = ROWS[kind]
    assert (row['class'], row['object'], row['level'], row['proposal_rank']) == (name, thing, level, rank)
    assert [row[key] for key in ('left', 'top', 'width', 'height')] == pytest.approx(box, abs=1e-3)
    assert (row['score'], row['iou'] or 0, row['anchor_score']) == pytest.approx((score, iou, sigmoid(logit)), abs=1e-4)
    assert (row['anchor_width'], row['anchor_height']) == (side, side)
    assert (row['image'], row['file']) == ('100', '0.png')
