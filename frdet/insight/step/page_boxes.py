"""Sections about boxes: the data, anchors, proposals, RoIs."""

import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frdet.insight.browse import css_colour, network_input, pipeline_in_words, show_image
from frdet.insight.page import Mark, Page, Row, Section, Tile
from frdet.insight.step.findings import best_iou
from frdet.insight.step.record import ANCHORS, DATA, PROPOSALS, ROIS, Matching, Record, RoIs
from frdet.structures import box_iou

DRAWN = 60  # the most boxes of one kind, level and image on a picture
CLEAR = 20  # proposals an image that are shown at first
CROPS = {'positive': 16, 'negative': 8}  # RoIs an image whose pixels and features are shown
_KINDS = {1: 'positive', -1: 'ignored', 0: 'negative'}
_COLOURS = {'positive': 'green', 'ignored': 'orange', 'negative': 'red'}


def add_data(page: Page, record: Record) -> None:
    """The images before and after the pipeline."""
    steps = pipeline_in_words(record.prepared.dataset)
    section = page.section(
        DATA,
        'The image as the pipeline hands it to the model: resized, perhaps mirrored, with its boxes; and as it is on '
        f'disk. Crowd regions are dashed: no loss is computed for them. {f"The pipeline: {steps}." if steps else ""}',
        source='Faster R-CNN, section 3.3 (one scale, the shorter side)',
    )
    for image, raw in enumerate(record.prepared.records):
        section.heading(record.image_name(image))
        height, width = record.input_shape
        section.text(f'Padded to {width} x {height} pixels, for the largest image of the batch and the strides.')
        show_image(section, raw, record.prepared.items[image], record.prepared.classes, math.inf)


def add_anchors(page: Page, record: Record) -> None:
    """Anchors, their matches, and the sample for the losses."""
    section = page.section(
        ANCHORS,
        'An anchor is a reference box at a cell of a feature map. The assigner makes it positive if it overlaps an '
        'object enough, negative if it overlaps none, and ignores it in between; the best anchors of an object '
        'are always positive if the config says so. Levels are named after the size of their cells: 4 pixels on '
        'p2, 8 on p3, and so on.\n'
        'A sampler then draws the anchors for the losses, because most are background and would outweigh the others. '
        'Without a sampler, the losses use all anchors that are not ignored.',
        source='Faster R-CNN, sections 3.1.1 (anchors), 3.1.2 (labels) and 3.1.3 (sampling)',
        off={'kind': ['negative, sampled', 'ignored']},
        legend='kind',
    )
    for image, matching in enumerate(record.anchors):
        section.heading(record.image_name(image))
        _matching_table(section, record, matching)
        _truth_table(section, record, image, matching, 'anchors')
        # The ground truth last, so that it lies on top.
        marks = [*_matching_marks(record, image, matching), *_truth_marks(record, image)]
        caption = f'Anchors and ground truth; at most {DRAWN} of a kind and level, the best IoU first'
        section.picture(network_input(record.prepared.items[image]), caption, marks=marks)


def add_proposals(page: Page, record: Record) -> None:
    """Objectness, and the steps from anchors to proposals."""
    section = page.section(
        PROPOSALS,
        'The region proposal network scores every anchor: a bright cell has an anchor that looks like an object '
        '(the best score of each cell is shown). On every level the best-scored anchors are moved by their deltas, cut '
        'to the image, and thinned by non-maximum suppression; the best of all levels go on to the second stage.',
        source='Faster R-CNN, section 3.3; FPN, section 4.1 (levels)',
        off={'kind': ['before NMS']},
        legend='kind',
    )
    for image, selection in enumerate(record.selections):
        section.heading(record.image_name(image))
        height, width = record.samples[image].img_shape[:2]
        tiles = []
        for name, scores in zip(record.level_names, record.objectness, strict=True):
            best = scores[image].amax(dim=2)
            seen = best[: _cells(height, record, best.shape[0], 0), : _cells(width, record, best.shape[1], 1)]
            tip = f'{seen.shape[1]}x{seen.shape[0]} cells\nlowest {seen.min():.3f}\nhighest {seen.max():.3f}'
            caption = f'{name}: {seen.min():.2f} to {seen.max():.2f}'
            tiles.append(Tile(_heat_map(seen, side=180), caption, tip, tags={'level': name}))
        section.gallery(tiles, caption='Objectness, dark is the lowest of a level and bright the highest')
        masks = {
            'clipped': selection.clipped,
            'small dropped': selection.small,
            'suppressed by NMS': selection.suppressed,
            'outscored': ~(selection.small | selection.suppressed | selection.kept),
            'kept': selection.kept,
        }
        rows = []
        for level, name in enumerate(record.level_names):
            here = selection.level == level
            anchors = int((record.anchors[image].level == level).sum())
            counts = [int((mask & here).sum()) for mask in masks.values()]
            rows.append(Row([name, anchors, int(here.sum()), *counts], tags={'level': name}))
        total = [len(record.anchors[image].boxes), len(selection.level), *(int(m.sum()) for m in masks.values())]
        rows.append(Row(['all', *total]))
        section.table(
            ['level', 'anchors', 'after top-k', *masks],
            rows,
            caption='Proposals at every step; clipped: reached beyond the image and were cut; outscored: survived '
            'NMS, but others had better scores',
        )
        marks = []
        for level, name in enumerate(record.level_names):
            for kind, colour, mask in (
                ('before NMS', 'orange', ~selection.small & ~selection.kept),
                ('after NMS', 'green', selection.kept),
            ):
                index = (mask & (selection.level == level)).nonzero().squeeze(1)
                for i in index[selection.scores[index].argsort(descending=True)][:DRAWN].tolist():
                    tip = f'{kind}, {name}\nscore {selection.scores[i]:.3f}\n{_size_in_words(selection.boxes[i])}'
                    tags, score = {'level': name, 'kind': kind}, float(selection.scores[i].nan_to_num(0))
                    marks.append(Mark(selection.boxes[i].tolist(), tip, colour, tags=tags, score=score))
        caption = f'Proposals; at most {DRAWN} of a kind and level, the best scores first'
        section.picture(
            network_input(record.prepared.items[image]), caption, marks=[*marks, *_truth_marks(record, image)]
        )
    kept = torch.cat([s.scores[s.kept] for s in record.selections]).nan_to_num(0)
    # All proposals together would hide the image.
    section.least = (
        float(kept.sort(descending=True).values[: CLEAR * len(record.selections)].min()) if len(kept) else 0.0
    )


def add_rois(page: Page, record: Record) -> None:
    """The second stage: RoIs, their pooled features, and the refinement of positives."""
    section = page.section(
        ROIS,
        'The second stage is trained on a sample of the proposals. Each is pooled from the level that fits its size, '
        'classified, and moved by its deltas. A positive has three boxes: the proposal (dotted), the '
        'refined box (solid) and the ground truth that it should reach (dashed). The score is the probability of the '
        'class that a RoI is trained for.',
        source='Fast R-CNN, sections 2.1 to 2.3; Mask R-CNN, section 3 (RoIAlign); FPN, equation 1 (levels)',
        off={'kind': ['negative']},
        legend='kind',
    )
    for image, (matching, rois) in enumerate(zip(record.matched, record.rois, strict=True)):
        section.heading(record.image_name(image))
        rows = []
        for level, name in enumerate(record.level_names):
            here = rois.level == level
            if here.any():
                positives = int((rois.positive & here).sum())
                rows.append(Row([name, int(here.sum()), positives, int(here.sum()) - positives], tags={'level': name}))
        rows.append(Row(['all', len(rois.level), int(rois.positive.sum()), int((~rois.positive).sum())]))
        section.table(['level', 'RoIs', 'positive', 'negative'], rows, caption='Sampled RoIs by level')
        joined = bool(matching.is_truth.any())
        _truth_table(
            section, record, image, matching, 'proposals',
            more='; it is one of the positives itself, but does not count for the best IoU' if joined else '',
        )  # fmt: skip
        caption = f'Sampled RoIs: all positives, and at most {DRAWN} negatives'
        section.picture(network_input(record.prepared.items[image]), caption, marks=list(_roi_marks(record, rois)))
        kinds = {'positive': rois.positive, 'negative': ~rois.positive}
        order = torch.cat([mask.nonzero().squeeze(1)[: CROPS[kind]] for kind, mask in kinds.items()])
        tiles = [_crop(record, image, rois, i) for i in order.tolist()]
        caption = (
            f'The image inside RoIs, and their pooled features as the mean of all channels. The first '
            f'{CROPS["positive"]} positives and {CROPS["negative"]} negatives'
        )
        section.gallery(tiles, caption=caption)


def _matching_table(section: Section, record: Record, matching: Matching) -> None:
    rows = []
    columns = {kind: matching.label == value for value, kind in _KINDS.items()}
    columns |= {f'sampled {kind}': columns[kind] & matching.sampled for kind in ('positive', 'negative')}
    for level, name in enumerate(record.level_names):
        here = matching.level == level
        counts = [int((mask & here).sum()) for mask in columns.values()]
        rows.append(Row([name, int(here.sum()), *counts], tags={'level': name}))
    rows.append(Row(['all', len(matching.label), *(int(mask.sum()) for mask in columns.values())]))
    section.table(['level', 'anchors', *columns], rows, caption='Anchors by level')


def _matching_marks(record: Record, image: int, matching: Matching) -> Iterator[Mark]:
    scores = torch.cat([scores[image].flatten() for scores in record.objectness]).nan_to_num(0)
    for value, kind in _KINDS.items():
        for sampled in (True, False) if value >= 0 else (False,):
            if kind == 'negative' and not sampled:
                continue  # these are nearly all anchors
            named = f'{kind}, sampled' if sampled else kind if value < 0 else f'{kind}, not sampled'
            for level, name in enumerate(record.level_names):
                mask = (matching.label == value) & (matching.level == level) & (matching.sampled == sampled)
                index = mask.nonzero().squeeze(1)
                for i in index[matching.iou[index].argsort(descending=True)][:DRAWN].tolist():
                    tip = f'{named}, {name}\nIoU {matching.iou[i]:.3f}, score {scores[i]:.3f}'
                    tip += f'\n{_size_in_words(matching.boxes[i])}'
                    if value == 1:
                        tip += f'\nanswers for {record.describe(image, int(matching.gt_index[i]))}'
                    line = 'solid' if sampled else 'dashed'
                    tags, score = {'level': name, 'kind': named}, float(scores[i])
                    yield Mark(matching.boxes[i].tolist(), tip, _COLOURS[kind], line, tags=tags, score=score)


def _cells(length: int, record: Record, cells: int, axis: int) -> int:
    """Number of cells along ``axis`` that lie on the image of ``length`` pixels and not on padding."""
    return max(1, min(cells, -(-length * cells // record.input_shape[axis])))


def _roi_marks(record: Record, rois: RoIs) -> Iterator[Mark]:
    before, after = (box_iou(x[:, None], rois.targets[:, None]).flatten() for x in (rois.boxes, rois.refined))
    negatives = 0
    for i in range(len(rois.boxes)):
        name, label = record.level_names[int(rois.level[i])], int(rois.label[i])
        best = int(rois.scores[i].argmax())
        score = float(rois.scores[i, label].nan_to_num(0))
        tip = f'{record.class_name(label)}: probability {score:.3f}\npooled from {name}'
        tip += f'\n{_size_in_words(rois.boxes[i])}\nbest guess {record.class_name(best)} {rois.scores[i, best]:.3f}'
        if not rois.positive[i]:
            negatives += 1
            if negatives <= DRAWN:
                yield Mark(rois.boxes[i].tolist(), tip, 'red', tags={'level': name, 'kind': 'negative'}, score=score)
            continue
        tip += f'\nIoU {before[i]:.3f}, refined {after[i]:.3f}'
        colour = css_colour(label)
        for kind, box, line, shade in (
            ('before', rois.boxes[i], 'dotted', colour),
            ('after', rois.refined[i], 'solid', colour),
            ('ground truth', rois.targets[i], 'dashed', 'blue'),
        ):
            tags = {'level': name, 'kind': kind}
            yield Mark(box.tolist(), f'{kind}, {tip}', shade, line, tags=tags, score=score)


def _crop(record: Record, image: int, rois: RoIs, i: int) -> Tile:
    pixels, side = network_input(record.prepared.items[image]), 96
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = (round(float(v)) for v in rois.boxes[i].nan_to_num(0))
    x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    seen = Image.fromarray(pixels[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]).resize((side, side))
    both = np.concatenate([np.asarray(seen), _heat_map(rois.pooled[i].mean(dim=0), side=side)], axis=1)
    name, label = record.level_names[int(rois.level[i])], record.class_name(int(rois.label[i]))
    kind = 'positive' if rois.positive[i] else 'negative'
    tip = f'{label}, {name}\n{_size_in_words(rois.boxes[i])}\nprobability {rois.scores[i, int(rois.label[i])]:.3f}'
    return Tile(both, f'{label}, {name}', tip, tags={'level': name, 'crops': kind})


def _truth_table(section: Section, record: Record, image: int, matching: Matching, what: str, more: str = '') -> None:
    """A table of the boxes that match each ground truth; ``what`` names the boxes, ``more`` ends the caption."""
    truth = record.samples[image].gt_instances
    boxes, labels = truth.bboxes.cpu(), truth.labels.tolist()
    rows = []
    for index, iou in enumerate(best_iou(matching.boxes[~matching.is_truth], boxes).tolist()):
        mine = (matching.label == 1) & (matching.gt_index == index)
        levels = matching.level[mine].bincount(minlength=len(record.level_names)).tolist()
        where = ', '.join(f'{n} {c}' for n, c in zip(record.level_names, levels, strict=True) if c)
        x1, y1, x2, y2 = boxes[index].tolist()
        name = [f'gt {index}', record.class_name(labels[index]), f'{x2 - x1:.0f}x{y2 - y1:.0f}']
        row = [*name, iou, int(mine.sum()), int((mine & matching.sampled).sum())]
        rows.append(Row([*row, where or 'none'] if what == 'anchors' else row))
    head = ['ground truth', 'class', 'pixels', 'best IoU', f'positive {what}', 'sampled']
    head += ['by level'] if what == 'anchors' else []
    section.table(head, rows, caption=f'The {what} that answer for each ground truth{more}')


def _truth_marks(record: Record, image: int) -> list[Mark]:
    """Blue marks for the ground truth."""
    truth = record.samples[image].gt_instances
    return [
        Mark(box, record.describe(image, i), 'blue', label=record.class_name(label), tags={'kind': 'ground truth'})
        for i, (box, label) in enumerate(zip(truth.bboxes.tolist(), truth.labels.tolist(), strict=True))
    ]


def _heat_map(values: Tensor, side: int) -> np.ndarray:
    """Numbers (h, w) as colours (H, W, 3), with ``side`` pixels on the longer side."""
    values = values.nan_to_num(0)
    spread = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
    colours = (matplotlib.colormaps['viridis'](spread.numpy())[..., :3] * 255).astype(np.uint8)
    scale = side / max(values.shape)
    size = (max(1, round(values.shape[1] * scale)), max(1, round(values.shape[0] * scale)))
    return np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.NEAREST))


def _size_in_words(box: Any) -> str:
    """Size and first corner of a box (4,)."""
    x1, y1, x2, y2 = box.tolist()
    return f'{x2 - x1:.0f}x{y2 - y1:.0f} pixels at ({x1:.0f}, {y1:.0f})'
