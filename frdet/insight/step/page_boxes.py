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
from frdet.insight.step.record import ANCHORS, DATA, PROPOSALS, ROIS, Matching, Record, RoIs, Selection
from frdet.structures import box_iou

DRAWN = 60  # the most boxes of one kind, level and image on a picture
CLEAR = 20  # proposals an image that are shown at first
CROPS = {'positive': 16, 'negative': 8}  # RoIs an image whose pixels and features are shown


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
        level, sampled = matching.level, matching.sampled
        positive, negative, ignored = (matching.label == label for label in (1, 0, -1))
        counted = {
            'anchors': level,
            'positive': level[positive],
            'ignored': level[ignored],
            'negative': level[negative],
            'sampled positive': level[positive & sampled],
            'sampled negative': level[negative & sampled],
        }
        _level_table(section, record, counted, 'Anchors by level')
        _truth_table(section, record, image, matching, 'anchors')
        kinds = {
            'positive, sampled': (positive & sampled, 'green', 'solid'),
            'positive, not sampled': (positive & ~sampled, 'green', 'dashed'),
            'ignored': (ignored, 'orange', 'dashed'),
            'negative, sampled': (negative & sampled, 'red', 'solid'),  # the others are nearly all anchors
        }
        scores = torch.cat([scores[image].flatten() for scores in record.objectness]).nan_to_num(0)
        marks = []
        for kind, (mask, colour, line) in kinds.items():
            for name, i in _best(record, matching, mask, matching.iou):
                tip = f'{kind}, {name}\nIoU {matching.iou[i]:.3f}, score {scores[i]:.3f}'
                tip += f'\n{_size_in_words(matching.boxes[i])}'
                if positive[i]:
                    tip += f'\nanswers for {record.describe(image, int(matching.gt_index[i]))}'
                tags, score = {'level': name, 'kind': kind}, float(scores[i])
                marks.append(Mark(matching.boxes[i].tolist(), tip, colour, line, tags=tags, score=score))
        marks += _truth_marks(record, image)  # the last, so that they lie on top
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
        tiles = _objectness_tiles(record, image)
        section.gallery(tiles, caption='Objectness, dark is the lowest of a level and bright the highest')
        level, kept = selection.level, selection.kept
        counted = {
            'anchors': record.anchors[image].level,
            'after top-k': level,
            'clipped': level[selection.clipped],
            'small dropped': level[selection.small],
            'suppressed by NMS': level[selection.suppressed],
            'outscored': level[~(selection.small | selection.suppressed | kept)],
            'kept': level[kept],
        }
        caption = (
            'Proposals at every step; clipped: reached beyond the image and were cut; outscored: survived NMS, but '
            'others had better scores'
        )
        _level_table(section, record, counted, caption)
        marks = []
        kinds = {'before NMS': (~selection.small & ~kept, 'orange'), 'after NMS': (kept, 'green')}
        for kind, (mask, colour) in kinds.items():
            for name, i in _best(record, selection, mask, selection.scores):
                tip = f'{kind}, {name}\nscore {selection.scores[i]:.3f}\n{_size_in_words(selection.boxes[i])}'
                tags, score = {'level': name, 'kind': kind}, float(selection.scores[i].nan_to_num(0))
                marks.append(Mark(selection.boxes[i].tolist(), tip, colour, tags=tags, score=score))
        marks += _truth_marks(record, image)
        caption = f'Proposals; at most {DRAWN} of a kind and level, the best scores first'
        section.picture(network_input(record.prepared.items[image]), caption, marks=marks)
    # All proposals together would hide the image.
    scores = torch.cat([s.scores[s.kept] for s in record.selections]).nan_to_num(0).sort(descending=True).values
    section.least = min(scores[: CLEAR * len(record.selections)].tolist(), default=0.0)


def add_rois(page: Page, record: Record) -> None:
    """The second stage: RoIs, their pooled features, and the refinement of positives."""
    section = page.section(
        ROIS,
        'The second stage is trained on a sample of the proposals. Each is pooled from the level that fits its size, '
        'classified, and moved by its deltas. A positive has three boxes: the proposal (dotted), the '
        'refined box (solid) and the ground truth that it should reach (dashed). The score is the probability of the '
        'class that a RoI is trained for. Of a cascade, the first stage is shown.',
        source='Fast R-CNN, sections 2.1 to 2.3; Mask R-CNN, section 3 (RoIAlign); FPN, equation 1 (levels)',
        off={'kind': ['negative']},
        legend='kind',
    )
    for image, (matching, rois) in enumerate(zip(record.matched, record.rois, strict=True)):
        section.heading(record.image_name(image))
        kinds = {'positive': rois.positive, 'negative': ~rois.positive}
        counted = {'RoIs': rois.level, **{kind: rois.level[mask] for kind, mask in kinds.items()}}
        _level_table(section, record, counted, 'Sampled RoIs by level')
        _truth_table(section, record, image, matching, 'proposals')
        caption = f'Sampled RoIs: all positives, and at most {DRAWN} negatives'
        section.picture(network_input(record.prepared.items[image]), caption, marks=list(_roi_marks(record, rois)))
        order = torch.cat([mask.nonzero().squeeze(1)[: CROPS[kind]] for kind, mask in kinds.items()])
        tiles = [_crop(record, image, rois, i) for i in order.tolist()]
        caption = (
            f'The image inside RoIs, and their pooled features as the mean of all channels. The first '
            f'{CROPS["positive"]} positives and {CROPS["negative"]} negatives'
        )
        section.gallery(tiles, caption=caption)


def _level_table(section: Section, record: Record, counted: dict[str, Tensor], caption: str) -> None:
    """Numbers of boxes by level; ``counted`` has the levels (n,) of the boxes of each column.

    A level without boxes of the first column is left out.
    """
    rows = [
        Row([name, *(int((levels == i).sum()) for levels in counted.values())], tags={'level': name})
        for i, name in enumerate(record.level_names)
    ]
    total = Row(['all', *map(len, counted.values())])
    section.table(['level', *counted], [*(row for row in rows if row.cells[1]), total], caption=caption)


def _objectness_tiles(record: Record, image: int) -> list[Tile]:
    """The best score of each cell, level by level; the padding is left out."""
    tiles = []
    for name, scores in zip(record.level_names, record.objectness, strict=True):
        best = scores[image].amax(dim=2)
        sizes = zip(record.samples[image].img_shape[:2], best.shape, record.input_shape, strict=True)
        height, width = (-(-pixels * cells // padded) for pixels, cells, padded in sizes)
        seen = best[:height, :width]
        tip = f'{seen.shape[1]}x{seen.shape[0]} cells\nlowest {seen.min():.3f}\nhighest {seen.max():.3f}'
        caption = f'{name}: {seen.min():.2f} to {seen.max():.2f}'
        tiles.append(Tile(_heat_map(seen, side=180), caption, tip, tags={'level': name}))
    return tiles


def _best(record: Record, found: Matching | Selection, mask: Tensor, rank: Tensor) -> Iterator[tuple[str, int]]:
    """The ``DRAWN`` boxes of ``mask`` (N,) on each level whose ``rank`` (N,) is best: name of the level, and index."""
    for level, name in enumerate(record.level_names):
        index = (mask & (found.level == level)).nonzero().squeeze(1)
        for i in index[rank[index].argsort(descending=True)][:DRAWN].tolist():
            yield name, i


def _roi_marks(record: Record, rois: RoIs) -> Iterator[Mark]:
    before, after = (box_iou(x[:, None], rois.targets[:, None]).flatten() for x in (rois.boxes, rois.refined))
    shown = rois.positive | ((~rois.positive).cumsum(dim=0) <= DRAWN)
    for i in shown.nonzero().squeeze(1).tolist():
        name, label, best = record.level_names[int(rois.level[i])], int(rois.label[i]), int(rois.scores[i].argmax())
        score = float(rois.scores[i, label].nan_to_num(0))
        tip = f'{record.class_name(label)}: probability {score:.3f}\npooled from {name}'
        tip += f'\n{_size_in_words(rois.boxes[i])}\nbest guess {record.class_name(best)} {rois.scores[i, best]:.3f}'
        boxes = [('negative', rois.boxes[i], 'red', 'solid')]
        if rois.positive[i]:
            tip += f'\nIoU {before[i]:.3f}, refined {after[i]:.3f}'
            boxes = [
                ('before', rois.boxes[i], css_colour(label), 'dotted'),
                ('after', rois.refined[i], css_colour(label), 'solid'),
                ('ground truth', rois.targets[i], 'blue', 'dashed'),
            ]
        for kind, box, colour, line in boxes:
            tags = {'level': name, 'kind': kind}
            yield Mark(box.tolist(), f'{kind}, {tip}', colour, line, tags=tags, score=score)


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


def _truth_table(section: Section, record: Record, image: int, matching: Matching, what: str) -> None:
    """A table of the boxes that match each ground truth; ``what`` names the boxes."""
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
    caption = f'The {what} that answer for each ground truth'
    if matching.is_truth.any():
        caption += '; it is one of the positives itself, but does not count for the best IoU'
    section.table(head, rows, caption=caption)


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
