"""Whatever is given as an image: its pixels, blue first, or a sentence that says what to give."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frdet.apis.images import as_record, is_single, named_as_given
from frdet.datasets.transforms.loading import read_image
from frdet.errors import BrokenImageError, ConfigError, DataError

# 2 x 3 pixels, every value another, red first
RGB = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
BGR = RGB[..., [2, 1, 0]].copy()


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ('image', 'order'),
    [
        (BGR, 'bgr'),
        (RGB, 'rgb'),
        (read_only(BGR), 'bgr'),
        (read_only(RGB), 'rgb'),
        (np.asfortranarray(BGR), 'bgr'),
        (RGB[..., ::-1], 'bgr'),  # negative strides
        (np.repeat(RGB, 2, axis=1)[:, ::2], 'rgb'),  # rows with gaps
        (Image.fromarray(RGB), 'bgr'),  # its mode tells, whatever the order of arrays
        (Image.fromarray(RGB), 'rgb'),
        (Image.fromarray(np.dstack([RGB, RGB[..., 0]])), 'bgr'),  # RGBA: the colours
    ],
)
def test_pixels(image, order):
    record = as_record(image, 7, order)
    assert record['img_id'] == 7
    np.testing.assert_array_equal(record['img'], BGR)
    assert record['img'].flags.c_contiguous and record['img'].flags.writeable


@pytest.mark.parametrize(
    ('mode', 'pixel', 'expected'),
    [
        ('L', 90, (90, 90, 90)),
        ('1', 1, (255, 255, 255)),
        ('LA', (90, 7), (90, 90, 90)),
        ('CMYK', (0, 255, 255, 0), (0, 0, 255)),  # red
        ('I;16', 0x5A10, (0x5A, 0x5A, 0x5A)),  # the upper byte
        ('P', 0, (30, 20, 10)),
    ],
)
def test_modes_of_pil_images(mode, pixel, expected):
    image = Image.new(mode, (2, 1), pixel)
    if mode == 'P':
        image.putpalette([10, 20, 30])
    assert as_record(image, 0)['img'].tolist() == [[list(expected)] * 2]


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('ending', ['png', 'jpg', 'tif', 'webp'])
def test_a_pil_image_is_turned_as_its_file_is(tmp_path, ending, orientation):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f'a.{ending}'
    Image.fromarray(pixels).save(path, exif=exif)
    image = Image.open(path)
    size = image.size
    np.testing.assert_array_equal(as_record(image, 0)['img'], read_image(str(path)))
    np.testing.assert_array_equal(as_record(Image.open(path).convert('RGB'), 0)['img'], read_image(str(path)))
    assert as_record(image, 0)['img'].shape == ((8, 12, 3) if orientation < 5 else (12, 8, 3))
    if ending != 'tif':  # which Pillow itself turns
        assert image.size == size


@pytest.mark.parametrize('path', ['a/b.jpg', Path('a/b.jpg'), np.str_('a/b.jpg')])
def test_paths(path):
    assert as_record(path, 3) == {'img_path': 'a/b.jpg', 'img_id': 3}


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        (torch.zeros(3, 2, 3, dtype=torch.uint8), r'of type Tensor: .* tensor\.permute\(1, 2, 0\)\.cpu\(\)\.numpy\(\)'),
        (b'\x89PNG', r'of type bytes: .*PIL\.Image\.open\(io\.BytesIO\(data\)\)'),
        (bytearray(3), 'of type bytearray: .*Decode it first'),
        (io.BytesIO(b'\x89PNG'), 'of type BytesIO: .*Decode it first'),
        (None, 'of type NoneType: expected a path, a PIL image, or a NumPy array'),
        (0, 'of type int: expected'),
        ({'img': RGB}, 'of type dict: expected'),
        ([RGB], 'of type list: expected'),
        (RGB / 255, r'\(2, 3, 3\) of float64: expected \(H, W, 3\) of uint8, BGR.* \(image \* 255\)'),
        (RGB.astype(np.float32), 'of float32: expected .*255'),
        (RGB.astype(np.uint16), r'of uint16: .*image >> 8'),
        (RGB.astype(np.int64), 'of int64: expected'),
        (RGB > 9, 'of bool: expected'),
        (np.zeros((3, 4, 5), np.uint8), r'\(3, 4, 5\) .*image\.transpose\(1, 2, 0\)'),
        (RGB[..., 0], r'\(2, 3\) .*numpy\.dstack\(\[image\] \* 3\)'),
        (RGB[..., :1], r'\(2, 3, 1\) .*numpy\.dstack'),
        (np.zeros((2, 3, 4), np.uint8), r'\(2, 3, 4\) .*image\[\.\.\., :3\]'),
        (RGB[None], r'\(1, 2, 3, 3\) of uint8: expected'),
        (RGB[:0], r'\(0, 3, 3\) of uint8: expected'),
        (np.array(['a.jpg', 'b.jpg']), r'\(2,\) of <U5: expected'),
    ],
)
def test_what_is_refused(image, words):
    with pytest.raises(DataError, match=f'Image 4 .*{words}'):
        as_record(image, 4)


def test_the_error_names_the_order_of_the_caller():
    with pytest.raises(DataError, match='of uint8, RGB'):
        as_record(RGB / 255, 0, 'rgb')
    with pytest.raises(ConfigError, match="channel_order is 'RGB': expected 'bgr'"):
        as_record(RGB, 0, 'RGB')


def test_a_pil_image_that_cannot_be_decoded(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)).save(tmp_path / 'a.png')
    content = (tmp_path / 'a.png').read_bytes()
    cut = Image.open(io.BytesIO(content[: len(content) // 2]))
    with Image.open(tmp_path / 'a.png') as closed:
        pass
    for image, reason in ((cut, 'truncated'), (closed, ''), (Image.new('F', (2, 2)), 'floating-point')):
        with pytest.raises(
            BrokenImageError, match=rf'Image 2, a PIL image, cannot be decoded \(.*{reason}.*: its file'
        ):
            as_record(image, 2)


@pytest.mark.parametrize(
    ('images', 'expected'),
    [
        ('a.jpg', True),
        (Path('a.jpg'), True),
        (RGB, True),
        (RGB[..., 0], True),
        (Image.fromarray(RGB), True),
        (torch.zeros(2, 3, 4, 4), True),
        (b'', True),
        (io.BytesIO(), True),
        (None, True),
        ({}, True),
        ([], False),
        ([RGB], False),
        (('a.jpg',), False),
        ((path for path in ['a.jpg']), False),
        (np.stack([RGB, RGB]), False),
    ],
)
def test_one_or_several(images, expected):
    assert is_single(images) == expected


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        ('{}', 'Image {} is a folder: give the paths of the images in it'),
        ('{}/none.jpg', 'Image {}/none.jpg is not on disk: check the path'),
        ('https://a.org/b.jpg', 'Image https://a.org/b.jpg is an address: download it'),
        ('s3://a/b.jpg', 's3://a/b.jpg is an address'),
        ('{}/there.txt', 'Image {}/there.txt cannot be decoded'),
    ],
)
@pytest.mark.parametrize('kind', [str, Path])
def test_an_error_of_a_path_speaks_of_the_path(tmp_path, image, words, kind):
    (tmp_path / 'there.txt').write_text('no image')
    path = kind(image.format(tmp_path))
    words = words.format(tmp_path) if kind is str else words.format(tmp_path).replace('://', ':/')
    with pytest.raises(BrokenImageError) as error, named_as_given(path, 3):
        read_image(str(path), name=f'Image {path} (id 3)')
    assert words in str(error.value) and 'annotations' not in str(error.value) and '(id' not in str(error.value)
