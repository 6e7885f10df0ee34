"""Makes one training step and records it.

Shapes: B images, L levels, N boxes an image (anchors, or proposals with the ground truth), R sampled RoIs.
"""

import inspect
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from frdet.errors import ConfigError
from frdet.insight.step.layers import LayerStats, layers_to_watch, stages_after
from frdet.insight.step.record import ANCHORS, DATA, PROPOSALS, ROIS, Loss, Matching, Prepared, Record, RoIs, Selection
from frdet.models.task_modules import AssignResult
from frdet.models.task_modules.observing import Event, ProposalsSelected, observing
from frdet.models.task_modules.targets import IGNORED
from frdet.registry import LOSSES

_ROI_PARTS = ('roi_extractor', 'box_coder', 'assigner', 'sampler', 'loss_cls')


class Call(NamedTuple):
    """One call of a watched module or method."""

    args: tuple
    result: Any
    seconds: float


class Absent(Exception):
    """A section has nothing to show: the message says why."""


class Watch(ExitStack):
    """Records calls of modules and methods until its context ends."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[tuple[int, str], list[Call]] = defaultdict(list)
        self._own_time = 0.0

    def module(self, module: nn.Module, digest: Callable[[Any], None] | None = None) -> None:
        """Record a module's calls, or pass its results to ``digest``, whose time counts for no module."""
        begins: list[float] = []

        def after(module: nn.Module, args: tuple, kwargs: dict[str, Any], result: Any) -> None:
            end = _now()
            seconds = end - self._own_time - begins.pop()
            if digest is None:
                self._keep(module, 'forward', module.forward, args, kwargs, result, seconds)
            else:
                digest(result)
            self._own_time += _now() - end

        self.enter_context(module.register_forward_pre_hook(lambda *called: begins.append(_now() - self._own_time)))
        self.enter_context(module.register_forward_hook(after, with_kwargs=True))

    def method(self, owner: Any, name: str) -> None:
        """Record the calls of a method. This is for objects without hooks, which are no modules."""
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self._keep(owner, name, original, args, kwargs, result)
            return result

        had_own = name in vars(owner)
        setattr(owner, name, watched)
        self.callback(*((setattr, owner, name, original) if had_own else (delattr, owner, name)))

    def _keep(
        self, owner: Any, name: str, function: Any, args: tuple, kwargs: dict, result: Any, seconds: float = 0.0
    ) -> None:
        given = inspect.signature(function).bind(*args, **kwargs).args  # in the order of the definition
        self._calls[id(owner), name].append(Call(given, result, seconds))

    def calls(self, owner: Any, name: str = 'forward') -> list[Call]:
        """The recorded calls, in order."""
        return self._calls.get((id(owner), name), [])

    def first(self, owner: Any, name: str = 'forward') -> Call:
        """The first call. Raises Absent if there was none."""
        if not (calls := self.calls(owner, name)):
            raise Absent(f'{type(owner).__name__}.{name} was not called')
        return calls[0]


def record_step(prepared: Prepared) -> Record:
    """Make the step: forward, losses, backward, optimiser. This changes the model.

    Raises:
        ConfigError: the images are too few or too small for a BN.
    """
    model, wrapper = prepared.model, prepared.optim_wrapper
    layers = {name: LayerStats() for name in layers_to_watch(model)}
    anchor_head = _having(model, 'anchor_generator', 'assigner')
    roi_head = _having(model, *_ROI_PARTS)
    losses = {name: part for name, part in model.named_modules() if type(part) in LOSSES.module_dict.values()}
    events: list[Event] = []
    with Watch() as watch:
        extractor = _first_stage(getattr(roi_head, 'roi_extractor', None))
        modules = (*model.children(), anchor_head, roi_head, extractor, *losses.values())
        for module in {id(module): module for module in modules if isinstance(module, nn.Module)}.values():
            watch.module(module)
        for name, stats in layers.items():
            watch.module(model.get_submodule(name), stats.update)
        for head in (anchor_head, roi_head):
            for part, method in (('assigner', 'assign_batch'), ('sampler', 'sample_batch')):
                if hasattr(owner := _first_stage(getattr(head, part, None)), method):
                    watch.method(owner, method)
        data = model.data_preprocessor(pseudo_collate(prepared.items), True)
        with wrapper.optim_context(model), observing(events.append):
            try:
                outputs = model._run_forward(data, mode='loss')
            except ValueError as error:
                if 'more than 1 value per channel' not in str(error):
                    raise
                raise ConfigError('BN sees one value a channel: take more images (--image), or larger ones') from error
    loss, means = model.parse_losses(outputs)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper.backward(wrapper.scale_loss(loss))
    gradients = {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
    wrapper.step()

    batch = data if isinstance(data, dict) else {}
    samples = batch.get('data_samples') or [item.get('data_samples', {}) for item in prepared.items]
    inputs = batch.get('inputs')
    absent: dict[str, str] = {}
    input_shape = (inputs.shape[2], inputs.shape[3]) if isinstance(inputs, Tensor) and inputs.dim() == 4 else (0, 0)
    if not all(input_shape) or not all('gt_instances' in sample for sample in samples):
        absent = dict.fromkeys((DATA, ANCHORS, PROPOSALS, ROIS), 'the batch is no images with gt_instances')
    predictions, objectness, anchors = _or_absent(absent, ANCHORS, _anchors, watch, anchor_head, len(samples))
    if ANCHORS in absent:
        absent[PROPOSALS] = absent[ANCHORS]
    selections, *_ = _or_absent(absent, PROPOSALS, _selections, events, len(samples))
    pyramid, matched, rois = _or_absent(absent, ROIS, _rois, watch, roi_head, len(samples))
    parts = {name: watch.calls(part) for name, part in model.named_children() if watch.calls(part)}
    values = {name: mean.item() for name, mean in means.items()}
    return Record(
        prepared=prepared,
        samples=samples,
        input_shape=input_shape,
        seconds={part: sum(call.seconds for call in calls) for part, calls in parts.items()},
        shapes={part: [tuple(t.shape) for t in _tensors(calls[-1].result)] for part, calls in parts.items()},
        level_names=[
            f'p{round(math.log2(input_shape[0] / f.shape[2]))}' for f in (predictions[0] if predictions else pyramid)
        ],
        objectness=objectness,
        anchors=anchors,
        selections=selections,
        matched=matched,
        rois=rois,
        losses=[_loss(name, values[name], output, watch, losses) for name, output in outputs.items() if 'loss' in name],
        logged={name: values[name] for name in outputs if 'loss' not in name},
        layers={name: stats for name, stats in layers.items() if stats.shape},
        stages=stages_after(model, before, gradients),
        lr=float(wrapper.optimizer.param_groups[0]['lr']),
        absent=absent,
    )


def _having(model: nn.Module, *parts: str) -> Any:
    """The first module that has all these parts."""
    return next((m for m in model.modules() if all(getattr(m, part, None) is not None for part in parts)), None)


def _first_stage(part: Any) -> Any:
    """The part of a head, or of the first stage of a cascade, whose parts are lists."""
    return part[0] if isinstance(part, (nn.ModuleList, list, tuple)) else part


def _or_absent(absent: dict[str, str], section: str, make: Callable[..., tuple], *args: Any) -> tuple:
    """The result of ``make``; empty lists, and the reason in ``absent``, if it raises Absent."""
    if section not in absent:
        try:
            return make(*args)
        except Absent as reason:
            absent[section] = str(reason)
    return [], [], []


def _anchors(watch: Watch, head: Any, batch: int) -> tuple[tuple, list[Tensor], list[Matching]]:
    """The predictions of a head that assigns anchors, objectness of each level, and matchings.

    Predictions are, for each level, its map (B, C, H, W), N = H * W * A anchors (N, 4), logits (B, N[, K]) and deltas
    (B, N, 4).
    """
    if head is None:
        raise Absent('no part has an anchor_generator and an assigner')
    call = watch.first(head)
    features = call.args[0]
    grid = head.anchor_generator.grid([(f.shape[2], f.shape[3]) for f in features], features[0].device)
    counts = [len(anchors) for anchors in grid]
    try:
        logits, deltas, *_ = call.result
        is_dense = [x.shape[1] for x in logits] == counts
    except (TypeError, ValueError, AttributeError):
        is_dense = False
    if not is_dense:
        raise Absent(f'{type(head).__name__}.forward does not give logits and deltas of every anchor by levels')
    sampler = getattr(head, 'sampler', None)
    last = watch.first(sampler, 'sample_batch') if sampler else watch.first(head.assigner, 'assign_batch')
    assigned = last.args[0] if sampler else last.result
    if assigned.label.shape != (batch, sum(counts)):
        raise Absent(f'{type(head).__name__} does not assign all its anchors together')
    best = [(x if x.dim() == 2 else x.amax(dim=2)).detach().sigmoid().cpu() for x in logits]
    per_cell = head.anchor_generator.num_anchors
    level = torch.repeat_interleave(torch.arange(len(grid)), torch.tensor(counts))
    return (
        (features, grid, logits, deltas),
        [x.unflatten(1, (*f.shape[2:], per_cell)) for x, f in zip(best, features, strict=True)],
        [_matching(watch, sampler, assigned, i, torch.cat(grid), level) for i in range(batch)],
    )


def _matching(watch: Watch, sampler: Any, assigned: AssignResult, image: int, boxes: Tensor, level: Tensor) -> Matching:
    label, gt_index, iou = (x[image].cpu() for x in assigned)
    sampled = label != IGNORED
    if sampler is not None:
        result = watch.first(sampler, 'sample_batch').result
        chosen = result.index[image][result.valid[image]].cpu()
        sampled = torch.zeros_like(sampled).index_fill(0, chosen, True)
    return Matching(boxes.detach().cpu(), level, label, gt_index, iou, sampled, torch.zeros_like(sampled))


def _selections(events: Sequence[Event], batch: int) -> tuple[list[Selection]]:
    """The steps from the best anchors to proposals, as ``select_proposals`` told them."""
    told = next((event for event in events if isinstance(event, ProposalsSelected)), None)
    if told is None or len(told.boxes) != batch:
        raise Absent('no part proposes boxes by select_proposals')
    chosen = torch.zeros_like(told.kept).scatter(1, told.index, told.valid)
    return (
        [
            Selection(
                boxes=told.boxes[i].cpu(),
                scores=told.scores[i].sigmoid().cpu(),
                level=told.level.cpu(),
                clipped=(told.boxes[i] != told.decoded[i]).any(dim=1).cpu(),
                small=~told.legal[i].cpu(),
                suppressed=(told.legal[i] & ~told.kept[i]).cpu(),
                kept=chosen[i].cpu(),
            )
            for i in range(batch)
        ],
    )


def _rois(watch: Watch, head: Any, batch: int) -> tuple[Sequence[Tensor], list[Matching], list[RoIs]]:
    """Feature maps, the matching of the proposals, and the sample for the losses, of the first stage of a cascade."""
    if head is None:
        raise Absent(f'no part has all of {", ".join(_ROI_PARTS)}')
    extractor, coder, assigner, sampler, loss_cls = (_first_stage(getattr(head, part)) for part in _ROI_PARTS)
    loss, (assigned, *_), sample = watch.first(loss_cls), *watch.first(sampler, 'sample_batch')[:2]
    proposed, truth, *_ = watch.first(assigner, 'assign_batch').args
    chosen = proposed.gather(1, sample.index[..., None].expand(-1, -1, 4)).flatten(0, 1)
    # Before a sampler of hard examples chooses, all proposals are pooled.
    pool = next((call for call in watch.calls(extractor) if torch.equal(call.args[1][:, 1:], chosen)), None)
    pool = pool or watch.first(extractor)
    (features, rois, *_), result = pool.args, watch.first(head).result
    if len(result) != 2 or len(loss.args) != 4 or not len(rois) == len(result[0]) == sample.index.numel():
        raise Absent(f'{type(head).__name__} does not use its parts as StandardRoIHead does')
    scores, deltas = (x.detach() for x in result)
    label, valid = (x.flatten() for x in loss.args[1:3])
    gt_index = assigned.gt_index.gather(1, sample.index)
    own = label.clamp(max=deltas.shape[1] - 1)[:, None, None].expand(-1, 1, 4)
    everything = RoIs(
        boxes=rois[:, 1:],
        refined=coder.decode(rois[:, 1:], deltas.gather(1, own).squeeze(1).float()),
        targets=truth.boxes.gather(1, gt_index[..., None].expand(-1, -1, 4)).flatten(0, 1),
        level=pooled_from(extractor, features, rois),
        label=label,
        positive=sample.positive.flatten(),
        scores=scores.softmax(dim=1),
        pooled=pool.result.detach().float(),
    )
    masks = [(rois[:, 0] == i) & valid for i in range(batch)]
    level = torch.zeros(proposed.shape[1], dtype=torch.long)  # proposals have no level before they are pooled
    matched = [_matching(watch, sampler, assigned, i, proposed[i], level) for i in range(batch)]
    if getattr(head, 'add_gt_as_proposals', False):
        for matching in matched:
            matching.is_truth[len(matching.is_truth) - truth.boxes.shape[1] :] = True
    return features, matched, [RoIs(*(x.detach()[mask].cpu() for x in vars(everything).values())) for mask in masks]


def pooled_from(extractor: Any, features: Sequence[Tensor], rois: Tensor) -> Tensor:
    """(R,) the level of every RoI (R, 5), which the extractor pools from maps that hold the number of their level."""
    maps = [torch.full_like(f[:, :1].detach().float(), i + 1) for i, f in enumerate(features)]
    return (extractor(maps, rois).flatten(1).amax(dim=1).round().long() - 1).clamp(min=0)


def _loss(name: str, value: float, output: Any, watch: Watch, modules: dict[str, nn.Module]) -> Loss:
    """The loss that the model gives as ``output``, and the module that made it."""
    for part, module in modules.items():
        for args, result, _ in watch.calls(module):
            if result is output:
                weight = float(getattr(module, 'loss_weight', 1.0))
                terms = (float(args[3]), weight, int((args[2] != 0).sum())) if len(args) == 4 else ()
                return Loss(name, value, part, type(module).__name__, *terms)
    return Loss(name, value)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Tensors in lists and dicts of any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tensors(one)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
