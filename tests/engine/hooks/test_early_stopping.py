"""When training ends before its schedule does."""

from math import nan

import pytest
from mmengine.evaluator import BaseMetric

from frdet.apis import train_detector
from frdet.engine.hooks import EarlyStoppingHook
from frdet.errors import ConfigError
from frdet.registry import METRICS
from tests.engine import toy


@METRICS.register_module()
class ScriptedMetric(BaseMetric):
    """Gives the figures of a list, one for each validation of the process."""

    default_prefix = 'coco'
    figures: list[float] = []

    def __init__(self):
        super().__init__(collect_device='gpu')

    def process(self, data_batch, data_samples):
        self.results += [0] * len(data_samples)

    def compute_metrics(self, results):
        return dict(bbox_mAP=self.figures.pop(0), error=1.0)


def run(work_dir, figures, *, epochs=8, resume=False, **arguments):
    """Epochs trained."""
    ScriptedMetric.figures = list(figures)
    cfg = toy.config(work_dir, **{'train_cfg.max_epochs': epochs, 'param_scheduler': []})
    cfg.val_evaluator = dict(type='ScriptedMetric')
    cfg.default_hooks.early_stopping = dict(type='EarlyStoppingHook', **arguments)
    train_detector(cfg, work_dir=str(work_dir), seed=0, resume=resume)
    return int((work_dir / 'last_checkpoint').read_text().rsplit('epoch_')[-1].removesuffix('.pth'))


def test_stops_after_patience(tmp_path):
    # The best is the second; the third and fourth do not beat it.
    assert run(tmp_path, [0.1, 0.3, 0.3, 0.2, 0.9, 0.9, 0.9, 0.9], patience=2) == 4


def test_goes_on_while_it_gets_better(tmp_path):
    assert run(tmp_path, [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4], patience=2) == 8


def test_a_step_that_is_too_small_is_none(tmp_path):
    assert run(tmp_path, [0.1, 0.14, 0.16, 0.5], patience=2, min_delta=0.1) == 3


@pytest.mark.parametrize(('rule', 'epochs'), [('less', 8), ('greater', 3)])
def test_rule(tmp_path, rule, epochs):
    assert run(tmp_path, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], patience=2, rule=rule) == epochs


def test_a_loss_is_better_when_less():
    assert EarlyStoppingHook(monitor='val_loss').sign == -1
    assert EarlyStoppingHook().sign == 1


def test_a_resumed_run_goes_on_counting(tmp_path):
    """Two of three idle validations before the interruption. The second is in no checkpoint, and is repeated."""
    assert run(tmp_path, [0.5, 0.4, 0.4], epochs=3, patience=3) == 3
    assert run(tmp_path, [0.4, 0.4], patience=3, resume=True) == 4


@pytest.mark.parametrize(
    ('figures', 'epochs', 'best'),
    [
        ([-1.0, -1.0, -1.0, -1.0], 4, None),  # no object in any validation
        ([nan, nan, nan, nan], 4, None),
        ([-1.0, -1.0, 0.0, -1.0], 4, 3),  # the worst figure there is beats none
        ([0.2, -1.0, nan, 0.1], 4, 1),  # the fourth is the only one that did not beat the first
    ],
)
def test_a_validation_that_measured_nothing_does_not_count(tmp_path, figures, epochs, best):
    """Neither as the best nor as one of the ``patience`` validations; each hook says so once."""
    assert run(tmp_path, figures, epochs=4, patience=1) == epochs
    assert [path.name for path in tmp_path.glob('best_*')] == ([f'best_coco_bbox_mAP_epoch_{best}.pth'] if best else [])
    (log,) = tmp_path.glob('*/*.log')
    for key in ('CheckpointHook.save_best', 'EarlyStoppingHook.monitor'):
        assert log.read_text().count(f'{key}: coco/bbox_mAP is ') == 1


def test_a_validation_without_any_value(tmp_path, monkeypatch):
    """As of images that have no annotations: the run goes on, and nothing is the best."""
    monkeypatch.setattr(ScriptedMetric, 'compute_metrics', lambda self, results: {})
    assert run(tmp_path, [], epochs=3, patience=1) == 3
    assert not list(tmp_path.glob('best_*'))


@pytest.mark.parametrize(('save_best', 'best'), [('auto', 2), (['coco/bbox_mAP', 'coco/error'], 2)])
def test_the_best_of_a_figure_that_is_not_always_there(tmp_path, save_best, best):
    ScriptedMetric.figures = [-1.0, 0.3, nan]
    cfg = toy.config(tmp_path, **{'train_cfg.max_epochs': 3})
    cfg.val_evaluator = dict(type='ScriptedMetric')
    cfg.default_hooks.checkpoint.update(save_best=save_best, rule='greater')
    train_detector(cfg)
    assert (tmp_path / f'best_coco_bbox_mAP_epoch_{best}.pth').is_file()
    assert (tmp_path / 'best_coco_error_epoch_1.pth').is_file() == (save_best != 'auto')


def test_minus_one_of_another_metric_is_a_figure(tmp_path, monkeypatch):
    figures = iter([2.0, -1.0, 0.0, 1.0])
    monkeypatch.setattr(ScriptedMetric, 'compute_metrics', lambda self, results: dict(gain=next(figures)))
    arguments = dict(monitor='coco/gain', rule='less', patience=2)
    cfg = toy.config(tmp_path, **{'train_cfg.max_epochs': 6})
    cfg.val_evaluator = dict(type='ScriptedMetric')
    cfg.default_hooks.early_stopping = dict(type='EarlyStoppingHook', **arguments)
    cfg.default_hooks.checkpoint.update(save_best='coco/gain', rule='less')
    train_detector(cfg)
    assert (tmp_path / 'best_coco_gain_epoch_2.pth').is_file()
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_4.pth')


@pytest.mark.parametrize('key', ['default_hooks.early_stopping.monitor', 'default_hooks.checkpoint.save_best'])
def test_a_figure_that_validation_does_not_give(tmp_path, key):
    ScriptedMetric.figures = [0.1]
    cfg = toy.config(tmp_path)
    cfg.val_evaluator = dict(type='ScriptedMetric')
    cfg.default_hooks.early_stopping = dict(type='EarlyStoppingHook')
    cfg.merge_from_dict({key: 'coco/bbox_mAp'})
    with pytest.raises(ConfigError, match=r"'coco/bbox_mAp', which validation does not give: it gives coco/bbox_mAP"):
        train_detector(cfg, work_dir=str(tmp_path), seed=0)


@pytest.mark.parametrize('arguments', [dict(rule='more'), dict(patience=0)])
def test_wrong_arguments(arguments):
    with pytest.raises(ConfigError, match='1 or more'):
        EarlyStoppingHook(**arguments)
