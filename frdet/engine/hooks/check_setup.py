"""What can only be known once model and data are built, and would ruin the run: checked before its first step."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from frdet.errors import ConfigError
from frdet.models.layers import has_untouched_frozen_norm
from frdet.registry import HOOKS

OPTION = 'model.roi_head.bbox_head.num_classes'


@HOOKS.register_module()
class CheckSetupHook(Hook):
    """Refuses a class count that is not the data set's, and FrozenBN without statistics.

    A detector that has no ``roi_head.bbox_head.num_classes``, and a data set without ``metainfo['classes']``, are not
    checked.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Check the data of training and validation, and the weights, which are loaded by now."""
        model = _unwrapped(runner.model)
        check_classes(model, runner.train_dataloader.dataset, 'train_dataloader')
        if runner.val_loop is not None:
            check_classes(model, runner.val_dataloader.dataset, 'val_dataloader')
        if has_untouched_frozen_norm(model):
            raise ConfigError(
                'FrozenBN has no statistics: no weights were loaded into it, and training diverges to NaN. Give '
                "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...) or load_from, or use GN or BN as "
                'configs/faster_rcnn/r50_fpn_1x_cocoval_scratch.py'
            )

    def before_test(self, runner: Runner) -> None:
        """Check the data of testing."""
        check_classes(_unwrapped(runner.model), runner.test_dataloader.dataset, 'test_dataloader')


def check_classes(model: nn.Module, dataset: Any, name: str) -> None:
    """Raise ConfigError if the data set ``name`` has another number of classes than the model's box head."""
    head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
    expected = getattr(head, 'num_classes', None)
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if expected is not None and classes is not None and len(classes) != expected:
        few = ', '.join(classes[:4]) + (', ...' if len(classes) > 4 else '')
        raise ConfigError(
            f'{name} has {len(classes)} classes ({few}), the box head has {expected}: set {OPTION}={len(classes)}, '
            f'or choose classes with {name}.dataset.metainfo.classes'
        )


def _unwrapped(model: nn.Module) -> nn.Module:
    inner: Any = model.module if is_model_wrapper(model) else model
    return inner
