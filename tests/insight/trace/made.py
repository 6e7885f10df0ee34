"""A trace written by hand: 20 objects in two images, four false positives, three cards."""

import csv
import json
import re
from pathlib import Path

from PIL import Image

from frdet.insight.trace.model import (
    DETECTION_COLUMNS,
    DETECTIONS,
    FOUND,
    OBJECT_COLUMNS,
    OBJECTS,
    Around,
    Card,
    Help,
    Stage,
    Summary,
    save_cards,
)

STAGES = [
    Stage('resizing', 'the network sees fewer than 8 pixels of it'),
    Stage('no anchor', 'no anchor reaches the threshold', {'model.rpn_head.anchor_generator.scales': [8]}),
    Stage('RPN score', 'its anchors are not among the best of their level', {'model.rpn_head.pre_nms_test': 1000}),
    Stage('proposal NMS', 'a proposal with a higher score suppressed its own', {'model.rpn_head.nms_iou_thr': 0.7}),
    Stage('background', 'the head calls it background'),
    Stage('class NMS', 'a detection with a higher score suppressed its own', {'model.roi_head.nms_iou_thr': 0.5}),
    Stage(FOUND, ''),
]
NMS = 'suppressed by a proposal of IoU 0.81 with it that fits bus #3'  # a number sign is no number
#: class, width, height, size, crowding, stage, and why, or of found ones what the page says. Objects 1 to 12 are in
#: image 7, the others in image 8.
THINGS = [
    ('bus', 100, 40, 'medium', 0.0, 'found', 'IoU 0.91, score 0.99'),
    ('bus', 100, 50, 'medium', 0.0, 'found', 'IoU 0.84, score 0.9'),
    ('bus', 120, 100, 'large', 0.1, 'found', 'IoU 0.77, score 0.7'),
    ('bus', 120, 110, 'large', 0.6, 'proposal NMS', NMS),
    ('bus', 99, 97, 'large', 0.6, 'proposal NMS', NMS),
    ('bus', 10, 12, 'small', 0.0, 'no anchor', 'best IoU 0.31'),
    ('person', 20, 60, 'medium', 0.3, 'found', 'IoU 0.66, score 0.6'),
    ('person', 20, 41, 'small', 0.3, 'found', 'IoU 0.7, score 0.8'),
    ('person', 20, 40, 'small', 0.2, 'found', 'IoU 0.71, score 0.8'),
    ('person', 20, 30, 'small', 0.19, 'found', 'IoU 0.72, score 0.8'),
    ('person', 20, 30, 'small', 0.0, 'found', 'IoU 0.73, score 0.8'),
    ('person', 5, 4, 'small', 0.0, 'resizing', ''),
    ('person', 30, 90, 'medium', 0.5, 'class NMS', 'suppressed by the detection of person 7, IoU 0.62'),
    ('person', 30, 30, 'small', 0.0, 'background', 'background has 0.91, person 0.04'),
    ('person', 30, 31, 'small', 0.0, 'background', 'background has 0.5, person 0.3'),
    ('person', 30, 30, 'small', 0.0, 'found', 'IoU 0.9, score 0.8'),
    ('cat', 50, 50, 'medium', 0.0, 'found', 'IoU 0.95, score 0.97'),
    ('cat', 60, 60, 'medium', 0.0, 'found', 'IoU 0.96, score 0.98'),
    ('cat', 61, 61, 'medium', 0.0, 'found', 'IoU 0.97, score 0.98'),
    ('cat', 62, 62, 'medium', 0.0, 'background', 'background has 0.7, cat 0.1'),
]
#: Counted in THINGS by eye: resizing 1, no anchor 1, proposal NMS 2, background 3, class NMS 1, found 12.
COUNTS = dict(zip((stage.name for stage in STAGES), (1, 1, 0, 2, 3, 1, 12), strict=True))
#: class, score, kind, level
WRONG = [
    ('bus', 0.9, 'background', 'p3'),
    ('cat', 0.8, 'duplicate', 'p5'),
    ('cat', 0.3, 'background', 'p3'),
    ('person', 0.95, 'localisation', 'p4'),
]
HELPS = [
    Help('background', 'score_thr: 0.05 -> 0.01', 'score_thr=0.01', (0.6, 0.61), 0.01, (-0.01, 0.03), 2, 20),
    Help('proposal NMS', 'model.rpn_head.nms_iou_thr: 0.7 -> 0.8', 'model.rpn_head.nms_iou_thr=0.8',
         (0.6, 0.7), 0.1, (0.05, 0.15), 2, 20, 'more proposals, slower'),
]  # fmt: skip


def objects(things=THINGS):
    """Rows of ``objects.csv``."""
    for number, (name, width, height, size, crowding, stage, why) in enumerate(things, start=1):
        image = 7 if number <= 12 else 8
        iou, score = re.findall(r'[\d.]+', why)[:2] if stage == FOUND else ('', '')
        yield {
            'id': number, 'image': image, 'file': f'{image}.png', 'class': name,
            'left': 10, 'top': 5, 'width': width, 'height': height, 'size': size, 'crowding': crowding,
            'network_size': (width * height) ** 0.5, 'stage': stage, 'why': '' if stage == FOUND else why,
            'anchor_iou': 1 - number / 100,
            'detection_iou': iou, 'detection_score': score,
        }  # fmt: skip


def write(path, columns, rows):
    with open(path, 'w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, columns, restval='')
        writer.writeheader()
        writer.writerows(rows)


def make_trace(folder: Path, *, things=THINGS, wrong=WRONG, cards=(1, 4, 14), **changes):
    """Write the four files, and the image of the objects 1 to 12; that of the others is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {stage.name: sum(thing[5] == stage.name for thing in things) for stage in STAGES}
    facts = dict(
        config='configs/made by hand.py', checkpoint="it's.pth", detector='FasterRCNN', iou=0.5, min_size=8.0,
        classes=['person', 'bus', 'cat', 'dog'], images=2, stages=STAGES, counts=counts,
        false_positives={kind: sum(one[2] == kind for one in wrong) for kind in {one[2] for one in wrong}},
        metrics={'coco/bbox_mAP': 0.41, 'coco/bbox_mAP_s': 0.1},
    )  # fmt: skip
    Summary(**{**facts, **changes}).save(folder)
    write(folder / OBJECTS, OBJECT_COLUMNS, objects(things))
    write(folder / DETECTIONS, DETECTION_COLUMNS, [
        {'image': 7, 'file': '7.png', 'class': name, 'score': score, 'left': 0, 'top': 0, 'width': 9, 'height': 9,
         'kind': kind, 'object': '1', 'iou': 0.25, 'level': level, 'anchor_width': 32, 'anchor_height': 64}
        for name, score, kind, level in wrong
    ])  # fmt: skip
    Image.new('RGB', (240, 160), 'seagreen').save(folder / '7.png')
    around = [
        Around('anchor', (0, 0, 90, 45), 'anchor of p4, IoU 0.31'),
        Around('proposal', (12, 6, 100, 50), 'proposal, rank 3, IoU 0.8'),
        Around('detection', (15, 8, 110, 60), 'bus 0.9'),
        Around('object', (500, 500, 510, 510), 'far away'),
    ]
    image_of = {number: '7' if number <= 12 else '8' for number in cards}
    save_cards([Card(str(n), image, str(folder / f'{image}.png'), around) for n, image in image_of.items()], folder)
    return folder


def data_of(path):
    """What the script of a page reads."""
    return json.loads(re.search(r'id="trace">(.*?)</script>', path.read_text(), re.DOTALL)[1])
