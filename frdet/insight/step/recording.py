"""Making one training step, and keeping what passes through it.

Shapes: B images, L levels, N boxes an image (anchors, or proposals with the ground truth), R sampled RoIs.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor

from frdet import ops
from frdet.errors import ConfigError
from frdet.insight.step.layers import LayerStats, StageStats, layers_to_watch, stages_after, weights_before
from frdet.insight.step.preparing import Prepared
from frdet.insight.step.record import Loss, Matching, Record, RoIs, Selection
from frdet.insight.step.spying import Call, Spy, spying
from frdet.models.dense_heads import rpn_head as rpn_module
from frdet.models.task_modules import Proposals

PARTS = ('data_preprocessor', 'backbone', 'neck', 'rpn_head', 'roi_head')


def record_step(prepared: Prepared) -> Record:
    """Make the step: forward, losses, backward, optimiser. The model is changed.

    Raises:
        ConfigError: a head of another kind came by without what is shown here.
    """
    model, wrapper = prepared.model, prepared.optim_wrapper
    layers = {name: LayerStats() for name in layers_to_watch(model)}
    with spying() as spy:
        for part in PARTS:
            if getattr(model, part, None) is not None:
                spy.watch(getattr(model, part), 'loss' if part.endswith('_head') else 'forward', part)
        for stage, head in (('rpn', model.rpn_head), ('roi', model.roi_head)):
            spy.watch(head, 'forward', f'{stage}.forward')
            spy.watch(head.assigner, 'assign_batch', f'{stage}.assign')
            spy.watch(head.sampler, 'sample_batch', f'{stage}.sample')
            spy.watch(head.loss_cls, 'forward', f'{stage}.loss_cls')
            spy.watch(head.loss_bbox, 'forward', f'{stage}.loss_bbox')
        spy.watch(model.rpn_head.anchor_generator, 'grid', 'rpn.grid')
        spy.watch(model.roi_head.roi_extractor, 'forward', 'roi.pool')
        spy.watch(rpn_module, 'select_proposals', 'rpn.select')
        spy.watch(ops, 'batched_nms_mask', 'rpn.nms')
        for name, stats in layers.items():
            spy.watch(model.get_submodule(name), 'forward', name, digest=stats.update)
        data = model.data_preprocessor(pseudo_collate(prepared.items), True)
        with wrapper.optim_context(model):
            outputs = model(**data, mode='loss')
    loss, _ = model.parse_losses(outputs)
    before = weights_before(model)
    wrapper.backward(wrapper.scale_loss(loss))
    gradients = {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
    wrapper.step()
    return _record(prepared, data, outputs, spy, layers, stages_after(model, before, gradients))


def _record(
    prepared: Prepared,
    data: dict[str, Any],
    outputs: dict[str, Tensor],
    spy: Spy,
    layers: dict[str, LayerStats],
    stages: dict[str, StageStats],
) -> Record:
    parts = {part: _only(spy, part) for part in PARTS if part in spy.calls}
    grid, (logits, _) = _only(spy, 'rpn.grid').result, _only(spy, 'rpn.forward').result
    features = parts['rpn_head'].args[0]
    height = data['inputs'].shape[2]
    images = range(len(prepared.items))
    per_cell = prepared.model.rpn_head.anchor_generator.num_anchors
    counts = [len(anchors) for anchors in grid]
    level = torch.repeat_interleave(torch.arange(len(grid)), torch.tensor(counts))
    losses = {
        f'loss_{prefix}{kind}': _only(spy, f'{stage}.loss_{kind}')
        for stage, prefix in (('rpn', 'rpn_'), ('roi', ''))
        for kind in ('cls', 'bbox')
    }
    heads = {'rpn_head': prepared.model.rpn_head, 'roi_head': prepared.model.roi_head}
    return Record(
        prepared=prepared,
        samples=data['data_samples'],
        seconds={part: call.seconds for part, call in parts.items()},
        shapes={part: _shapes(call.result) for part, call in parts.items() if part not in heads},
        level_names=[f'p{round(math.log2(height / f.shape[2]))}' for f in features],
        objectness=[
            x.detach().sigmoid().cpu().unflatten(1, (*f.shape[2:], per_cell))
            for x, f in zip(logits, features, strict=True)
        ],
        anchors=[_matching(spy, 'rpn', i, torch.cat(grid), level) for i in images],
        selections=[_selection(spy, i) for i in images],
        matched=[_matching(spy, 'roi', i, None, None) for i in images],
        rois=_rois(spy, prepared.model.roi_head, features, len(images)),
        losses=[_loss(name, call, heads['rpn_head' if 'rpn' in name else 'roi_head']) for name, call in losses.items()],
        logged={name: float(value.detach()) for name, value in outputs.items() if 'loss' not in name},
        layers={name: stats for name, stats in layers.items() if stats.calls},
        stages=stages,
        lr=float(prepared.optim_wrapper.optimizer.param_groups[0]['lr']),
    )


def _only(spy: Spy, key: str) -> Call:
    if not spy.calls[key]:
        raise ConfigError(
            f'The step never called {key}: inspect_step shows heads that assign, sample, pool and select as RPNHead '
            'and StandardRoIHead do'
        )
    return spy.calls[key][0]


def _shapes(result: Any) -> list[tuple[int, ...]]:
    tensors = result['inputs'] if isinstance(result, dict) else result
    return [tuple(t.shape) for t in ([tensors] if isinstance(tensors, Tensor) else tensors)]


def _matching(spy: Spy, stage: str, image: int, boxes: Tensor | None, level: Tensor | None) -> Matching:
    call = _only(spy, f'{stage}.sample')
    assigned = call.args[0]
    if boxes is None:
        boxes = _only(spy, f'{stage}.assign').args[0][image]
    label = assigned.label[image].cpu()
    sampled = torch.zeros_like(label, dtype=torch.bool)
    sampled[call.result.index[image][call.result.valid[image]].cpu()] = True
    if level is None:
        level = torch.zeros_like(label)
    is_truth = torch.zeros_like(sampled)
    if stage == 'roi':
        is_truth[_only(spy, 'rpn.select').result.boxes.shape[1] :] = True
    gt_index, iou = assigned.gt_index[image].cpu(), assigned.iou[image].cpu()
    return Matching(boxes.detach().cpu(), level, label, gt_index, iou, sampled, is_truth)


def _selection(spy: Spy, image: int) -> Selection:
    """From what ``select_proposals`` was given, what it gave NMS, and what it returned."""
    select, nms = _only(spy, 'rpn.select'), _only(spy, 'rpn.nms')
    before = torch.cat([b[image] for b in select.args[0]]).cpu()
    logits = torch.cat([s[image] for s in select.args[1]]).cpu()
    level = torch.cat([torch.full_like(s[image], i, dtype=torch.long) for i, s in enumerate(select.args[1])]).cpu()
    boxes, scores, _, _ = (x.cpu() if isinstance(x, Tensor) else x for x in nms.args)
    here = slice(image * len(before), (image + 1) * len(before))
    boxes, small = boxes[here], scores[here] == -torch.inf
    survived = nms.result.cpu()[here] & ~small
    result: Proposals = select.result
    valid = result.valid[image].cpu()
    # The best survivors of all levels went on.
    kept = torch.zeros_like(survived)
    kept[torch.where(survived, logits, -torch.inf).topk(len(valid)).indices[valid]] = True
    return Selection(
        boxes=boxes,
        scores=logits.sigmoid(),
        level=level,
        clipped=(boxes != before).any(dim=1),
        small=small,
        suppressed=~small & ~survived,
        kept=kept,
        proposals=result.boxes[image].cpu()[valid],
    )


def _rois(spy: Spy, head: Any, features: Sequence[Tensor], batch: int) -> list[RoIs]:
    pool, forward = _only(spy, 'roi.pool'), _only(spy, 'roi.forward')
    scores, deltas = (x.detach() for x in forward.result)
    rois = pool.args[1]
    label, valid = (x.flatten() for x in _only(spy, 'roi.loss_cls').args[1:3])
    sample, assigned = _only(spy, 'roi.sample').result, _only(spy, 'roi.sample').args[0]
    truth = _only(spy, 'roi.assign').args[1]
    gt_index = assigned.gt_index.gather(1, sample.index)
    targets = truth.boxes.gather(1, gt_index[..., None].expand(-1, -1, 4)).flatten(0, 1)
    own = label.clamp(max=deltas.shape[1] - 1)[:, None, None].expand(-1, 1, 4)
    refined = head.box_coder.decode(rois[:, 1:], deltas.gather(1, own).squeeze(1).float())
    everything = RoIs(
        boxes=rois[:, 1:],
        refined=refined,
        targets=targets,
        level=_pooled_from(pool, head.roi_extractor, features),
        label=label,
        positive=sample.positive.flatten(),
        scores=scores.softmax(dim=1),
        pooled=pool.result.detach().float(),
    )
    here = [(rois[:, 0] == i) & valid for i in range(batch)]
    return [RoIs(*(x.detach()[mask].cpu() for x in vars(everything).values())) for mask in here]


def _pooled_from(pool: Call, extractor: Any, features: Sequence[Tensor]) -> Tensor:
    """(R,) the level of every RoI: what the extractor pools from maps that hold their own number."""
    maps = [torch.full_like(f[:, :1].detach().float(), i + 1) for i, f in enumerate(features)]
    pooled = extractor(maps, pool.args[1])
    return (pooled.flatten(1).amax(dim=1).round().long() - 1).clamp(min=0)


def _loss(name: str, call: Call, head: Any) -> Loss:
    module = getattr(head, 'loss_cls' if name.endswith('cls') else 'loss_bbox')
    return Loss(
        name=name,
        kind=type(module).__name__,
        value=float(call.result.detach()),
        normaliser=float(call.args[3]),
        weight=float(getattr(module, 'loss_weight', 1.0)),
        count=int(call.args[2].sum()),
    )
