"""From a study file with ranges to what is searched; each mistake has its words before anything runs."""

import pytest

from frdet.apis.ablation.reading import read_study
from frdet.apis.ablation.space import Choice, Range, read_search
from frdet.errors import ConfigError

BASE = """
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
train_cfg = dict(by_epoch=True, max_epochs=6)
param_scheduler = [dict(type='LinearLR', begin=0, end=500, by_epoch=False)]
"""
LR = 'optim_wrapper.optimizer.lr'


def study(folder, space, more=''):
    (folder / 'base.py').write_text(BASE)
    (folder / 'study.py').write_text(f"base = 'base.py'\nspace = {space}\n{more}")
    return folder / 'study.py'


def test_what_is_read(tmp_path):
    space = {
        LR: dict(low=1e-4, high=1e-1, log=True),
        'param_scheduler.0.end': dict(low=100, high=500, step=200),
        'optim_wrapper.optimizer.nesterov': [True, False],
        'optim_wrapper.clip_grad': [None, dict(max_norm=10)],
    }
    found = read_search(study(tmp_path, space, "trials = 7\noptions = {'train_cfg.max_epochs': 2}"))
    assert found.space == {
        LR: Range(1e-4, 1e-1, log=True),
        'param_scheduler.0.end': Range(100, 500, step=200),
        'optim_wrapper.optimizer.nesterov': Choice((True, False)),
        'optim_wrapper.clip_grad': Choice((None, dict(max_norm=10))),
    }
    assert (found.trials, found.metric, found.less_is_better, found.seed) == (7, 'coco/bbox_mAP', False, 0)
    cfg = found.config({LR: 0.5, 'param_scheduler.0.end': 300})
    assert (cfg.optim_wrapper.optimizer.lr, cfg.param_scheduler[0].end, cfg.train_cfg.max_epochs) == (0.5, 300, 2)


def test_arguments_change_the_file(tmp_path):
    path = study(tmp_path, {LR: [0.1, 0.2]}, "trials = 7\noptions = {'train_cfg.max_epochs': 2}")
    found = read_search(path, trials=3, metric=None, options={'train_cfg.val_interval': 2})
    assert (found.trials, found.metric) == (3, 'coco/bbox_mAP')
    assert found.options == {'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 2}


@pytest.mark.parametrize(
    ('space', 'more', 'message'),
    [
        ({}, '', 'has no space: give key paths with ranges'),
        ({LR: [0.1]}, 'trails = 3', r'trails .*study.py:3.* did you mean trials'),
        ({LR: [0.1]}, "trials = 'many'", r"trials .*found 'many' \(str\), expected int"),
        ({LR: [0.1]}, 'trials = 0', 'trials is 0: expected at least 1'),
        ({LR: [0.1]}, 'seed = -1', 'seed is -1: expected at least 0'),
        ({LR: [0.1]}, f"options = {{'{LR}': 1}}", f'{LR} is in options and in space'),
        ({LR: [0.1]}, "base = 'bse.py'", 'base: .*bse.py'),
        ({LR: []}, '', r'expected dict\(low=..., high=...\) or a list of values'),
        ({LR: 0.1}, '', r'space .*lr.: found 0.1 \(float\), expected dict'),
        ({LR: dict(low=0.1)}, '', 'has no high'),
        ({LR: dict(low=0.1, hihg=1)}, '', "unknown 'hihg': did you mean high"),
        ({LR: dict(low='0.1', high=1)}, '', r"low: found '0.1' \(str\), expected float"),
        ({LR: dict(low=1, high=0.1)}, '', 'low is 1 and high is 0.1: expected low < high'),
        ({LR: dict(low=0, high=0.1, log=True)}, '', 'low is 0: with log=True it must be more than 0'),
        ({LR: dict(low=0.1, high=1, step=0.4)}, '', 'step is 0.4: expected that high is reached'),
        ({LR: dict(low=0.1, high=1, step=-0.1)}, '', 'step is -0.1'),
        ({LR: dict(low=1, high=9, step=2, log=True)}, '', 'log=True and step exclude each other'),
        ({'optim_wrapper.optimizer.lrr': [0.1]}, '', r'study.py: space: .*has no .lrr.*did you mean lr'),
        ({'optim_wrapper.optimizer.lr': dict(low=-1.0, high=1.0)}, '', 'lr.*found -1.0'),
        ({'train_cfg.max_epochs': dict(low=2, high=4.5)}, '', r'max_epochs.*found 4.5 \(float\), expected int'),
        ({'optim_wrapper.optimizer.type': ['SGD', 'SDG']}, '', "'SDG' is not in the registry of optimizers"),
    ],
)
def test_mistakes(tmp_path, space, more, message):
    with pytest.raises(ConfigError, match=message):
        read_search(study(tmp_path, space, more))


def test_ranges_in_a_study_of_variants(tmp_path):
    with pytest.raises(ConfigError, match='space .*unknown setting of a study: ranges are for --search STUDY.py'):
        read_study(study(tmp_path, {LR: [0.1, 0.2]}))
