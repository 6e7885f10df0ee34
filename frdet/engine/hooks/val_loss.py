"""The training losses on the validation images."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from frdet.models.detectors import bare
from frdet.registry import HOOKS
from frdet.structures import DetDataSample


@HOOKS.register_module()
class ValLossHook(Hook):
    """Adds ``val_loss`` and its parts, such as ``val_loss_cls``, to the metrics of each validation: means over images.

    They are computed in a second forward pass with the weights of validation (with ``EMAHook`` the averaged ones),
    without augmentation and gradients. Each batch has its own seed, the same in every validation, so the values differ
    by the weights alone; the random numbers of training do not change. The images need ground truth. Crowds and boxes
    without area are left out, as in training.
    """

    priority = 'HIGHEST'  # before the hooks that log metrics or choose the best checkpoint

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def before_val_epoch(self, runner: Runner) -> None:
        self._sums = {}

    @torch.no_grad()
    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[DetDataSample] | None = None
    ) -> None:
        """Compute the losses of a batch."""
        model = bare(runner.model)
        data = model.data_preprocessor(data_batch, False)
        data['data_samples'] = [_with_area(sample) for sample in data['data_samples']]
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(batch_idx)
            total, logged = model.parse_losses(model(**data, mode='loss'))
        images = len(data['data_samples'])
        losses = {name: value for name, value in logged.items() if name.startswith('loss_')}
        for name, value in {'loss': total, **losses, 'images': torch.ones_like(total)}.items():
            self._sums[name] = self._sums.get(name, 0) + value * images

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the means over all processes to the metrics."""
        if metrics is None or not self._sums:
            return
        sums = torch.stack([value.double() for value in self._sums.values()])
        all_reduce(sums)
        means = dict(zip(self._sums, (sums / sums[-1]).tolist(), strict=True))
        metrics.update({f'val_{name}': value for name, value in means.items() if name != 'images'})


def _with_area(sample: DetDataSample) -> DetDataSample:
    boxes = sample.gt_instances.bboxes
    sample = sample.new()
    sample.gt_instances = sample.gt_instances[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]
    return sample
