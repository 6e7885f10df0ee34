import numpy as np
import pytest
from PIL import Image

from frdet.datasets.transforms import LoadImage, read_image
from frdet.errors import DataError

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


@pytest.mark.parametrize(
    ('mode', 'colour', 'expected'),
    [
        ('L', 77, [77, 77, 77]),
        ('CMYK', (0, 255, 255, 0), [0, 0, 255]),
        ('P', 0, None),
        ('RGBA', (*RED, 9), [0, 0, 255]),
    ],
)
def test_other_colour_models(tmp_path, mode, colour, expected):
    path = tmp_path / ('a.tif' if mode == 'CMYK' else 'a.png')
    Image.new(mode, (5, 3), colour).save(path)
    image = read_image(str(path))
    assert image.shape == (3, 5, 3)
    if expected is not None:
        assert image[1, 1].tolist() == expected


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
