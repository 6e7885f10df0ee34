import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from frdet.insight.outlines import outline_of


def polygons(path):
    """The corners of each closed line of SVG path data."""
    assert re.fullmatch(r'(M[\d. ]+(L[\d. ]+)*Z)*', path)
    return [[tuple(map(float, at.split())) for at in line.split('L')] for line in re.findall(r'M([^Z]*)Z', path)]


def filled(path, size):
    """The pixels inside of an odd number of lines, as SVG's evenodd fills them, or on a line, which is drawn."""
    pixels = np.zeros(size, dtype=bool)
    for corners in polygons(path):
        picture = Image.new('1', size[::-1])
        ImageDraw.Draw(picture).polygon([(int(x), int(y)) for x, y in corners], fill=1, outline=1)
        pixels ^= np.asarray(picture)
    return pixels


def test_a_rectangle_by_hand():
    """Rows 1 to 3 and columns 2 to 6: through the centres of the outer pixels."""
    mask = np.zeros((5, 9), dtype=bool)
    mask[1:4, 2:7] = True
    (corners,) = polygons(outline_of(mask, (5, 9, 3)))
    assert sorted(corners) == [(2.5, 1.5), (2.5, 3.5), (6.5, 1.5), (6.5, 3.5)]


def test_parts_and_holes():
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[5:30, 5:40] = 255
    mask[12:20, 12:30] = 0
    mask[30:38, 50:58] = 1
    path = outline_of(mask, (40, 60))
    assert len(polygons(path)) == 3
    wrong = filled(path, (40, 60)) != (mask != 0)
    assert wrong.sum() <= 2 * (8 + 18) + 4  # the line around the hole


def test_an_outline_follows_the_mask():
    y, x = np.mgrid[:200, :200]
    disc = (y - 100) ** 2 + (x - 90) ** 2 < 80**2
    path = outline_of(disc, disc.shape)
    assert (filled(path, disc.shape) != disc).sum() < 0.02 * disc.sum()
    assert len(polygons(path)[0]) < 60  # of 450 pixels around it


@pytest.mark.parametrize('size', [(20, 36), (10, 18), (5, 9)])
def test_a_mask_covers_the_picture(size):
    """Twice and four times as large as the picture, or of its size."""
    mask = np.zeros((20, 36), dtype=bool)
    mask[8:16, 4:12] = True
    (corners,) = polygons(outline_of(mask, size))
    step = 20 // size[0]
    assert min(corners) == (4 // step + 0.5, 8 // step + 0.5)
    assert max(corners) == (12 // step - 0.5, 16 // step - 0.5)


def test_nothing():
    assert outline_of(np.zeros((4, 4), dtype=bool), (4, 4)) == ''
