"""Which other values are tried, and the lines that set them."""

import shlex

import pytest
from mmengine.config import Config

from frdet.config import load_config, parse_overrides
from frdet.insight.trace.changes import Change, changes_of
from frdet.insight.trace.model import Stage, Summary


def changes(stage: str, key: str, value, *, lost: int = 1, dataset=None) -> list[Change]:
    """Of a config whose only stage is ``stage``."""
    cfg = Config(dict(val_dataloader=dict(dataset=dataset or dict(type='CocoDataset', pipeline=[]))))
    summary = Summary(
        config='', checkpoint=None, detector='', iou=0.5, min_size=8.0, classes=[], images=1,
        stages=[Stage(stage, '', {key: value}), Stage('found', '')], counts={stage: lost, 'found': 5},
        false_positives={}, metrics={},
    )  # fmt: skip
    return changes_of(cfg, summary, 'val')


@pytest.mark.parametrize(
    'stage, value, others',
    [
        ('RPN score', 1000, [2000, 4000]),
        ('anchor top-k', 10, [20, 40]),
        ('proposal size', 2.5, [0]),
        ('proposal size', 0.0, []),
        ('proposal NMS', 0.7, [0.6, 0.8, 0.9]),
        ('proposal NMS', 0.85, [0.75, 0.95]),
        ('proposal top-k', 300, [600, 1200]),
        ('score threshold', 0.05, [0.01, 0.001]),
        ('score threshold', 0.005, [0.001]),
        ('score threshold', 0.003, [0.001]),
        ('score threshold', 0.001, []),
        ('score threshold', 0.0, []),
        ('class NMS', 0.1, [0.2, 0.3]),
        ('detections cut', 100, [200, 300]),
        ('background', 3, []),
        ('depth filter', 3, []),  # of a user's detector: which values make sense is not known
        ('class NMS', None, []),
    ],
)
def test_other_values(stage, value, others):
    found = changes(stage, 'model.head.thing', value)
    assert [one.values for one in found] == [{'model.head.thing': other} for other in others]
    assert [one.words for one in found] == [f'model.head.thing: {value:g} -> {other:g}' for other in others]
    assert all(one.stage == stage for one in found)


def test_a_stage_that_loses_nothing_is_skipped():
    assert changes('class NMS', 'model.x', 0.5, lost=0) == []


def test_anchor_sizes_keep_their_number():
    found = changes('no anchor', 'model.rpn_head.anchor_generator.sizes', [[32, 40.5], [64, 81]])
    assert [next(iter(one.values.values())) for one in found] == [
        ((16, 20.25), (32, 40.5)),
        ((22.4, 28.35), (44.8, 56.7)),
        ((44.8, 56.7), (89.6, 113.4)),
    ]
    assert found[0].words == 'model.rpn_head.anchor_generator.sizes: all times 0.5'


def test_every_resizing_of_joined_data_is_changed():
    pipelines = [
        [dict(type='LoadImage'), dict(type='ResizeShortestEdge', short_side=800, max_size=1333)],
        [dict(type='ResizeShortestEdge', short_side=600)],  # the limit is that of the class
        [dict(type='Resize', scale=(300, 500))],
    ]
    dataset = dict(type='ConcatDataset', datasets=[dict(type='CocoDataset', pipeline=one) for one in pipelines])
    first, second = changes('background', 'model.x', None, dataset=dataset)
    key = 'val_dataloader.dataset.datasets'
    assert first.values == {
        f'{key}.0.pipeline.1.short_side': 1000,
        f'{key}.0.pipeline.1.max_size': 1666,
        f'{key}.1.pipeline.0.short_side': 750,
        f'{key}.1.pipeline.0.max_size': 1666,
        f'{key}.2.pipeline.0.scale': (375, 625),
    }
    assert second.values[f'{key}.0.pipeline.1.short_side'] == 1200
    assert first.stage == 'resizing'
    assert first.words.startswith(f'{key}.0.pipeline.1: short_side 800 -> 1000, max_size 1333 -> 1666; {key}.1')


def test_lines_of_a_config_that_inherits_give_the_values(tmp_path):
    (tmp_path / 'base.py').write_text('model = dict(rpn_head=dict(sizes=((8,),), thr=0.7), kept=1)\nother = 3\n')
    values = {'model.rpn_head.thr': 0.8, 'model.rpn_head.sizes': ((16.5,),)}
    lines = Change('', '', values).lines
    (tmp_path / 'changed.py').write_text(f"_base_ = './base.py'\n{lines}\n")
    cfg = load_config(tmp_path / 'changed.py')
    assert cfg.model == dict(rpn_head=dict(sizes=((16.5,),), thr=0.8), kept=1)
    assert cfg.other == 3


def test_words_for_cfg_options_give_the_values():
    values = {'data.datasets.1.scale': (30, 40), 'data.datasets.0.side': 5}
    words = shlex.split(Change('', '', values).lines)
    assert words == ['--cfg-options', 'data.datasets.1.scale=(30, 40)', 'data.datasets.0.side=5']
    assert parse_overrides(words[1:]) == values
