import numpy as np
import pytest
import torch
from PIL import Image

from frdet.visualization import class_colour, draw_boxes, draw_side_by_side, grid, save_image
from frdet.visualization.drawing import PAPER

GREY = np.full((200, 300, 3), 128, dtype=np.uint8)


def changed(before, after):
    return (before != after).any(axis=2)


def test_frame_lies_on_the_box():
    """Without enlarging: a frame of 2 pixels inside (50, 60, 150, 160), a dark rim of 1 around it, a label above."""
    drawn = draw_boxes(GREY, np.array([[50, 60, 150, 160]]), np.array([0]), min_long_side=1)
    assert drawn.shape == GREY.shape
    colour = list(class_colour(0))
    for y, x in [(120, 50), (120, 51), (120, 148), (120, 149), (159, 100), (158, 100)]:
        assert drawn[y, x].tolist() == colour, (y, x)
    for y, x in [(120, 47), (120, 54), (120, 146), (120, 152), (155, 100), (163, 100), (110, 100)]:
        assert drawn[y, x].tolist() == [128] * 3, (y, x)
    assert changed(GREY, drawn)[40:60, 50:60].any()


def test_the_image_itself_is_not_changed():
    before = GREY.copy()
    draw_boxes(GREY, [[5, 5, 50, 50]], [0])
    np.testing.assert_array_equal(GREY, before)


def filled(label, before=128):
    """A pixel inside of an object: two fifths of its class's colour."""
    return [round(0.6 * before + 0.4 * value) for value in class_colour(label)]


def test_masks_are_filled_and_have_a_contour():
    """A disc in its box. The contour is one pixel wide, half of the frame, and belongs to the object."""
    y, x = np.mgrid[:200, :300]
    disc = (y - 100) ** 2 + (x - 150) ** 2 < 40**2
    drawn = draw_boxes(GREY, [[110, 60, 191, 141]], [2], masks=disc[None], min_long_side=1)
    assert drawn[100, 150].tolist() == drawn[100, 120].tolist() == filled(2)
    assert drawn[100, 113].tolist() == filled(2) and not disc[100, 110] and disc[100, 111]
    assert drawn[61 + 5, 150].tolist() == filled(2)
    diagonal = next(k for k in range(40) if not disc[100 + k, 150 + k]) - 1  # the last pixel inside
    assert drawn[100 + diagonal, 150 + diagonal].tolist() == list(class_colour(2))
    assert drawn[99 + diagonal, 149 + diagonal].tolist() == filled(2)
    assert drawn[101 + diagonal, 151 + diagonal].tolist() == [128] * 3
    assert (changed(GREY, drawn)[62:139, 113:188] == disc[62:139, 113:188]).all()  # inside of the frame


def test_masks_of_any_resolution_cover_the_picture():
    """One of half the size, one of the size of the picture before it is enlarged, of any type of number."""
    mask = np.zeros((1, 200, 300), dtype=bool)
    mask[:, 40:80, 60:120] = True
    box = [[0, 0, 300, 200]]
    expected = draw_boxes(GREY, box, [0], masks=mask, min_long_side=1)
    assert changed(GREY, expected)[40:80, 60:120].all() and not changed(GREY, expected)[85:190, 10:290].any()
    for same in (mask[:, ::2, ::2], torch.from_numpy(mask).byte() * 255, [mask[0].astype(np.float32)]):
        np.testing.assert_array_equal(draw_boxes(GREY, box, [0], masks=same, min_long_side=1), expected)
    enlarged = draw_boxes(GREY, box, [0], masks=mask)
    assert enlarged[180, 270].tolist() == filled(0)
    assert enlarged[120, 180].tolist() == list(class_colour(0)) and enlarged[119, 179].tolist() == [128] * 3


def test_small_masks_lie_on_large_ones_and_empty_masks_are_nothing():
    masks = np.zeros((3, 200, 300), dtype=bool)
    masks[0, 80:120, 80:120] = True
    masks[1, 20:180, 20:280] = True
    boxes = [[80, 80, 120, 120], [20, 20, 280, 180], [200, 150, 260, 170]]
    drawn = draw_boxes(GREY, boxes, [0, 1, 1], masks=masks, min_long_side=1)
    assert drawn[60, 200].tolist() == filled(1)
    both = [round(0.6 * below + 0.4 * above) for below, above in zip(filled(1), class_colour(0), strict=True)]
    assert drawn[100, 110].tolist() == both
    without = draw_boxes(GREY, boxes[2:], [1], masks=masks[2:], min_long_side=1)
    np.testing.assert_array_equal(without, draw_boxes(GREY, boxes[2:], [1], min_long_side=1))
    nothing = np.zeros((0, 200, 300), dtype=bool)
    np.testing.assert_array_equal(draw_boxes(GREY, [], [], masks=nothing, min_long_side=1), GREY)


def test_no_box_changes_nothing():
    np.testing.assert_array_equal(draw_boxes(GREY, torch.zeros(0, 4), torch.zeros(0), min_long_side=1), GREY)


def test_small_images_are_enlarged_by_a_whole_factor():
    """300 to at least 640 is a factor of 3; the box moves along."""
    drawn = draw_boxes(GREY, torch.tensor([[10.0, 20, 90, 60]]), torch.tensor([2]))
    assert drawn.shape == (600, 900, 3)
    assert drawn[120, 31].tolist() == list(class_colour(2))
    assert draw_boxes(np.zeros((700, 20, 3), dtype=np.uint8), [], []).shape == (700, 20, 3)


def test_names_scores_and_numbers_are_written(monkeypatch):
    from PIL import ImageDraw

    written = []
    original = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, 'text', lambda self, at, text, **kw: (written.append(text), original(self, at, text, **kw))
    )
    boxes = [[10, 40, 90, 90], [100, 40, 200, 90], [210, 100, 290, 150]]
    draw_boxes(GREY, boxes, [0, 1, 7], [0.5, 0.987, 0.25], ('cat', 'dog'))
    assert written == ['7 0.25', 'cat 0.50', 'dog 0.99']  # the best last, on top


def test_labels_avoid_each_other_and_stay_inside():
    """Ten equal boxes in the corner: every label is readable, so no two have all their pixels in common."""
    one = changed(GREY, draw_boxes(GREY, [[0, 0, 80, 80]], [1], min_long_side=1)).sum()
    several = changed(GREY, draw_boxes(GREY, [[0, 0, 80, 80]] * 4, [1] * 4, min_long_side=1)).sum()
    assert several > one + 300
    drawn = draw_boxes(GREY, [[280, 190, 300, 200]], [0], classes=('a long name',), min_long_side=1)
    assert changed(GREY, drawn)[170:200, 200:300].sum() > 500


def test_dashes_leave_gaps():
    boxes, labels = [[50, 60, 150, 160]], [0]
    full = draw_boxes(GREY, boxes, labels, min_long_side=1)[159, 52:148]
    dashed = draw_boxes(GREY, boxes, labels, min_long_side=1, dashed=True)[159, 52:148]
    colour = class_colour(0)
    assert (full == colour).all()
    assert 0.3 < (dashed == colour).all(axis=1).mean() < 0.7
    both = [[50, 60, 150, 160], [50, 180, 150, 195]]
    some = draw_boxes(GREY, both, [0, 0], min_long_side=1, dashed=np.array([True, False]))
    assert (some[159, 52:148] == dashed).all() and (some[194, 52:148] == colour).all()


def test_colours_are_stable_and_apart():
    first = [class_colour(k) for k in range(21)]
    assert first == [class_colour(k) for k in range(21)]
    distance = [np.abs(np.subtract(a, b)).sum() for i, a in enumerate(first) for b in first[:i]]
    assert min(distance) > 40
    assert len({class_colour(k) for k in range(80)}) == 80


def test_degenerate_and_outside_boxes_are_drawn_without_error():
    boxes = [[10, 10, 10, 10], [50, 50, 40, 40], [-50, -50, 400, 400], [295, 195, 500, 600]]
    assert draw_boxes(GREY, boxes, [0] * 4).shape == (600, 900, 3)
    assert draw_boxes(GREY, boxes, [0] * 4, dashed=True).shape == (600, 900, 3)


def test_wrong_shapes():
    with pytest.raises(ValueError, match='1 boxes, 2 labels'):
        draw_boxes(GREY, [[0, 0, 1, 1]], [0, 1])
    with pytest.raises(ValueError, match='1 boxes, 2 masks'):
        draw_boxes(GREY, [[0, 0, 1, 1]], [0], masks=np.zeros((2, 200, 300)))
    with pytest.raises(ValueError, match='expected an image'):
        draw_boxes(GREY[..., 0], [], [])


def test_save_image(tmp_path):
    save_image(GREY, tmp_path / 'a.png')
    with Image.open(tmp_path / 'a.png') as image:
        np.testing.assert_array_equal(np.asarray(image), GREY)


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
