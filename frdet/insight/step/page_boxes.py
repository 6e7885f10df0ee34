"""Sections about boxes up to the first stage: the data, anchors, proposals."""

import math
from collections.abc import Iterator

import torch

from frdet.insight.browse import network_input, show_image
from frdet.insight.page import Mark, Page, Row, Section, Tile
from frdet.insight.step.drawn_boxes import (
    DRAWN,
    heat_map,
    size_in_words,
    truth_marks,
    truth_table,
)
from frdet.insight.step.findings import describe, image_name
from frdet.insight.step.record import Matching, Record

CLEAR = 20  # proposals an image that are shown at first
_KINDS = {1: 'positive', -1: 'ignored', 0: 'negative'}
_COLOURS = {'positive': 'green', 'ignored': 'orange', 'negative': 'red'}


def add_data(page: Page, record: Record) -> None:
    """The images before and after the pipeline."""
    steps = (record.prepared.cfg.train_dataloader.dataset.get('pipeline') or []) and ' → '.join(
        str(step.get('type')) for step in record.prepared.cfg.train_dataloader.dataset.pipeline
    )
    section = page.section(
        'Data',
        'The image as the pipeline hands it to the model: resized, perhaps mirrored, with its boxes; and as it is on '
        f'disk. Crowd regions are dashed: no loss is computed for them. {f"The pipeline: {steps}." if steps else ""}',
        source='Faster R-CNN, section 3.3 (one scale, the shorter side)',
    )
    for image, (raw, sample) in enumerate(zip(record.prepared.records, record.samples, strict=True)):
        section.heading(image_name(record, image))
        height, width = sample.batch_input_shape
        section.text(f'Padded to {width} x {height} pixels, as the largest of the batch and the strides ask for.')
        show_image(section, raw, record.prepared.items[image], record.prepared.classes, math.inf)


def add_anchors(page: Page, record: Record) -> None:
    """Anchors, their matches, and the sample that is trained on."""
    section = page.section(
        'Anchors and their matches',
        'An anchor is a reference box at a cell of a feature map. The assigner makes it positive if it overlaps an '
        'object enough, negative if it overlaps none, and ignores what lies between; the best anchors of an object '
        'are positive in any case, if the config says so. Levels are named after the size of their cells: 4 pixels on '
        'p2, 8 on p3, and so on.\n'
        'The sampler then draws those that the losses see: most anchors are background, and would drown the rest.',
        source='Faster R-CNN, sections 3.1.1 (anchors), 3.1.2 (labels) and 3.1.3 (sampling)',
        off={'kind': ['negative, sampled', 'ignored']},
        legend='kind',
    )
    for image, matching in enumerate(record.anchors):
        section.heading(image_name(record, image))
        _matching_table(section, record, matching)
        truth_table(section, record, image, matching, 'anchors')
        # The ground truth last, so that it lies on top.
        marks = [*_matching_marks(record, image, matching), *truth_marks(record, image)]
        caption = f'Anchors and ground truth; at most {DRAWN} of a kind and level, the best IoU first'
        section.picture(network_input(record.prepared.items[image]), caption, marks=marks)


def add_proposals(page: Page, record: Record) -> None:
    """Objectness and the way from anchors to proposals."""
    section = page.section(
        'Objectness and proposals',
        'The region proposal network scores every anchor: bright cells hold one that looks like an object (the best '
        'anchor of each cell is shown). On every level the best-scored anchors are moved by their deltas, cut to the '
        'image, and thinned by non-maximum suppression; the best of all levels go on to the second stage.',
        source='Faster R-CNN, section 3.3; FPN, section 4.1 (levels)',
        off={'kind': ['before NMS']},
        legend='kind',
    )
    for image, selection in enumerate(record.selections):
        section.heading(image_name(record, image))
        height, width = record.samples[image].img_shape[:2]
        tiles = []
        for name, scores in zip(record.level_names, record.objectness, strict=True):
            best = scores[image].amax(dim=2)
            seen = best[: _cells(height, record, best.shape[0], 0), : _cells(width, record, best.shape[1], 1)]
            tip = f'{seen.shape[1]}x{seen.shape[0]} cells\nlowest {seen.min():.3f}\nhighest {seen.max():.3f}'
            caption = f'{name}: {seen.min():.2f} to {seen.max():.2f}'
            tiles.append(Tile(heat_map(seen, side=180), caption, tip, tags={'level': name}))
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
                    tip = f'{kind}, {name}\nscore {selection.scores[i]:.3f}\n{size_in_words(selection.boxes[i])}'
                    tags, score = {'level': name, 'kind': kind}, float(selection.scores[i].nan_to_num(0))
                    marks.append(Mark(selection.boxes[i].tolist(), tip, colour, tags=tags, score=score))
        caption = f'Proposals; at most {DRAWN} of a kind and level, the best scores first'
        section.picture(
            network_input(record.prepared.items[image]), caption, marks=[*marks, *truth_marks(record, image)]
        )
    kept = torch.cat([s.scores[s.kept] for s in record.selections]).nan_to_num(0)
    # All of them would hide the image.
    section.least = (
        float(kept.sort(descending=True).values[: CLEAR * len(record.selections)].min()) if len(kept) else 0.0
    )


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
                continue  # nearly all anchors
            named = f'{kind}, sampled' if sampled else kind if value < 0 else f'{kind}, not sampled'
            for level, name in enumerate(record.level_names):
                mask = (matching.label == value) & (matching.level == level) & (matching.sampled == sampled)
                index = mask.nonzero().squeeze(1)
                for i in index[matching.iou[index].argsort(descending=True)][:DRAWN].tolist():
                    tip = f'{named}, {name}\nIoU {matching.iou[i]:.3f}, score {scores[i]:.3f}'
                    tip += f'\n{size_in_words(matching.boxes[i])}'
                    if value == 1:
                        tip += f'\nanswers for {describe(record, image, int(matching.gt_index[i]))}'
                    line = 'solid' if sampled else 'dashed'
                    tags, score = {'level': name, 'kind': named}, float(scores[i])
                    yield Mark(matching.boxes[i].tolist(), tip, _COLOURS[kind], line, tags=tags, score=score)


def _cells(length: int, record: Record, cells: int, axis: int) -> int:
    """Cells of a map that lie on the image, which is ``length`` pixels along ``axis``, and not on padding."""
    padded = record.samples[0].batch_input_shape[axis]
    return max(1, min(cells, -(-length * cells // padded)))
