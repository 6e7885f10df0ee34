"""Crowded scenes drawn at random: stages and numbers are those of slow loops."""

import random

import pytest

from tests.insight.trace.losing import CAT, DOG, SIDE, Said, Scene, Thing, trace
from tests.insight.trace.slow import Settings, follow
from tests.insight.trace.spoken import STRIDES
from tests.insight.trace.test_stages import STAGES

SETTINGS = Settings(
    pre_nms=14, min_side=7.0, proposal_nms=0.3, post_nms=20, score_thr=0.4, class_nms=0.35, max_per_image=7, max_dets=2
)
CHANGES = dict(
    model__rpn_head__pre_nms_test=SETTINGS.pre_nms, model__rpn_head__min_side=SETTINGS.min_side,
    model__rpn_head__nms_iou_thr=SETTINGS.proposal_nms, model__rpn_head__post_nms_test=SETTINGS.post_nms,
    model__roi_head__score_thr=SETTINGS.score_thr, model__roi_head__nms_iou_thr=SETTINGS.class_nms,
    model__roi_head__max_per_image=SETTINGS.max_per_image, test_evaluator__max_dets=(1, 1, SETTINGS.max_dets),
)  # fmt: skip


def near(rng, box, spread):
    """A box near ``box``, with sides moved by about ``spread`` of its size."""
    x1, y1, x2, y2 = box
    w, h = spread * (x2 - x1), spread * (y2 - y1)
    left, top, right, bottom = (
        round(min(max(side + rng.gauss(0, size), 0), SIDE), 2) for side, size in zip(box, (w, h, w, h), strict=True)
    )
    return left, top, max(right, left + 1), max(bottom, top + 1)


def drawn(rng):
    """Objects of which some stand beside another one, some are small, some lie on an anchor; a few boxes about each."""
    things, said, used = {}, {}, set()
    for number in range(rng.randint(2, 7)):
        if things and rng.random() < 0.5:
            box = near(rng, rng.choice(list(things.values())).box, 0.15)
        else:
            side, x, y = rng.choice((7, 16, 16, 32, 32, 45)), rng.randrange(4) * 32, rng.randrange(4) * 32
            box = near(rng, (x, y, min(x + side, SIDE), min(y + side, SIDE)), 0.08)
        label = rng.choice((CAT, DOG))
        things[f'{number}'] = Thing(number + 1, label, box)
        for one in range(rng.randint(0, 4)):
            level = rng.randrange(2)
            count = SIDE // STRIDES[level]
            column, row = (
                min(max(int(side / STRIDES[level] + rng.choice((0, 0, 0, 1, -1))), 0), count - 1) for side in box[:2]
            )
            if (level, column, row) in used:
                continue
            used.add((level, column, row))
            own = rng.choice((0.03, 0.2, 0.4, 0.6, 0.9)) * rng.uniform(0.8, 1)
            scores = {label: own, 1 - label: (1 - own) * rng.uniform(0.02, 0.9)}
            moved, refined = near(rng, box, rng.choice((0.03, 0.2))), near(rng, box, rng.choice((0.03, 0.25)))
            said[f'{number} {one}'] = Said((level, column, row), rng.uniform(-6, 3), scores, moved, refined)
    return Scene(things, said)


@pytest.fixture(scope='module')
def scenes():
    rng = random.Random(0)
    return [drawn(rng) for _ in range(50)]


@pytest.fixture(scope='module')
def traced(scenes, tmp_path_factory):
    return trace(scenes, tmp_path_factory.mktemp('drawn'), test_dataloader__batch_size=7, **CHANGES)


def test_stages_and_numbers(scenes, traced):
    rows = {(row['image'], row['id']): row for row in traced.rows}
    assert len(rows) == sum(len(scene.things) for scene in scenes)
    for number, scene in enumerate(scenes):
        for name, expected in follow(scene, SETTINGS).items():
            row = rows[str(100 + number), str(scene.things[name].id + 1000 * number)]
            for column, value in expected.items():
                wanted = pytest.approx(value, abs=1e-4) if isinstance(value, float) else value
                assert row[column] == wanted, (number, name, column, row['why'])


def test_every_stage_loses_some(traced):
    assert [name for name in STAGES if traced.summary.counts[name] == 0] == []
