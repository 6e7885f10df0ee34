"""Packed masks come back as they were, and their pixels are those of pycocotools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from frdet.datasets.masks import as_coco, box_of, decode_rle, encode_mask, pack_mask, rle_of, runs_fit, unpack_mask


@pytest.mark.parametrize(
    ('polygons', 'size'),
    [
        ([[0, 0.01, 655.35, 512.3, 7, 300.29]], 1 + 8 + 2 * 6),  # hundredths below 2^16: two bytes each
        ([[0, 0, 655.36, 5, 7, 3]], 1 + 8 + 4 * 6),  # 65536 hundredths need four
        ([[-0.01, 0, 5, 5, 7, 3]], 1 + 8 + 4 * 6),
        ([[1 / 3, 2, 5, 5, 7, 3]], 1 + 8 + 8 * 6),
        ([[1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60, 70, 80]], 1 + 12 + 2 * 14),
    ],
)
def test_polygons_come_back_exactly(polygons, size):
    packed = pack_mask(polygons)
    assert packed is not None and len(packed) == size
    assert as_coco(packed) == polygons
    assert [points.tolist() for points in unpack_mask(packed)] == [np.reshape(p, (-1, 2)).tolist() for p in polygons]
    assert pack_mask(packed) is packed
    assert pack_mask(polygons[0]) == pack_mask(polygons[:1])


@given(st.lists(st.floats(-1e5, 1e5), min_size=6, max_size=20).filter(lambda numbers: len(numbers) % 2 == 0))
def test_any_numbers_come_back(numbers):
    assert as_coco(pack_mask([numbers])) == [numbers]


def bitmap(seed, height=37, width=53):
    """A blob, or noise, or nothing, or everything; some touch the border."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    blob = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < rng.uniform(2, 30) ** 2
    choices = [blob, blob, rng.random((height, width)) < 0.3, np.zeros_like(blob), np.ones_like(blob)]
    return choices[seed % 5].astype(np.uint8)


@pytest.mark.parametrize('seed', range(15))
def test_rle_and_pixels_are_those_of_pycocotools(seed):
    pixels = bitmap(seed)
    expected = reference.encode(np.asfortranarray(pixels))
    runs, value = [0], 0
    for pixel in pixels.T.ravel().tolist():  # counted one by one, down the columns, from a run of zeros
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    text = expected['counts'].decode()
    for counts in (runs, text, expected['counts']):
        assert as_coco(pack_mask({'size': [37, 53], 'counts': counts})) == {'size': [37, 53], 'counts': text}
    assert np.array_equal(decode_rle(expected), pixels)
    assert encode_mask(pixels > 0) == pack_mask(expected)


@pytest.mark.parametrize('seed', range(10))
def test_polygons_are_drawn_as_pycocotools_draws_them(seed):
    """Also those that leave the image, and two that are one object."""
    rng = np.random.default_rng(seed)
    polygons = [rng.uniform(-20, 80, 2 * int(rng.integers(3, 12))).round(2).tolist() for _ in range(1 + seed % 2)]
    expected = reference.decode(reference.frPyObjects(polygons, 40, 60)).any(axis=2)
    assert np.array_equal(decode_rle(rle_of(unpack_mask(pack_mask(polygons)), (40, 60))), expected)


def test_boxes_by_hand():
    assert box_of(unpack_mask(pack_mask([[1, 2, 5, 2, 5, 9.5], [0.5, 3, 2, 3, 2, 4]]))) == [0.5, 2, 4.5, 7.5]
    assert box_of(unpack_mask(pack_mask({'size': [3, 4], 'counts': [4, 2, 1, 1, 4]}))) == [1, 1, 2, 2]  # columns 1, 2


def test_no_points_are_no_pixels():
    assert decode_rle(rle_of([], (3, 4))).tolist() == [[0] * 4] * 3


@pytest.mark.parametrize('none', [None, [], {}])
def test_no_mask(none):
    assert pack_mask(none) is None


@pytest.mark.parametrize(
    ('mask', 'expected'),
    [
        ([[1, 2, 3, 4]], 'polygon of 2 points: expected .* three points or more'),
        ([[1, 2, 3, 4, 5, 6], []], 'polygon of 0 points'),
        ([[1, 2, 3, 4, 5, 6, 7]], 'polygon of 7 numbers: expected pairs'),
        ([[1, 2, 3, 4, 5, float('nan')]], 'other values than finite numbers'),
        ([[1, 2, 3, 4, 5, float('inf')]], 'other values than finite numbers'),
        ([[1, 2, 3, 4, 5, '6']], 'other values than finite numbers'),
        ([[1, 2, 3, 4, 5, None]], 'other values than finite numbers'),
        ([[1, 2, 3, 4, 5, 2e5]], 'up to 100000'),  # drawing it would take the memory of its length
        ([[1, 2, 3, 4, 5, 6], 'abc'], "polygon of 'abc'"),
        ('polygon', 'is a str: expected a list of polygons, or an RLE'),
        ({'counts': [12]}, 'size None'),
        ({'size': [3], 'counts': [12]}, r'size \[3\]'),
        ({'size': [3, -4], 'counts': [12]}, 'size'),
        ({'size': [3, 4]}, 'counts are not those of 3 x 4 pixels'),
        ({'size': [3, 4], 'counts': [5, 6]}, 'counts are not those'),
        ({'size': [3, 4], 'counts': [15, -3]}, 'counts are not those'),
        ({'size': [3, 4], 'counts': '<'}, None),  # 12 zeros
        ({'size': [3, 4], 'counts': '<1'}, 'counts are not those'),
        ({'size': [3, 4], 'counts': 'P'}, 'counts are not those'),  # a number that goes on
        ({'size': [3, 4], 'counts': 'ä'}, 'counts are not those'),
        ({'size': [3, 4], 'counts': 7}, 'counts are not those'),
    ],
)
def test_words(mask, expected):
    if expected is None:
        assert decode_rle(unpack_mask(pack_mask(mask))).sum() == 0
        return
    with pytest.raises(ValueError, match=expected):
        pack_mask(mask)


@given(st.binary(max_size=12), st.integers(1, 100))
def test_any_counts_are_drawn_or_refused(counts, pixels):
    if runs_fit(counts, pixels):
        assert np.array_equal(
            decode_rle({'size': [pixels, 1], 'counts': counts}),
            reference.decode({'size': [pixels, 1], 'counts': counts}),
        )
