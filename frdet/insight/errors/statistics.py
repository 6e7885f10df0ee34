"""Statistics of the labels of a data set."""

from typing import Any

import numpy as np

#: Edges, in pixels, of the bins of box sizes (square root of the area); each is sqrt(2) times the edge before it.
SIZE_EDGES = 2.0 ** np.arange(1, 11.5, 0.5)
SMALL, LARGE = 32**2, 96**2  # COCO's areas


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
    seen = np.unique(np.stack([label, image], axis=1), axis=0) if len(label) else np.zeros((0, 2), dtype=np.int64)
    by_size = [np.bincount(label[size == k], minlength=num_classes).tolist() for k in range(3)]
    sides = np.sqrt(area.clip(min=0)).clip(SIZE_EDGES[0], np.nextafter(SIZE_EDGES[-1], 0))
    return {
        'num_images': num_images,
        'classes': list(classes),
        'objects': np.bincount(label, minlength=num_classes).tolist(),
        'images': np.bincount(seen[:, 0], minlength=num_classes).tolist(),
        **dict(zip(('small', 'medium', 'large'), by_size, strict=True)),
        'sizes': np.histogram(sides, SIZE_EDGES)[0].tolist(),
        'per_image': np.bincount(np.bincount(image, minlength=num_images)).tolist(),
    }
