import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from frdet.datasets.transforms import LoadImage, read_image
from frdet.errors import BrokenImageError, DataError

RED = (255, 0, 0)


def record(path, height, width):
    return dict(img_path=str(path), img_id=12, height=height, width=width)


def test_pixels_are_blue_green_red(tmp_path):
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[1, 2] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    results = LoadImage()(record(tmp_path / 'a.png', 4, 6))
    assert results['img'].shape == (4, 6, 3)
    assert results['img'].dtype == np.uint8
    assert results['img'][1, 2].tolist() == [30, 20, 10]
    assert results['ori_shape'] == results['img_shape'] == (4, 6)
    assert results['scale_factor'] == (1.0, 1.0)
    assert results['flip'] is False


def palette(colours):
    image = Image.new('P', (5, 3), 1)
    image.putpalette(colours)
    return image


@pytest.mark.parametrize(
    ('image', 'ending', 'expected'),
    [
        (Image.new('L', (5, 3), 77), 'png', [77, 77, 77]),
        (Image.new('LA', (5, 3), (77, 9)), 'png', [77, 77, 77]),  # alpha says nothing of the grey
        (Image.new('1', (5, 3), 1), 'png', [255, 255, 255]),
        (palette([0, 0, 0, 10, 20, 30]), 'png', [30, 20, 10]),
        (palette([0, 0, 0, 10, 20, 30]), 'gif', [30, 20, 10]),
        (Image.new('RGBA', (5, 3), (*RED, 9)), 'png', [0, 0, 255]),
        (Image.new('CMYK', (5, 3), (0, 255, 255, 0)), 'tif', [0, 0, 255]),  # magenta and yellow ink leave red
        (Image.new('CMYK', (16, 16), (0, 255, 255, 0)), 'jpg', [0, 0, 255]),
        (Image.new('CMYK', (16, 16), (255, 0, 0, 0)), 'jpg', [255, 255, 0]),  # cyan is green and blue
        (Image.new('CMYK', (16, 16), (0, 0, 0, 255)), 'jpg', [0, 0, 0]),
        (Image.new('L', (16, 16), 77), 'jpg', [77, 77, 77]),
    ],
)
def test_other_colour_models(tmp_path, image, ending, expected):
    path = tmp_path / f'a.{ending}'
    image.save(path)
    read = read_image(str(path))
    assert read.shape == (image.height, image.width, 3)
    assert read.dtype == np.uint8
    np.testing.assert_allclose(read[1, 1].astype(int), expected, atol=2 if ending == 'jpg' else 0)


def png16(colour_type, row):
    """A PNG of one row with 16 bits a value, which Pillow cannot write of colour."""

    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    header = struct.pack('>IIBBBBB', len(row), 1, 16, colour_type, 0, 0, 0)
    values = b'\0' + np.array(row, dtype='>u2').tobytes()  # 0: no filter
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(values)) + chunk(b'IEND', b'')


@pytest.mark.parametrize(
    ('colour_type', 'row', 'expected'),
    [
        # The upper byte: 0x1234 is 0x12 = 18, 255 is 0.
        (0, [[0], [255], [256], [0x1234], [0xFF00], [0xFFFF]], [[v] * 3 for v in (0, 0, 1, 18, 255, 255)]),
        (2, [[0x1234, 0xABCD, 0xFF00]], [[0xFF, 0xAB, 0x12]]),
        (4, [[0x1234, 0x8000]], [[18, 18, 18]]),
        (6, [[0x1234, 0xABCD, 0xFF00, 0x8000]], [[0xFF, 0xAB, 0x12]]),
    ],
)
def test_sixteen_bits(tmp_path, colour_type, row, expected):
    (tmp_path / 'a.png').write_bytes(png16(colour_type, row))
    assert read_image(str(tmp_path / 'a.png'))[0].tolist() == expected


def test_sixteen_bits_in_other_files(tmp_path):
    values = np.array([[0, 255, 256], [0x1234, 0xFF00, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / 'a.tif')
    (tmp_path / 'a.pgm').write_bytes(b'P5 3 2 65535 ' + values.astype('>u2').tobytes())
    for name in ('a.tif', 'a.pgm'):
        assert read_image(str(tmp_path / name))[:, :, 0].tolist() == [[0, 0, 1], [18, 255, 255]]


@pytest.mark.parametrize('values', [np.full((2, 3), 0.5, dtype=np.float32), np.full((2, 3), 70000, dtype=np.int32)])
def test_pixels_of_unknown_range(tmp_path, values):
    """They would be cut to 0 to 255: black or white."""
    Image.fromarray(values).save(tmp_path / 'a.tif')
    with pytest.raises(BrokenImageError, match='unknown range'):
        read_image(str(tmp_path / 'a.tif'))


@pytest.mark.parametrize('ending', ['png', 'jpg', 'gif', 'tif', 'bmp', 'webp'])
@given(data=st.data())
def test_any_bytes_are_an_image_or_a_worded_error(tmp_path, ending, data):
    stream = io.BytesIO()
    pixels = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)
    Image.fromarray(pixels).save(stream, {'jpg': 'jpeg', 'tif': 'tiff'}.get(ending, ending))
    content = bytearray(stream.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    (tmp_path / f'any.{ending}').write_bytes(content)
    try:
        read = read_image(str(tmp_path / f'any.{ending}'))
    except BrokenImageError as error:
        assert f'any.{ending} cannot be decoded' in str(error)
    else:
        assert read.ndim == 3 and read.shape[2] == 3 and read.dtype == np.uint8


def test_orientation_is_applied(tmp_path):
    """Orientation 6 says: turn a quarter clockwise. The left half becomes the upper half."""
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, :8] = RED
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / 'a.png', exif=exif)
    image = read_image(str(tmp_path / 'a.png'))
    assert image.shape == (16, 8, 3)
    assert image[2, 4].tolist() == [0, 0, 255]
    assert image[13, 4].tolist() == [0, 0, 0]


def test_missing_truncated_and_foreign_files(tmp_path):
    with pytest.raises(DataError, match=r'Image .*none\.jpg \(id 12\) is not on disk'):
        LoadImage()(record(tmp_path / 'none.jpg', 1, 1))
    Image.fromarray(np.random.randint(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / 'whole.jpg')
    data = (tmp_path / 'whole.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r'cut\.jpg \(id 12\) cannot be decoded .*truncated'):
        LoadImage()(record(tmp_path / 'cut.jpg', 64, 64))
    (tmp_path / 'text.jpg').write_text('no image')
    with pytest.raises(DataError, match='cannot be decoded'):
        LoadImage()(record(tmp_path / 'text.jpg', 64, 64))
    (tmp_path / 'empty.jpg').touch()
    with pytest.raises(DataError, match='cannot be decoded'):
        read_image(str(tmp_path / 'empty.jpg'))


def test_another_size_than_stated(tmp_path):
    Image.new('RGB', (6, 4)).save(tmp_path / 'a.png')
    with pytest.raises(DataError, match='is 6x4, its annotation says 4x6'):
        LoadImage()(record(tmp_path / 'a.png', 6, 4))


def test_an_array_is_taken_as_it_is():
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    results = LoadImage()(dict(img=image))
    assert results['img'] is image
    assert results['ori_shape'] == (4, 6)


def test_real_images(coco_root):
    for path in sorted(coco_root.val_dir.glob('*.jpg'))[:3]:
        with Image.open(path) as image:
            expected = np.array(image.convert('RGB'))
        np.testing.assert_array_equal(read_image(str(path))[:, :, ::-1], expected)
