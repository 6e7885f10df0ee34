"""The files in ``vis_data`` from which a report of a training can be made at any time."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.wrappers import leaves
from frdet.evaluation.backends import CocoEval
from frdet.insight.errors import Results, read_results
from frdet.ops import doctor
from frdet.progress import track
from frdet.visualization.drawing import draw_boxes, grid, save_image

RUN, DETECTIONS, EVALUATION, BATCH = 'run.json', 'detections.json', 'evaluation.npz', 'train_batch_{}.jpg'
BATCH_IMAGES = 12  # the most images of a batch that are drawn
BATCH_SIDE = 320  # pixels
#: Edges, in pixels, of the bins of box sizes (square root of the area); each is sqrt(2) times the edge before it.
SIZE_EDGES = 2.0 ** np.arange(1, 11.5, 0.5)
SMALL, LARGE = 32**2, 96**2  # COCO's areas


class RunFacts(NamedTuple):
    """Facts that are known at the start of a training, as plain data for ``run.json``."""

    command: str  #: as it was typed
    versions: list[list[str]]  #: names and values, as tools/doctor.py prints them
    iters_per_epoch: int | None  #: None if the training does not count epochs
    classes: list[str]  #: names by label
    ann_file: str | None  #: annotations of the validation; None without a validation by CocoMetric
    image_dir: str | None  #: folder of the validation images
    img_ids: list[int] | None  #: of the validation images
    labels: dict[str, dict]  #: label_statistics of 'training' and 'validation'
    has_ids: bool = True  #: whether the ids in ``ann_file`` are those of the user's annotations


def gather_facts(
    train: Any, val: Any, *, ann_file: str | None, iters_per_epoch: int | None, has_ids: bool = True
) -> RunFacts:
    """Facts of a training on data set ``train``, validated on ``val`` (None: not validated)."""
    counted = {'training': count_labels(train), 'validation': count_labels(val)}
    folders = {(getattr(leaf, 'data_prefix', None) or {}).get('img') for leaf in leaves(val)}
    return RunFacts(
        command=shlex.join([Path(sys.executable).name, *sys.argv]),
        versions=[[name, value] for name, value in doctor.facts()],
        iters_per_epoch=iters_per_epoch,
        classes=list(class_names(train)),
        ann_file=str(Path(ann_file).resolve()) if ann_file else None,
        image_dir=str(Path(prefix).resolve()) if len(folders) == 1 and (prefix := folders.pop()) else None,
        img_ids=[val.get_data_info(i)['img_id'] for i in range(len(val))] if ann_file else None,
        labels={name: statistics for name, statistics in counted.items() if statistics},
        has_ids=has_ids,
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


def load_results(facts: RunFacts, folder: Path, *, with_masks: bool = False) -> Results | None:
    """Objects and detections of the last validation in ``folder``; None if the annotations are not known.

    Args:
        with_masks: read their masks, too, where there are any.

    Raises:
        DataError: a file cannot be read or has another format.
    """
    if facts.ann_file is None:
        return None
    classes = facts.classes or None
    return read_results(
        facts.ann_file,
        folder / DETECTIONS,
        img_ids=facts.img_ids,
        classes=classes,
        has_ids=facts.has_ids,
        with_masks=with_masks,
    )


def save_evaluation(evaluation: CocoEval, folder: Path) -> None:
    """Write COCO's arrays, only for the largest number of detections an image."""
    np.savez_compressed(
        folder / EVALUATION,
        precision=evaluation.precision[..., -1:].astype(np.float32),
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
        step = max(1, max(image.shape[1:]) // (2 * BATCH_SIDE))  # every n-th pixel suffices for a small picture
        small = image[:, ::step, ::step].permute(1, 2, 0).flip(-1).byte().cpu().numpy()
        truth = sample.gt_instances
        boxes, masks = truth.bboxes.cpu() / step, truth.get('masks')
        pictures.append(draw_boxes(small, boxes, truth.labels, classes=classes, masks=masks))
    if pictures:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(grid(pictures, cell=(BATCH_SIDE, BATCH_SIDE)), path)


def class_names(dataset: Any) -> Sequence[str]:
    """The names of the classes of a data set; empty if there is none, or if it has no classes."""
    return (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()


def count_labels(dataset: Any) -> dict | None:
    """``label_statistics`` of all images without crowds; None if the data set has no boxes or no classes."""
    classes = class_names(dataset)
    if not classes or not len(dataset) or 'gt_bboxes' not in dataset.get_data_info(0):
        return None
    boxes, labels = [], []
    for index in track(range(len(dataset)), 'Counting labels'):
        record = dataset.get_data_info(index)
        keep = ~record['gt_crowd'] if 'gt_crowd' in record else slice(None)
        boxes.append(record['gt_bboxes'][keep])
        labels.append(record['gt_labels'][keep])
    image = np.repeat(np.arange(len(labels)), [len(row) for row in labels])
    columns = (image, np.concatenate(labels), np.concatenate(boxes))
    return label_statistics(*columns, num_images=len(labels), classes=classes)


def label_statistics(image: np.ndarray, label: np.ndarray, boxes: np.ndarray, *, num_images: int, classes: Any) -> dict:
    """Statistics of N boxes as plain numbers for JSON.

    Args:
        image: (N,) int, index of the image of every box.
        label: (N,) int.
        boxes: (N, 4) xyxy.
        num_images: number of images, with those without boxes.
        classes: K names.

    Returns:
        ``num_images`` and ``classes``; for every class the numbers of ``objects``, of ``images`` with such objects, and
        of ``small``, ``medium`` and ``large`` objects; ``sizes``, the objects in each bin of ``SIZE_EDGES``, whose
        outer bins are open; ``per_image``, the numbers of images that have 0, 1, 2, ... boxes.
    """
    num_classes = len(classes)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    size = np.digitize(area, (SMALL, LARGE))
    seen = np.unique(label * num_images + image) // num_images  # the class of each pair of a class and an image
    by_size = [np.bincount(label[size == k], minlength=num_classes).tolist() for k in range(3)]
    sides = np.sqrt(area.clip(min=0)).clip(SIZE_EDGES[0], np.nextafter(SIZE_EDGES[-1], 0))
    return {
        'num_images': num_images,
        'classes': list(classes),
        'objects': np.bincount(label, minlength=num_classes).tolist(),
        'images': np.bincount(seen, minlength=num_classes).tolist(),
        **dict(zip(('small', 'medium', 'large'), by_size, strict=True)),
        'sizes': np.histogram(sides, SIZE_EDGES)[0].tolist(),
        'per_image': np.bincount(np.bincount(image, minlength=num_images)).tolist(),
    }
