"""Checks of model, data and schedules before the first step, for mistakes that would ruin the run."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from frdet.engine.schedules import check_counting, check_one_cycle, misfits
from frdet.errors import ConfigError
from frdet.models.detectors import bare, other_counts
from frdet.models.layers import has_untouched_frozen_norm
from frdet.registry import HOOKS


@HOOKS.register_module()
class CheckSetupHook(Hook):
    """Refuses classes that differ from the data set's in number or order, and FrozenBN without statistics.

    It also refuses schedules and hooks that count epochs in a loop by iterations, and warns of schedules that do not
    fit the length of the run.

    The classes of training are compared with the classes of validation. A checkpoint's classes are compared with the
    data if the checkpoint is tested or resumed; fine-tuning from ``load_from`` may change them. A model without
    ``num_classes`` and a data set without ``metainfo['classes']`` are not checked.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._learnt: Any = None  # the checkpoint's classes

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Remember the classes that the checkpoint was trained on."""
        meta = checkpoint.get('meta')
        learnt = meta.get('dataset_meta') if isinstance(meta, dict) else None
        self._learnt = learnt.get('classes') if isinstance(learnt, dict) else None

    def before_train(self, runner: Runner) -> None:
        """Check the schedules, the data of training and validation, and the weights, which are loaded already."""
        check_counting(runner)
        check_one_cycle(runner)
        if found := misfits(runner):
            runner.logger.warning(f'Schedules do not fit the length of the run. {"; ".join(found)}')
        model = bare(runner.model)
        if runner._resume:
            compare_classes(self._learnt, 'the checkpoint', runner.train_dataloader.dataset, 'train_dataloader')
        check_classes(model, runner.train_dataloader.dataset, 'train_dataloader')
        if runner.val_loop is not None:
            # Compared first: for a split without one of the classes the advice must not be to change the head.
            trained = _classes_of(runner.train_dataloader.dataset)
            compare_classes(trained, 'train_dataloader', runner.val_dataloader.dataset, 'val_dataloader')
            check_classes(model, runner.val_dataloader.dataset, 'val_dataloader')
        if has_untouched_frozen_norm(model):
            raise ConfigError(
                'FrozenBN has no statistics: no weights were loaded into it, and training diverges to NaN. Give '
                "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...) or load_from, or use GN or BN as "
                'configs/faster_rcnn/r50_fpn_1x_cocoval_scratch.py'
            )

    def before_test(self, runner: Runner) -> None:
        check_classes(bare(runner.model), runner.test_dataloader.dataset, 'test_dataloader')
        compare_classes(self._learnt, 'the checkpoint', runner.test_dataloader.dataset, 'test_dataloader')


def check_classes(model: nn.Module, dataset: Any, name: str) -> None:
    """Raise ConfigError if the data set ``name`` has another number of classes than a head of the model."""
    classes = _classes_of(dataset)
    if classes is not None and (others := other_counts(model, len(classes))):
        few = ', '.join(classes[:4]) + (', ...' if len(classes) > 4 else '')
        raise ConfigError(
            f'{name} has {len(classes)} classes ({few}), the model has {others}, '
            f'or choose classes with {name}.dataset.metainfo.classes'
        )


def compare_classes(learnt: Any, source: str, dataset: Any, name: str) -> None:
    """Raise ConfigError if the data set ``name`` has other class names than ``learnt``, or another order.

    ``learnt`` are the class names in training, or None for no comparison; ``source`` is their origin, for the error.
    """
    classes = _classes_of(dataset)
    if learnt is None or classes is None or list(learnt) == list(classes):
        return
    if len(learnt) != len(classes):
        found = f'has {len(learnt)} classes, {name} has {len(classes)}'
    else:
        label = next(i for i, pair in enumerate(zip(learnt, classes, strict=True)) if pair[0] != pair[1])
        found = f'calls label {label} {learnt[label]!r}, {name} calls it {classes[label]!r}'
    few = len(learnt) <= 20 and all(one.isidentifier() for one in learnt)
    option = f'{name}.dataset.metainfo.classes' + (f'=[{",".join(learnt)}]' if few else '')
    raise ConfigError(
        f'{source[0].upper()}{source[1:]} {found}: detections would get wrong names. Choose the same classes in that '
        f'order with {option} (a class that is not in the file has no boxes), or, if only names differ, set '
        'default_hooks.check_setup=None'
    )


def _classes_of(dataset: Any) -> Any:
    meta = getattr(dataset, 'metainfo', None)
    return meta.get('classes') if isinstance(meta, dict) else None
