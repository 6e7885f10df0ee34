"""What would help: the recall if one setting were another, measured on a sample of the images.

A change is tried by building the detector of the changed config and giving it the same weights, so what is measured is
what the config lines do. The feature maps of an image are computed once for all of them.
"""

import copy
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from frdet.apis import init_detector
from frdet.config import apply_overrides
from frdet.evaluation import CocoMetric
from frdet.evaluation.coco_metric import detections_of
from frdet.evaluation.numbering import Detections
from frdet.insight.bootstrap import draw
from frdet.insight.trace.changes import Change, changes_of
from frdet.insight.trace.matching import MetricTruth
from frdet.insight.trace.model import Help, Summary
from frdet.insight.trace.sampled import Image, Score, count_anchored, draw_images, score
from frdet.insight.trace.stages import NO_ANCHOR
from frdet.models.detectors import Detector
from frdet.models.task_modules.observing import Anchors, observing
from frdet.progress import track
from frdet.registry import DATASETS, DETECTORS, METRICS, in_config_scope
from frdet.structures import DetDataSample

SAMPLES = 1000  # of the bootstrap over images
FEW_IMAGES = 10


@in_config_scope
@torch.no_grad()
def what_would_help(
    cfg: Config,
    checkpoint: str | None,
    summary: Summary,
    *,
    images: int = 100,
    split: str = 'test',
    amp: bool = False,
    seed: int = 0,
) -> list[Help]:
    """Try other values of the settings of all stages that lose objects, and larger inputs.

    Images are tried one by one. The recall of a test with larger batches may differ a little, because it pads images.

    Args:
        cfg: a whole config.
        checkpoint: path or address of the weights; None: random weights.
        summary: of a trace with this config and checkpoint.
        images: number of images to try on. They are drawn by ``seed`` among the images with objects.
        split: the data to try on, 'val' or 'test'.
        amp: predict in bfloat16 where it is safe.

    Returns:
        What each change does, the greatest gain first; nothing for a model that is no ``Detector``.

    Raises:
        UserError: config, data or checkpoint are wrong.
    """
    base = init_detector(cfg, checkpoint, amp=amp)
    changes = changes_of(base.cfg, summary, split) if isinstance(base, Detector) else []
    if not changes:
        return []
    dataset = _dataset(base.cfg, split)
    truth = MetricTruth(_metric(base.cfg, split, dataset))
    trials = [_Trial(base), *(_trial(change, base, split) for change in changes)]
    for trial in trials:
        _leave_out_masks(trial.model)
    total = min(images, len(dataset))
    with _shared({id(trial.model): trial.model for trial in trials}.values()):
        for image in track(draw_images(dataset, truth, images, seed), 'Trying other settings', total=total):
            _detect(trials, image)
    if not trials[0].found:  # no image has objects
        return []
    before, *others = (score(truth, trial.found, summary.iou) for trial in trials)
    helps = [_help(trial, before, after, truth.max_dets[-1]) for trial, after in zip(trials[1:], others, strict=True)]
    return sorted(helps, key=lambda one: -one.gain)


@dataclass
class _Trial:
    """A detector to try.

    Attributes:
        dataset: of its images; None: the data set of the config.
        found: its detections by the position of their image in the truth.
        anchored: (2,) number of objects that an anchor fits, of the config and of the change.
    """

    model: Any
    change: Change = Change('', 'nothing', {})
    dataset: Any = None
    found: dict[int, Detections] = field(default_factory=dict)
    anchored: np.ndarray = field(default_factory=lambda: np.zeros(2))


def _trial(change: Change, base: Any, split: str) -> _Trial:
    cfg = copy.deepcopy(base.cfg)
    apply_overrides(cfg, dict(change.values))
    if not any(key.startswith('model.') for key in change.values):
        return _Trial(base, change, _dataset(cfg, split))
    model = DETECTORS.build(cfg.model)
    model.load_state_dict(base.state_dict(), assign=True)
    model.predicts_in_bfloat16 = base.predicts_in_bfloat16
    return _Trial(model.to(base.data_preprocessor.device).eval(), change)


def _leave_out_masks(model: nn.Module) -> None:
    """They would take most of the time, and nothing here looks at them."""
    parts: list[Any] = [part for part in model.modules() if getattr(part, 'mask_head', None) is not None]
    for part in parts:
        part.mask_head = None


def _dataset(cfg: Config, split: str) -> Any:
    return DATASETS.build(copy.deepcopy(cfg[f'{split}_dataloader'].dataset))


def _metric(cfg: Config, split: str, dataset: Any) -> CocoMetric:
    """The first CocoMetric of the config, or COCO's own, for ``dataset``."""
    found = cfg.get(f'{split}_evaluator')
    every = found if isinstance(found, (list, tuple)) else [found]
    own = next((one for one in every if isinstance(one, dict) and one.get('type') == 'CocoMetric'), {})
    metric = METRICS.build({**own, 'type': 'CocoMetric'})
    metric.dataset_meta = getattr(dataset, 'metainfo', None)
    metric.use_dataset(dataset)
    return metric


def _shared(models: Iterable[Any]) -> '_SharedConvolutions':
    """Let detectors with the same weights share backbone and neck, and, in the context, convolutions of their maps."""
    convolutions = _SharedConvolutions()
    first, *others = models
    parts = {name: _Once(part) for name in ('backbone', 'neck') if (part := getattr(first, name)) is not None}
    [*parts.values()][-1].then = convolutions.begin
    for model in (first, *others):
        model.compile_features = False
        for name, part in parts.items():
            setattr(model, name, part)
    return convolutions


class _Once(nn.Module):
    """A backbone or a neck that several detectors share. It computes the maps of an input once."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.then: Callable[[Any], None] | None = None  # is given new maps
        self.last: tuple[Any, Any] = (None, None)

    def forward(self, inputs: Any) -> Any:
        if inputs is not self.last[0]:
            self.last = inputs, self.module(inputs)
            if self.then is not None:
                self.then(self.last[1])
        return self.last[1]


class _SharedConvolutions(TorchFunctionMode):
    """While it is entered, a convolution of a feature map is computed once for all detectors with equal weights.

    The heads of most changed detectors begin with the same convolutions, which take most of the time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps: Sequence[Tensor] = ()
        self.results: dict[tuple[int, int], Tensor] = {}

    def begin(self, maps: Sequence[Tensor]) -> None:
        """Forget the results for other maps."""
        self.maps, self.results = maps, {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = next((i for i, one in enumerate(self.maps) if args[0] is one), None) if func is torch.conv2d else None
        if place is None:
            return func(*args, **(kwargs or {}))
        key = place, args[1].data_ptr()
        if key not in self.results:
            self.results[key] = func(*args, **(kwargs or {}))
        return self.results[key].clone()  # the caller may write into it


def _detect(trials: Sequence[_Trial], image: Image) -> None:
    """Add the detections of all trials in an image. The first trial is the config as it is."""
    loaded, batch = None, None
    first: list[Tensor] = []
    for trial in trials:
        if batch is None or trial.dataset is not loaded:
            loaded = trial.dataset
            item = image.item if loaded is None else loaded[image.index]
            batch = trial.model.data_preprocessor(pseudo_collate([item]), False)
        sample, anchors = _run(trial.model, batch)
        first = first or anchors
        trial.found[image.position] = detections_of(sample.to_dict())
        if trial.change.stage == NO_ANCHOR:
            iou = _anchor_iou(trial)
            trial.anchored += [count_anchored(image.objects, sample, one, iou) for one in (first, anchors)]


def _run(model: Any, batch: dict[str, Any]) -> tuple[DetDataSample, list[Tensor]]:
    """The image with its detections, and the anchors of every level, as far as the detector tells them."""
    anchors: list[Tensor] = []

    def keep(event: Any) -> None:
        anchors.extend(event.boxes if isinstance(event, Anchors) else ())

    with observing(keep):
        (sample,) = model(**batch, mode='predict')
    return sample, anchors


def _anchor_iou(trial: _Trial) -> float:
    """From which IoU on an anchor fits an object: that of the assigner beside the anchors, or 0.5."""
    *head, _, _ = next(iter(trial.change.values)).split('.')[1:]
    return getattr(getattr(functools.reduce(getattr, head, trial.model), 'assigner', None), 'pos_iou_thr', 0.5)


def _help(trial: _Trial, before: Score, after: Score, max_dets: int) -> Help:
    images, objects = len(before.objects), int(before.objects.sum())
    drawn = draw(images, SAMPLES)[1:]
    gains = (drawn @ (after.found - before.found)) / (drawn @ before.objects)
    low, high = np.percentile(gains, (2.5, 97.5)).tolist()
    notes = []
    if trial.change.stage == NO_ANCHOR:
        old, new = trial.anchored / objects
        notes.append(
            f'an anchor fits {old:.1%} -> {new:.1%} of the objects; the weights were trained with the old anchors, so '
            'train again with these'
        )
    if after.is_limited:
        notes.append(f'the metric counts at most {max_dets} detections of a class and image: raise its max_dets, too')
    if images < FEW_IMAGES:
        notes.append(f'tried on {images} images: too few to tell a gain from noise')
    return Help(
        stage=trial.change.stage,
        change=trial.change.words,
        lines=trial.change.lines,
        recall=(before.recall, after.recall),
        gain=after.recall - before.recall,
        interval=(low, high),
        images=images,
        objects=objects,
        note='; '.join(notes),
        ap=(before.ap, after.ap),
        detections=(before.detections, after.detections),
    )
