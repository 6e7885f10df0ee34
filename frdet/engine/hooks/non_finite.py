"""Refusing a training step whose loss or gradient is not finite."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from mmengine.dist import all_gather_object, all_reduce, barrier, get_rank
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from frdet.engine.diagnosis import diagnose, restore_buffers, rng_state, save_step
from frdet.errors import ConfigError, UserError
from frdet.models.detectors import bare
from frdet.registry import HOOKS


class NonFiniteError(UserError):
    """A loss or a gradient became NaN or infinite."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Checks loss and gradients between the backward pass and the optimiser's step, and prevents a bad step.

    Then the batch is computed again while every module's output is checked, to find the first bad output. All data for
    this are saved as ``non_finite_iter_N.pth`` in the work dir, for ``tools/replay.py``. All processes agree on one
    number, which is read once. On a GPU this is the only wait in a step, after the whole backward pass is queued.

    Args:
        interval: iterations between two checks. Above 1, a bad step between two checks is taken.
        action: 'stop' ends the run; 'skip' drops the gradients of the step and continues. Accumulated gradients of
            earlier iterations are dropped too.
        max_skips: the number of consecutive skipped steps that is allowed.

    Raises:
        NonFiniteError: names the losses, the first bad module or parameter, and the images of the batch.
    """

    priority = 'VERY_LOW'  # to keep the state of the generators as late as possible

    def __init__(self, *, interval: int = 1, action: Literal['stop', 'skip'] = 'stop', max_skips: int = 5):
        if action not in ('stop', 'skip'):
            raise ConfigError(f"NonFiniteHook: action is {action!r}, expected 'stop' or 'skip'")
        self.interval = interval
        self.action = action
        self.max_skips = max_skips
        self._skipped = 0
        self._batch: Any = None
        self._rng: dict[str, Tensor] = {}
        self._buffers: list[Tensor] = []

    def before_train(self, runner: Runner) -> None:
        """Add the check to the backward pass of the optimiser wrapper, which may be of any class."""
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapper):
            wrapper.backward = functools.partial(self._backward, runner, wrapper.backward)

    def after_train(self, runner: Runner) -> None:
        vars(runner.optim_wrapper).pop('backward', None)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep everything that computing the step again needs."""
        self._batch, self._rng = data_batch, rng_state()
        if self.action == 'skip':  # BatchNorm's running statistics would stay bad
            self._buffers = [buffer.clone() for buffer in bare(runner.model).buffers()]

    def _backward(self, runner: Runner, backward: Callable, loss: Tensor, **kwargs: Any) -> None:
        backward(loss, **kwargs)
        if not self.every_n_train_iters(runner, self.interval):
            return
        if _all_are_finite(loss, runner.optim_wrapper):
            self._skipped = 0
            return
        message = self._explained(runner, loss)
        self._skipped += 1
        if self.action == 'stop' or self._skipped > self.max_skips:
            raise NonFiniteError(f'Training stopped in {message}')
        runner.logger.warning(f'Skipped {message}')
        if not hasattr(runner.optim_wrapper, 'loss_scaler'):  # which skips bad steps itself
            runner.optim_wrapper.zero_grad()  # a step without gradients changes nothing

    def _explained(self, runner: Runner, loss: Tensor) -> str:
        """Compute the batch again, save it if it is the cause, and return the message, the same in every process."""
        model, wrapper, rank = bare(runner.model), runner.optim_wrapper, get_rank()
        if self._buffers:
            restore_buffers(model, self._buffers)
        found = diagnose(model, self._batch, self._rng, wrapper.optim_context(model))
        cause = f'the loss was {loss.item()}; computed again, {found}' if found.is_finite else str(found)
        path = Path(runner.work_dir, f'non_finite_iter_{runner.iter + 1}{f"_rank{rank}" if rank else ""}.pth')
        words = (
            f'iteration {runner.iter + 1} (epoch {runner.epoch + 1}{f", process {rank}" if rank else ""}): {cause}. '
            f'Images: {_images(self._batch)}.\nThe step was not taken; tools/replay.py CONFIG {path} repeats it. '
            f'Check the boxes; or lower the learning rate (now {wrapper.get_lr()["lr"][0]:.3g}), lengthen the warm-up, '
            'or clip gradients with optim_wrapper.clip_grad'
        )
        told = all_gather_object((found.is_finite, words))
        finite, message = min(told)
        if found.is_finite == finite:
            step = dict(iter=runner.iter + 1, batch=self._batch, rng=self._rng, message=words)
            dtype = str(getattr(wrapper, 'dtype', '')).removeprefix('torch.')
            save_step(path, model, **step, autocast=dtype)
        barrier()  # the launcher ends the other processes when one fails
        return message


def _all_are_finite(loss: Tensor, wrapper: OptimWrapper) -> bool:
    """Return whether the loss, the gradients and the gradients' norm are finite in every process."""
    total = loss.detach().float()
    if not hasattr(wrapper, 'loss_scaler'):  # with loss scaling, infinite gradients are normal
        params = (p for group in wrapper.optimizer.param_groups for p in group['params'])
        total = total + torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    bad = (~torch.isfinite(total)).int()
    all_reduce(bad, 'max')
    return not bad.item()


def _images(data_batch: Any) -> str:
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    names = [f'{s.get("img_id")} ({s.get("img_path")})' if s.get('img_path') else str(s.get('img_id')) for s in samples]
    return ', '.join(names) or 'unknown'
