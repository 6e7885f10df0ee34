"""Sections about the network: its parts, losses, activations, gradients."""

import math
import re
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import NullFormatter
from mmengine.config import Config
from torch import Tensor

from frdet.config import dump_config
from frdet.insight.page import Page
from frdet.insight.plots import Plot
from frdet.insight.step.record import Loss, Record

#: Explanations of losses, by module, without the number of a stage of a cascade.
_TERMS = {
    'rpn_head.loss_cls': 'object or background, for each sampled anchor',
    'rpn_head.loss_bbox': 'the way from each positive anchor to its object',
    'bbox_head.loss_cls': 'each class on its own, for each anchor or cell that is not ignored',
    'bbox_head.loss_bbox': 'the way from each positive anchor or cell to its object',
    'bbox_head.loss_centerness': 'how near to the centre of its object each positive cell is',
    'roi_head.loss_cls': 'the class, background among them, of each sampled RoI',
    'roi_head.loss_bbox': 'the way from each positive RoI to its object',
    'roi_head.mask_head.loss_mask': 'inside or outside of the object, for each cell of the grid over each positive RoI',
}
_LOGGED = {
    'rpn_num_pos': 'positive anchors an image that were sampled',
    'roi_num_pos': 'positive RoIs an image that were sampled',
    'acc': 'sampled RoIs of which the class is right, in percent',
    'num_pos': 'positive anchors or cells an image',
}
_SHAPES = 5  # the most outputs of a part whose shapes are shown


def add_parts(page: Page, record: Record) -> None:
    """The parts of the model as they were built."""
    section = page.section(
        'The parts',
        'A config names the parts of a model, and this is what was built from them. Frozen parameters are not trained. '
        'The times are of this one step, without matching, sampling and losses; a first step is slower than others.',
        source='Faster R-CNN, figure 2; FPN, figure 3',
    )
    rows = []
    for name, part in record.prepared.model.named_children():
        trained, frozen = (sum(p.numel() for p in part.parameters() if p.requires_grad is on) for on in (True, False))
        shapes = ['x'.join(map(str, shape)) for shape in record.shapes.get(name, [])]
        shown = '; '.join([*shapes[:_SHAPES], *(['...'] if len(shapes) > _SHAPES else [])])
        ms = record.seconds[name] * 1000 if name in record.seconds else None
        about = (type(part).__doc__ or '').strip().partition('\n')[0]
        rows.append([name, type(part).__name__, trained, frozen, shown, ms, about])
    head = ['part', 'type', 'trained parameters', 'frozen', 'output', 'ms', 'what it is']
    section.table(head, rows, caption='Parts, parameters, outputs (images x channels x height x width) and time')
    section.text('The config of the model:')
    section.code(
        dump_config(Config({'model': record.prepared.cfg.model.to_dict()})).strip(), label="The config's model"
    )


def add_losses(page: Page, record: Record) -> None:
    """The losses and their terms."""
    section = page.section(
        'Losses',
        'A loss is a sum over samples, divided by a normaliser and multiplied by its weight. The optimiser follows the '
        'total. Fresh weights give about 0.69 = log 2 for a cross-entropy of objectness, log (classes + 1) for one of '
        'classes and background. A dash means that the model changes the result of the loss.',
        source='Faster R-CNN, equation 1; Fast R-CNN, equations 1 to 3',
    )
    whole = sum(loss.value for loss in record.losses)
    rows: list[list[Any]] = [
        [x.name, x.count, x.total, x.normaliser, x.weight, x.value, f'{x.value / whole:.1%}' if whole else None]
        for x in record.losses
    ]
    rows.append(['total', None, None, None, None, whole, '100.0%' if whole else None])
    head = ['loss', 'terms', 'sum', 'normaliser', 'weight', 'value', 'share']
    section.table(head, rows, caption='value = weight x sum / normaliser')
    own = _own_head(record.prepared.model)
    rows = [[x.name, x.part or None, x.kind or None, _meaning(x, own)] for x in record.losses]
    section.table(['loss', 'module', 'type', 'says how wrong is'], rows, caption='What the losses are')
    if record.logged:
        known = _LOGGED if own or record.rois else {}
        rows = [[name, value, known.get(_without_stage(name), '')] for name, value in record.logged.items()]
        section.table(['name', 'value', 'what it is'], rows, caption='Numbers that are logged and are no losses')
    finite = {x.name: x.value for x in record.losses if np.isfinite(x.value)}

    def paint(axes: Any) -> None:
        axes.barh(list(finite), list(finite.values()))
        axes.invert_yaxis()
        axes.set_xlabel('value')

    section.plot(Plot(paint, (7, 2.2)), 'Losses of this step')


def _own_head(model: Any) -> str:
    """The name of the head whose losses frdet knows; empty for a model with a head of a user."""
    heads = ((name, type(getattr(model, name, None)).__module__) for name in ('roi_head', 'bbox_head'))
    return next((name for name, module in heads if module.startswith('frdet.')), '')


def _meaning(loss: Loss, head: str) -> str:
    """What a loss says, by its module, or by its name where the head changes the result of the module."""
    part = loss.part or (head and f'{head}.{_without_stage(loss.name)}')
    return _TERMS.get(re.sub(r'\.\d+', '', part).replace('roi_head.loss_mask', 'roi_head.mask_head.loss_mask'), '')


def _without_stage(name: str) -> str:
    """``loss_cls`` for ``s0.loss_cls``, the loss of a stage of a cascade."""
    return re.sub(r'^s\d+\.', '', name)


def add_activations(page: Page, record: Record) -> None:
    """Activations of layers and weights of stages."""
    section = page.section(
        'Activations and weights',
        'Outputs of layers for these images. Healthy layers keep a spread of the same order from one to the next. A '
        'channel that is never above 0 passes no gradient through its ReLU: it is dead for these images.',
        source='Delving Deep into Rectifiers (He et al. 2015), section 2.2',
    )
    rows = [
        [n, 'x'.join(map(str, s.shape)), s.mean, s.std, s.low, s.high, f'{s.zeros:.0%}', s.dead(n), s.non_finite]
        for n, s in record.layers.items()
    ]
    head = ['layer', 'output', 'mean', 'spread', 'lowest', 'highest', '≤ 0', 'dead channels', 'not finite']
    caption = 'Layers; if a layer serves several levels, the output is that of its last call'
    section.table(head, rows, caption=caption)
    shown = {name: stats.values for name, stats in record.layers.items() if len(stats.values)}
    alt = f'Histograms of activations: {", ".join(shown)}'
    section.plot(_histograms(shown), 'Activations of the layers: shares of values', alt=alt)
    weights = {name: stage.values for name, stage in record.stages.items() if stage.values.isfinite().any()}
    alt = f'Histograms of weights: {", ".join(weights)}'
    section.plot(_histograms(weights), 'Weights of the stages before the step, without norms and biases', alt=alt)


def add_updates(page: Page, record: Record) -> None:
    """Gradients and the update by the optimiser."""
    section = page.section(
        'Gradients and update',
        f'Norms of the gradient before clipping, of the weights, and of the change that the optimiser made at the full '
        f'learning rate of {record.lr:g}, before any schedule or warm-up. A ratio of update to weights near 0.001 is '
        'usual; 1 rewrites a stage, 0 leaves it as it is.',
        source='Accurate, Large Minibatch SGD (Goyal et al. 2017), section 2',
    )
    rows = [
        [name, s.trained, s.gradient if s.trained else None, s.weight if s.trained else None, s.update, s.ratio]
        for name, s in record.stages.items()
    ]
    head = ['stage', 'trained parameters', 'gradient', 'weights', 'update', 'update / weights']
    section.table(head, rows, caption='Norms by stage')
    ratios = {n: s.ratio for n, s in record.stages.items() if s.ratio and np.isfinite(s.ratio)}
    if not ratios:
        return
    low, high = min(*ratios.values(), 1e-3) / 2, max(*ratios.values(), 1e-3)

    def paint(axes: Any) -> None:
        axes.barh(list(ratios), list(ratios.values()))
        axes.set_xscale('log')
        axes.set_xlim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)))
        # The usual labels of a logarithmic axis are formulas, and `text.parse_math` is off.
        axes.xaxis.set_major_formatter('{x:g}')
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.axvline(1e-3, linestyle='--')
        axes.invert_yaxis()
        axes.set_xlabel('update / weights')

    plot = Plot(paint, (7, 0.8 + 0.26 * len(ratios)))
    section.plot(plot, 'Update to weights by stage; the dashed line is 0.001')


def _histograms(values: dict[str, Tensor], columns: int = 4) -> Plot:
    rows = -(-len(values) // columns)

    def paint(grid: np.ndarray) -> None:
        for axes, (name, value) in zip(grid.flat, values.items(), strict=False):
            finite = value[value.isfinite()]
            low, high = torch.quantile(finite, torch.tensor([0.001, 0.999])).tolist()
            counts, edges = np.histogram(finite.numpy(), bins=40, range=(low, high) if high > low else None)
            axes.stairs(counts, edges, fill=True)  # one path instead of forty bars
            axes.set_title(name.removeprefix('roi_head.'), fontsize=7)
            axes.tick_params(labelsize=6)
            axes.set_yticks([])
            axes.locator_params(axis='x', nbins=4)
        for axes in list(grid.flat)[len(values) :]:
            axes.set_visible(False)

    return Plot(paint, (8, 0.3 + 1.15 * rows), rows, columns)
