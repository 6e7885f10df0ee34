"""The files in ``vis_data`` from which a report of a training can be made at any time."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.wrappers import leaves
from frdet.evaluation.backends import CocoEval
from frdet.insight.errors import label_statistics
from frdet.ops import doctor
from frdet.progress import track
from frdet.structures import DetDataSample
from frdet.visualization.drawing import draw_boxes, save_image
from frdet.visualization.layout import grid

RUN, DETECTIONS, EVALUATION, BATCH = 'run.json', 'detections.json', 'evaluation.npz', 'train_batch_{}.jpg'
BATCH_IMAGES = 12  # the most images of a batch that are drawn
BATCH_SIDE = 320  # pixels


class RunFacts(NamedTuple):
    """Facts that are known at the start of a training, as plain data for ``run.json``."""

    command: str  # as it was typed
    versions: list[list[str]]  # names and values, as tools/doctor.py prints them
    iters_per_epoch: int | None  # None if the training does not count epochs
    classes: list[str]  # names by label
    ann_file: str | None  # annotations of the validation; None without a validation by CocoMetric
    image_dir: str | None  # folder of the validation images
    img_ids: list[int] | None  # of the validation images
    labels: dict[str, dict]  # label_statistics of 'training' and 'validation'


def gather_facts(train: Any, val: Any, *, ann_file: str | None, iters_per_epoch: int | None) -> RunFacts:
    """Facts of a training on data set ``train``, validated on ``val`` (None: not validated)."""
    labels = {}
    for name, dataset in (('training', train), ('validation', val)):
        if dataset is not None and (statistics := count_labels(dataset)):
            labels[name] = statistics
    folders = {(getattr(leaf, 'data_prefix', None) or {}).get('img') for leaf in leaves(val)}
    return RunFacts(
        command=shlex.join([Path(sys.executable).name, *sys.argv]),
        versions=[[name, value] for name, value in doctor.facts()],
        iters_per_epoch=iters_per_epoch,
        classes=list((getattr(train, 'metainfo', None) or {}).get('classes') or ()),
        ann_file=str(Path(ann_file).resolve()) if ann_file else None,
        image_dir=str(Path(prefix).resolve()) if len(folders) == 1 and (prefix := folders.pop()) else None,
        img_ids=[val.get_data_info(i)['img_id'] for i in range(len(val))] if ann_file else None,
        labels=labels,
    )


def save_facts(facts: RunFacts, folder: Path) -> None:
    """Write ``run.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN).write_text(json.dumps(facts._asdict()), encoding='utf-8')


def load_facts(folder: Path) -> RunFacts | None:
    """Read ``run.json``; None if it is missing or incomplete."""
    try:
        return RunFacts(**json.loads((folder / RUN).read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError):
        return None


def save_evaluation(evaluation: CocoEval, folder: Path) -> None:
    """Write COCO's arrays, only for the largest number of detections an image."""
    with open(folder / EVALUATION, 'wb') as file:
        precision = evaluation.precision[..., -1:].astype(np.float32)
        np.savez_compressed(
            file,
            precision=precision,
            recall=evaluation.recall[..., -1:],
            iou_thresholds=evaluation.iou_thresholds,
            cat_ids=json.dumps(list(evaluation.cat_ids)),  # texts, and numbers of any size
        )


def load_evaluation(folder: Path) -> CocoEval | None:
    """COCO's arrays of the last validation; None if there are none."""
    try:
        with np.load(folder / EVALUATION, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ('precision', 'recall', 'iou_thresholds')}
            cat_ids = file['cat_ids']
            return CocoEval(**arrays, cat_ids=json.loads(str(cat_ids)) if cat_ids.ndim == 0 else cat_ids.tolist())
    except (OSError, ValueError, KeyError):
        return None


def save_batch(data_batch: Any, path: Path, classes: Any) -> None:
    """Draw a training batch with its boxes as the model gets it; a batch without images or samples is not drawn."""
    found = data_batch if isinstance(data_batch, dict) else {}
    pictures = []
    for image, sample in list(zip(found.get('inputs', ()), found.get('data_samples', ()), strict=False))[:BATCH_IMAGES]:
        if image.ndim != 3 or len(image) != 3 or 'gt_instances' not in sample:
            return
        pictures.append(_drawn(image.permute(1, 2, 0).flip(-1).byte().cpu().numpy(), sample, classes))
    if pictures:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(grid(pictures, cell=(BATCH_SIDE, BATCH_SIDE)), path)


def _drawn(image: np.ndarray, sample: DetDataSample, classes: Any) -> np.ndarray:
    # Every n-th pixel suffices for a small picture.
    step = max(1, max(image.shape[:2]) // (2 * BATCH_SIDE))
    small = np.ascontiguousarray(image[::step, ::step])
    truth = sample.gt_instances
    return draw_boxes(small, truth.bboxes.cpu() / step, truth.labels, classes=classes)


def count_labels(dataset: Any) -> dict | None:
    """``label_statistics`` of all images without crowds; None if the data set has no boxes or no classes."""
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not classes or not len(dataset) or 'gt_bboxes' not in dataset.get_data_info(0):
        return None
    boxes, labels = [], []
    for index in track(range(len(dataset)), 'Counting labels'):
        record = dataset.get_data_info(index)
        keep = ~record['gt_crowd'] if 'gt_crowd' in record else slice(None)
        boxes.append(record['gt_bboxes'][keep])
        labels.append(record['gt_labels'][keep])
    image = np.repeat(np.arange(len(labels)), [len(row) for row in labels])
    return label_statistics(
        image, np.concatenate(labels), np.concatenate(boxes), num_images=len(labels), classes=classes
    )
