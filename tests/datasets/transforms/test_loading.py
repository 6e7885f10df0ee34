import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from frdet.datasets.transforms import LoadImage, read_image
from frdet.datasets.transforms.loading import without_pillows_limit
from frdet.errors import BrokenImageError, ConfigError, DataError, ImageSizeError

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
def test_any_bytes_are_an_image_or_a_worded_error(tmp_path, monkeypatch, ending, data):
    monkeypatch.setenv('FRDET_MAX_PIXELS', '1000000')  # a head may claim any size
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
        assert f'any.{ending} cannot be decoded' in str(error) or 'more than the limit of 1,000,000' in str(error)
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
    with pytest.raises(DataError, match=r'empty\.jpg cannot be decoded \(it is of no known image format\)'):
        read_image(str(tmp_path / 'empty.jpg'))


def test_another_size_than_stated(tmp_path):
    Image.new('RGB', (6, 4)).save(tmp_path / 'a.png')
    with pytest.raises(DataError, match='is 6x4, its annotation says 4x6'):
        LoadImage()(record(tmp_path / 'a.png', 6, 4))


def test_the_size_of_a_turned_file(tmp_path):
    """Who annotated it without turning it is told so; another wrong size is another mistake."""
    exif = Image.Exif()
    exif[0x0112] = 8
    for name in ('a.jpg', 'a.png', 'a.tif', 'a.webp'):
        Image.new('RGB', (6, 4)).save(tmp_path / name, exif=exif)
        assert LoadImage()(record(tmp_path / name, 6, 4))['img'].shape == (6, 4, 3)
        with pytest.raises(
            ImageSizeError, match=r'is 4x6, its annotation says 6x4 .*EXIF orientation 8 of the file turns'
        ):
            LoadImage()(record(tmp_path / name, 4, 6))
        with pytest.raises(ImageSizeError, match=r'is 4x6, .* says 5x6 .*correct the image or the annotation$'):
            LoadImage()(record(tmp_path / name, 6, 5))
    Image.new('RGB', (6, 4)).save(tmp_path / 'unturned.jpg')
    with pytest.raises(ImageSizeError, match='says 4x6 .*correct the image or the annotation$'):
        LoadImage()(record(tmp_path / 'unturned.jpg', 6, 4))


def claiming(size):
    """A PNG file that says it has this (width, height), and has one pixel."""
    content = png16(0, [[0]])
    header = struct.pack('>IIBBBBB', *size, 16, 0, 0, 0, 0)
    return content[:16] + header + struct.pack('>I', zlib.crc32(b'IHDR' + header)) + content[33:]


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('stated', [(10, 10), (99_999, 100_001), (1, 100_000)])
def test_a_size_other_than_stated_is_refused_before_decoding(tmp_path, stated):
    """Decoding would fail, or take 10 billion bytes."""
    (tmp_path / 'a.png').write_bytes(claiming((100_000, 100_000)))
    with pytest.raises(ImageSizeError, match=rf'is 100000x100000, its annotation says {stated[1]}x{stated[0]} '):
        LoadImage()(record(tmp_path / 'a.png', *stated))


@pytest.mark.filterwarnings('error')
def test_pixels_without_a_record_have_a_limit(tmp_path, monkeypatch):
    (tmp_path / 'a.png').write_bytes(claiming((20_000, 20_000)))
    found = (
        r'a\.png is 20000x20000 \(width x height\), 400,000,000 pixels, more than the limit of 268,435,456: .*FRDET_MAX'
    )
    with pytest.raises(BrokenImageError, match=found):
        read_image(str(tmp_path / 'a.png'))
    Image.new('RGB', (6, 4)).save(tmp_path / 'b.png')
    for limit, is_read in (('24', True), ('23', False), ('', True)):
        monkeypatch.setenv('FRDET_MAX_PIXELS', limit)
        if is_read:
            assert read_image(str(tmp_path / 'b.png')).shape == (4, 6, 3)
        else:
            with pytest.raises(BrokenImageError, match='24 pixels, more than the limit of 23'):
                read_image(str(tmp_path / 'b.png'))
    monkeypatch.setenv('FRDET_MAX_PIXELS', '1e9')
    with pytest.raises(ConfigError, match="FRDET_MAX_PIXELS is '1e9': expected a number of pixels"):
        read_image(str(tmp_path / 'b.png'))


def test_a_limit_of_the_config_holds_for_every_image(tmp_path):
    Image.new('RGB', (6, 4)).save(tmp_path / 'a.png')
    assert LoadImage(max_pixels=24)(record(tmp_path / 'a.png', 4, 6))['img'].shape == (4, 6, 3)
    for image in (record(tmp_path / 'a.png', 4, 6), dict(img_path=str(tmp_path / 'a.png'))):
        with pytest.raises(
            BrokenImageError, match='24 pixels, more than the limit of 23: raise it by max_pixels of Load'
        ):
            LoadImage(max_pixels=23)(image)
    for wrong in (0, -1, True, 2.5, '9'):
        with pytest.raises(ConfigError, match='max_pixels is .*: expected a positive number'):
            LoadImage(max_pixels=wrong)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('limit', [150, 60, 1])  # of 200 pixels Pillow would warn, or refuse them
@pytest.mark.parametrize('ending', ['png', 'jpg', 'tif', 'lzw.tif', 'webp', 'gif', 'bmp', 'ppm'])
def test_pillows_own_limit_does_not_matter(tmp_path, monkeypatch, limit, ending):
    options = dict(compression='tiff_lzw') if ending == 'lzw.tif' else {}
    Image.new('RGB', (20, 10), RED).save(tmp_path / f'a.{ending}', **options)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
    monkeypatch.setenv('FRDET_MAX_PIXELS', '200')
    for read in (
        LoadImage()(record(tmp_path / f'a.{ending}', 10, 20))['img'],
        read_image(str(tmp_path / f'a.{ending}')),
    ):
        assert read.shape == (10, 20, 3)
        np.testing.assert_allclose(read[5, 9], RED[::-1], atol=2)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_pillows_limit_is_back_after_pictures_that_were_decoded_at_once(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 7)
    first, second = without_pillows_limit(), without_pillows_limit()
    with pytest.raises(RuntimeError, match='broken'), second:
        with first:
            assert Image.MAX_IMAGE_PIXELS is None
        assert Image.MAX_IMAGE_PIXELS is None  # the second has not ended
        raise RuntimeError('broken')
    assert Image.MAX_IMAGE_PIXELS == 7


def test_pillows_limit_stays_for_pictures_below_it(monkeypatch):
    """A small picture may hide a large one, which Pillow refuses; also while a large one is decoded beside it."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 150)
    with without_pillows_limit(150):
        assert Image.MAX_IMAGE_PIXELS == 150
    with without_pillows_limit(151):
        assert Image.MAX_IMAGE_PIXELS is None
        second = without_pillows_limit(200)  # it needs no limit either, and outlives the first
        second.__enter__()
    assert Image.MAX_IMAGE_PIXELS is None
    second.__exit__(None, None, None)
    assert Image.MAX_IMAGE_PIXELS == 150


def test_want_of_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    Image.new('RGB', (6, 4)).save(tmp_path / 'a.png')
    monkeypatch.setattr(PngImageFile, 'load', lambda self: bytearray(2**60))
    with pytest.raises(BrokenImageError, match=r'a\.png does not fit into memory: cut it into parts'):
        read_image(str(tmp_path / 'a.png'))


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
