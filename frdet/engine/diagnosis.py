"""Diagnosing a training step that was not finite: computing it again, and keeping it in a file."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor

from frdet.checkpoints import load_file
from frdet.checkpoints.runs import to_plain
from frdet.engine.optim import DTYPES
from frdet.errors import CheckpointError
from frdet.structures import DetDataSample

_KEYS = {'iter', 'batch', 'rng', 'state_dict', 'autocast', 'message'}
_ELEMENT = 'frdet.element'


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
    after = rng_state()
    set_rng_state(rng)
    with _buffers_kept(model), ExitStack() as hooks, torch.enable_grad():
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(partial(_note_output, found, name)))
        with autocast or nullcontext():
            losses = model(**model.data_preprocessor(batch, True), mode='loss')
        total, logged = model.parse_losses(losses)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        gradients = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
    set_rng_state(after)
    bad = [name for (name, _), g in zip(named, gradients, strict=True) if g is not None and not _is_finite(g)]
    return Diagnosis(
        losses={name: float(value.detach()) for name, value in logged.items() if 'loss' in name},
        weight=next((name for name, p in model.named_parameters() if not _is_finite(p)), None),
        module=found[0] if found else None,
        gradient=bad[-1] if bad else None,
    )


def _note_output(found: list[str], name: str, module: torch.nn.Module, inputs: Any, output: Any) -> None:
    if not _is_finite(output):
        found.append(name)


@contextmanager
def _buffers_kept(model: torch.nn.Module) -> Iterator[None]:
    """Restore the buffers afterwards, because BatchNorm updates its statistics in every forward pass."""
    kept = [buffer.clone() for buffer in model.buffers()]
    yield
    restore_buffers(model, kept)


def restore_buffers(model: torch.nn.Module, kept: list[Tensor]) -> None:
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
