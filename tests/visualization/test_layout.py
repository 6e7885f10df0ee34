import numpy as np
import pytest

from frdet.visualization import draw_side_by_side, grid
from frdet.visualization.layout import PAPER


def plain(height, width, colour):
    return np.full((height, width, 3), colour, dtype=np.uint8)


def test_side_by_side_places_both_below_titles():
    """100 rows: titles of 14 pixels in a strip of 28, a gap of 4 between the pictures."""
    sheet = draw_side_by_side(plain(100, 150, (9, 9, 200)), plain(100, 150, (200, 9, 9)))
    assert sheet.shape == (128, 304, 3)
    assert (sheet[28:, :150] == (9, 9, 200)).all()
    assert (sheet[28:, 150:154] == PAPER).all()
    assert (sheet[28:, 154:] == (200, 9, 9)).all()
    assert (sheet[:28, :150] > 200).any()
    assert (sheet[:28, 154:] > 200).any()


def test_side_by_side_of_two_sizes():
    assert draw_side_by_side(plain(100, 150, 0), plain(50, 60, 0)).shape == (128, 150 + 4 + 120, 3)


def test_grid_places_pictures_in_their_cells():
    """Three cells of 60x80 in two columns, gaps of 4; the picture 30x40 is doubled, the one 60x40 is centred."""
    pictures = [plain(30, 40, (250, 0, 0)), plain(60, 40, (0, 250, 0)), plain(15, 80, (0, 0, 250))]
    sheet = grid(pictures, cell=(60, 80))
    assert sheet.shape == (4 + 64 * 2, 4 + 84 * 2, 3)
    assert (sheet[4:64, 4:84] == (250, 0, 0)).all()
    assert (sheet[4:64, 88 + 20 : 88 + 60] == (0, 250, 0)).all()
    assert (sheet[4:64, 88 : 88 + 20] == PAPER).all()
    assert (sheet[68 + 22 : 68 + 37, 4:84] == (0, 0, 250)).all()
    assert (sheet[68:, 88:] == PAPER).all()


def test_columns_can_be_given():
    assert grid([plain(10, 10, 0)] * 5, columns=5, cell=(10, 10)).shape == (18, 5 * 14 + 4, 3)
    assert grid([plain(10, 10, 0)], columns=5, cell=(10, 10)).shape == (18, 18, 3)


def test_no_picture():
    with pytest.raises(ValueError, match='at least one'):
        grid([])
