"""Pictures of what a data set's pipeline hands the model."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope

from frdet.datasets.progress import track
from frdet.errors import ConfigError
from frdet.registry import DATASETS, SCOPE
from frdet.visualization.drawing import draw_boxes, save_image
from frdet.visualization.layout import grid

SHEET_IMAGES = 16


def browse_dataset(cfg: Config, out: str | Path, *, split: str = 'train', num: int = 16, seed: int = 0) -> list[Path]:
    """Write the first images of a split as the pipeline leaves them, boxes drawn, and a contact sheet.

    Crowd boxes are dashed.

    Args:
        cfg: has ``<split>_dataloader``.
        out: folder for ``<image id>.jpg`` and ``sheet.jpg``; created.
        split: ``train``, ``val`` or ``test``.
        num: images.
        seed: of the random transforms.

    Returns:
        Paths of the pictures, the sheet last.

    Raises:
        ConfigError: the config has no such loader, or ``num`` is not positive.
    """
    loader = cfg.get(f'{split}_dataloader')
    if not loader or 'dataset' not in loader:
        raise ConfigError(f'The config has no {split}_dataloader with a dataset: choose another --split')
    if num < 1:
        raise ConfigError(f'{num} images: expected at least 1')
    init_default_scope(cfg.get('default_scope') or SCOPE)
    dataset = DATASETS.build(loader['dataset'])
    classes = dataset.metainfo.get('classes')
    np.random.seed(seed)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    pictures: list[np.ndarray] = []
    for index in track(range(min(num, len(dataset))), f'Drawing {split} images'):
        data = dataset[index]
        sample = data['data_samples']
        image = np.ascontiguousarray(data['inputs'].numpy()[::-1].transpose(1, 2, 0))
        drawn = draw_boxes(image, sample.gt_instances.bboxes, sample.gt_instances.labels, classes=classes)
        crowd = sample.ignored_instances.bboxes * (drawn.shape[0] / image.shape[0])
        drawn = draw_boxes(drawn, crowd, sample.ignored_instances.labels, classes=classes, dashed=True)
        paths.append(out / f'{sample.get("img_id", index)}.jpg')
        save_image(drawn, paths[-1])
        pictures += [drawn] if len(pictures) < SHEET_IMAGES else []
    paths.append(out / 'sheet.jpg')
    save_image(grid(pictures), paths[-1])
    return paths
