"""Input size and anchors for images and boxes whose numbers are easy to compute by hand."""

import numpy as np
import pytest

from frdet.apis.own_data.fitting import anchor_ratios, anchor_sides, fit, input_size, resize_factors

COCO = (32, 64, 128, 256, 512)


@pytest.mark.parametrize(
    ('size', 'side', 'short', 'longest'),
    [
        ((480, 640), 100, 480, 640),
        ((640, 480), 100, 480, 640),
        ((500, 500), 100, 512, 512),  # 500 / 32 = 15.6
        ((20, 30), 20, 32, 64),  # 20 / 32 = 0.6; 32 * 1.5 = 48
        ((1080, 1920), 100, 800, 1333),  # 800 * 16 / 9 = 1422
        ((600, 2400), 100, 608, 1333),  # narrow images: the long side decides
        # Objects of 12 pixels: 480 * 16 / 12 = 640, and 640 * 4 / 3 = 853 = 26.7 * 32.
        ((480, 640), 12, 640, 864),
        ((480, 640), 8, 960, 1280),  # 480 * 16 / 8
        ((480, 640), 5, 960, 1280),  # at most twice the size
        ((600, 1200), 4, 640, 1280),  # 1333 / 2 = 666 = 20.8 * 32
        ((600, 2400), 4, 608, 1333),  # 1333 / 4 = 333 would make it smaller
    ],
)
def test_input_size(size, side, short, longest):
    """All images and all objects are equal, so each percentile is this value."""
    found = input_size(np.full((10, 2), size, float), np.full(30, float(side)), np.arange(30) % 10)
    assert found[:2] == (short, longest)
    assert ('enlarged' in found[2]) == (short > max(round(min(*size, 800) / 32), 1) * 32)
    assert f'The median short side is {min(size)} pixels' in found[2]


def test_one_narrow_image_does_not_decide():
    """Of 101 images, the 95th percentile of the aspect ratio is that of the 96th."""
    sizes = np.array([(400, 400)] * 100 + [(100, 2000)], float)
    assert input_size(sizes, np.full(9, 50.0), np.zeros(9, int))[:2] == (416, 416)  # 400 / 32 = 12.5


def test_images_are_resized_as_in_the_pipeline():
    sizes = np.array([(480, 640), (640, 480), (100, 1000)], float)
    assert resize_factors(sizes, 512, 600) == pytest.approx([600 / 640, 600 / 640, 0.6])
    assert resize_factors(sizes, 240, 600) == pytest.approx([0.5, 0.5, 0.6])


@pytest.mark.parametrize(
    ('small', 'anchors'),
    # Nearest in octaves: between 8 and 16 the middle is 11.3, between 16 and 32 it is 22.6.
    [(2, 8), (11, 8), (12, 16), (22, 16), (23, 32), (300, 32)],
)
def test_anchor_sides(small, anchors):
    """Of 11 sides in equal steps the second is the 10th percentile, the tenth the 90th."""
    sides, reason = anchor_sides(small + 10.0 * np.arange(-1, 10).clip(0), 512)
    assert sides == tuple(anchors * 2**level for level in range(5))
    assert reason.startswith(f'80% of objects are {small} to {small + 80} pixels at short side 512: ')
    assert reason.endswith(
        'the anchors of COCO, 32 to 512, fit' if sides == COCO else f'anchors {anchors} to {anchors * 16}'
    )


@pytest.mark.parametrize(
    ('count', 'ratios'),
    [
        ({0.25: 10, 1: 90}, (0.5, 1.0, 2.0)),  # not more than 10%
        ({0.25: 11, 1: 89}, (0.25, 0.5, 1.0)),
        ({4: 11, 1: 89}, (1.0, 2.0, 4.0)),
        ({0.25: 6, 4: 6, 1: 88}, (0.25, 1.0, 4.0)),
        # A ratio of 1:2 for 12 objects would be taken away, for 11 that come as much nearer.
        ({4: 11, 0.5: 12, 1: 77}, (0.5, 1.0, 2.0)),
        ({4: 11, 0.5: 10, 1: 79}, (1.0, 2.0, 4.0)),
        ({1 / 3: 50, 3: 50}, (0.5, 1.0, 2.0)),  # these are not narrow
    ],
    ids=str,
)
def test_anchor_ratios(count, ratios):
    """Of 100 objects, by their height / width. One octave lies between 1:4 and 1:2, and between 1:2 and 1:1."""
    found, reason = anchor_ratios(np.repeat(list(count), list(count.values())))
    assert found == ratios
    narrow = sum(number for ratio, number in count.items() if ratio in (0.25, 4))
    assert (
        reason.startswith(f'{narrow}% of objects are narrower than 1:3') if found != (0.5, 1.0, 2.0) else reason == ''
    )


def test_fit_measures_each_object_in_its_own_image():
    sizes = np.array([(320, 320)] * 2 + [(640, 640)], float)
    boxes = np.array([[0, 0, 40, 40]] * 10 + [[10, 20, 410, 420]] * 10, float)
    found = fit(sizes, boxes, np.repeat([1, 2], 10))
    assert (found.short_side, found.max_size) == (320, 320)
    assert '80% of objects are 40 to 200 pixels at short side 320' in found.anchor_reason  # 400 * 320 / 640
    assert found.anchors == COCO and found.ratios == (0.5, 1.0, 2.0)
