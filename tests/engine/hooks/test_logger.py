"""Where validations stand in the loggers."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from frdet.apis import train_detector
from tests.engine import toy

ITERATIONS = dict(type='IterBasedTrainLoop', max_iters=5, val_interval=2)
EPOCHS = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)


@pytest.mark.parametrize(
    ('loop', 'logger', 'steps'),
    [
        (ITERATIONS, {}, [2, 4, 5]),
        (ITERATIONS, {'log_metric_by_epoch': True}, [2, 4, 5]),  # there are no epochs to log by
        (EPOCHS, {}, [1, 2]),
        (EPOCHS, {'log_metric_by_epoch': False}, [4, 8]),  # 4 iterations each
    ],
)
def test_step_of_a_validation(tmp_path, loop, logger, steps):
    """In the log and in TensorBoard, without a setting for it."""
    cfg = toy.config(tmp_path, **{f'default_hooks.logger.{name}': value for name, value in logger.items()})
    cfg.train_cfg = dict(loop)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.by_epoch = cfg.log_processor.by_epoch = loop is EPOCHS
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    train_detector(cfg)
    (file,) = tmp_path.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record['step'] for record in records if 'coco/bbox_mAP' in record] == steps
    events = EventAccumulator(str(file.parent))
    events.Reload()
    assert [event.step for event in events.Scalars('coco/bbox_mAP')] == steps


def test_the_shipped_schedule_by_iterations(tmp_path):
    cfg = toy.config(tmp_path, 'schedule_90k', **{'train_cfg.max_iters': 3, 'train_cfg.val_interval': 2})
    cfg.default_hooks.checkpoint.by_epoch = False
    train_detector(cfg)
    (file,) = tmp_path.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record['step'] for record in records if 'coco/bbox_mAP' in record] == [2, 3]
