"""What several sections about boxes draw."""

from typing import Any

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from frdet.insight.page import Mark, Row, Section
from frdet.insight.step.findings import best_iou, class_name, describe
from frdet.insight.step.record import Matching, Record

DRAWN = 60  # boxes of one kind, level and image on a picture


def truth_table(section: Section, record: Record, image: int, matching: Matching, what: str, more: str = '') -> None:
    """A table of the boxes that answer for each ground truth; ``what`` names them, ``more`` follows in the caption."""
    truth = record.samples[image].gt_instances
    boxes, labels = truth.bboxes.cpu(), truth.labels.tolist()
    rows = []
    for index, iou in enumerate(best_iou(matching.boxes[~matching.is_truth], boxes).tolist()):
        mine = (matching.label == 1) & (matching.gt_index == index)
        levels = matching.level[mine].bincount(minlength=len(record.level_names)).tolist()
        where = ', '.join(f'{n} {c}' for n, c in zip(record.level_names, levels, strict=True) if c)
        x1, y1, x2, y2 = boxes[index].tolist()
        name = [f'gt {index}', class_name(record, labels[index]), f'{x2 - x1:.0f}x{y2 - y1:.0f}']
        row = [*name, iou, int(mine.sum()), int((mine & matching.sampled).sum())]
        rows.append(Row([*row, where or 'none'] if what == 'anchors' else row))
    head = ['ground truth', 'class', 'pixels', 'best IoU', f'positive {what}', 'sampled']
    head += ['by level'] if what == 'anchors' else []
    section.table(head, rows, caption=f'The {what} that answer for each ground truth{more}')


def truth_marks(record: Record, image: int) -> list[Mark]:
    """The ground truth in blue."""
    truth = record.samples[image].gt_instances
    return [
        Mark(box, describe(record, image, i), 'blue', label=class_name(record, label), tags={'kind': 'ground truth'})
        for i, (box, label) in enumerate(zip(truth.bboxes.tolist(), truth.labels.tolist(), strict=True))
    ]


def heat_map(values: Tensor, side: int) -> np.ndarray:
    """(h, w) numbers as (H, W, 3) colours, the longer side enlarged to ``side`` pixels."""
    values = values.nan_to_num(0)
    spread = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
    colours = (matplotlib.colormaps['viridis'](spread.numpy())[..., :3] * 255).astype(np.uint8)
    scale = side / max(values.shape)
    size = (max(1, round(values.shape[1] * scale)), max(1, round(values.shape[0] * scale)))
    return np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.NEAREST))


def size_in_words(box: Any) -> str:
    """Of a box (4,): sides and corner."""
    x1, y1, x2, y2 = box.tolist()
    return f'{x2 - x1:.0f}x{y2 - y1:.0f} pixels at ({x1:.0f}, {y1:.0f})'
