"""Traces written by hand, of objects that have an id, a stage and a size."""

import csv
from collections import Counter

from frdet.insight.trace.model import FOUND, OBJECT_COLUMNS, OBJECTS, Stage, Summary

STAGES = ('no anchor', 'proposal NMS', 'background', FOUND)


def write_trace(folder, stages, *, checkpoint=None, iou=0.5, min_size=8.0, page=True, names=STAGES, top=0):
    """A trace of objects 1, 2, ..., which lie in images of two objects each; ``stages`` has the stage of each.

    Object ``k`` is ``10 k`` pixels wide and 10 high. ``stages`` may be a dict with the ids of the objects.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stages = stages if isinstance(stages, dict) else dict(enumerate(stages, start=1))
    summary = Summary(
        config='own.py', checkpoint=str(checkpoint or folder / 'epoch_1.pth'), detector='FasterRCNN', iou=iou,
        min_size=min_size, classes=['cat'], images=len(stages) // 2,
        stages=[Stage(name, f'at <{name}>', {'model.a': 0.5}) for name in names],
        counts={**dict.fromkeys(names, 0), **Counter(stages.values())}, false_positives={'background': 3, 'both': 1},
        metrics={'coco/bbox_mAP': 0.25},
    )  # fmt: skip
    summary.save(folder)
    with open(folder / OBJECTS, 'w', encoding='utf-8', newline='') as file:
        rows = csv.DictWriter(file, list(OBJECT_COLUMNS))
        rows.writeheader()
        for k, stage in stages.items():
            row = {'id': k, 'image': (k + 1) // 2, 'file': f'<{(k + 1) // 2}>.png', 'class': 'cat', 'stage': stage}
            rows.writerow({**row, 'why': f'why {k}', 'left': 0, 'top': top, 'width': 10 * k, 'height': 10})
    if page:
        (folder / 'trace.html').write_text('<title>one trace</title>')
    return folder
