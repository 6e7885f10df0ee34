import numpy as np
import pytest

from frdet.datasets.shapes.drawing import CLASSES, OUTLINES, VISIBLE, _outline, draw_image
from frdet.datasets.transforms.masks import draw_masks


@pytest.mark.parametrize(
    ('name', 'share'),
    [
        # Part of the circle around the shape that it covers, in units of radius squared over pi.
        ('circle', np.pi),
        ('square', 2.0),
        ('triangle', 3 * np.sqrt(3) / 4),
        ('ring', np.pi * (1 - 0.55**2)),
        ('star', 5 * 0.42 * np.sin(np.pi / 5)),
        ('cross', 2 * 2 * 2 / 3 - (2 / 3) ** 2),
    ],
)
@pytest.mark.parametrize('angle', [0.0, 0.4])
def test_areas_are_those_of_geometry(name, share, angle):
    assert _outline(name, 40.0, angle)[0].sum() == pytest.approx(share * 40**2, rel=0.04)


@pytest.mark.parametrize('angle', [0.0, 0.4])
@pytest.mark.parametrize('name', CLASSES)
def test_polygons_are_the_drawn_pixels(name, angle):
    """Except at the edge: Pillow and pycocotools have different rules for a pixel that is covered by a half."""
    pixels, polygons = _outline(name, 40.0, angle)
    pixels = pixels >= 0.5
    if name == 'ring':
        assert polygons == []
        return
    drawn = draw_masks([polygons], pixels.shape)[0] > 0
    assert (drawn & pixels).sum() > 0.92 * (drawn | pixels).sum()


def test_every_class_has_an_outline():
    assert tuple(OUTLINES) == CLASSES


@pytest.mark.parametrize('size', [(32, 32), (96, 140), (150, 64)])
def test_images_hold_shapes_that_are_seen(size):
    for seed in range(12):
        image, shapes = draw_image(np.random.default_rng(seed), *size, max_objects=5)
        assert image.shape == (*size, 3)
        assert image.dtype == np.uint8
        assert 1 <= len(shapes) <= 5
        assert sum(shape.mask.astype(int) for shape in shapes).max() == 1  # a pixel shows one shape
        assert all(shape.mask.sum() >= VISIBLE * shape.area for shape in shapes)


def test_every_class_is_drawn_upright():
    """Alone in an image. A circle fills pi / 4 of its box; a triangle is wider below than above."""
    drawn = {}
    for seed in range(40):
        _, (shape,) = draw_image(np.random.default_rng(seed), 64, 64, max_objects=1)
        rows, columns = (np.flatnonzero(shape.mask.any(axis=axis)) for axis in (1, 0))
        box = shape.mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        drawn.setdefault(CLASSES[shape.label], []).append(box)
    assert drawn.keys() == set(CLASSES)
    assert [box.mean() for box in drawn['circle']] == pytest.approx([np.pi / 4] * len(drawn['circle']), abs=0.06)
    for box in drawn['triangle']:
        third = len(box) // 3
        assert box[:third].sum() < box[-third:].sum()


def test_a_shape_stands_out_from_what_is_around_it():
    """The mean colour inside differs from that of the whole image: the masks lie where something was drawn."""
    differences = []
    for seed in range(10):
        image, shapes = draw_image(np.random.default_rng(seed), 128, 128, max_objects=1)
        mask = shapes[0].mask
        differences.append(np.abs(image[mask].mean(axis=0) - image[~mask].mean(axis=0)).sum())
    assert min(differences) > 40
