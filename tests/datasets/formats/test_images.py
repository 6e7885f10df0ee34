import pytest

from frdet.datasets import ImageFolder
from frdet.errors import ConfigError, DataError


def test_all_images_below_a_folder(folder):
    folder.draw('b.jpg', 'sub/deep/a.png', '.hidden/c.jpg')
    folder.write('notes.txt')
    (folder.root / 'sub' / 'again').symlink_to(folder.root)  # a circle
    dataset = folder.dataset(ImageFolder, ann_file='', metainfo=dict(classes=['x', 'y']), lazy_init=False)
    assert [dataset.get_data_info(k)['img_id'] for k in range(len(dataset))] == ['b.jpg', 'sub/deep/a.png']
    record = dataset.get_data_info(1)
    assert (record['height'], record['width'], record['gt_bboxes'].shape) == (60, 80, (0, 4))
    assert dataset.metainfo['classes'] == ('x', 'y')


def test_mistakes(folder):
    with pytest.raises(DataError, match='it has no image'):
        folder.read(ImageFolder, ann_file='', metainfo=dict(classes=['x']))
    with pytest.raises(ConfigError, match='no classes of its own: set metainfo'):
        folder.read(ImageFolder, ann_file='')
    folder.write('a.jpg', 'no image')
    with pytest.raises(DataError, match=r'1 of 1 images have no size, because they cannot be read: a\.jpg'):
        folder.read(ImageFolder, ann_file='', metainfo=dict(classes=['x']))
