"""A training step whose loss or gradient is not finite: refusing it, computing it again, keeping it in a file."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from mmengine.dist import all_gather_object, all_reduce, barrier, get_rank
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from frdet.checkpoints import load_file
from frdet.checkpoints.runs import to_plain
from frdet.engine.optim import DTYPES
from frdet.errors import CheckpointError, ConfigError, UserError
from frdet.models.detectors import bare
from frdet.registry import HOOKS
from frdet.structures import DetDataSample

_KEYS = {'iter', 'batch', 'rng', 'state_dict', 'autocast', 'message'}  # of the file
_ELEMENT = 'frdet.element'


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
        total = total + nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    bad = (~torch.isfinite(total)).int()
    all_reduce(bad, 'max')
    return not bad.item()


def _images(data_batch: Any) -> str:
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    names = [f'{s.get("img_id")} ({s.get("img_path")})' if s.get('img_path') else str(s.get('img_id')) for s in samples]
    return ', '.join(names) or 'unknown'


class Diagnosis(NamedTuple):
    """The losses of a step, and the first positions where it was not finite."""

    losses: dict[str, float]
    weight: str | None  # the first parameter whose values are not finite
    module: str | None  # the first module whose output was not finite
    gradient: str | None  # the first parameter, in the order of the backward pass, whose gradient was not finite

    @property
    def bad_losses(self) -> list[str]:
        """The names of the losses that are not finite; ``loss``, their sum, only if no other one is bad."""
        bad = [name for name, value in self.losses.items() if not torch.isfinite(torch.tensor(value))]
        return [name for name in bad if name != 'loss'] or bad

    @property
    def is_finite(self) -> bool:
        """Whether all losses, parameters, outputs and gradients were finite."""
        return not (self.bad_losses or self.weight or self.module or self.gradient)

    def __str__(self) -> str:
        said = [f'{name} is {self.losses[name]}' for name in self.bad_losses]
        said += [f'the parameter {self.weight} is not finite already'] if self.weight else []
        said += [f'the first output that is not finite is that of {self.module}'] if self.module else []
        if self.gradient and not said:
            said = [f'the losses are finite, the gradient of {self.gradient} is not']
        return '; '.join(said) or 'all of it is finite'


def rng_state() -> dict[str, Tensor]:
    """Return the state of the random generators that a step uses: the CPU's, and the current GPU's if it is in use."""
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {'cpu': torch.get_rng_state(), **({'cuda': torch.cuda.get_rng_state()} if on_gpu else {})}


def set_rng_state(state: dict[str, Tensor]) -> None:
    """Restore the state that ``rng_state`` returned."""
    torch.set_rng_state(state['cpu'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def diagnose(
    model: BaseModel,
    batch: dict[str, Any],
    rng: dict[str, Tensor],
    autocast: AbstractContextManager | None = None,
) -> Diagnosis:
    """Compute the losses and gradients of a batch without changing parameters, ``grad``, buffers or generators.

    ``model`` has no wrapper, because other processes take no part. ``rng`` is the generators' state before the step.
    """
    found: list[str] = []

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not _is_finite(output):
            found.append(name)

    with ExitStack() as afterwards, torch.enable_grad():
        afterwards.callback(set_rng_state, rng_state())
        # BatchNorm updates its statistics in every forward pass.
        afterwards.callback(restore_buffers, model, [buffer.clone() for buffer in model.buffers()])
        set_rng_state(rng)
        for name, module in model.named_modules():
            if name:
                afterwards.enter_context(module.register_forward_hook(functools.partial(note, name)))
        with autocast or nullcontext():
            losses = model(**model.data_preprocessor(batch, True), mode='loss')
        total, logged = model.parse_losses(losses)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        gradients = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
    bad = [name for (name, _), g in zip(named, gradients, strict=True) if g is not None and not _is_finite(g)]
    return Diagnosis(
        losses={name: float(value.detach()) for name, value in logged.items() if 'loss' in name},
        weight=next((name for name, p in model.named_parameters() if not _is_finite(p)), None),
        module=found[0] if found else None,
        gradient=bad[-1] if bad else None,
    )


def restore_buffers(model: nn.Module, kept: list[Tensor]) -> None:
    """Copy the clones of the model's buffers back into them."""
    with torch.no_grad():
        for buffer, old in zip(model.buffers(), kept, strict=True):
            buffer.copy_(old)


def _is_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, BaseDataElement):
        value = dict(value.items())
    if isinstance(value, dict):
        value = list(value.values())
    return not isinstance(value, (list, tuple)) or all(map(_is_finite, value))


def save_step(path: Path, model: BaseModel, **content: Any) -> None:
    """Write a step as tensors and plain data for ``load_step``; ``content`` has all keys except ``state_dict``."""
    content['batch'] = _packed(content['batch'])
    torch.save({**content, 'state_dict': model.state_dict()}, path)


def load_step(path: str) -> dict[str, Any]:
    """Return the step that ``save_step`` wrote, without running code in the file.

    Raises:
        CheckpointError: the file is missing, unreadable, refused, or holds no step.
    """
    content = load_file(path)
    if not isinstance(content, dict) or (missing := sorted(_KEYS - set(content))):
        lacks = f'lacks {", ".join(missing)}' if isinstance(content, dict) else f'holds a {type(content).__name__}'
        raise CheckpointError(f'{path} {lacks}: give a non_finite_iter_N.pth that NonFiniteHook wrote')
    if not isinstance(content['state_dict'], dict) or content['autocast'] not in ('', *DTYPES):
        raise CheckpointError(f'{path} is damaged: its state_dict or autocast is none that NonFiniteHook writes')
    return {**content, 'batch': _unpacked(content['batch'])}


def _packed(value: Any) -> Any:
    if isinstance(value, BaseDataElement):
        kind = 'InstanceData' if isinstance(value, InstanceData) else 'DetDataSample'
        return {_ELEMENT: kind, 'meta': _packed(dict(value.metainfo_items())), 'data': _packed(dict(value.items()))}
    if isinstance(value, dict):
        return {key: _packed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_packed(item) for item in value])
    if isinstance(value, Tensor):
        return value.detach().cpu()
    return str(value) if isinstance(value, Path) else to_plain(value)


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and _ELEMENT in value:
        element = (InstanceData if value[_ELEMENT] == 'InstanceData' else DetDataSample)(metainfo=value['meta'])
        for name, item in value['data'].items():
            element.set_field(_unpacked(item), name)
        return element
    if isinstance(value, dict):
        return {key: _unpacked(item) for key, item in value.items()}
    return type(value)([_unpacked(item) for item in value]) if isinstance(value, (list, tuple)) else value
