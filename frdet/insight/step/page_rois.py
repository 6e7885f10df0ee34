"""The section about the second stage."""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from frdet.insight.browse import css_colour, network_input
from frdet.insight.page import Mark, Page, Row, Tile
from frdet.insight.step.drawn_boxes import DRAWN, heat_map, size_in_words, truth_table
from frdet.insight.step.findings import class_name, image_name
from frdet.insight.step.record import Record, RoIs
from frdet.structures import box_iou

CROPS = {'positive': 16, 'negative': 8}  # an image


def add_rois(page: Page, record: Record) -> None:
    """The second stage: RoIs, what they see, and how positives are refined."""
    section = page.section(
        'RoIs and their refinement',
        'The second stage is trained on a sample of the proposals. Each is pooled from the level that fits its size, '
        'classified, and moved by its deltas. A positive is shown three times: dotted as it was proposed, solid as it '
        'was refined, dashed the ground truth it should reach. The score is the probability of the class that a RoI is '
        'trained for.',
        source='Fast R-CNN, sections 2.1 to 2.3; Mask R-CNN, section 3 (RoIAlign); FPN, equation 1 (levels)',
        off={'kind': ['negative']},
        legend='kind',
    )
    for image, (matching, rois) in enumerate(zip(record.matched, record.rois, strict=True)):
        section.heading(image_name(record, image))
        rows = []
        for level, name in enumerate(record.level_names):
            here = rois.level == level
            if here.any():
                positives = int((rois.positive & here).sum())
                rows.append(Row([name, int(here.sum()), positives, int(here.sum()) - positives], tags={'level': name}))
        rows.append(Row(['all', len(rois.level), int(rois.positive.sum()), int((~rois.positive).sum())]))
        section.table(['level', 'RoIs', 'positive', 'negative'], rows, caption='Sampled RoIs by level')
        joined = bool(matching.is_truth.any())
        truth_table(
            section, record, image, matching, 'proposals',
            more='; it is one of the positives itself, the best IoU is that of the others' if joined else '',
        )  # fmt: skip
        caption = f'Sampled RoIs: all positives, and at most {DRAWN} negatives'
        section.picture(network_input(record.prepared.items[image]), caption, marks=list(_roi_marks(record, rois)))
        kinds = {'positive': rois.positive, 'negative': ~rois.positive}
        order = torch.cat([mask.nonzero().squeeze(1)[: CROPS[kind]] for kind, mask in kinds.items()])
        tiles = [_crop(record, image, rois, i) for i in order.tolist()]
        caption = (
            f'What RoIs see: the image under them, and what was pooled of it, the mean of all channels. The first '
            f'{CROPS["positive"]} positives and {CROPS["negative"]} negatives'
        )
        section.gallery(tiles, caption=caption)


def _roi_marks(record: Record, rois: RoIs) -> Iterator[Mark]:
    before, after = (box_iou(x[:, None], rois.targets[:, None]).flatten() for x in (rois.boxes, rois.refined))
    negatives = 0
    for i in range(len(rois.boxes)):
        name, label = record.level_names[int(rois.level[i])], int(rois.label[i])
        best = int(rois.scores[i].argmax())
        score = float(rois.scores[i, label].nan_to_num(0))
        tip = f'{class_name(record, label)}: probability {score:.3f}\npooled from {name}'
        tip += f'\n{size_in_words(rois.boxes[i])}\nbest guess {class_name(record, best)} {rois.scores[i, best]:.3f}'
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
    both = np.concatenate([np.asarray(seen), heat_map(rois.pooled[i].mean(dim=0), side=side)], axis=1)
    name, label = record.level_names[int(rois.level[i])], class_name(record, int(rois.label[i]))
    kind = 'positive' if rois.positive[i] else 'negative'
    tip = f'{label}, {name}\n{size_in_words(rois.boxes[i])}\nprobability {rois.scores[i, int(rois.label[i])]:.3f}'
    return Tile(both, f'{label}, {name}', tip, tags={'level': name, 'crops': kind})
