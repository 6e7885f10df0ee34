"""A page that shows the input of the model: the images of a data set after its pipeline."""

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from frdet.datasets.transforms.loading import read_image
from frdet.datasets.transforms.masks import draw_masks
from frdet.datasets.wrappers import entry, leaves
from frdet.errors import BrokenImageError, ConfigError
from frdet.insight.outlines import outline_of
from frdet.insight.page import Mark, Page, Section
from frdet.insight.report.training_page import show_labels
from frdet.insight.store import count_labels
from frdet.progress import track
from frdet.registry import DATASETS, in_config_scope
from frdet.visualization.drawing import class_colour, shrunk

MOST = 300  # images on a page
SIDE = 640  # pixels of the longer side of a picture; less where ``BYTES`` would not suffice
BYTES = 6e6  # for all pictures; one of side s takes about 0.4 * s**2


@in_config_scope
def browse_dataset(cfg: Config, out: str | Path, *, split: str = 'train', num: int = 16, seed: int = 0) -> Path:
    """Write a page with the first images of a split, before and after the pipeline, and with label statistics.

    Args:
        cfg: has ``<split>_dataloader``.
        out: path of the page; its folder is made if it is missing.
        split: ``train``, ``val`` or ``test``.
        num: number of images.
        seed: seed of the random transforms.

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
    steps = pipeline_in_words(dataset)
    section = page.section(
        'Images',
        'Each image as the model gets it, then as it is on disk. Crowd regions are dashed: they are neither object nor '
        f'background.{f" The pipeline: {steps}." if steps else ""}\n'
        'Switching off a class hides its boxes, and the images that have no other boxes.',
        tiled=True,
    )
    side = min(SIDE, math.isqrt(int(BYTES / (2 * count) / 0.4)))
    np.random.seed(seed)
    for index in track(range(count), 'Drawing images'):
        item, record = dataset[index], dataset.get_data_info(index)
        warnings += item['data_samples'].get('broken_images', [])
        show_image(section, record, item, dataset.metainfo.get('classes') or (), side)
    if statistics is not None:
        if absent := [name for name, n in zip(statistics['classes'], statistics['objects'], strict=True) if not n]:
            few = f'{", ".join(absent[:10])}{", ..." if len(absent) > 10 else ""}'
            warnings.append(f'{len(absent)} of {len(statistics["classes"])} classes have no box in this split: {few}')
        section = page.section('Labels', 'Boxes by class, by size and by image; crowds are left out.')
        show_labels(section, split, statistics)
    page.write(out)
    return Path(out)


def pipeline_in_words(dataset: Any) -> str:
    """The transforms of a data set, or of all data sets that are joined in it."""
    pipelines = [getattr(entry(one, 'pipeline'), 'transforms', ()) for one in leaves(dataset, having='pipeline')]
    return '; '.join(dict.fromkeys(' → '.join(type(step).__name__ for step in steps) for steps in pipelines))


def show_image(section: Section, record: Mapping[str, Any], item: Mapping[str, Any], classes: Any, side: float) -> None:
    """Add pictures of one image with its boxes: after the pipeline and, if its file is known, as it is on disk.

    Args:
        section: the section that gets the pictures.
        record: the data of the image before the pipeline.
        item: the result of the pipeline: ``inputs``, (3, H, W) BGR, and ``data_samples``.
        classes: names of the labels.
        side: the most pixels of a picture's longer side.
    """
    sample = item['data_samples']
    path = sample.get('img_path')
    name = f'{Path(path).name if path else "image"} (id {sample.get("img_id", record.get("img_id"))})'
    groups = (sample.gt_instances, sample.ignored_instances)
    boxes, labels = (np.concatenate([group[key].cpu().numpy() for group in groups]) for key in ('bboxes', 'labels'))
    crowd, more = np.arange(len(boxes)) >= len(groups[0]), ', mirrored' if sample.get('flip') else ''
    masks: Any = [mask for group in groups for mask in group.get('masks', [None] * len(group))]
    pictures = [(network_input(item), boxes, labels, crowd, masks, f'{name}, after the pipeline', more)]
    if {'img_path', 'gt_bboxes', 'gt_labels'} <= set(record):
        with suppress(BrokenImageError):  # the pipeline took another image instead, and a warning says so
            raw = np.ascontiguousarray(read_image(record['img_path'])[:, :, ::-1])
            boxes, labels = record['gt_bboxes'], record['gt_labels']
            crowd = record.get('gt_crowd', np.zeros(len(boxes), dtype=bool))
            masks = draw_masks(record['gt_masks'], raw.shape[:2]) if 'gt_masks' in record else [None] * len(boxes)
            pictures.append((raw, boxes, labels, crowd, masks, f'{Path(record["img_path"]).name}, on disk', ''))
    for image, boxes, labels, crowd, masks, what, more in pictures:
        caption = f'{what}: {image.shape[1]} x {image.shape[0]} pixels, {len(boxes)} boxes{more}'
        small, scale = shrunk(image, side)
        marks = []
        for box, label, is_crowd, mask in zip(boxes, labels, crowd, masks, strict=True):
            name = classes[label] if 0 <= label < len(classes) else str(label)
            x1, y1, x2, y2 = box.tolist()
            tip = f'{name}{", crowd" if is_crowd else ""}\n{x2 - x1:.0f} x {y2 - y1:.0f} pixels at ({x1:.0f}, {y1:.0f})'
            line = 'dashed' if is_crowd else 'solid'
            outline = '' if mask is None else outline_of(np.asarray(mask), small.shape)
            mark = Mark(box * scale, tip, css_colour(int(label)), line, name, outline, tags={'class': name})
            marks.append(mark)
        section.picture(small, caption, marks=marks, filtered=True)


def network_input(item: Mapping[str, Any]) -> np.ndarray:
    """The image (H, W, 3) RGB that the pipeline gives the model."""
    return np.ascontiguousarray(item['inputs'].numpy()[::-1].transpose(1, 2, 0))


def css_colour(label: int) -> str:
    """The colour of a class in CSS."""
    return 'rgb({}, {}, {})'.format(*class_colour(label))
