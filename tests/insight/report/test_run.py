import json

import pytest

from frdet.errors import ConfigError
from frdet.insight.report.run import read_log
from frdet.insight.store import RunFacts, save_facts
from tests.insight.report.made import FIRST, SECOND, make_run, scalars, step, validation


def test_pieces_of_a_resumed_training(tmp_path):
    """What the first piece logged from iteration 5 on is replaced."""
    work_dir = make_run(tmp_path)
    log = read_log(work_dir)
    assert [record['iter'] for record in log.train] == [1, 2, 3, 4, 5, 6]
    assert [record['loss'] for record in log.train] == [4, 3, 2, 2.5, 1.5, 0.5]
    assert [(r['iter'], r['epoch'], r['coco/bbox_mAP']) for r in log.val] == [(2, 1, 0.1), (4, 2, 0.3), (6, 3, 0.2)]
    assert log.by_epoch and log.losses == ['loss', 'loss_cls']
    assert log.folders == [work_dir / FIRST, work_dir / SECOND]
    assert log.seconds == 12  # six iterations of two seconds


def test_training_that_began_anew(tmp_path):
    work_dir = make_run(tmp_path)
    new = work_dir / '20260103_000000/vis_data'
    scalars(new, [step(1, 7.0)])
    log = read_log(work_dir)
    assert ([record['loss'] for record in log.train], log.val, log.folders) == ([7.0], [], [new])


def test_table_of_epochs(tmp_path):
    head, rows = read_log(make_run(tmp_path)).table()
    assert head == [
        'epoch', 'iter', 'lr', 'loss', 'loss_cls', 'time', 'memory', 'coco/bbox_mAP', 'coco/bbox_mAP_50',
        'coco/bbox_mAP_l',
    ]  # fmt: skip
    assert rows == [
        [1, 2, 0.01, 3.5, 1.75, 2, 100, 0.1, 0.2, None],
        [2, 4, 0.02, 2.25, 1.125, 2, None, 0.3, 0.6, None],
        [3, 6, 0.03, 1.0, 0.5, 2, 120, 0.2, 0.4, None],
    ]


def test_minus_one_of_another_metric_is_kept(tmp_path):
    """COCO's -1 stands for no object."""
    logged = {'mine/gain': -1.0, 'coco/bbox_AR@1': -1.0, 'mine/part': float('nan'), 'step': 1}
    scalars(tmp_path / FIRST, [step(1, 4.0), logged])
    log = read_log(tmp_path)
    assert log.val == [{'iter': 1, 'epoch': 1, 'mine/gain': -1.0, 'coco/bbox_AR@1': None, 'mine/part': None}]


@pytest.mark.parametrize(('iters_per_epoch', 'steps', 'places'), [
    (None, [15, 30], [15, 30]),  # every tenth iteration is logged
    (None, [0, 0], [10, 30]),  # as earlier versions logged it
    (10, [1, 3], [10, 30]),
])  # fmt: skip
def test_where_validations_stand(tmp_path, iters_per_epoch, steps, places):
    """Training by iterations, or by epochs of ten."""
    records = [step(10, 4.0), validation(steps[0], 0.1), step(20, 2.0), step(30, 1.0), validation(steps[1], 0.2)]
    scalars(tmp_path / FIRST, records)
    facts = RunFacts('', [], iters_per_epoch, [], None, None, None, {})
    save_facts(facts, tmp_path / FIRST)
    assert [record['iter'] for record in read_log(tmp_path).val] == places


def test_table_of_iterations(tmp_path):
    """A row for each validation and for what follows the last one; every validation logs the same step."""
    records = [step(10, 4.0), step(20, 2.0), validation(0, 0.1), step(30, 1.0), validation(0, 0.2), step(40, 0.5)]
    scalars(tmp_path / FIRST, records)
    log = read_log(tmp_path)
    assert not log.by_epoch
    head, rows = log.table()
    assert head[:3] == ['iter', 'lr', 'loss']
    assert [(row[0], row[2], row[head.index('coco/bbox_mAP')]) for row in rows] == [
        (20, 3.0, 0.1),
        (30, 1.0, 0.2),
        (40, 0.5, None),
    ]


def test_line_that_was_cut_off(tmp_path):
    scalars(tmp_path / FIRST, [step(1, 4.0)])
    with open(tmp_path / FIRST / 'scalars.json', 'a') as file:
        file.write('\n' + json.dumps(step(2, 3.0))[:20])
    assert [record['iter'] for record in read_log(tmp_path).train] == [1]


@pytest.mark.parametrize(('name', 'words'), [('gone', 'No folder'), ('.', 'is no work dir')])
def test_folder_that_is_none(tmp_path, name, words):
    with pytest.raises(ConfigError, match=words):
        read_log(tmp_path / name)
