import numpy as np

from frdet.insight.errors import label_statistics
from frdet.insight.errors.statistics import SIZE_EDGES


def test_by_hand():
    """Four images, of which one has no box; sides of 10, 32, 50 and 96 pixels."""
    sides = np.array([10, 10, 32, 50, 96])
    boxes = np.stack([np.zeros(5), np.zeros(5), sides, sides], axis=1)
    found = label_statistics(
        np.array([0, 0, 0, 1, 3]), np.array([2, 2, 0, 0, 0]), boxes, num_images=4, classes=('a', 'b', 'c')
    )
    sizes = found.pop('sizes')
    assert found == {
        'num_images': 4,
        'classes': ['a', 'b', 'c'],
        'objects': [3, 0, 2],
        'images': [3, 0, 1],
        'small': [0, 0, 2],  # below 32^2
        'medium': [2, 0, 0],
        'large': [1, 0, 0],  # from 96^2 on
        'per_image': [1, 2, 0, 1],
    }
    # Edges are 2, 2.8, 4, ..., 8, 11.3, ..., 32, 45.3, 64, 90.5, 128.
    where = {float(low): count for low, count in zip(SIZE_EDGES, sizes, strict=False) if count}
    assert list(where.values()) == [2, 1, 1, 1]
    assert np.allclose(list(where), [8, 32, 32 * 2**0.5, 64 * 2**0.5])


def test_no_boxes():
    none = np.zeros(0, int)
    found = label_statistics(none, none, np.zeros((0, 4)), num_images=2, classes=('a',))
    assert (found['objects'], found['images'], found['per_image'], sum(found['sizes'])) == ([0], [0], [2], 0)
