"""A page with what a data set's pipeline hands the model."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

from frdet.datasets.transforms.loading import read_image
from frdet.datasets.wrappers import entry, leaves
from frdet.errors import BrokenImageError, ConfigError
from frdet.insight.page import Mark, Page, Section
from frdet.insight.report.training_page import show_labels
from frdet.insight.store import count_labels
from frdet.progress import track
from frdet.registry import DATASETS, in_config_scope
from frdet.visualization.drawing import class_colour

MOST = 300  # images on a page
SIDE = 640  # pixels of the longer side of a picture, where there are few
BYTES = 6e6  # for all pictures, at about 0.4 bytes for a square pixel of a picture's longer side


@in_config_scope
def browse_dataset(cfg: Config, out: str | Path, *, split: str = 'train', num: int = 16, seed: int = 0) -> Path:
    """Write a page with the first images of a split, after the pipeline and as they are on disk, and label statistics.

    Args:
        cfg: has ``<split>_dataloader``.
        out: the page; its folder is made.
        split: ``train``, ``val`` or ``test``.
        num: images.
        seed: of the random transforms.

    Returns:
        ``out``.

    Raises:
        ConfigError: the config has no such loader, ``num`` is not between 1 and ``MOST``, or ``out`` cannot be written.
        DataError: the data are missing or wrong.
    """
    loader = cfg.get(f'{split}_dataloader')
    if not loader or 'dataset' not in loader:
        raise ConfigError(f'The config has no {split}_dataloader with a dataset: choose another --split')
    if not 1 <= num <= MOST:
        raise ConfigError(f'{num} images: expected at least 1, and at most {MOST}, which a page can hold')
    dataset = DATASETS.build(loader['dataset'])
    count = min(num, len(dataset))
    statistics = count_labels(dataset)
    facts = {'config': cfg.filename or 'given as an object', 'split': split, 'images': len(dataset), 'shown': count}
    warnings: list[str] = []
    page = Page('Data before and after the pipeline', facts=facts, warnings=warnings)
    _add_images(page, dataset, count, seed, warnings)
    if statistics is not None:
        warnings += _absent(statistics)
        section = page.section('Labels', 'Boxes by class, by size and by image; crowds are left out.')
        show_labels(section, split, statistics)
    page.write(out)
    return Path(out)


def _add_images(page: Page, dataset: Any, count: int, seed: int, warnings: list[str]) -> None:
    pipelines = [getattr(entry(one, 'pipeline'), 'transforms', ()) for one in leaves(dataset, having='pipeline')]
    steps = '; '.join(dict.fromkeys(' → '.join(type(step).__name__ for step in steps) for steps in pipelines))
    section = page.section(
        'Images',
        'Each image as the model gets it, then as it is on disk. Crowd regions are dashed: they are neither object nor '
        f'background.{f" The pipeline: {steps}." if steps else ""}\n'
        'A class that is switched off takes its boxes away, and the images that have no others.',
        tiled=True,
    )
    side = min(SIDE, math.isqrt(int(BYTES / (2 * count) / 0.4)))
    np.random.seed(seed)
    for index in track(range(count), 'Drawing images'):
        data, classes = dataset[index], dataset.metainfo.get('classes') or ()
        sample = data['data_samples']
        warnings += sample.get('broken_images', [])
        name = _name(sample, index)
        image = np.ascontiguousarray(data['inputs'].numpy()[::-1].transpose(1, 2, 0))
        mirrored = ', mirrored' if sample.get('flip') else ''
        groups = [(truth.bboxes, truth.labels) for truth in (sample.gt_instances, sample.ignored_instances)]
        boxes, labels = (np.concatenate([group[k].numpy() for group in groups]) for k in (0, 1))
        crowd = np.arange(len(boxes)) >= len(groups[0][0])
        _add(section, image, boxes, labels, crowd, classes, f'{name}, after the pipeline', mirrored, side)
        record = dataset.get_data_info(index)
        if {'img_path', 'gt_bboxes', 'gt_labels'} <= set(record):
            try:
                image = np.ascontiguousarray(read_image(record['img_path'])[:, :, ::-1])
            except BrokenImageError:
                continue  # another image stood in for it, which is among the warnings
            boxes, labels = record['gt_bboxes'], record['gt_labels']
            crowd = record.get('gt_crowd', np.zeros(len(boxes), dtype=bool))
            _add(section, image, boxes, labels, crowd, classes, f'{Path(record["img_path"]).name}, on disk', '', side)


def _name(sample: Any, index: int) -> str:
    path = sample.get('img_path')
    return f'{Path(path).name if path else "image"} (id {sample.get("img_id", index)})'


def _add(
    section: Section,
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    crowd: np.ndarray,
    classes: Sequence[str],
    what: str,
    more: str,
    side: int,
) -> None:
    """A picture of an image (H, W, 3) uint8 RGB, no larger than ``side``, with its boxes (n, 4)."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    marks = []
    for box, label, is_crowd in zip(boxes, labels.tolist(), crowd, strict=True):
        name = classes[label] if 0 <= label < len(classes) else str(label)
        x1, y1, x2, y2 = box.tolist()
        tip = f'{name}{", crowd" if is_crowd else ""}\n{x2 - x1:.0f} x {y2 - y1:.0f} pixels'
        colour = 'rgb({}, {}, {})'.format(*class_colour(label))
        line = 'dashed' if is_crowd else 'solid'
        marks.append(Mark(box * scale, tip, colour, line, name, tags={'class': name}))
    section.picture(image, f'{what}: {width} x {height} pixels, {len(marks)} boxes{more}', marks=marks, filtered=True)


def _absent(statistics: dict[str, Any]) -> list[str]:
    absent = [name for name, n in zip(statistics['classes'], statistics['objects'], strict=True) if not n]
    few = f'{", ".join(absent[:10])}{", ..." if len(absent) > 10 else ""}'
    return [f'{len(absent)} of {len(statistics["classes"])} classes have no box in this split: {few}'] if absent else []
